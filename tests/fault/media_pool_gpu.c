/* Decoder processes that use a GPU: what it does to them harms no video. Over the stand-ins
 * of tests/nvdec_host, which the processes find through LD_LIBRARY_PATH. */
#include "tests/fault/pool_help.h"
#include "tests/nvdec_host/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    const struct encode_settings settings = {.codec = "libx264",
                                             .gop_frames = 10,
                                             .b_frames = 2,
                                             .options = "preset=veryfast"};
    int rc = pool_setup(state, &settings);

    nvdec_log_start();
    return rc;
}

static void start(struct pool_fixture *f, enum media_decode decode, int64_t deadline_ms)
{
    f->config.memory_bytes = 256 << 20;
    f->config.limits.max_pixels = INT64_C(1) << 40;
    f->config.deadline_ms = deadline_ms;
    f->config.decode = decode;
    pool_start(f);
}

/* Waits for a ticket that must succeed, and compares its frames with this process's own. */
static struct media_info expect_frames(struct pool_fixture *f, int64_t ticket,
                                       const struct frame_request *request)
{
    uint8_t expected[8 * POOL_FRAME_BYTES];
    struct media_info info, own = {0};
    const uint8_t *frames;
    struct err err = {0};

    if (f->service.wait(f->service.state, ticket, &frames, &info, &err) < 0 ||
        media_frames(expected, sizeof(expected), &own, request, &clip_limits, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(info.n_frames, own.n_frames);
    assert_memory_equal(frames, expected, (size_t)own.n_frames * POOL_FRAME_BYTES);
    f->service.release(f->service.state, ticket);
    return info;
}

static void expect_counts(const struct pool_fixture *f, int n_on_gpu, int n_on_cpu,
                          int n_gpu_failed)
{
    struct decode_counts counts = decode_pool_counts(f->pool);

    assert_int_equal(counts.n_on_gpu, n_on_gpu);
    assert_int_equal(counts.n_on_cpu, n_on_cpu);
    assert_int_equal(counts.n_gpu_failed, n_gpu_failed);
}

/* The driver reserves far more addresses than the limit of memory allows. */
static void a_process_opens_the_gpu_within_its_limit_of_memory(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);

    start(f, MEDIA_DECODE_CUDA, 60000);
    assert_false(expect_frames(f, pool_submit(f, &request), &request).on_gpu);
    assert_true(expect_frames(f, pool_submit(f, &request), &request).on_gpu);
    assert_true(expect_frames(f, pool_submit(f, &request), &request).on_gpu);
    expect_counts(f, 2, 1, 0);
}

/* It holds again once the driver has the addresses that it wants. */
static void the_limit_of_memory_holds_beside_the_gpu(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4), bomb;

#ifdef __SANITIZE_ADDRESS__
    print_message("skip: no address space limit under AddressSanitizer\n");
    skip();
#endif
    bomb = pool_make_bomb();
    start(f, MEDIA_DECODE_CUDA, 60000);
    expect_frames(f, pool_submit(f, &request), &request);
    assert_int_equal(pool_expect_failure(f, pool_submit(f, &bomb)), ERR_LIMIT);
    assert_true(expect_frames(f, pool_submit(f, &request), &request).on_gpu);
}

/* The video that is lost comes with the CPU's frames; after three the GPU is left alone. */
static void expect_losses(struct pool_fixture *f, const char *fault, int64_t deadline_ms,
                          const char *how)
{
    struct frame_request request = clip_request(f->clip, 4);
    int n_lines;

    setenv("NVDEC_HOST_FAULT", fault, 1);
    start(f, MEDIA_DECODE_AUTO, deadline_ms);
    for (int i = 0; i < 3; i++)
        assert_false(expect_frames(f, pool_submit(f, &request), &request).on_gpu);
    expect_counts(f, 0, 3, 3);
    assert_non_null(strstr(decode_pool_counts(f->pool).loss, how));
    n_lines = nvdec_log_count("");
    for (int i = 3; i < 5; i++)
        assert_false(expect_frames(f, pool_submit(f, &request), &request).on_gpu);
    assert_int_equal(nvdec_log_count(""), n_lines);
    expect_counts(f, 0, 5, 3);
}

static void a_gpu_that_hangs_is_left_alone_in_the_end(void **state)
{
    expect_losses(*state, "hang:2", 1500, "longer than 1500 ms");
}

static void a_gpu_that_kills_its_process_is_left_alone_in_the_end(void **state)
{
    expect_losses(*state, "crash:2", 60000, "died");
}

static void videos_behind_a_lost_one_come_too(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);
    int64_t tickets[6];

    setenv("NVDEC_HOST_FAULT", "crash:2", 1);
    start(f, MEDIA_DECODE_AUTO, 60000);
    for (int i = 0; i < 6; i++)
        tickets[i] = pool_submit(f, &request);
    for (int i = 5; i >= 0; i--)
        assert_false(expect_frames(f, tickets[i], &request).on_gpu);
    assert_int_equal(decode_pool_counts(f->pool).n_on_cpu, 6);
}

/* Two deadlines, one each way; then it is the video's fault, and the GPU is not blamed. */
static void a_video_that_hangs_the_cpu_too_fails(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);

    setenv("VNEVA_FAULT", "decode.hang:hang", 1);
    start(f, MEDIA_DECODE_CUDA, 500);
    assert_int_equal(pool_expect_failure(f, pool_submit(f, &request)), ERR_TIMEOUT);
    expect_counts(f, 0, 0, 0);
    assert_string_equal(decode_pool_counts(f->pool).loss, "");
}

static void a_file_that_is_no_video_fails_once(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4), bad = pool_make_text();

    start(f, MEDIA_DECODE_CUDA, 60000);
    expect_frames(f, pool_submit(f, &request), &request);
    assert_int_equal(pool_expect_failure(f, pool_submit(f, &bad)), ERR_FORMAT);
    assert_true(expect_frames(f, pool_submit(f, &request), &request).on_gpu);
    expect_counts(f, 1, 1, 0);
}

static void a_pool_that_decodes_on_the_cpu_never_asks_for_a_gpu(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);

    start(f, MEDIA_DECODE_CPU, 60000);
    for (int i = 0; i < 3; i++)
        assert_false(expect_frames(f, pool_submit(f, &request), &request).on_gpu);
    assert_int_equal(nvdec_log_count(""), 0);
}

int main(void)
{
#define RULE(name) cmocka_unit_test_setup_teardown(name, setup, pool_teardown)
    const struct CMUnitTest tests[] = {
        RULE(a_process_opens_the_gpu_within_its_limit_of_memory),
        RULE(the_limit_of_memory_holds_beside_the_gpu),
        RULE(a_gpu_that_hangs_is_left_alone_in_the_end),
        RULE(a_gpu_that_kills_its_process_is_left_alone_in_the_end),
        RULE(videos_behind_a_lost_one_come_too),
        RULE(a_video_that_hangs_the_cpu_too_fails),
        RULE(a_file_that_is_no_video_fails_once),
        RULE(a_pool_that_decodes_on_the_cpu_never_asks_for_a_gpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
