#include "jobs/dashboard/ask.h"
#include "common/base/clock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct waiter {
    struct waiter *next;
    void (*wake)(void *arg);
    void *arg;
};

enum item_state { ITEM_WAITING, ITEM_ASKED, ITEM_DONE, ITEM_GIVEN_UP };

struct ask_item {
    struct ask_item *next; /* in the list, oldest first */
    enum item_state state;
    int n_users; /* the list is one */
    int64_t asked_mono_ms;
    char *question;
    struct ask_text text;
    struct waiter *waiters;
};

struct ask {
    pthread_mutex_t lock;
    pthread_cond_t change;
    pthread_t thread;
    bool is_stopping;
    void (*write)(void *state, const char *question, struct ask_text *out);
    void *state;
    struct ask_item *items; /* those that wait, the one in work, and fresh ones */
    int n_waiting;
};

/* ---- items, under the lock ---- */

static void release(struct ask_item *item)
{
    if (--item->n_users > 0)
        return;
    free(item->text.bytes);
    free(item->question);
    free(item);
}

static bool is_fresh(const struct ask_item *item, int64_t now_ms)
{
    if (item->state == ITEM_DONE)
        return now_ms - item->asked_mono_ms < ASK_KEEP_MS;
    return item->state != ITEM_GIVEN_UP;
}

static void prune(struct ask *ask)
{
    int64_t now_ms = clock_mono_ms();

    for (struct ask_item **at = &ask->items; *at;) {
        struct ask_item *item = *at;

        if (is_fresh(item, now_ms)) {
            at = &item->next;
        } else {
            *at = item->next;
            release(item);
        }
    }
}

static struct ask_item *find(struct ask *ask, const char *question)
{
    prune(ask);
    for (struct ask_item *item = ask->items; item; item = item->next)
        if (strcmp(item->question, question) == 0)
            return item;
    return NULL;
}

static struct ask_item *add(struct ask *ask, const char *question, struct err *err)
{
    struct ask_item *item, **end = &ask->items;

    if (ask->n_waiting == ASK_WAITING_MAX) {
        err_set(err, ERR_LIMIT, "%d questions wait already; ask again later",
                ASK_WAITING_MAX);
        return NULL;
    }
    item = calloc(1, sizeof(*item));
    if (item)
        item->question = strdup(question);
    if (!item || !item->question) {
        free(item);
        err_set(err, ERR_NOMEM, "no memory for a question");
        return NULL;
    }
    item->n_users = 1;
    while (*end)
        end = &(*end)->next;
    *end = item;
    ask->n_waiting++;
    pthread_cond_signal(&ask->change);
    return item;
}

static struct waiter *take_waiters(struct ask_item *item)
{
    struct waiter *waiters = item->waiters;

    item->waiters = NULL;
    return waiters;
}

/* Not under the lock: who is woken may ask at once. */
static void wake_all(struct waiter *waiters)
{
    while (waiters) {
        struct waiter *next = waiters->next;

        waiters->wake(waiters->arg);
        free(waiters);
        waiters = next;
    }
}

/* ---- the thread ---- */

static struct ask_item *first_waiting(struct ask *ask)
{
    struct ask_item *item = ask->items;

    while (item && item->state != ITEM_WAITING)
        item = item->next;
    return item;
}

/* Under the lock, which it leaves while it asks. */
static void answer(struct ask *ask, struct ask_item *item)
{
    struct ask_text text = {.status = 200};
    struct waiter *waiters;

    item->state = ITEM_ASKED;
    item->asked_mono_ms = clock_mono_ms();
    item->n_users++;
    ask->n_waiting--;
    pthread_mutex_unlock(&ask->lock);
    ask->write(ask->state, item->question, &text);
    pthread_mutex_lock(&ask->lock);
    item->text = text;
    item->state = ITEM_DONE;
    waiters = take_waiters(item);
    release(item);
    pthread_mutex_unlock(&ask->lock);
    wake_all(waiters);
    pthread_mutex_lock(&ask->lock);
}

static void *run(void *arg)
{
    struct ask *ask = arg;

    pthread_mutex_lock(&ask->lock);
    while (!ask->is_stopping) {
        struct ask_item *item = first_waiting(ask);

        if (item)
            answer(ask, item);
        else
            pthread_cond_wait(&ask->change, &ask->lock);
    }
    pthread_mutex_unlock(&ask->lock);
    return NULL;
}

int ask_create(struct ask **out,
               void (*write)(void *state, const char *question, struct ask_text *out),
               void *state, struct err *err)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    int rc;

    if (!ask)
        return err_set(err, ERR_NOMEM, "no memory for questions");
    ask->write = write;
    ask->state = state;
    pthread_mutex_init(&ask->lock, NULL);
    pthread_cond_init(&ask->change, NULL);
    rc = pthread_create(&ask->thread, NULL, run, ask);
    if (rc != 0) {
        pthread_cond_destroy(&ask->change);
        pthread_mutex_destroy(&ask->lock);
        free(ask);
        return err_set(err, ERR_IO, "cannot start a thread: %s", strerror(rc));
    }
    *out = ask;
    return 0;
}

void ask_stop(struct ask *ask)
{
    pthread_mutex_lock(&ask->lock);
    ask->is_stopping = true;
    pthread_cond_signal(&ask->change);
    pthread_mutex_unlock(&ask->lock);
    pthread_join(ask->thread, NULL);
    for (struct ask_item *item = ask->items; item; item = item->next) {
        if (item->state == ITEM_WAITING)
            item->state = ITEM_GIVEN_UP;
        wake_all(take_waiters(item));
    }
}

void ask_destroy(struct ask *ask)
{
    if (!ask)
        return;
    while (ask->items) {
        struct ask_item *next = ask->items->next;

        release(ask->items);
        ask->items = next;
    }
    pthread_cond_destroy(&ask->change);
    pthread_mutex_destroy(&ask->lock);
    free(ask);
}

/* ---- asking ---- */

struct ask_item *ask_find(struct ask *ask, const char *question)
{
    struct ask_item *item;

    pthread_mutex_lock(&ask->lock);
    item = find(ask, question);
    if (item && item->state != ITEM_DONE)
        item = NULL;
    if (item)
        item->n_users++;
    pthread_mutex_unlock(&ask->lock);
    return item;
}

/* To be woken, under the lock. */
static int add_waiter(struct ask_item *item, void (*wake)(void *arg), void *arg,
                      struct err *err)
{
    struct waiter *waiter = malloc(sizeof(*waiter));

    if (!waiter)
        return err_set(err, ERR_NOMEM, "no memory for a question");
    *waiter = (struct waiter){.next = item->waiters, .wake = wake, .arg = arg};
    item->waiters = waiter;
    return 0;
}

int ask_begin(struct ask *ask, struct ask_item **out, const char *question,
              void (*wake)(void *arg), void *arg, struct err *err)
{
    struct ask_item *item = NULL;
    bool is_done = false;
    int rc = 0;

    pthread_mutex_lock(&ask->lock);
    if (ask->is_stopping)
        err_set(err, ERR_STATE, "the dashboard ends");
    else if (!(item = find(ask, question)))
        item = add(ask, question, err);
    if (item && item->state == ITEM_DONE)
        is_done = true;
    else if (item)
        rc = add_waiter(item, wake, arg, err);
    if (item && rc == 0) {
        item->n_users++;
        *out = item;
    }
    pthread_mutex_unlock(&ask->lock);
    if (is_done)
        wake(arg);
    return item && rc == 0 ? 0 : -1;
}

const struct ask_text *ask_answer(struct ask *ask, struct ask_item *item)
{
    bool is_done;

    pthread_mutex_lock(&ask->lock);
    is_done = item->state == ITEM_DONE;
    pthread_mutex_unlock(&ask->lock);
    return is_done ? &item->text : NULL;
}

void ask_drop(struct ask *ask, struct ask_item *item)
{
    pthread_mutex_lock(&ask->lock);
    release(item);
    pthread_mutex_unlock(&ask->lock);
}
