/* The page of stages, written and read. */
#include "common/base/clock.h"
#include "common/base/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct stage_board *board; /* attached by the first test, for good */

static struct stage_now now(void)
{
    struct stage_now read;

    stage_read(board, &read);
    return read;
}

static void without_a_page_stages_are_nothing(void **state)
{
    struct stage_mark before = stage_begin("forward", NULL, STAGE_LIMITED);

    (void)state;
    stage_touch();
    stage_set_step(3);
    stage_end(before);
}

static void fresh_page_says_that_its_process_starts(void **state)
{
    struct err err;
    int fd;

    (void)state;
    assert_int_equal(stage_make(&board, &fd, &err), 0);
    assert_string_equal(now().text, "starting");
    assert_int_equal(now().step, -1);
    assert_int_equal(now().limit_ms, STAGE_START_MS);
    assert_int_equal(stage_attach(fd, "rank0", &err), 0);
    assert_int_equal(close(fd), -1); /* closed already */
    assert_int_equal(stage_attach(-1, "rank0", &err), -1);
    assert_non_null(strstr(err.text, "page of stages"));
}

static void stages_nest_and_only_limited_ones_have_a_limit(void **state)
{
    struct stage_mark before, inner;

    (void)state;
    stage_set_limit(5000);
    stage_set_step(7);
    before = stage_begin("forward", NULL, STAGE_LIMITED);
    assert_string_equal(now().text, "forward");
    assert_int_equal(now().limit_ms, 5000);
    assert_int_equal(now().step, 7);
    inner = stage_begin("plan", NULL, STAGE_FREE);
    assert_int_equal(now().limit_ms, 0);
    stage_end(inner);
    inner = stage_begin("all-reduce", "tensor", STAGE_WAITING);
    assert_string_equal(now().text, "all-reduce of group tensor");
    assert_int_equal(now().limit_ms, 0);
    stage_end(inner);
    assert_string_equal(now().text, "forward");
    assert_int_equal(now().limit_ms, 5000);
    stage_end(before);
    assert_string_equal(now().text, "");
}

/* Waits for STAGE_SIGN_LATE_MS: there is no other clock to read it with. */
static void waiting_without_a_sign_has_a_limit_from_the_last_one_on(void **state)
{
    struct stage_mark before = stage_begin("all-reduce", "tensor", STAGE_WAITING);
    int64_t since_ns = now().since_ns;

    (void)state;
    assert_int_equal(stage_poll(NULL, 0, 1), 0);
    assert_int_equal(now().limit_ms, 0);
    assert_int_equal(now().since_ns, since_ns);
    while (now().limit_ms == 0)
        poll(NULL, 0, 10);
    assert_int_equal(now().limit_ms, 5000);
    assert_true(now().since_ns > since_ns);
    stage_sign();
    assert_int_equal(now().limit_ms, 0);
    stage_end(before);
}

static void poll_that_is_ready_does_not_wait_for_its_end(void **state)
{
    struct pollfd ready = {.events = POLLIN};
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    ready.fd = fds[0];
    assert_int_equal(stage_poll(&ready, 1, 0), 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(stage_poll(&ready, 1, -1), 1);
    assert_true(ready.revents & POLLIN);
    close(fds[0]);
    close(fds[1]);
}

static void time_begins_anew_when_something_happens(void **state)
{
    struct stage_mark before = stage_begin("loading", NULL, STAGE_LIMITED);
    int64_t since_ns = now().since_ns;

    (void)state;
    assert_in_range(since_ns, 1, clock_mono_ns());
    while (clock_mono_ns() == since_ns)
        ;
    stage_touch();
    assert_true(now().since_ns > since_ns);
    assert_string_equal(now().text, "loading");
    stage_end(before);
}

static void names_that_are_too_long_are_cut(void **state)
{
    struct stage_mark before =
        stage_begin("a name of more than thirty-two bytes",
                    "one that is longer as well than that", STAGE_FREE);

    (void)state;
    assert_string_equal(now().text,
                        "a name of more than thirty-two  of group one that is "
                        "longer as well than");
    stage_end(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_page_stages_are_nothing),
        cmocka_unit_test(fresh_page_says_that_its_process_starts),
        cmocka_unit_test(stages_nest_and_only_limited_ones_have_a_limit),
        cmocka_unit_test(waiting_without_a_sign_has_a_limit_from_the_last_one_on),
        cmocka_unit_test(poll_that_is_ready_does_not_wait_for_its_end),
        cmocka_unit_test(time_begins_anew_when_something_happens),
        cmocka_unit_test(names_that_are_too_long_are_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
