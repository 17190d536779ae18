#include "tests/integration/media_gpu_help.h"

#include "common/base/fs.h"
#include "tests/nvdec_host/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

const struct gpu_clip gpu_clips[GPU_CLIPS] = {
    {"H.264 with B-frames",
     "b.mp4",
     {.codec = "libx264",
      .gop_frames = GPU_GOP,
      .b_frames = 3,
      .options = "preset=veryfast:b-pyramid=normal"}},
    {"H.264, open GOPs",
     "open.mp4",
     {.codec = "libx264",
      .gop_frames = GPU_GOP,
      .b_frames = 3,
      .options = "preset=veryfast:x264-params=open-gop=1"}},
    {"H.264, CAVLC, slices, weights",
     "slices.mp4",
     {.codec = "libx264",
      .gop_frames = GPU_GOP,
      .b_frames = 2,
      .options = "preset=medium:x264-params=cabac=0,slices=4,weightp=2,weightb=1"}},
    {"H.264, interlaced",
     "fields.mp4",
     {.codec = "libx264",
      .gop_frames = GPU_GOP,
      .b_frames = 2,
      .options = "preset=veryfast:flags=+ildct+ilme"}},
    {"H.264, full range, turned",
     "turned.mp4",
     {.codec = "libx264",
      .gop_frames = GPU_GOP,
      .b_frames = 2,
      .options = "preset=veryfast",
      .rotation_degrees = 90,
      .pixel_format = "yuvj420p"}},
    {"VP8 with hidden frames",
     "vp8.webm",
     {.codec = "libvpx",
      .gop_frames = GPU_GOP,
      .b_frames = -1,
      .options = "b=400000:auto-alt-ref=1:lag-in-frames=12:cpu-used=5"}},
    {"VP9 with hidden frames",
     "vp9.webm",
     {.codec = "libvpx-vp9",
      .gop_frames = GPU_GOP,
      .b_frames = -1,
      .options = "b=400000:auto-alt-ref=1:lag-in-frames=12:cpu-used=5"}},
    {"VP9 of 10 bits",
     "vp9-10.webm",
     {.codec = "libvpx-vp9",
      .gop_frames = GPU_GOP,
      .b_frames = -1,
      .options = "b=400000:cpu-used=5",
      .pixel_format = "yuv420p10le"}},
    {"VP9 of 12 bits",
     "vp9-12.webm",
     {.codec = "libvpx-vp9",
      .gop_frames = GPU_GOP,
      .b_frames = -1,
      .options = "b=400000:cpu-used=5",
      .pixel_format = "yuv420p12le"}},
};

int gpu_folder_make(void **state)
{
    if (clip_folder_make(state) < 0)
        return -1;
    nvdec_log_start();
    return 0;
}

int gpu_forget(void **state)
{
    (void)state;
    unsetenv("NVDEC_HOST_FAULT");
    nvdec_log_clear();
    return 0;
}

struct media_session *gpu_session_open(enum media_decode mode)
{
    struct media_session *session;
    struct err err = {0};

    if (media_session_create(&session, &err) < 0 ||
        media_session_open_gpu(session, mode, 0, &err) < 0)
        fail_msg("%s", err.text);
    return session;
}

struct frame_request gpu_request(const struct gpu_clip *clip, int64_t num_frames)
{
    char path[CLIP_PATH_BYTES];

    clip_path(path, clip->file);
    if (!fs_exists(path))
        assert_int_equal(clip_write(path, &clip->settings, GPU_CLIP_FRAMES, false), 0);
    return clip_request(path, num_frames);
}

void gpu_expect_note(struct media_session *session, const char *part)
{
    const char *note = media_session_take_note(session);

    if (!note || !strstr(note, part))
        fail_msg("expected a note with '%s', got '%s'", part, note ? note : "none");
}

void gpu_expect_no_note(struct media_session *session)
{
    const char *note = media_session_take_note(session);

    if (note)
        fail_msg("expected no note, got '%s'", note);
}

struct media_info gpu_expect_same(struct media_session *session,
                                  const struct frame_request *request)
{
    static uint8_t frames[GPU_CLIP_FRAMES * GPU_FRAME_BYTES],
        expected[GPU_CLIP_FRAMES * GPU_FRAME_BYTES];
    struct media_info info, cpu_info = {0};
    struct err err = {0};

    memset(frames, 0x55, sizeof(frames));
    if (media_session_frames(session, frames, sizeof(frames), &info, request,
                             &clip_limits, &err) < 0 ||
        media_frames(expected, sizeof(expected), &cpu_info, request, &clip_limits, &err) <
            0)
        fail_msg("%s", err.text);
    assert_int_equal(info.n_frames, cpu_info.n_frames);
    assert_int_equal(info.width, cpu_info.width);
    assert_int_equal(info.height, cpu_info.height);
    assert_memory_equal(frames, expected, (size_t)info.n_frames * GPU_FRAME_BYTES);
    return info;
}

void gpu_take(struct media_session *session, const struct gpu_clip *clip)
{
    struct frame_request request = gpu_request(clip, 4);

    assert_false(gpu_expect_same(session, &request).on_gpu); /* that was a trial */
    gpu_expect_note(session, "are decoded on the GPU");
}
