/* Videos decoded through FFmpeg's NVDEC path, over stand-ins of the driver and its decoder:
 * the frames are the CPU's, whatever the GPU does. */
#include "tests/integration/media_gpu_help.h"
#include "tests/nvdec_host/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

static void frames_of_the_gpu_equal_the_cpu_s(void **state)
{
    static const int64_t counts[] = {1, 2, 3, 8, 40, -1};

    (void)state;
    for (size_t i = 0; i < GPU_CLIPS; i++) {
        struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);

        printf("%s\n", gpu_clips[i].name);
        gpu_take(session, &gpu_clips[i]);
        for (size_t j = 0; j < sizeof(counts) / sizeof(counts[0]); j++) {
            struct frame_request request = gpu_request(&gpu_clips[i], counts[j]);

            assert_true(gpu_expect_same(session, &request).on_gpu);
            request.media.start_s = 1.1;
            request.media.end_s = 3.3;
            request.processor = MEDIA_PROCESSOR_CLIP;
            assert_true(gpu_expect_same(session, &request).on_gpu);
        }
        gpu_expect_no_note(session);
        media_session_destroy(session);
    }
    assert_true(nvdec_log_count("picture") > 0);
}

static void the_gpu_decodes_from_the_key_frame_on_only(void **state)
{
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = gpu_request(&gpu_clips[0], 1);

    gpu_take(session, &gpu_clips[0]);
    gpu_forget(state);
    request.media.start_s =
        101.0 / CLIP_TICKS_PER_S; /* the second frame of the last GOP */
    assert_true(gpu_expect_same(session, &request).on_gpu);
    /* the first packet of the file says what encoder it was; the frame and its key frame,
     * and at most as many B-frames in between */
    assert_in_range(nvdec_log_count("picture"), 2, 7);
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

/* Nothing lost, nothing doubled: gpu_expect_same compares every frame. */
static void what_the_gpu_fails_at_the_cpu_decodes(void **state)
{
    for (size_t i = 0; i < N_FAULTS; i++) {
        struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);
        struct frame_request request = gpu_request(&gpu_clips[0], 8);
        struct media_info info;

        gpu_take(session, &gpu_clips[0]);
        setenv("NVDEC_HOST_FAULT", faults[i].fault, 1);
        info = gpu_expect_same(session, &request);
        assert_false(info.on_gpu);
        assert_true(info.gpu_failed);
        gpu_expect_note(session, faults[i].cause);
        info = gpu_expect_same(session, &request); /* the same cause is told once */
        assert_true(info.gpu_failed);
        gpu_expect_no_note(session);
        gpu_forget(state);
        assert_true(gpu_expect_same(session, &request).on_gpu); /* and it may recover */
        media_session_destroy(session);
    }
}

static void failures_in_a_row_make_it_the_cpu_s_for_good(void **state)
{
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = gpu_request(&gpu_clips[0], 8);

    gpu_take(session, &gpu_clips[0]);
    setenv("NVDEC_HOST_FAULT", "create", 1);
    gpu_expect_same(session, &request);
    gpu_expect_note(session, "instead of the GPU");
    gpu_expect_same(session, &request);
    assert_true(gpu_expect_same(session, &request).gpu_failed);
    gpu_expect_note(session, "from now on: the GPU failed at 3 in a row");
    gpu_forget(state);
    assert_false(gpu_expect_same(session, &request).on_gpu);
    assert_int_equal(nvdec_log_count("decoder"), 0);
    gpu_expect_no_note(session);
    media_session_destroy(session);
}

static void broken_and_huge_videos_fail_as_on_the_cpu(void **state)
{
    const struct media_limits low = {.max_pixels = 100, .max_frames = 4096};
    struct media_session *session = gpu_session_open(MEDIA_DECODE_CUDA);
    struct frame_request request = gpu_request(&gpu_clips[0], 4);
    uint8_t frames[4 * GPU_FRAME_BYTES];
    struct media_info info;
    struct err err = {0}, cpu_err = {0};

    (void)state;
    gpu_take(session, &gpu_clips[0]);
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
    assert_true(gpu_expect_same(session, &request).on_gpu); /* the GPU was not to blame */
    gpu_expect_no_note(session);
    media_session_destroy(session);
}

int main(void)
{
#define RULE(name) cmocka_unit_test_setup_teardown(name, gpu_forget, gpu_forget)
    const struct CMUnitTest tests[] = {
        RULE(frames_of_the_gpu_equal_the_cpu_s),
        RULE(the_gpu_decodes_from_the_key_frame_on_only),
        RULE(what_the_gpu_fails_at_the_cpu_decodes),
        RULE(failures_in_a_row_make_it_the_cpu_s_for_good),
        RULE(broken_and_huge_videos_fail_as_on_the_cpu),
    };

    return cmocka_run_group_tests(tests, gpu_folder_make, clip_folder_remove);
}
