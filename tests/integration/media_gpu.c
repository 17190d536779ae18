/* Videos decoded through FFmpeg's NVDEC path, over stand-ins of the driver and its decoder
 * (tests/nvdec_host, found through LD_LIBRARY_PATH): the frames are the CPU's, whatever the
 * GPU does, and who decodes is chosen by what was measured. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "dataprep/media/session.h"
#include "tests/integration/media_clips.h"

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
#define N_FRAMES 120
#define GOP 20
#define WANTED_MAX N_FRAMES

struct clip_case {
    const char *name, *file;
    struct encode_settings settings;
};

static char folder[64];

static const struct clip_case cases[] = {
    {"H.264 with B-frames",
     "b.mp4",
     {.codec = "libx264",
      .gop_frames = GOP,
      .b_frames = 3,
      .options = "preset=veryfast:b-pyramid=normal"}},
    {"H.264, open GOPs",
     "open.mp4",
     {.codec = "libx264",
      .gop_frames = GOP,
      .b_frames = 3,
      .options = "preset=veryfast:x264-params=open-gop=1"}},
    {"H.264, CAVLC, slices, weights",
     "slices.mp4",
     {.codec = "libx264",
      .gop_frames = GOP,
      .b_frames = 2,
      .options = "preset=medium:x264-params=cabac=0,slices=4,weightp=2,weightb=1"}},
    {"H.264, interlaced",
     "fields.mp4",
     {.codec = "libx264",
      .gop_frames = GOP,
      .b_frames = 2,
      .options = "preset=veryfast:flags=+ildct+ilme"}},
    {"H.264, full range, turned",
     "turned.mp4",
     {.codec = "libx264",
      .gop_frames = GOP,
      .b_frames = 2,
      .options = "preset=veryfast",
      .rotation_degrees = 90,
      .pixel_format = "yuvj420p"}},
    {"VP8 with hidden frames",
     "vp8.webm",
     {.codec = "libvpx",
      .gop_frames = GOP,
      .b_frames = -1,
      .options = "b=400000:auto-alt-ref=1:lag-in-frames=12:cpu-used=5"}},
    {"VP9 with hidden frames",
     "vp9.webm",
     {.codec = "libvpx-vp9",
      .gop_frames = GOP,
      .b_frames = -1,
      .options = "b=400000:auto-alt-ref=1:lag-in-frames=12:cpu-used=5"}},
    {"VP9 of 10 bits",
     "vp9-10.webm",
     {.codec = "libvpx-vp9",
      .gop_frames = GOP,
      .b_frames = -1,
      .options = "b=400000:cpu-used=5",
      .pixel_format = "yuv420p10le"}},
    {"VP9 of 12 bits",
     "vp9-12.webm",
     {.codec = "libvpx-vp9",
      .gop_frames = GOP,
      .b_frames = -1,
      .options = "b=400000:cpu-used=5",
      .pixel_format = "yuv420p12le"}},
};
#define N_CASES (sizeof(cases) / sizeof(cases[0]))

static void path_of(char *out, size_t n_bytes, const struct clip_case *clip)
{
    snprintf(out, n_bytes, "%s/%s", folder, clip->file);
}

static const char *log_path(void)
{
    static char path[96];

    snprintf(path, sizeof(path), "%s/log", folder);
    return path;
}

static int set_up_clips(void **state)
{
    char path[128];

    (void)state;
    clip_make_folder(folder, sizeof(folder));
    for (size_t i = 0; i < N_CASES; i++) {
        path_of(path, sizeof(path), &cases[i]);
        if (clip_write(path, &cases[i].settings, N_FRAMES, false) != 0)
            return -1;
    }
    setenv("NVDEC_HOST_LOG", log_path(), 1);
    return 0;
}

static int remove_clips(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

static int forget_faults(void **state)
{
    (void)state;
    unsetenv("NVDEC_HOST_FAULT");
    remove(log_path());
    return 0;
}

/* Lines of the stand-in's log that begin so, since the last forget_faults. */
static int count_log(const char *what)
{
    FILE *file = fopen(log_path(), "r");
    char line[64];
    int n = 0;

    while (file && fgets(line, sizeof(line), file))
        n += strncmp(line, what, strlen(what)) == 0;
    if (file)
        fclose(file);
    return n;
}

/* ---- time as the tests want it: `media.c` reads the clock at both ends of a decode ---- */

int64_t __real_clock_mono_ns(void);
int64_t __wrap_clock_mono_ns(void);

static const int64_t *ticks; /* NULL: the true clock */

int64_t __wrap_clock_mono_ns(void)
{
    return ticks ? *ticks++ : __real_clock_mono_ns();
}

/* ---- asking ---- */

static struct media_session *session_open(enum media_decode mode)
{
    struct media_session *session;
    struct err err = {0};

    if (media_session_create(&session, &err) < 0 ||
        media_session_open_gpu(session, mode, 0, &err) < 0)
        fail_msg("%s", err.text);
    return session;
}

static struct frame_request request_of(const struct clip_case *clip, int64_t num_frames)
{
    char path[128];

    path_of(path, sizeof(path), clip);
    return clip_request(path, num_frames);
}

static void expect_note(struct media_session *session, const char *part)
{
    const char *note = media_session_take_note(session);

    if (!note || !strstr(note, part))
        fail_msg("expected a note with '%s', got '%s'", part, note ? note : "none");
}

static void expect_no_note(struct media_session *session)
{
    const char *note = media_session_take_note(session);

    if (note)
        fail_msg("expected no note, got '%s'", note);
}

/* Asks the session, and compares with what the CPU alone gives: every byte. */
static struct media_info expect_same(struct media_session *session,
                                     const struct frame_request *request)
{
    static uint8_t frames[WANTED_MAX * FRAME_BYTES], expected[WANTED_MAX * FRAME_BYTES];
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
    assert_memory_equal(frames, expected, (size_t)info.n_frames * FRAME_BYTES);
    return info;
}

/* The kind of this clip is the GPU's from now on. */
static void let_gpu_have(struct media_session *session, const struct clip_case *clip)
{
    struct frame_request request = request_of(clip, 4);

    assert_false(expect_same(session, &request).on_gpu); /* tried, the CPU's are given */
    expect_note(session, "are decoded on the GPU");
}

/* ---- frames ---- */

static void frames_of_the_gpu_equal_the_cpu_s(void **state)
{
    static const int64_t counts[] = {1, 2, 3, 8, 40, -1};

    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        struct media_session *session = session_open(MEDIA_DECODE_CUDA);

        printf("%s\n", cases[i].name);
        let_gpu_have(session, &cases[i]);
        for (size_t j = 0; j < sizeof(counts) / sizeof(counts[0]); j++) {
            struct frame_request request = request_of(&cases[i], counts[j]);

            assert_true(expect_same(session, &request).on_gpu);
            request.media.start_s = 1.1;
            request.media.end_s = 3.3;
            request.processor = MEDIA_PROCESSOR_CLIP;
            assert_true(expect_same(session, &request).on_gpu);
        }
        expect_no_note(session);
        media_session_destroy(session);
    }
    assert_true(count_log("picture") > 0);
}

static void the_gpu_decodes_from_the_key_frame_on_only(void **state)
{
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = request_of(&cases[0], 1);

    let_gpu_have(session, &cases[0]);
    forget_faults(state);
    request.media.start_s =
        101.0 / CLIP_TICKS_PER_S; /* the second frame of the last GOP */
    assert_true(expect_same(session, &request).on_gpu);
    /* the first packet of the file says what encoder it was; the frame and its key frame,
     * and at most as many B-frames in between */
    assert_in_range(count_log("picture"), 2, 7);
    media_session_destroy(session);
}

/* ---- who decodes ---- */

static void auto_takes_the_gpu_when_it_is_faster(void **state)
{
    /* begin and end of the CPU's turn, then of the GPU's */
    static const int64_t faster[] = {0, 9000000, 10000000, 14000000};
    struct media_session *session = session_open(MEDIA_DECODE_AUTO);
    struct frame_request request = request_of(&cases[0], 4);

    (void)state;
    ticks = faster;
    assert_false(expect_same(session, &request).on_gpu);
    assert_ptr_equal(ticks, faster + 4);
    ticks = NULL;
    expect_note(session,
                "videos in h264, yuv420p, around 160 x 96, are decoded on the GPU: "
                "a clip took 4.0 ms on the GPU, 9.0 ms on the CPU");
    assert_true(expect_same(session, &request).on_gpu);
    expect_no_note(session);
    media_session_destroy(session);
}

static void auto_gives_the_gpu_a_second_chance_then_takes_the_cpu(void **state)
{
    static const int64_t start[] = {0, 9000000, 10000000, 60000000, 60000000, 67000000};
    static const int64_t slower[] = {0, 9000000, 10000000, 60000000, 60000000, 80000000};
    struct frame_request request = request_of(&cases[0], 4);
    struct media_session *session = session_open(MEDIA_DECODE_AUTO);

    (void)state;
    ticks = start; /* the driver takes its time once */
    expect_same(session, &request);
    ticks = NULL;
    expect_note(session, "decoded on the GPU: a clip took 7.0 ms on the GPU, 9.0 ms");
    assert_true(expect_same(session, &request).on_gpu);
    media_session_destroy(session);

    session = session_open(MEDIA_DECODE_AUTO);
    ticks = slower;
    expect_same(session, &request);
    ticks = NULL;
    expect_note(session, "decoded on the CPU: a clip took 20.0 ms on the GPU, 9.0 ms");
    assert_false(expect_same(session, &request).on_gpu);
    media_session_destroy(session);
}

static void cuda_takes_the_gpu_even_where_it_is_slower(void **state)
{
    static const int64_t slower[] = {0, 1000000, 10000000, 60000000, 60000000, 80000000};
    struct frame_request request = request_of(&cases[0], 4);
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);

    (void)state;
    ticks = slower;
    expect_same(session, &request);
    ticks = NULL;
    expect_note(session, "20.0 ms on the GPU, 1.0 ms on the CPU; the GPU is asked for");
    assert_true(expect_same(session, &request).on_gpu);
    media_session_destroy(session);
}

static void frames_that_differ_make_it_the_cpu_s(void **state)
{
    struct frame_request request = request_of(&cases[0], 4);
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);

    (void)state;
    setenv("NVDEC_HOST_FAULT", "wrong", 1);
    assert_false(expect_same(session, &request).on_gpu);
    expect_note(session, "are decoded on the CPU");
    assert_false(expect_same(session, &request).on_gpu);
    media_session_destroy(session);
}

static void kinds_are_chosen_apart(void **state)
{
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);

    (void)state;
    let_gpu_have(session, &cases[0]);
    let_gpu_have(session, &cases[6]);
    let_gpu_have(session, &cases[7]); /* the same codec, of 10 bits */
    media_session_destroy(session);
}

/* No chip of today takes 4:4:4 of H.264; 4:2:0 of the same size has nothing to do with it. */
static void pixels_that_the_gpu_does_not_take_harm_no_others(void **state)
{
    static const struct clip_case clip = {
        "H.264, 4:4:4", "444.mp4", {.codec = "libx264", .pixel_format = "yuv444p"}};
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = request_of(&clip, 4);
    char path[128];

    (void)state;
    path_of(path, sizeof(path), &clip);
    assert_int_equal(clip_write(path, &clip.settings, N_FRAMES, false), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(expect_same(session, &request).gpu_failed, i < 3);
    expect_note(session, "h264, yuv444p, around 160 x 96, was decoded on the CPU");
    expect_note(session, "from now on");
    let_gpu_have(session, &cases[0]);
    media_session_destroy(session);
}

static void probes_and_pictures_are_the_cpu_s(void **state)
{
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = request_of(&cases[0], 4);
    struct media_info info;
    struct err err = {0};

    (void)state;
    assert_int_equal(
        media_session_frames(session, NULL, 0, &info, &request, &clip_limits, &err), 0);
    request.media.kind = MEDIA_IMAGE;
    assert_false(expect_same(session, &request).on_gpu);
    request.media.kind = MEDIA_VIDEO;
    media_session_allow_gpu(session, false);
    assert_false(expect_same(session, &request).on_gpu);
    assert_int_equal(count_log("decoder"), 0);
    expect_no_note(session);
    media_session_destroy(session);
}

/* ---- failures ---- */

struct fault_case {
    const char *fault, *cause;
};

static const struct fault_case faults[] = {
    {"create", "CUDA_ERROR_OUT_OF_MEMORY"},
    {"picture:1", "cuvidDecodePicture"},
    {"picture:7", "cuvidDecodePicture"},
    {"map:2", "cuvidMapVideoFrame"},
    {"copy:3", "cuMemcpy2D"},
    {"caps", "lacking required capabilities"},
    {"size", "not within range"},
};
#define N_FAULTS (sizeof(faults) / sizeof(faults[0]))

/* Nothing lost, nothing doubled: expect_same compares every frame. */
static void what_the_gpu_fails_at_the_cpu_decodes(void **state)
{
    for (size_t i = 0; i < N_FAULTS; i++) {
        struct media_session *session = session_open(MEDIA_DECODE_CUDA);
        struct frame_request request = request_of(&cases[0], 8);
        struct media_info info;

        let_gpu_have(session, &cases[0]);
        setenv("NVDEC_HOST_FAULT", faults[i].fault, 1);
        info = expect_same(session, &request);
        assert_false(info.on_gpu);
        assert_true(info.gpu_failed);
        expect_note(session, faults[i].cause);
        info = expect_same(session, &request); /* the same cause is told once */
        assert_true(info.gpu_failed);
        expect_no_note(session);
        forget_faults(state);
        assert_true(expect_same(session, &request).on_gpu); /* and it may recover */
        media_session_destroy(session);
    }
}

static void failures_in_a_row_make_it_the_cpu_s_for_good(void **state)
{
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = request_of(&cases[0], 8);

    let_gpu_have(session, &cases[0]);
    setenv("NVDEC_HOST_FAULT", "create", 1);
    expect_same(session, &request);
    expect_note(session, "instead of the GPU");
    expect_same(session, &request);
    assert_true(expect_same(session, &request).gpu_failed);
    expect_note(session, "from now on: the GPU failed at 3 in a row");
    forget_faults(state);
    assert_false(expect_same(session, &request).on_gpu);
    assert_int_equal(count_log("decoder"), 0);
    expect_no_note(session);
    media_session_destroy(session);
}

static void an_unsupported_codec_is_given_up_in_the_trial(void **state)
{
    struct media_session *session = session_open(MEDIA_DECODE_AUTO);
    struct frame_request request = request_of(&cases[6], 4);

    (void)state;
    setenv("NVDEC_HOST_FAULT", "caps", 1);
    for (int i = 0; i < 3; i++)
        assert_true(expect_same(session, &request).gpu_failed);
    expect_note(session, "lacking required capabilities");
    expect_note(session, "from now on");
    assert_false(expect_same(session, &request).gpu_failed);
    media_session_destroy(session);
}

/* What MPEG-4 and JPEG decode to is not defined to the bit; FFV1 no GPU decodes. */
static void codecs_without_an_exact_result_are_the_cpu_s(void **state)
{
    static const char *const reasons[] = {
        "around 160 x 96, are decoded on the CPU: decoders of mpeg4 differ in rounding",
        "decoders of mjpeg differ in rounding",
        "this FFmpeg decodes ffv1 on no GPU",
    };
    static const struct clip_case others[] = {
        {"MPEG-4", "mpeg4.mp4", {.codec = "mpeg4", .gop_frames = GOP}},
        {"Motion JPEG", "mjpeg.avi", {.codec = "mjpeg", .pixel_format = "yuvj420p"}},
        {"FFV1", "ffv1.mkv", {.codec = "ffv1", .format = "matroska"}},
    };
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct frame_request request = request_of(&others[i], 4);
        char path[128];

        path_of(path, sizeof(path), &others[i]);
        assert_int_equal(clip_write(path, &others[i].settings, N_FRAMES, false), 0);
        for (int again = 0; again < 2; again++) {
            struct media_info info = expect_same(session, &request);

            assert_false(info.on_gpu || info.gpu_failed);
        }
        expect_note(session, reasons[i]);
        expect_no_note(session);
    }
    assert_int_equal(count_log("decoder"), 0);
    media_session_destroy(session);
}

static void a_machine_without_a_gpu_says_so(void **state)
{
    struct media_session *session;
    struct err err = {0};

    (void)state;
    setenv("NVDEC_HOST_FAULT", "device", 1);
    assert_int_equal(media_session_create(&session, &err), 0);
    assert_int_equal(media_session_open_gpu(session, MEDIA_DECODE_AUTO, 0, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "CUDA_ERROR_NO_DEVICE"));
    unsetenv("NVDEC_HOST_FAULT");
    assert_int_equal(media_session_open_gpu(session, MEDIA_DECODE_AUTO, 7, &err), -1);
    assert_non_null(strstr(err.text, "GPU 7"));
    media_session_destroy(session);
    session = session_open(MEDIA_DECODE_CUDA);
    let_gpu_have(session, &cases[0]);
    media_session_destroy(session);
}

static void broken_and_huge_videos_fail_as_on_the_cpu(void **state)
{
    const struct media_limits low = {.max_pixels = 100, .max_frames = 4096};
    struct media_session *session = session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = request_of(&cases[0], 4);
    uint8_t frames[4 * FRAME_BYTES];
    struct media_info info;
    struct err err = {0}, cpu_err = {0};

    (void)state;
    let_gpu_have(session, &cases[0]);
    assert_int_equal(media_session_frames(session, frames, sizeof(frames), &info,
                                          &request, &low, &err),
                     -1);
    assert_int_equal(
        media_frames(frames, sizeof(frames), &info, &request, &low, &cpu_err), -1);
    assert_string_equal(err.text, cpu_err.text);
    request.media.start_s = 100; /* seconds that it does not have */
    assert_int_equal(media_session_frames(session, frames, sizeof(frames), &info,
                                          &request, &clip_limits, &err),
                     -1);
    assert_int_equal(err.code, ERR_FORMAT);
    request.media.start_s = 0;
    assert_true(expect_same(session, &request).on_gpu); /* the GPU was not to blame */
    expect_no_note(session);
    media_session_destroy(session);
}

int main(void)
{
#define RULE(name) cmocka_unit_test_setup_teardown(name, forget_faults, forget_faults)
    const struct CMUnitTest tests[] = {
        RULE(frames_of_the_gpu_equal_the_cpu_s),
        RULE(the_gpu_decodes_from_the_key_frame_on_only),
        RULE(auto_takes_the_gpu_when_it_is_faster),
        RULE(auto_gives_the_gpu_a_second_chance_then_takes_the_cpu),
        RULE(cuda_takes_the_gpu_even_where_it_is_slower),
        RULE(frames_that_differ_make_it_the_cpu_s),
        RULE(kinds_are_chosen_apart),
        RULE(pixels_that_the_gpu_does_not_take_harm_no_others),
        RULE(probes_and_pictures_are_the_cpu_s),
        RULE(what_the_gpu_fails_at_the_cpu_decodes),
        RULE(failures_in_a_row_make_it_the_cpu_s_for_good),
        RULE(an_unsupported_codec_is_given_up_in_the_trial),
        RULE(codecs_without_an_exact_result_are_the_cpu_s),
        RULE(a_machine_without_a_gpu_says_so),
        RULE(broken_and_huge_videos_fail_as_on_the_cpu),
    };

    return cmocka_run_group_tests(tests, set_up_clips, remove_clips);
}
