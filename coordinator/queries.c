/* The life of a question:
 *
 *     waiting --thread takes the oldest--> working --> answered --last part sent--> free
 *
 * The loop changes free and answered ones, the thread the working one; every change of
 * state is made under the lock.
 */
#define _GNU_SOURCE /* syscall */
#include "coordinator/queries.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/store/query.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum question_state {
    QUESTION_FREE,
    QUESTION_WAITING,
    QUESTION_WORKING,
    QUESTION_ANSWERED,
};

struct question {
    enum question_state state;
    uint64_t number; /* the oldest has the lowest */
    struct net_peer from;
    struct wire message; /* owned */
    int64_t asked_mono_ms, asked_wall_ms;
    struct query_answer answer;
    size_t n_sent; /* parts */
    struct err why;
    bool has_failed;
};

struct queries {
    char *database;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t has_work;
    atomic_bool stop;
    struct question questions[QUERIES_MAX];
    uint64_t n_asked;
};

/* ---- the thread ---- */

/* The oldest that waits; under the lock. */
static struct question *next_waiting(struct queries *queries)
{
    struct question *oldest = NULL;

    for (int i = 0; i < QUERIES_MAX; i++) {
        struct question *q = &queries->questions[i];

        if (q->state == QUESTION_WAITING && (!oldest || q->number < oldest->number))
            oldest = q;
    }
    return oldest;
}

static void work(struct queries *queries, struct question *q)
{
    const struct msg_select *m = &q->message.select;
    struct query_request request = {
        .sql = m->sql,
        .view = m->view,
        .where = m->where,
        .columns = m->columns,
        .sort = m->sort,
        .after = m->after,
        .limit = m->limit,
        .utc_offset_s = m->utc_offset_s,
        .is_short = m->is_short != 0,
        .has_id = m->has_id != 0,
    };
    int rc;

    if (clock_mono_ms() - q->asked_mono_ms > QUERIES_WAIT_MAX_MS)
        rc = err_set(&q->why, ERR_LIMIT, "other questions have taken %d ms; ask again",
                     QUERIES_WAIT_MAX_MS);
    else
        rc = query_run(&q->answer, queries->database, &request, &query_bounds_usual,
                       &queries->stop, q->asked_wall_ms, &q->why);
    q->has_failed = rc < 0;
}

/* Where both want the processor the loop goes first. On Linux this is the thread's own. */
static void step_back(void)
{
    if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), QUERIES_NICE) < 0)
        log_warn("questions keep the loop's priority: %s", strerror(errno));
}

static void *run(void *state)
{
    struct queries *queries = state;

    step_back();
    pthread_mutex_lock(&queries->lock);
    while (!atomic_load(&queries->stop)) {
        struct question *q = next_waiting(queries);

        if (!q) {
            pthread_cond_wait(&queries->has_work, &queries->lock);
            continue;
        }
        q->state = QUESTION_WORKING;
        pthread_mutex_unlock(&queries->lock);
        work(queries, q);
        pthread_mutex_lock(&queries->lock);
        q->state = QUESTION_ANSWERED;
    }
    pthread_mutex_unlock(&queries->lock);
    return NULL;
}

/* Signals are for the loop: it is what they have to wake. */
static int start_thread(struct queries *queries, struct err *err)
{
    sigset_t all, before;
    int failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&queries->thread, NULL, run, queries);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return err_set(err, ERR_IO, "cannot start a thread for questions: %s",
                       strerror(failed));
    queries->has_thread = true;
    return 0;
}

int queries_create(struct queries **out, const char *database, struct err *err)
{
    struct queries *queries = calloc(1, sizeof(*queries));

    if (!queries)
        return err_set(err, ERR_NOMEM, "no memory for questions");
    pthread_mutex_init(&queries->lock, NULL);
    pthread_cond_init(&queries->has_work, NULL);
    queries->database = strdup(database);
    if (!queries->database)
        err_set(err, ERR_NOMEM, "no memory for questions");
    else if (start_thread(queries, err) == 0) {
        *out = queries;
        return 0;
    }
    queries_destroy(queries);
    return -1;
}

static void free_question(struct question *q)
{
    query_answer_fini(&q->answer);
    wire_fini(&q->message);
    *q = (struct question){.state = QUESTION_FREE};
}

void queries_destroy(struct queries *queries)
{
    if (!queries)
        return;
    pthread_mutex_lock(&queries->lock);
    atomic_store(&queries->stop, true);
    pthread_cond_signal(&queries->has_work);
    pthread_mutex_unlock(&queries->lock);
    if (queries->has_thread)
        pthread_join(queries->thread, NULL);
    for (int i = 0; i < QUERIES_MAX; i++)
        free_question(&queries->questions[i]);
    pthread_cond_destroy(&queries->has_work);
    pthread_mutex_destroy(&queries->lock);
    free(queries->database);
    free(queries);
}

/* ---- the loop ---- */

/* A free place, when this client may have one more; under the lock. */
static struct question *find_place(struct queries *queries, const struct net_peer *from,
                                   struct err *err)
{
    struct question *place = NULL;
    int n_own = 0;

    for (int i = 0; i < QUERIES_MAX; i++) {
        struct question *q = &queries->questions[i];

        if (q->state == QUESTION_FREE)
            place = q;
        else
            n_own += net_peer_is_same(&q->from, from);
    }
    if (n_own >= QUERIES_PEER_MAX)
        err_set(err, ERR_LIMIT, "%d questions of this client wait already",
                QUERIES_PEER_MAX);
    else if (!place)
        err_set(err, ERR_LIMIT, "%d questions wait already; ask again", QUERIES_MAX);
    return n_own >= QUERIES_PEER_MAX ? NULL : place;
}

int queries_ask(struct queries *queries, const struct net_peer *from,
                const struct wire *message, struct err *err)
{
    struct question *q;
    struct wire copy;

    if (wire_clone(&copy, message, err) < 0)
        return -1;
    pthread_mutex_lock(&queries->lock);
    q = find_place(queries, from, err);
    if (q) {
        *q = (struct question){.state = QUESTION_WAITING,
                               .number = ++queries->n_asked,
                               .from = *from,
                               .message = copy,
                               .asked_mono_ms = clock_mono_ms(),
                               .asked_wall_ms = clock_wall_ms()};
        pthread_cond_signal(&queries->has_work);
    }
    pthread_mutex_unlock(&queries->lock);
    if (!q)
        wire_fini(&copy);
    return q ? 0 : -1;
}

static int send_error(const struct question *q, struct net_server *server,
                      const struct err *why, struct err *err)
{
    struct wire answer = {.type = MSG_ERROR, .reply_to = q->message.sequence};

    answer.error.code = err_code_name(why->code);
    answer.error.text = why->text;
    return net_server_send(server, &q->from, &answer, err);
}

/* The next part, or the error. True: that was all. */
static bool send_part(struct question *q, struct net_server *server)
{
    struct wire answer = {.type = MSG_TABLE, .reply_to = q->message.sequence};
    struct err err, again;
    bool is_last = q->has_failed || q->n_sent + 1 >= q->answer.n_parts;
    int rc;

    if (q->has_failed) {
        rc = send_error(q, server, &q->why, &err);
    } else {
        answer.table.json = q->answer.parts[q->n_sent++];
        answer.table.is_last = is_last;
        rc = net_server_send(server, &q->from, &answer, &err);
    }
    if (rc == 0)
        return is_last;
    log_error("cannot answer a question: %s", err.text);
    (void)send_error(q, server, &err, &again); /* better than to be waited for */
    return true;
}

void queries_send(struct queries *queries, struct net_server *server)
{
    pthread_mutex_lock(&queries->lock);
    for (int i = 0; i < QUERIES_MAX; i++) {
        struct question *q = &queries->questions[i];

        if (q->state == QUESTION_ANSWERED && send_part(q, server))
            free_question(q);
    }
    pthread_mutex_unlock(&queries->lock);
}

int64_t queries_wait_ms(struct queries *queries, int64_t otherwise)
{
    int64_t wait_ms = otherwise;

    pthread_mutex_lock(&queries->lock);
    for (int i = 0; i < QUERIES_MAX; i++) {
        if (queries->questions[i].state == QUESTION_ANSWERED)
            wait_ms = 0;
        else if (queries->questions[i].state != QUESTION_FREE && wait_ms)
            wait_ms = QUERIES_TICK_MS;
    }
    pthread_mutex_unlock(&queries->lock);
    return wait_ms;
}
