/* Decoder processes that hang, die or run out of memory harm their own request only. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "tests/integration/media_clips.h"
#include "worker/decode/pool.h"

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

#define N_FRAMES 40

struct fixture {
    char folder[64];
    char clip[128];
    char program[512];
    uint64_t memory_bytes; /* of a decoder */
    struct media_limits limits;
    struct decode_pool *pool;
    struct frame_service service;
};

static struct fixture *fixture_of(void **state)
{
    return *state;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct encode_settings settings = {
        .codec = "mpeg4", .format = "mp4", .b_frames = 0, .options = "b=1000000"};

    *state = f;
    f->memory_bytes = 1 << 30;
    f->limits = clip_limits;
    clip_make_folder(f->folder, sizeof(f->folder));
    snprintf(f->clip, sizeof(f->clip), "%s/clip.mp4", f->folder);
    snprintf(f->program, sizeof(f->program), "%s/vneva-decode", getenv("VNEVA_BIN"));
    return clip_write(f->clip, &settings, N_FRAMES, false);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    decode_pool_destroy(f->pool);
    fs_remove_tree(f->folder, NULL);
    free(f);
    unsetenv("VNEVA_FAULT");
    return 0;
}

static void start(struct fixture *f, int n_processes, int64_t deadline_ms,
                  uint64_t cache_bytes)
{
    const struct decode_pool_config config = {.n_processes = n_processes,
                                              .n_slots = 16,
                                              .slot_bytes = 8 * 64 * 64 * 3,
                                              .deadline_ms = deadline_ms,
                                              .memory_bytes = f->memory_bytes,
                                              .limits = f->limits,
                                              .cache_bytes = cache_bytes,
                                              .program = f->program};
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

/* Waits for a ticket that must succeed and checks the number in each of its frames. */
static void expect_frames(struct fixture *f, int64_t ticket,
                          const struct frame_request *request)
{
    int64_t picks[N_FRAMES];
    int64_t n = media_pick_frames(picks, request, N_FRAMES);
    const uint8_t *frames;
    struct media_info info;
    struct err err = {0};

    if (f->service.wait(f->service.state, ticket, &frames, &info, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(info.n_frames, n);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(clip_read_number(frames + (size_t)(i * 64 * 64 * 3), 64),
                         picks[i]);
}

static enum err_code expect_failure(struct fixture *f, int64_t ticket)
{
    const uint8_t *frames;
    struct media_info info;
    struct err err = {0};

    assert_int_equal(f->service.wait(f->service.state, ticket, &frames, &info, &err), -1);
    print_message("    %s\n", err.text);
    f->service.release(f->service.state, ticket);
    return err.code;
}

static void more_requests_than_processes_all_come_back_right(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request requests[16];
    int64_t tickets[16];

    start(f, 2, 60000, 0);
    for (int i = 0; i < 16; i++) {
        requests[i] = clip_request(f->clip, 1 + i % 8);
        tickets[i] = submit(f, &requests[i]);
    }
    for (int i = 15; i >= 0; i--)
        expect_frames(f, tickets[i], &requests[i]);
    for (int i = 0; i < 16; i++)
        f->service.release(f->service.state, tickets[i]);
}

static void a_full_table_refuses_and_a_release_makes_room(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request request = clip_request(f->clip, 2);
    int64_t tickets[16], extra;
    struct err err = {0};

    start(f, 1, 60000, 0);
    for (int i = 0; i < 16; i++)
        tickets[i] = submit(f, &request);
    assert_int_equal(f->service.submit(f->service.state, &request, false, &extra, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT);
    for (int i = 0; i < 16; i++)
        f->service.release(f->service.state, tickets[i]);
    expect_frames(f, submit(f, &request), &request);
}

static void frames_that_fit_no_slot_are_refused(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request request = clip_request(f->clip, 9);
    struct err err = {0};
    int64_t ticket;

    start(f, 1, 60000, 0);
    assert_int_equal(f->service.submit(f->service.state, &request, false, &ticket, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT);
    request.num_frames = -1; /* 40 frames, known only once the file is open */
    assert_int_equal(expect_failure(f, submit(f, &request)), ERR_LIMIT);
}

static void a_decoder_that_hangs_is_killed_and_the_rest_goes_on(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request request = clip_request(f->clip, 4);
    int64_t tickets[6];

    setenv("VNEVA_FAULT", "decode.hang:hang@3", 1);
    start(f, 1, 1500, 0);
    for (int i = 0; i < 6; i++)
        tickets[i] = submit(f, &request);
    /* every process hangs at its third request: 0 1 hang, 3 4 hang */
    for (int i = 5; i >= 0; i--)
        if (i % 3 == 2)
            assert_int_equal(expect_failure(f, tickets[i]), ERR_TIMEOUT);
        else
            expect_frames(f, tickets[i], &request);
}

static void a_hang_is_noticed_while_another_ticket_is_waited_for(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request request = clip_request(f->clip, 4);
    int64_t hung, behind;

    setenv("VNEVA_FAULT", "decode.hang:hang@1", 1);
    start(f, 1, 500, 0);
    hung = submit(f, &request);
    behind = submit(f, &request);
    /* waits for the one behind: it too meets a hanging process, after the first died */
    assert_int_equal(expect_failure(f, behind), ERR_TIMEOUT);
    assert_int_equal(expect_failure(f, hung), ERR_TIMEOUT);
}

static void a_decoder_that_dies_is_reported_and_replaced(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request request = clip_request(f->clip, 4);
    int64_t tickets[4];

    setenv("VNEVA_FAULT", "decode.crash:kill@2", 1);
    start(f, 1, 60000, 0);
    for (int i = 0; i < 4; i++)
        tickets[i] = submit(f, &request);
    for (int i = 0; i < 4; i++)
        if (i % 2 == 1)
            assert_int_equal(expect_failure(f, tickets[i]), ERR_PEER);
        else
            expect_frames(f, tickets[i], &request);
}

static void a_file_that_is_no_video_fails_alone(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request good = clip_request(f->clip, 4), bad;
    char path[128];
    int64_t tickets[2];

    snprintf(path, sizeof(path), "%s/text.mp4", f->folder);
    assert_int_equal(fs_write_file_atomic(path, "hello, world\n", 13, NULL), 0);
    bad = clip_request(path, 4);
    start(f, 1, 60000, 0);
    tickets[0] = submit(f, &bad);
    tickets[1] = submit(f, &good);
    expect_frames(f, tickets[1], &good);
    assert_int_equal(expect_failure(f, tickets[0]), ERR_FORMAT);
}

/* A sound PNG of 6000 x 6000 pixels, small as a file, 108 MB as RGB. */
static struct frame_request make_bomb(struct fixture *f, char *path, size_t n_bytes)
{
    uint8_t *rgb = calloc(6000 * 6000, 3), *png;
    struct frame_request request;
    size_t n_png;

    snprintf(path, n_bytes, "%s/bomb.png", f->folder);
    assert_non_null(rgb);
    assert_int_equal(media_encode_png(&png, &n_png, rgb, 6000, 6000, NULL), 0);
    assert_int_equal(fs_write_file_atomic(path, png, n_png, NULL), 0);
    free(rgb);
    free(png);
    request = clip_request(path, 1);
    request.media.kind = MEDIA_IMAGE;
    return request;
}

static void a_picture_over_the_pixel_cap_fails_alone(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request good = clip_request(f->clip, 4), bomb;
    char path[128];
    int64_t tickets[2];

    bomb = make_bomb(f, path, sizeof(path));
    start(f, 1, 60000, 0);
    tickets[0] = submit(f, &bomb);
    tickets[1] = submit(f, &good);
    expect_frames(f, tickets[1], &good);
    assert_int_equal(expect_failure(f, tickets[0]), ERR_LIMIT);
}

static void a_picture_that_needs_too_much_memory_fails_alone(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request good = clip_request(f->clip, 4), bomb;
    char path[128];
    int64_t tickets[2];

#ifdef __SANITIZE_ADDRESS__
    print_message("skip: no address space limit under AddressSanitizer\n");
    skip();
#endif
    bomb = make_bomb(f, path, sizeof(path));
    f->limits.max_pixels = INT64_C(1) << 40;
    f->memory_bytes = 256 << 20;
    start(f, 1, 60000, 0);
    tickets[0] = submit(f, &bomb);
    tickets[1] = submit(f, &good);
    expect_frames(f, tickets[1], &good);
    assert_int_equal(expect_failure(f, tickets[0]), ERR_LIMIT);
}

static void the_same_request_again_comes_from_the_cache(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request request = clip_request(f->clip, 4);
    int64_t first, second;

    start(f, 1, 60000, 4 * 64 * 64 * 3);
    first = submit(f, &request);
    expect_frames(f, first, &request);
    f->service.release(f->service.state, first);
    assert_int_equal(unlink(f->clip), 0); /* only the cache can know it now */
    second = submit(f, &request);
    expect_frames(f, second, &request);
    f->service.release(f->service.state, second);
    request.splice = MEDIA_SPLICE_LAST;
    assert_int_equal(expect_failure(f, submit(f, &request)), ERR_NOT_FOUND);
}

static void a_probe_gives_what_is_known_and_no_frames(void **state)
{
    struct fixture *f = fixture_of(state);
    struct frame_request request = clip_request(f->clip, 4);
    const uint8_t *frames = (const uint8_t *)f;
    struct media_info info;
    struct err err = {0};
    int64_t ticket;

    start(f, 1, 60000, 0);
    assert_int_equal(f->service.submit(f->service.state, &request, true, &ticket, &err),
                     0);
    assert_int_equal(f->service.wait(f->service.state, ticket, &frames, &info, &err), 0);
    assert_null(frames);
    assert_int_equal(info.n_source_frames, N_FRAMES);
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
    struct fixture *f = fixture_of(state);
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
        start(f, 2, 60000, 0);
        submit(f, &request);
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
#define RULE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
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
