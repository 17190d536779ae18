/* Which videos a GPU decodes and which the CPU: chosen kind by kind, by what was measured in
 * a trial; over stand-ins of the driver and its decoder. */
#include "common/base/clock.h"
#include "tests/integration/media_gpu_help.h"
#include "tests/nvdec_host/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

/* ---- time as the tests want it: `media.c` reads the clock at both ends of a decode ---- */

int64_t __real_clock_mono_ns(void);
int64_t __wrap_clock_mono_ns(void);

static const int64_t *ticks; /* NULL: the true clock */

int64_t __wrap_clock_mono_ns(void)
{
    return ticks ? *ticks++ : __real_clock_mono_ns();
}

static void auto_takes_the_gpu_when_it_is_faster(void **state)
{
    /* begin and end of the CPU's turn, then of the GPU's */
    static const int64_t faster[] = {0, 9000000, 10000000, 14000000};
    struct media_session *session = gpu_session_open(MEDIA_DECODE_AUTO);
    struct frame_request request = gpu_request(&gpu_clips[0], 4);

    (void)state;
    ticks = faster;
    assert_false(gpu_expect_same(session, &request).on_gpu);
    assert_ptr_equal(ticks, faster + 4);
    ticks = NULL;
    gpu_expect_note(session,
                    "videos in h264, yuv420p, around 160 x 96, are decoded on the GPU: "
                    "a clip took 4.0 ms on the GPU, 9.0 ms on the CPU");
    assert_true(gpu_expect_same(session, &request).on_gpu);
    gpu_expect_no_note(session);
    media_session_destroy(session);
}

static void auto_gives_the_gpu_a_second_chance_then_takes_the_cpu(void **state)
{
    static const int64_t start[] = {0, 9000000, 10000000, 60000000, 60000000, 67000000};
    static const int64_t slower[] = {0, 9000000, 10000000, 60000000, 60000000, 80000000};
    struct frame_request request = gpu_request(&gpu_clips[0], 4);
    struct media_session *session = gpu_session_open(MEDIA_DECODE_AUTO);

    (void)state;
    ticks = start; /* the driver takes its time once */
    gpu_expect_same(session, &request);
    ticks = NULL;
    gpu_expect_note(session, "decoded on the GPU: a clip took 7.0 ms on the GPU, 9.0 ms");
    assert_true(gpu_expect_same(session, &request).on_gpu);
    media_session_destroy(session);

    session = gpu_session_open(MEDIA_DECODE_AUTO);
    ticks = slower;
    gpu_expect_same(session, &request);
    ticks = NULL;
    gpu_expect_note(session,
                    "decoded on the CPU: a clip took 20.0 ms on the GPU, 9.0 ms");
    assert_false(gpu_expect_same(session, &request).on_gpu);
    media_session_destroy(session);
}

static void cuda_takes_the_gpu_even_where_it_is_slower(void **state)
{
    static const int64_t slower[] = {0, 1000000, 10000000, 60000000, 60000000, 80000000};
    struct frame_request request = gpu_request(&gpu_clips[0], 4);
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);

    (void)state;
    ticks = slower;
    gpu_expect_same(session, &request);
    ticks = NULL;
    gpu_expect_note(session,
                    "20.0 ms on the GPU, 1.0 ms on the CPU; the GPU is asked for");
    assert_true(gpu_expect_same(session, &request).on_gpu);
    media_session_destroy(session);
}

static void frames_that_differ_make_it_the_cpu_s(void **state)
{
    struct frame_request request = gpu_request(&gpu_clips[0], 4);
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);

    (void)state;
    setenv("NVDEC_HOST_FAULT", "wrong", 1);
    assert_false(gpu_expect_same(session, &request).on_gpu);
    gpu_expect_note(session, "are decoded on the CPU");
    assert_false(gpu_expect_same(session, &request).on_gpu);
    media_session_destroy(session);
}

static void kinds_are_chosen_apart(void **state)
{
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);

    (void)state;
    gpu_take(session, &gpu_clips[0]);
    gpu_take(session, &gpu_clips[GPU_VP9]);
    gpu_take(session, &gpu_clips[GPU_VP9_10_BITS]); /* the same codec */
    media_session_destroy(session);
}

/* No chip of today takes 4:4:4 of H.264; 4:2:0 of the same size has nothing to do with it. */
static void pixels_that_the_gpu_does_not_take_harm_no_others(void **state)
{
    static const struct gpu_clip clip = {
        "H.264, 4:4:4", "444.mp4", {.codec = "libx264", .pixel_format = "yuv444p"}};
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = gpu_request(&clip, 4);

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(gpu_expect_same(session, &request).gpu_failed, i < 3);
    gpu_expect_note(session, "h264, yuv444p, around 160 x 96, was decoded on the CPU");
    gpu_expect_note(session, "from now on");
    gpu_take(session, &gpu_clips[0]);
    media_session_destroy(session);
}

static void probes_and_pictures_are_the_cpu_s(void **state)
{
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = gpu_request(&gpu_clips[0], 4);
    struct media_info info;
    struct err err = {0};

    (void)state;
    assert_int_equal(
        media_session_frames(session, NULL, 0, &info, &request, &clip_limits, &err), 0);
    request.media.kind = MEDIA_IMAGE;
    assert_false(gpu_expect_same(session, &request).on_gpu);
    request.media.kind = MEDIA_VIDEO;
    media_session_allow_gpu(session, false);
    assert_false(gpu_expect_same(session, &request).on_gpu);
    assert_int_equal(nvdec_log_count("decoder"), 0);
    gpu_expect_no_note(session);
    media_session_destroy(session);
}

static void an_unsupported_codec_is_given_up_in_the_trial(void **state)
{
    struct media_session *session = gpu_session_open(MEDIA_DECODE_AUTO);
    struct frame_request request = gpu_request(&gpu_clips[GPU_VP9], 4);

    (void)state;
    setenv("NVDEC_HOST_FAULT", "caps", 1);
    for (int i = 0; i < 3; i++)
        assert_true(gpu_expect_same(session, &request).gpu_failed);
    gpu_expect_note(session, "lacking required capabilities");
    gpu_expect_note(session, "from now on");
    assert_false(gpu_expect_same(session, &request).gpu_failed);
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
    static const struct gpu_clip others[] = {
        {"MPEG-4", "mpeg4.mp4", {.codec = "mpeg4", .gop_frames = GPU_GOP}},
        {"Motion JPEG", "mjpeg.avi", {.codec = "mjpeg", .pixel_format = "yuvj420p"}},
        {"FFV1", "ffv1.mkv", {.codec = "ffv1", .format = "matroska"}},
    };
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct frame_request request = gpu_request(&others[i], 4);

        for (int again = 0; again < 2; again++) {
            struct media_info info = gpu_expect_same(session, &request);

            assert_false(info.on_gpu || info.gpu_failed);
        }
        gpu_expect_note(session, reasons[i]);
        gpu_expect_no_note(session);
    }
    assert_int_equal(nvdec_log_count("decoder"), 0);
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
    session = gpu_session_open(MEDIA_DECODE_CUDA);
    gpu_take(session, &gpu_clips[0]);
    media_session_destroy(session);
}

int main(void)
{
#define RULE(name) cmocka_unit_test_setup_teardown(name, gpu_forget, gpu_forget)
    const struct CMUnitTest tests[] = {
        RULE(auto_takes_the_gpu_when_it_is_faster),
        RULE(auto_gives_the_gpu_a_second_chance_then_takes_the_cpu),
        RULE(cuda_takes_the_gpu_even_where_it_is_slower),
        RULE(frames_that_differ_make_it_the_cpu_s),
        RULE(kinds_are_chosen_apart),
        RULE(pixels_that_the_gpu_does_not_take_harm_no_others),
        RULE(probes_and_pictures_are_the_cpu_s),
        RULE(an_unsupported_codec_is_given_up_in_the_trial),
        RULE(codecs_without_an_exact_result_are_the_cpu_s),
        RULE(a_machine_without_a_gpu_says_so),
    };

    return cmocka_run_group_tests(tests, gpu_folder_make, clip_folder_remove);
}
