/* Every frame asked for is the right one, in every codec and container: the number that
 * is painted in it says so. */
#include "common/base/fs.h"
#include "tests/integration/media_clips.h"
#include "tests/integration/media_linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 64
#define FRAME_BYTES (SIZE * SIZE * 3)
#define N_FRAMES_MAX 400

struct clip_case {
    const char *name, *file;
    int n_frames;
    struct encode_settings settings;
    bool is_variable;
};

static const struct clip_case cases[] = {
    {"H.264 with B-frames",
     "b.mp4",
     120,
     {.codec = "libx264",
      .gop_frames = 25,
      .b_frames = 3,
      .options = "preset=veryfast:b-pyramid=normal"},
     false},
    {"H.264, open GOPs",
     "open.mp4",
     120,
     {.codec = "libx264",
      .gop_frames = 20,
      .b_frames = 3,
      .options = "preset=veryfast:x264-params=open-gop=1"},
     false},
    {"H.264, one GOP",
     "one.mp4",
     320,
     {.codec = "libx264",
      .gop_frames = 1000,
      .b_frames = 2,
      .options = "preset=ultrafast:sc_threshold=0"},
     false},
    {"H.264, intra refresh",
     "refresh.mp4",
     100,
     {.codec = "libx264",
      .gop_frames = 20,
      .b_frames = 0,
      .options = "preset=veryfast:intra-refresh=1"},
     false},
    {"H.264 4:4:4",
     "444.mp4",
     60,
     {.codec = "libx264",
      .gop_frames = 15,
      .b_frames = 2,
      .options = "preset=veryfast",
      .pixel_format = "yuv444p"},
     false},
    {"H.264, interlaced",
     "fields.mp4",
     60,
     {.codec = "libx264",
      .gop_frames = 15,
      .b_frames = 2,
      .options = "preset=veryfast:flags=+ildct+ilme"},
     false},
    {"H.264, variable rate",
     "vfr.mp4",
     90,
     {.codec = "libx264", .gop_frames = 24, .b_frames = 2, .options = "preset=veryfast"},
     true},
    {"H.264 in Matroska",
     "b.mkv",
     90,
     {.codec = "libx264", .gop_frames = 24, .b_frames = 3, .options = "preset=veryfast"},
     true},
    {"H.264 in AVI",
     "b.avi",
     60,
     {.codec = "libx264", .gop_frames = 15, .b_frames = 2, .options = "preset=veryfast"},
     false},
    {"H.264 in MPEG-TS",
     "b.ts",
     90,
     {.codec = "libx264", .gop_frames = 24, .b_frames = 2, .options = "preset=veryfast"},
     false},
    {"H.264, fragments",
     "frag.mp4",
     90,
     {.codec = "libx264",
      .gop_frames = 24,
      .b_frames = 2,
      .options = "preset=veryfast",
      .mux_options = "movflags=frag_keyframe+empty_moov"},
     false},
    {"H.264, no container",
     "raw.h264",
     60,
     {.codec = "libx264", .gop_frames = 15, .b_frames = 2, .options = "preset=veryfast"},
     false},
    {"HEVC",
     "b.hevc.mp4",
     90,
     {.codec = "libx265",
      .gop_frames = 24,
      .b_frames = -1,
      .options = "preset=ultrafast:x265-params=log-level=none:bframes=3:pools=none:frame-"
                 "threads=1"},
     false},
    {"HEVC, temporal layers",
     "layers.mp4",
     90,
     {.codec = "libx265",
      .gop_frames = 30,
      .b_frames = -1,
      .options = "preset=ultrafast:x265-params=log-level=none:bframes=3:b-pyramid=1:"
                 "temporal-layers=1:open-gop=1:pools=none:frame-threads=1"},
     false},
    {"VP9 with hidden frames",
     "altref.webm",
     90,
     {.codec = "libvpx-vp9",
      .gop_frames = 30,
      .b_frames = -1,
      .options = "b=200000:deadline=realtime:cpu-used=8:auto-alt-ref=1:lag-in-frames=16"},
     false},
    {"VP8 with hidden frames",
     "vp8.webm",
     90,
     {.codec = "libvpx",
      .gop_frames = 30,
      .b_frames = -1,
      .options = "b=300000:deadline=good:cpu-used=5:auto-alt-ref=1:lag-in-frames=16"},
     false},
    {"MPEG-4",
     "b.mpeg4.mp4",
     90,
     {.codec = "mpeg4", .gop_frames = 24, .b_frames = 2, .options = "b=1000000"},
     false},
    {"MPEG-4 in AVI",
     "xvid.avi",
     90,
     {.codec = "mpeg4", .gop_frames = 24, .b_frames = 2, .options = "b=1000000"},
     false},
    {"Motion JPEG in AVI",
     "m.avi",
     60,
     {.codec = "mjpeg",
      .b_frames = -1,
      .options = "b=4000000",
      .pixel_format = "yuvj420p"},
     false},
    {"MPEG-2, program stream",
     "b.mpg",
     90,
     {.codec = "mpeg2video",
      .format = "vob",
      .gop_frames = 15,
      .b_frames = 2,
      .options = "b=2000000"},
     false},
    {"MPEG-2, transport stream",
     "mpeg2.ts",
     90,
     {.codec = "mpeg2video", .gop_frames = 15, .b_frames = 2, .options = "b=2000000"},
     false},
    {"MPEG-1",
     "one.mpg",
     60,
     {.codec = "mpeg1video", .gop_frames = 15, .b_frames = 2, .options = "b=2000000"},
     false},
    {"Theora",
     "t.ogv",
     90,
     {.codec = "libtheora", .gop_frames = 24, .b_frames = -1, .options = "b=1000000"},
     false},
    {"H.263 in FLV",
     "f.flv",
     60,
     {.codec = "flv", .gop_frames = 15, .b_frames = -1, .options = "b=1000000"},
     false},
    {"WMV",
     "w.wmv",
     60,
     {.codec = "wmv2", .gop_frames = 15, .b_frames = -1, .options = "b=1000000"},
     false},
};

/* The numbers in the frames of a request are those of frames [begin, begin + n). */
static void expect_numbers(const struct frame_request *request, int64_t begin, int64_t n)
{
    int64_t picks[N_FRAMES_MAX];
    int64_t n_picks = media_pick_frames(picks, request, n);
    uint8_t *frames = malloc((size_t)n_picks * FRAME_BYTES);
    struct media_info info;
    struct err err = {0};

    if (media_frames(frames, (size_t)n_picks * FRAME_BYTES, &info, request, &clip_limits,
                     &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(info.n_source_frames, n);
    assert_int_equal(info.n_frames, n_picks);
    for (int64_t i = 0; i < n_picks; i++) {
        assert_int_equal(clip_read_number(frames + i * FRAME_BYTES, SIZE),
                         begin + picks[i]);
        assert_true(clip_is_upright(frames + i * FRAME_BYTES, SIZE));
    }
    free(frames);
}

/* When frame i is shown, in ticks. */
static int64_t tick_of(const struct clip_case *c, int64_t i)
{
    return c->is_variable ? i / 3 * 6 + (i % 3 == 0 ? 0 : i % 3 == 1 ? 1 : 3) : i;
}

static void expect_segment(const struct clip_case *c, const char *path, int64_t begin,
                           int64_t end)
{
    struct frame_request request = clip_request(path, 4);

    request.media.start_s = ((double)tick_of(c, begin) - 0.5) / CLIP_TICKS_PER_S;
    request.media.end_s = ((double)tick_of(c, end) - 0.5) / CLIP_TICKS_PER_S;
    expect_numbers(&request, begin, end - begin);
}

/* Every frame equals the plain decode's, bit for bit. */
static void expect_same_as_linear(const struct clip_case *c, const char *path)
{
    struct frame_request request = clip_request(path, 7);
    uint8_t *frames = malloc(7 * FRAME_BYTES);
    int64_t picks[N_FRAMES_MAX];
    struct linear_video video;
    struct media_info info;
    struct err err = {0};

    if (linear_decode(&video, path, SIZE, &err) < 0 ||
        media_frames(frames, 7 * FRAME_BYTES, &info, &request, &clip_limits, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(video.n, c->n_frames);
    media_pick_frames(picks, &request, video.n);
    for (int i = 0; i < 7; i++)
        assert_memory_equal(frames + i * FRAME_BYTES,
                            video.frames + picks[i] * FRAME_BYTES, FRAME_BYTES);
    linear_fini(&video);
    free(frames);
}

static void expect_case(const struct clip_case *c, const char *path)
{
    static const int64_t numbers[] = {1, 4, 8, -1};
    int64_t n = c->n_frames;

    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        struct frame_request request = clip_request(path, numbers[i]);

        expect_numbers(&request, 0, n);
    }
    for (int splice = MEDIA_SPLICE_FIRST; splice <= MEDIA_SPLICE_LAST; splice++) {
        struct frame_request request = clip_request(path, 8);

        request.splice = (enum media_splice)splice;
        expect_numbers(&request, 0, n);
    }
    expect_segment(c, path, 7, 11);
    expect_segment(c, path, n / 2, n / 2 + 1);
    expect_segment(c, path, n / 3, n - 2);
    expect_same_as_linear(c, path);
}

static void frames_are_right_in_every_codec(void **state)
{
    int n_skipped = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct clip_case *c = &cases[i];
        char path[CLIP_PATH_BYTES];
        int rc;

        clip_path(path, c->file);
        rc = clip_write(path, &c->settings, c->n_frames, c->is_variable);
        print_message("    %-26s %s\n", c->name, rc == 1 ? "skipped: no encoder" : "");
        assert_true(rc >= 0);
        if (rc == 0)
            expect_case(c, path);
        n_skipped += rc;
    }
    print_message("    %d of %zu skipped\n", n_skipped, sizeof(cases) / sizeof(*cases));
    if (n_skipped == sizeof(cases) / sizeof(*cases))
        skip();
}

static void a_rotated_video_comes_out_upright(void **state)
{
    (void)state;
    for (int degrees = 90; degrees < 360; degrees += 90) {
        struct encode_settings settings = {.codec = "mpeg4",
                                           .b_frames = 0,
                                           .options = "b=1000000",
                                           .rotation_degrees = degrees};
        struct frame_request request;
        uint8_t frame[FRAME_BYTES];
        struct media_info info;
        struct err err = {0};
        char path[CLIP_PATH_BYTES];
        const uint8_t *band;

        clip_path(path, "turned.mp4");
        assert_int_equal(clip_write(path, &settings, 10, false), 0);
        request = clip_request(path, 1);
        if (media_frames(frame, sizeof(frame), &info, &request, &clip_limits, &err) < 0)
            fail_msg("%s", err.text);
        /* the band, at the bottom as stored, turned counter-clockwise */
        band = &frame[(degrees == 90    ? 32 * SIZE + 58
                       : degrees == 180 ? 6 * SIZE + 32
                                        : 32 * SIZE + 6) *
                      3];
        assert_true(band[0] > 130 && band[1] < 110 && band[2] < 110);
        assert_int_equal(info.width, degrees == 180 ? CLIP_WIDTH : CLIP_HEIGHT);
        assert_int_equal(info.height, degrees == 180 ? CLIP_HEIGHT : CLIP_WIDTH);
    }
}

static void a_member_of_a_tar_is_read_in_place(void **state)
{
    struct encode_settings settings = {
        .codec = "mpeg4", .b_frames = 2, .options = "b=1000000"};
    struct buf tar = BUF_INIT;
    struct frame_request request;
    char clip[CLIP_PATH_BYTES], path[CLIP_PATH_BYTES];
    size_t n_clip;

    (void)state;
    clip_path(clip, "member.mp4");
    clip_path(path, "clips.tar");
    assert_int_equal(clip_write(clip, &settings, 50, false), 0);
    for (int i = 0; i < 512; i++)
        buf_add_char(&tar, 'h');
    assert_int_equal(fs_read_file(&tar, clip, 1 << 24, NULL), 0);
    n_clip = tar.n_bytes - 512;
    for (int i = 0; i < 1024; i++) /* what follows belongs to another member */
        buf_add_char(&tar, 'x');
    assert_int_equal(fs_write_file_atomic(path, tar.data, tar.n_bytes, NULL), 0);
    request = clip_request(path, 8);
    request.media.offset = 512;
    request.media.n_bytes = n_clip;
    expect_numbers(&request, 0, 50);
    buf_fini(&tar);
}

/* A sample's image is one frame among videos of eight; also the first of an animation. */
static void an_image_is_one_frame_whatever_num_frames(void **state)
{
    static const uint8_t rgb[SIZE * SIZE * 3] = {200};
    struct encode_settings settings = {.codec = "mpeg4", .gop_frames = 10};
    uint8_t *png = NULL, frames[FRAME_BYTES];
    size_t n_bytes = 0;
    char path[CLIP_PATH_BYTES];
    struct frame_request request;
    struct media_info info;
    struct err err;

    (void)state;
    clip_path(path, "still.png");
    assert_int_equal(media_encode_png(&png, &n_bytes, rgb, SIZE, SIZE, &err), 0);
    assert_int_equal(fs_write_file_atomic(path, (char *)png, n_bytes, NULL), 0);
    free(png);
    request = clip_request(path, 8);
    request.media.kind = MEDIA_IMAGE;
    request.image_size = SIZE;
    for (int i = 0; i < 2; i++) {
        if (media_frames(frames, sizeof(frames), &info, &request, &clip_limits, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(info.n_frames, 1);
        request.num_frames = -1;
    }
    clip_path(request.media.path, "many.avi");
    if (clip_write(request.media.path, &settings, 20, false) != 0)
        return; /* no such encoder here, which was said */
    request.num_frames = 8;
    assert_int_equal(
        media_frames(frames, sizeof(frames), &info, &request, &clip_limits, &err), 0);
    assert_int_equal(info.n_frames, 1);
    assert_int_equal(clip_read_number(frames, SIZE), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_right_in_every_codec),
        cmocka_unit_test(a_rotated_video_comes_out_upright),
        cmocka_unit_test(a_member_of_a_tar_is_read_in_place),
        cmocka_unit_test(an_image_is_one_frame_whatever_num_frames),
    };

    return cmocka_run_group_tests(tests, clip_folder_make, clip_folder_remove);
}
