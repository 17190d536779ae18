/* Questions are asked one at a time, their answers shared and kept for a moment. */
#include "common/base/clock.h"
#include "jobs/dashboard/ask.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DEADLINE_S 30

/* What stands behind: says how often it was asked, and waits where it is told to. */
struct source {
    pthread_mutex_t lock;
    pthread_cond_t change;
    int n_asked, n_woken, n_at_once, n_at_once_most;
    bool is_held;
};

static void source_init(struct source *s)
{
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->change, NULL);
}

static void give(void *state, const char *question, struct ask_text *out)
{
    struct source *s = state;
    char text[128];
    int n;

    pthread_mutex_lock(&s->lock);
    s->n_at_once++;
    if (s->n_at_once > s->n_at_once_most)
        s->n_at_once_most = s->n_at_once;
    while (s->is_held)
        pthread_cond_wait(&s->change, &s->lock);
    n = ++s->n_asked;
    s->n_at_once--;
    pthread_mutex_unlock(&s->lock);
    out->status = 200;
    out->type = "text/plain";
    snprintf(text, sizeof(text), "%d: %s", n, question);
    out->bytes = strdup(text);
    out->n_bytes = strlen(text);
}

static void wake(void *arg)
{
    struct source *s = arg;

    pthread_mutex_lock(&s->lock);
    s->n_woken++;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
}

static void hold(struct source *s, bool is_held)
{
    pthread_mutex_lock(&s->lock);
    s->is_held = is_held;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
}

static void wait_woken(struct source *s, int n)
{
    struct timespec end;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&s->lock);
    while (s->n_woken < n)
        assert_int_equal(pthread_cond_timedwait(&s->change, &s->lock, &end), 0);
    pthread_mutex_unlock(&s->lock);
}

static struct ask_item *begin(struct ask *ask, struct source *s, const char *question)
{
    struct ask_item *item;
    struct err err = {ERR_NONE, ""};

    if (ask_begin(ask, &item, question, wake, s, &err) < 0)
        fail_msg("%s", err.text);
    return item;
}

static void those_who_ask_the_same_share_one_answer(void **state)
{
    struct ask_item *items[50];
    struct source s;
    struct ask *ask;

    (void)state;
    source_init(&s);
    assert_int_equal(ask_create(&ask, give, &s, NULL), 0);
    hold(&s, true);
    for (int i = 0; i < 50; i++)
        items[i] = begin(ask, &s, i % 2 ? "odd" : "even");
    assert_null(ask_find(ask, "odd"));
    hold(&s, false);
    wait_woken(&s, 50);
    assert_int_equal(s.n_asked, 2);
    assert_int_equal(s.n_at_once_most, 1);
    assert_string_equal(ask_answer(ask, items[0])->bytes, "1: even");
    assert_string_equal(ask_answer(ask, items[49])->bytes, "2: odd");
    for (int i = 0; i < 50; i++)
        ask_drop(ask, items[i]);
    ask_stop(ask);
    ask_destroy(ask);
}

/* Whether an answer is still kept a moment later is a matter of time, so it is asked for
 * at once, and once it is older than it may be. */
static void answer_is_kept_for_a_moment_and_not_longer(void **state)
{
    int64_t begin_ms = clock_mono_ms();
    struct source s;
    struct ask *ask;
    struct ask_item *first, *kept;

    (void)state;
    source_init(&s);
    assert_int_equal(ask_create(&ask, give, &s, NULL), 0);
    first = begin(ask, &s, "q");
    wait_woken(&s, 1);
    kept = ask_find(ask, "q");
    if (kept) {
        assert_ptr_equal(kept, first);
        ask_drop(ask, kept);
    } else {
        assert_true(clock_mono_ms() - begin_ms >= ASK_KEEP_MS); /* a slow machine */
    }
    while (clock_mono_ms() - begin_ms < 2 * ASK_KEEP_MS)
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    assert_null(ask_find(ask, "q"));
    assert_string_equal(ask_answer(ask, first)->bytes, "1: q"); /* who has it has it */
    ask_drop(ask, first);
    first = begin(ask, &s, "q");
    wait_woken(&s, 2);
    assert_string_equal(ask_answer(ask, first)->bytes, "2: q");
    ask_drop(ask, first);
    ask_stop(ask);
    ask_destroy(ask);
}

static void too_many_questions_are_refused(void **state)
{
    struct ask_item *items[ASK_WAITING_MAX + 1], *one_more;
    struct err err = {ERR_NONE, ""};
    char question[16];
    struct source s;
    struct ask *ask;
    int n = 0;

    (void)state;
    source_init(&s);
    assert_int_equal(ask_create(&ask, give, &s, NULL), 0);
    hold(&s, true);
    for (; n <= ASK_WAITING_MAX; n++) { /* one may be in work already */
        snprintf(question, sizeof(question), "%d", n);
        if (ask_begin(ask, &items[n], question, wake, &s, &err) < 0)
            break;
    }
    assert_true(n >= ASK_WAITING_MAX);
    if (n == ASK_WAITING_MAX)
        assert_int_equal(err.code, ERR_LIMIT);
    else
        assert_int_equal(ask_begin(ask, &one_more, "x", wake, &s, &err), -1);
    hold(&s, false);
    wait_woken(&s, n);
    while (n-- > 0)
        ask_drop(ask, items[n]);
    ask_stop(ask);
    ask_destroy(ask);
}

static void *let_go(void *arg)
{
    hold(arg, false);
    return NULL;
}

static void end_wakes_those_who_wait_without_an_answer(void **state)
{
    struct ask_item *items[3], *late;
    struct err err = {ERR_NONE, ""};
    struct source s;
    struct ask *ask;
    pthread_t thread;
    int n_answers = 0;

    (void)state;
    source_init(&s);
    assert_int_equal(ask_create(&ask, give, &s, NULL), 0);
    hold(&s, true);
    items[0] = begin(ask, &s, "a");
    items[1] = begin(ask, &s, "b");
    items[2] = begin(ask, &s, "b");
    assert_int_equal(pthread_create(&thread, NULL, let_go, &s), 0);
    ask_stop(ask);
    pthread_join(thread, NULL);
    assert_int_equal(s.n_woken, 3);
    for (int i = 0; i < 3; i++)
        n_answers += ask_answer(ask, items[i]) != NULL;
    assert_true(n_answers <= 3 && s.n_asked <= 2);
    if (s.n_asked < 2)
        assert_null(ask_answer(ask, items[2]));
    assert_int_equal(ask_begin(ask, &late, "c", wake, &s, &err), -1);
    assert_int_equal(err.code, ERR_STATE);
    for (int i = 0; i < 3; i++)
        ask_drop(ask, items[i]);
    ask_destroy(ask);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_who_ask_the_same_share_one_answer),
        cmocka_unit_test(answer_is_kept_for_a_moment_and_not_longer),
        cmocka_unit_test(too_many_questions_are_refused),
        cmocka_unit_test(end_wakes_those_who_wait_without_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
