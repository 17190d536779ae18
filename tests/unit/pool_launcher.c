/* Calls of a launcher: what comes back of one that works, fails, hangs, or writes too much. */
#include "common/base/clock.h"
#include "coordinator/launcher.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define DEADLINE_MS 60000
#define PATIENT_MS 60000 /* limit of calls that are to end by themselves */
#define LOOK_MS 2

static struct launcher *launcher_of(const char *program, int64_t timeout_ms)
{
    struct launcher *launcher = NULL;
    struct err err = {0};

    if (launcher_create(&launcher, program, timeout_ms, &err) < 0)
        fail_msg("%s", err.text);
    return launcher;
}

static void start(struct launcher *launcher, const char *script)
{
    const char *const args[] = {"-c", script, NULL};
    struct launcher_call call = {LAUNCHER_SUBMIT, 7, 9, 0};
    struct err err = {0};

    if (launcher_start(launcher, &call, args, clock_mono_ms(), &err) < 0)
        fail_msg("%s", err.text);
}

static struct launcher_result wait_for(struct launcher *launcher)
{
    int64_t deadline_ms = clock_mono_ms() + DEADLINE_MS;
    struct launcher_result result;

    while (!launcher_poll(launcher, &result, clock_mono_ms())) {
        assert_true(clock_mono_ms() < deadline_ms);
        poll(NULL, 0, LOOK_MS);
    }
    return result;
}

static void call_that_works_gives_what_it_wrote_and_what_it_was_for(void **state)
{
    struct launcher *launcher = launcher_of("/bin/sh", PATIENT_MS);
    struct launcher_result result;

    (void)state;
    start(launcher, "echo one; echo warning >&2; echo two");
    assert_true(launcher_is_submitting(launcher, 9));
    assert_int_equal(launcher_count(launcher, 7, LAUNCHER_SUBMIT), 1);
    assert_int_equal(launcher_count(launcher, 7, LAUNCHER_LIST), 0);
    result = wait_for(launcher);
    assert_true(result.is_ok);
    assert_string_equal(result.out, "one\ntwo\n");
    assert_string_equal(result.error, "");
    assert_int_equal(result.call.allocation, 9);
    assert_int_equal(launcher_count_all(launcher), 0);
    launcher_destroy(launcher);
}

static void call_that_fails_says_why_with_its_last_line(void **state)
{
    struct launcher *launcher = launcher_of("/bin/sh", PATIENT_MS);
    struct launcher_result result;

    (void)state;
    start(launcher, "echo first >&2; echo 'the reason' >&2; echo >&2; exit 4");
    result = wait_for(launcher);
    assert_false(result.is_ok);
    assert_string_equal(result.error, "the reason");
    start(launcher, "exit 4");
    assert_string_equal(wait_for(launcher).error, "/bin/sh ended with status 4");
    start(launcher, "kill -9 $$");
    assert_string_equal(wait_for(launcher).error, "/bin/sh was killed by signal 9");
    launcher_destroy(launcher);
}

static void program_that_is_not_there_is_named(void **state)
{
    struct launcher *launcher = launcher_of("/nonexistent/launch", PATIENT_MS);

    (void)state;
    start(launcher, "");
    assert_string_equal(wait_for(launcher).error, "cannot execute /nonexistent/launch");
    launcher_destroy(launcher);
}

/* With all that it has started: the sleep holds the pipe open. */
static void call_that_hangs_is_killed_at_its_deadline(void **state)
{
    struct launcher *launcher = launcher_of("/bin/sh", 50);
    struct launcher_result result;

    (void)state;
    start(launcher, "sleep 1000; echo never");
    result = wait_for(launcher);
    assert_false(result.is_ok);
    assert_true(result.is_late);
    assert_string_equal(result.error, "/bin/sh gave no answer within 50 ms");
    launcher_destroy(launcher);
}

static void call_that_writes_too_much_has_failed(void **state)
{
    struct launcher *launcher = launcher_of("/bin/sh", PATIENT_MS);
    struct launcher_result result;

    (void)state;
    start(launcher, "while :; do echo 0123456789012345678901234567890123456789; done");
    result = wait_for(launcher);
    assert_false(result.is_ok);
    assert_non_null(strstr(result.error, "wrote more than"));
    launcher_destroy(launcher);
}

static void no_more_calls_run_at_once_than_may(void **state)
{
    static const char *const args[] = {"-c", "sleep 1000", NULL};
    struct launcher *launcher = launcher_of("/bin/sh", PATIENT_MS);
    struct launcher_call call = {LAUNCHER_LIST, 1, 0, 0};
    struct err err = {0};

    (void)state;
    for (int i = 0; i < LAUNCHER_CALLS_MAX; i++)
        assert_int_equal(launcher_start(launcher, &call, args, 0, &err), 0);
    assert_int_equal(launcher_start(launcher, &call, args, 0, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    launcher_destroy(launcher); /* kills them */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(call_that_works_gives_what_it_wrote_and_what_it_was_for),
        cmocka_unit_test(call_that_fails_says_why_with_its_last_line),
        cmocka_unit_test(program_that_is_not_there_is_named),
        cmocka_unit_test(call_that_hangs_is_killed_at_its_deadline),
        cmocka_unit_test(call_that_writes_too_much_has_failed),
        cmocka_unit_test(no_more_calls_run_at_once_than_may),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
