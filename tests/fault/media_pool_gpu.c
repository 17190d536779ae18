/* Decoder processes that use a GPU: what it does to them harms no video. Over the stand-ins
 * of tests/nvdec_host, which the processes find through LD_LIBRARY_PATH. */
#include "common/base/fs.h"
#include "tests/integration/media_clips.h"
#include "worker/decode/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_FRAMES 40
#define SIZE 64
#define FRAME_BYTES (SIZE * SIZE * 3)

struct fixture {
    char folder[64], clip[96], log[96], program[512];
    struct decode_pool *pool;
    struct frame_service service;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct encode_settings settings = {.codec = "libx264",
                                             .gop_frames = 10,
                                             .b_frames = 2,
                                             .options = "preset=veryfast"};

    *state = f;
    clip_make_folder(f->folder, sizeof(f->folder));
    snprintf(f->clip, sizeof(f->clip), "%s/clip.mp4", f->folder);
    snprintf(f->log, sizeof(f->log), "%s/log", f->folder);
    snprintf(f->program, sizeof(f->program), "%s/vneva-decode", getenv("VNEVA_BIN"));
    setenv("NVDEC_HOST_LOG", f->log, 1);
    return clip_write(f->clip, &settings, N_FRAMES, false);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    decode_pool_destroy(f->pool);
    fs_remove_tree(f->folder, NULL);
    free(f);
    unsetenv("VNEVA_FAULT");
    unsetenv("NVDEC_HOST_FAULT");
    return 0;
}

static void start(struct fixture *f, enum media_decode decode, int64_t deadline_ms)
{
    const struct decode_pool_config config = {
        .n_processes = 1,
        .n_slots = 16,
        .slot_bytes = 8 * FRAME_BYTES,
        .deadline_ms = deadline_ms,
        .memory_bytes = 256 << 20,
        .limits = {.max_pixels = INT64_C(1) << 40, .max_frames = 4096},
        .program = f->program,
        .decode = decode};
    struct err err = {0};

    if (decode_pool_create(&f->pool, &config, &err) < 0)
        fail_msg("%s", err.text);
    f->service = decode_pool_service(f->pool);
}

static int64_t submit(struct fixture *f, const struct frame_request *request)
{
    struct err err = {0};
    int64_t ticket = 0;

    if (f->service.submit(f->service.state, request, false, &ticket, &err) < 0)
        fail_msg("%s", err.text);
    return ticket;
}

/* Waits for a ticket that must succeed, and compares its frames with this process's own. */
static struct media_info expect_frames(struct fixture *f, int64_t ticket,
                                       const struct frame_request *request)
{
    uint8_t expected[8 * FRAME_BYTES];
    struct media_info info, own = {0};
    const uint8_t *frames;
    struct err err = {0};

    if (f->service.wait(f->service.state, ticket, &frames, &info, &err) < 0 ||
        media_frames(expected, sizeof(expected), &own, request, &clip_limits, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(info.n_frames, own.n_frames);
    assert_memory_equal(frames, expected, (size_t)own.n_frames * FRAME_BYTES);
    f->service.release(f->service.state, ticket);
    return info;
}

static enum err_code expect_failure(struct fixture *f, int64_t ticket)
{
    struct media_info info;
    const uint8_t *frames;
    struct err err = {0};

    assert_int_equal(f->service.wait(f->service.state, ticket, &frames, &info, &err), -1);
    f->service.release(f->service.state, ticket);
    return err.code;
}

static void expect_counts(const struct fixture *f, int n_on_gpu, int n_on_cpu,
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
    struct fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);

    start(f, MEDIA_DECODE_CUDA, 60000);
    assert_false(expect_frames(f, submit(f, &request), &request).on_gpu);
    assert_true(expect_frames(f, submit(f, &request), &request).on_gpu);
    assert_true(expect_frames(f, submit(f, &request), &request).on_gpu);
    expect_counts(f, 2, 1, 0);
}

/* A sound picture of 6000 x 6000, 108 MB as RGB: the limit of memory holds again once the
 * driver has the addresses that it wants. */
static void the_limit_of_memory_holds_beside_the_gpu(void **state)
{
    struct fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4), bomb;
    uint8_t *rgb, *png;
    char path[96];
    size_t n_bytes;

#ifdef __SANITIZE_ADDRESS__
    print_message("skip: no address space limit under AddressSanitizer\n");
    skip();
#endif
    snprintf(path, sizeof(path), "%s/bomb.png", f->folder);
    rgb = calloc(6000 * 6000, 3);
    assert_non_null(rgb);
    assert_int_equal(media_encode_png(&png, &n_bytes, rgb, 6000, 6000, NULL), 0);
    assert_int_equal(fs_write_file_atomic(path, png, n_bytes, NULL), 0);
    free(rgb);
    free(png);
    start(f, MEDIA_DECODE_CUDA, 60000);
    expect_frames(f, submit(f, &request), &request);
    bomb = clip_request(path, 1);
    bomb.media.kind = MEDIA_IMAGE;
    assert_int_equal(expect_failure(f, submit(f, &bomb)), ERR_LIMIT);
    assert_true(expect_frames(f, submit(f, &request), &request).on_gpu);
}

static int n_log_lines(const struct fixture *f)
{
    FILE *file = fopen(f->log, "r");
    int c, n = 0;

    while (file && (c = fgetc(file)) != EOF)
        n += c == '\n';
    if (file)
        fclose(file);
    return n;
}

/* The video that is lost comes with the CPU's frames; after three the GPU is left alone. */
static void expect_losses(struct fixture *f, const char *fault, int64_t deadline_ms,
                          const char *how)
{
    struct frame_request request = clip_request(f->clip, 4);
    int n_lines;

    setenv("NVDEC_HOST_FAULT", fault, 1);
    start(f, MEDIA_DECODE_AUTO, deadline_ms);
    for (int i = 0; i < 3; i++)
        assert_false(expect_frames(f, submit(f, &request), &request).on_gpu);
    expect_counts(f, 0, 3, 3);
    assert_non_null(strstr(decode_pool_counts(f->pool).loss, how));
    n_lines = n_log_lines(f);
    for (int i = 3; i < 5; i++)
        assert_false(expect_frames(f, submit(f, &request), &request).on_gpu);
    assert_int_equal(n_log_lines(f), n_lines);
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
    struct fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);
    int64_t tickets[6];

    setenv("NVDEC_HOST_FAULT", "crash:2", 1);
    start(f, MEDIA_DECODE_AUTO, 60000);
    for (int i = 0; i < 6; i++)
        tickets[i] = submit(f, &request);
    for (int i = 5; i >= 0; i--)
        assert_false(expect_frames(f, tickets[i], &request).on_gpu);
    assert_int_equal(decode_pool_counts(f->pool).n_on_cpu, 6);
}

/* Two deadlines, one each way; then it is the video's fault, and the GPU is not blamed. */
static void a_video_that_hangs_the_cpu_too_fails(void **state)
{
    struct fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);

    setenv("VNEVA_FAULT", "decode.hang:hang", 1);
    start(f, MEDIA_DECODE_CUDA, 500);
    assert_int_equal(expect_failure(f, submit(f, &request)), ERR_TIMEOUT);
    expect_counts(f, 0, 0, 0);
    assert_string_equal(decode_pool_counts(f->pool).loss, "");
}

static void a_file_that_is_no_video_fails_once(void **state)
{
    struct fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4), bad;
    char path[96];
    FILE *file;

    snprintf(path, sizeof(path), "%s/bad.mp4", f->folder);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs("no video at all", file);
    assert_int_equal(fclose(file), 0);
    bad = clip_request(path, 4);
    start(f, MEDIA_DECODE_CUDA, 60000);
    expect_frames(f, submit(f, &request), &request);
    assert_int_equal(expect_failure(f, submit(f, &bad)), ERR_FORMAT);
    assert_true(expect_frames(f, submit(f, &request), &request).on_gpu);
    expect_counts(f, 1, 1, 0);
}

static void a_pool_that_decodes_on_the_cpu_never_asks_for_a_gpu(void **state)
{
    struct fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);

    start(f, MEDIA_DECODE_CPU, 60000);
    for (int i = 0; i < 3; i++)
        assert_false(expect_frames(f, submit(f, &request), &request).on_gpu);
    assert_int_equal(n_log_lines(f), 0);
}

int main(void)
{
#define RULE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
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
