/* Decoder processes that hang, die or run out of memory harm their own request only. */
#include "common/base/clock.h"
#include "tests/fault/pool_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int setup(void **state)
{
    const struct encode_settings settings = {
        .codec = "mpeg4", .format = "mp4", .b_frames = 0, .options = "b=1000000"};

    return pool_setup(state, &settings);
}

/* Waits for a ticket that must succeed and checks the number in each of its frames. */
static void expect_frames(struct pool_fixture *f, int64_t ticket,
                          const struct frame_request *request)
{
    int64_t picks[POOL_CLIP_FRAMES];
    int64_t n = media_pick_frames(picks, request, POOL_CLIP_FRAMES);
    const uint8_t *frames;
    struct media_info info;
    struct err err = {0};

    if (f->service.wait(f->service.state, ticket, &frames, &info, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(info.n_frames, n);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(clip_read_number(frames + i * POOL_FRAME_BYTES, POOL_SIZE),
                         picks[i]);
}

static void more_requests_than_processes_all_come_back_right(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request requests[16];
    int64_t tickets[16];

    f->config.n_processes = 2;
    pool_start(f);
    for (int i = 0; i < 16; i++) {
        requests[i] = clip_request(f->clip, 1 + i % 8);
        tickets[i] = pool_submit(f, &requests[i]);
    }
    for (int i = 15; i >= 0; i--)
        expect_frames(f, tickets[i], &requests[i]);
    for (int i = 0; i < 16; i++)
        f->service.release(f->service.state, tickets[i]);
}

static void a_full_table_refuses_and_a_release_makes_room(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 2);
    int64_t tickets[16], extra;
    struct err err = {0};

    pool_start(f);
    for (int i = 0; i < 16; i++)
        tickets[i] = pool_submit(f, &request);
    assert_int_equal(f->service.submit(f->service.state, &request, false, &extra, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT);
    for (int i = 0; i < 16; i++)
        f->service.release(f->service.state, tickets[i]);
    expect_frames(f, pool_submit(f, &request), &request);
}

static void frames_that_fit_no_slot_are_refused(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 9);
    struct err err = {0};
    int64_t ticket;

    pool_start(f);
    assert_int_equal(f->service.submit(f->service.state, &request, false, &ticket, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT);
    request.num_frames = -1; /* 40 frames, known only once the file is open */
    assert_int_equal(pool_expect_failure(f, pool_submit(f, &request)), ERR_LIMIT);
}

static void a_decoder_that_hangs_is_killed_and_the_rest_goes_on(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);
    int64_t tickets[6];

    setenv("VNEVA_FAULT", "decode.hang:hang@3", 1);
    f->config.deadline_ms = 1500;
    pool_start(f);
    for (int i = 0; i < 6; i++)
        tickets[i] = pool_submit(f, &request);
    /* every process hangs at its third request: 0 1 hang, 3 4 hang */
    for (int i = 5; i >= 0; i--)
        if (i % 3 == 2)
            assert_int_equal(pool_expect_failure(f, tickets[i]), ERR_TIMEOUT);
        else
            expect_frames(f, tickets[i], &request);
}

static void a_hang_is_noticed_while_another_ticket_is_waited_for(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);
    int64_t hung, behind;

    setenv("VNEVA_FAULT", "decode.hang:hang@1", 1);
    f->config.deadline_ms = 500;
    pool_start(f);
    hung = pool_submit(f, &request);
    behind = pool_submit(f, &request);
    /* waits for the one behind: it too meets a hanging process, after the first died */
    assert_int_equal(pool_expect_failure(f, behind), ERR_TIMEOUT);
    assert_int_equal(pool_expect_failure(f, hung), ERR_TIMEOUT);
}

static void a_decoder_that_dies_is_reported_and_replaced(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);
    int64_t tickets[4];

    setenv("VNEVA_FAULT", "decode.crash:kill@2", 1);
    pool_start(f);
    for (int i = 0; i < 4; i++)
        tickets[i] = pool_submit(f, &request);
    for (int i = 0; i < 4; i++)
        if (i % 2 == 1)
            assert_int_equal(pool_expect_failure(f, tickets[i]), ERR_PEER);
        else
            expect_frames(f, tickets[i], &request);
}

static void a_file_that_is_no_video_fails_alone(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request good = clip_request(f->clip, 4), bad = pool_make_text();
    int64_t tickets[2];

    pool_start(f);
    tickets[0] = pool_submit(f, &bad);
    tickets[1] = pool_submit(f, &good);
    expect_frames(f, tickets[1], &good);
    assert_int_equal(pool_expect_failure(f, tickets[0]), ERR_FORMAT);
}

static void a_picture_over_the_pixel_cap_fails_alone(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request good = clip_request(f->clip, 4), bomb;
    int64_t tickets[2];

    bomb = pool_make_bomb();
    pool_start(f);
    tickets[0] = pool_submit(f, &bomb);
    tickets[1] = pool_submit(f, &good);
    expect_frames(f, tickets[1], &good);
    assert_int_equal(pool_expect_failure(f, tickets[0]), ERR_LIMIT);
}

static void a_picture_that_needs_too_much_memory_fails_alone(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request good = clip_request(f->clip, 4), bomb;
    int64_t tickets[2];

#ifdef __SANITIZE_ADDRESS__
    print_message("skip: no address space limit under AddressSanitizer\n");
    skip();
#endif
    bomb = pool_make_bomb();
    f->config.limits.max_pixels = INT64_C(1) << 40;
    f->config.memory_bytes = 256 << 20;
    pool_start(f);
    tickets[0] = pool_submit(f, &bomb);
    tickets[1] = pool_submit(f, &good);
    expect_frames(f, tickets[1], &good);
    assert_int_equal(pool_expect_failure(f, tickets[0]), ERR_LIMIT);
}

static void the_same_request_again_comes_from_the_cache(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);
    int64_t first, second;

    f->config.cache_bytes = 4 * POOL_FRAME_BYTES;
    pool_start(f);
    first = pool_submit(f, &request);
    expect_frames(f, first, &request);
    f->service.release(f->service.state, first);
    assert_int_equal(unlink(f->clip), 0); /* only the cache can know it now */
    second = pool_submit(f, &request);
    expect_frames(f, second, &request);
    f->service.release(f->service.state, second);
    request.splice = MEDIA_SPLICE_LAST;
    assert_int_equal(pool_expect_failure(f, pool_submit(f, &request)), ERR_NOT_FOUND);
}

static void a_probe_gives_what_is_known_and_no_frames(void **state)
{
    struct pool_fixture *f = *state;
    struct frame_request request = clip_request(f->clip, 4);
    const uint8_t *frames = (const uint8_t *)f;
    struct media_info info;
    struct err err = {0};
    int64_t ticket;

    pool_start(f);
    assert_int_equal(f->service.submit(f->service.state, &request, true, &ticket, &err),
                     0);
    assert_int_equal(f->service.wait(f->service.state, ticket, &frames, &info, &err), 0);
    assert_null(frames);
    assert_int_equal(info.n_source_frames, POOL_CLIP_FRAMES);
    assert_int_equal(info.width, CLIP_WIDTH);
    assert_int_equal(info.height, CLIP_HEIGHT);
    assert_string_equal(info.codec, "mpeg4");
    f->service.release(f->service.state, ticket);
}

/* Process ids of the decoders that `parent` started, from /proc; returns how many. */
static int children_of(pid_t parent, pid_t *out, int room)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int n = 0;

    while (proc && (entry = readdir(proc)) && n < room) {
        char path[300], line[512] = "";
        const char *name_end;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        file = fopen(path, "r");
        if (!file)
            continue;
        name_end =
            fgets(line, sizeof(line), file) ? strstr(line, "(vneva-decode) ") : NULL;
        /* behind the name: a state of one letter, then the parent (proc(5)) */
        if (name_end &&
            strtol(name_end + strlen("(vneva-decode) S "), NULL, 10) == parent)
            out[n++] = (pid_t)strtol(entry->d_name, NULL, 10);
        fclose(file);
    }
    if (proc)
        closedir(proc);
    return n;
}

static void decoders_end_when_their_parent_is_killed(void **state)
{
    struct pool_fixture *f = *state;
    pid_t children[4];
    int64_t deadline_ms = clock_mono_ms() + 20000;
    int ready[2], n;
    char byte;
    pid_t parent;

    assert_int_equal(pipe(ready), 0);
    parent = fork();
    if (parent == 0) {
        struct frame_request request = clip_request(f->clip, 4);

        setenv("VNEVA_FAULT", "decode.hang:hang", 1);
        f->config.n_processes = 2;
        pool_start(f);
        pool_submit(f, &request);
        (void)!write(ready[1], "x", 1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    n = children_of(parent, children, 4);
    assert_int_equal(n, 2);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    for (int i = 0; i < n; i++)
        while (kill(children[i], 0) == 0)
            if (clock_mono_ms() > deadline_ms)
                fail_msg("decoder %d outlives its parent", (int)children[i]);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
#define RULE(name) cmocka_unit_test_setup_teardown(name, setup, pool_teardown)
    const struct CMUnitTest tests[] = {
        RULE(more_requests_than_processes_all_come_back_right),
        RULE(a_full_table_refuses_and_a_release_makes_room),
        RULE(frames_that_fit_no_slot_are_refused),
        RULE(a_decoder_that_hangs_is_killed_and_the_rest_goes_on),
        RULE(a_hang_is_noticed_while_another_ticket_is_waited_for),
        RULE(a_decoder_that_dies_is_reported_and_replaced),
        RULE(a_file_that_is_no_video_fails_alone),
        RULE(a_picture_over_the_pixel_cap_fails_alone),
        RULE(a_picture_that_needs_too_much_memory_fails_alone),
        RULE(the_same_request_again_comes_from_the_cache),
        RULE(a_probe_gives_what_is_known_and_no_frames),
        RULE(decoders_end_when_their_parent_is_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
