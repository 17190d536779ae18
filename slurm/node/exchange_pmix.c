/* The exchange over PMIx (https://pmix.org, standard 4): Slurm's and Open MPI's servers, and
 * others.
 *
 * PMIx works on a thread of its own. From there come the end of a fence and the events of
 * peers that are gone; both only write into struct pmix, under its lock.
 * No directive is ever passed beside another one, so that the size of pmix_info_t (which
 * may grow) does not matter.
 */
#include "slurm/node/exchange_texts.h"

#ifdef VNEVA_HAS_PMIX

#include "slurm/node/exchange_folder.h"
#include "slurm/node/exchange_pmix_api.h"

#include "common/base/clock.h"
#include "common/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pmix.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_MS 500            /* between looks for nodes that meet elsewhere */
#define PMIX_REGISTER_MS 10000 /* the server answers at once, or is broken */

/* A call whose answer comes on PMIx's thread. */
struct answer {
    bool is_there;
    pmix_status_t status;
};

struct pmix {
    struct exchange exchange; /* first */
    struct exchange_texts texts;
    struct pmix_api api;
    const char *folder, *token; /* where nodes without PMIx would meet; NULL: nowhere */
    pmix_proc_t me;
    bool is_open;      /* PMIx_Init has been called */
    bool is_answering; /* no call has been left without its answer */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock: */
    struct answer fence, registered;
    bool *is_lost, *is_told; /* [n_nodes] */
    int n_lost;
};

static int fail(const struct pmix *pmix, struct err *err, pmix_status_t status,
                const char *what)
{
    return err_set(err, status == PMIX_ERR_TIMEOUT ? ERR_TIMEOUT : ERR_IO,
                   "PMIx: %s: %s (%d)", what, pmix->api.error_string(status), status);
}

/* Events that say that a process, or this one's server, has ended. Asked for by name: a
 * handler of all events is not given those of peers. */
static const pmix_status_t losses[] = {
    PMIX_ERR_LOST_CONNECTION,      PMIX_ERR_UNREACH,
#ifdef PMIX_ERR_PROC_ABORTED /* of standard 3; later ones may drop it */
    PMIX_ERR_PROC_ABORTED,
#endif
#ifdef PMIX_ERR_PROC_ABORTED_BY_SIG /* of standard 4 */
    PMIX_ERR_PROC_ABORTED_BY_SIG,  PMIX_ERR_PROC_KILLED_BY_CMD,
    PMIX_ERR_PROC_REQUESTED_ABORT, PMIX_ERR_PROC_TERM_WO_SYNC,
    PMIX_ERR_EXIT_NONZERO_TERM,
#endif
};

/* ---- what comes from PMIx's thread ---- */

static void take_answer(struct pmix *pmix, struct answer *answer, pmix_status_t status)
{
    pthread_mutex_lock(&pmix->lock);
    answer->is_there = true;
    answer->status = status;
    pthread_cond_broadcast(&pmix->changed);
    pthread_mutex_unlock(&pmix->lock);
}

static void on_fence(pmix_status_t status, void *state)
{
    struct pmix *pmix = state;

    take_answer(pmix, &pmix->fence, status);
}

static void on_registered(pmix_status_t status, size_t handler, void *state)
{
    struct pmix *pmix = state;

    (void)handler;
    take_answer(pmix, &pmix->registered, status);
}

/* The peer an event is about; -1: this process's own server. */
static int64_t affected_rank(const struct pmix *pmix, const pmix_proc_t *source,
                             const pmix_info_t *info, size_t n_info)
{
    for (size_t i = 0; i < n_info; i++)
        if (strcmp(info[i].key, PMIX_EVENT_AFFECTED_PROC) == 0 &&
            info[i].value.type == PMIX_PROC && info[i].value.data.proc)
            source = info[i].value.data.proc;
    return source && strcmp(source->nspace, pmix->me.nspace) == 0 ? (int64_t)source->rank
                                                                  : -1;
}

static void take_loss(struct pmix *pmix, int64_t rank)
{
    if (rank < 0) /* without its launcher this node is as good as gone */
        rank = pmix->exchange.node;
    pthread_mutex_lock(&pmix->lock);
    if (rank < pmix->exchange.n_nodes && !pmix->is_lost[rank]) {
        pmix->is_lost[rank] = true;
        pmix->n_lost++;
    }
    pthread_cond_broadcast(&pmix->changed);
    pthread_mutex_unlock(&pmix->lock);
}

static void on_event(size_t handler, pmix_status_t status, const pmix_proc_t *source,
                     pmix_info_t info[], size_t n_info, pmix_info_t *results,
                     size_t n_results, pmix_event_notification_cbfunc_fn_t done,
                     void *done_state)
{
    struct pmix *pmix = NULL;

    (void)handler;
    (void)status;
    (void)results;
    (void)n_results;
    for (size_t i = 0; i < n_info; i++)
        if (strcmp(info[i].key, PMIX_EVENT_RETURN_OBJECT) == 0)
            pmix = info[i].value.data.ptr;
    if (pmix)
        take_loss(pmix, affected_rank(pmix, source, info, n_info));
    if (done)
        done(PMIX_EVENT_ACTION_COMPLETE, NULL, 0, NULL, NULL, done_state);
}

/* ---- waiting for it ---- */

static void deadline_in(struct timespec *out, int64_t ms)
{
    clock_gettime(CLOCK_MONOTONIC, out);
    out->tv_sec += ms / 1000;
    out->tv_nsec += ms % 1000 * 1000000;
    if (out->tv_nsec >= 1000000000) {
        out->tv_sec++;
        out->tv_nsec -= 1000000000;
    }
}

/* A peer that is lost, -1: none. Under the lock. */
static int find_lost(const struct pmix *pmix)
{
    for (int i = 0; pmix->n_lost && i < pmix->exchange.n_nodes; i++)
        if (pmix->is_lost[i])
            return i;
    return -1;
}

/* Waits for a change, LOOK_MS at most. Under the lock. */
static void wait_change(struct pmix *pmix, int64_t left_ms)
{
    struct timespec deadline;

    deadline_in(&deadline, left_ms < LOOK_MS ? left_ms : LOOK_MS);
    pthread_cond_timedwait(&pmix->changed, &pmix->lock, &deadline);
}

/* Whether a node without PMIx waits for the others where they will not come. */
static bool is_split(struct pmix *pmix)
{
    bool is_there = false;

    pthread_mutex_unlock(&pmix->lock); /* a file system may take its time */
    if (pmix->folder)
        is_there = exchange_folder_is_met(pmix->folder, pmix->token);
    pthread_mutex_lock(&pmix->lock);
    return is_there;
}

/* Why the answer is not there. Under the lock. */
static int fail_unanswered(const struct pmix *pmix, bool is_split, int64_t timeout_ms,
                           const char *what, struct err *err)
{
    int lost = find_lost(pmix);

    if (lost >= 0)
        return err_set(err, ERR_PEER, "node %d is gone (PMIx: %s)", lost, what);
    if (is_split)
        return err_set(err, ERR_UNSUPPORTED, "PMIx does not work on every node");
    return err_set(err, ERR_TIMEOUT,
                   "not all of the %d nodes came within %.1f s (PMIx: %s), which ones "
                   "did not is in the launcher's messages",
                   pmix->exchange.n_nodes, (double)timeout_ms / 1000, what);
}

/* Returns once the answer is there, a peer is lost, a node meets elsewhere, or the time is
 * over. */
static int await(struct pmix *pmix, const struct answer *answer, int64_t timeout_ms,
                 const char *what, struct err *err)
{
    int64_t end_ms = clock_mono_ms() + timeout_ms, left_ms = timeout_ms;
    bool are_elsewhere = false;
    int rc;

    pthread_mutex_lock(&pmix->lock);
    while (!answer->is_there && !pmix->n_lost && !are_elsewhere && left_ms > 0) {
        wait_change(pmix, left_ms);
        left_ms = end_ms - clock_mono_ms();
        if (!answer->is_there && !pmix->n_lost)
            are_elsewhere = is_split(pmix);
    }
    if (!answer->is_there) {
        pmix->is_answering = false;
        rc = fail_unanswered(pmix, are_elsewhere, timeout_ms, what, err);
    } else {
        rc = answer->status == PMIX_SUCCESS ? 0 : fail(pmix, err, answer->status, what);
    }
    pthread_mutex_unlock(&pmix->lock);
    return rc;
}

/* ---- the exchange ---- */

static int pmix_put(struct exchange *exchange, const char *key, const char *value,
                    struct err *err)
{
    struct pmix *pmix = (struct pmix *)exchange;
    pmix_value_t it = {.type = PMIX_STRING};
    pmix_status_t status;

    if (texts_put(&pmix->texts, exchange->node, key, value, err) < 0)
        return -1;
    it.data.string = pmix->texts.newest->value; /* PMIx makes a copy */
    status = pmix->api.put(PMIX_GLOBAL, key, &it);
    return status == PMIX_SUCCESS ? 0 : fail(pmix, err, status, "put");
}

/* A fence that a lost peer cannot come to is not begun. */
static int check_peers(struct pmix *pmix, struct err *err)
{
    int lost;

    pthread_mutex_lock(&pmix->lock);
    lost = find_lost(pmix);
    pthread_mutex_unlock(&pmix->lock);
    return lost < 0 ? 0 : err_set(err, ERR_PEER, "node %d is gone (PMIx: fence)", lost);
}

static int pmix_fence(struct exchange *exchange, int64_t timeout_ms, struct err *err)
{
    struct pmix *pmix = (struct pmix *)exchange;
    pmix_info_t collect = {.key = PMIX_COLLECT_DATA,
                           .value = {.type = PMIX_BOOL, .data = {.flag = true}}};
    pmix_status_t status;

    if (check_peers(pmix, err) < 0)
        return -1;
    status = pmix->api.commit();
    if (status != PMIX_SUCCESS)
        return fail(pmix, err, status, "commit");
    if (!pmix->is_answering)
        return err_set(err, ERR_STATE, "an earlier fence has not ended");
    pmix->fence = (struct answer){0};
    status = pmix->api.fence_nb(NULL, 0, &collect, 1, on_fence, pmix);
    if (status == PMIX_OPERATION_SUCCEEDED)
        return 0;
    if (status != PMIX_SUCCESS)
        return fail(pmix, err, status, "fence");
    return await(pmix, &pmix->fence, timeout_ms, "fence", err);
}

static int pmix_get(struct exchange *exchange, int node, const char *key,
                    const char **value, struct err *err)
{
    struct pmix *pmix = (struct pmix *)exchange;
    pmix_proc_t from = pmix->me;
    /* only what the fence has brought: no asking of the node itself, which may be gone */
    pmix_info_t here = {.key = PMIX_OPTIONAL,
                        .value = {.type = PMIX_BOOL, .data = {.flag = true}}};
    pmix_value_t *it = NULL;
    pmix_status_t status;
    int rc;

    from.rank = (pmix_rank_t)node;
    *value = texts_find(&pmix->texts, node, key);
    if (*value)
        return 0;
    status = pmix->api.get(&from, key, &here, 1, &it);
    if (status != PMIX_SUCCESS || !it)
        return err_set(err, ERR_NOT_FOUND, "node %d has put no '%s' (PMIx: %s)", node,
                       key, pmix->api.error_string(status));
    if (it->type != PMIX_STRING)
        rc = err_set(err, ERR_FORMAT, "'%s' of node %d is no text", key, node);
    else
        rc = texts_put(&pmix->texts, node, key, it->data.string, err);
    if (it->type == PMIX_STRING)
        free(it->data.string);
    free(it);
    if (rc == 0)
        *value = pmix->texts.newest->value;
    return rc;
}

static int pmix_poll_lost(struct exchange *exchange)
{
    struct pmix *pmix = (struct pmix *)exchange;
    int found = -1;

    pthread_mutex_lock(&pmix->lock);
    for (int i = 0; pmix->n_lost && found < 0 && i < exchange->n_nodes; i++)
        if (pmix->is_lost[i] && !pmix->is_told[i])
            found = i;
    if (found >= 0)
        pmix->is_told[found] = true;
    pthread_mutex_unlock(&pmix->lock);
    return found;
}

static void pmix_close(struct exchange *exchange)
{
    struct pmix *pmix = (struct pmix *)exchange;

    /* After it nothing calls back any more, not even a fence that nobody came to. A server
     * that is gone costs 2 s here. */
    if (pmix->is_open)
        pmix->api.finalize(NULL, 0);
    /* the library stays loaded: its threads' clean-up is not safe against dlclose */
    texts_fini(&pmix->texts);
    pthread_cond_destroy(&pmix->changed);
    pthread_mutex_destroy(&pmix->lock);
    free(pmix->is_lost);
    free(pmix->is_told);
    free(pmix);
}

static const struct exchange_ops pmix_ops = {
    .name = "pmix",
    .put = pmix_put,
    .fence = pmix_fence,
    .get = pmix_get,
    .poll_lost = pmix_poll_lost,
    .close = pmix_close,
};

/* ---- opening ---- */

/* A number of the job (rank PMIX_RANK_WILDCARD) or of this process. */
static int read_number(struct pmix *pmix, bool is_of_job, const char *key, int *out,
                       struct err *err)
{
    pmix_proc_t of = pmix->me;
    pmix_value_t *it = NULL;
    pmix_status_t status;
    int rc = 0;

    if (is_of_job)
        of.rank = PMIX_RANK_WILDCARD;
    status = pmix->api.get(&of, key, NULL, 0, &it);
    if (status != PMIX_SUCCESS || !it)
        return fail(pmix, err, status, key);
    if (it->type == PMIX_UINT32)
        *out = (int)it->data.uint32;
    else if (it->type == PMIX_UINT16)
        *out = it->data.uint16;
    else
        rc = err_set(err, ERR_UNSUPPORTED, "PMIx: %s has a type of number %d", key,
                     it->type);
    free(it);
    return rc;
}

/* Where this node program is among the others. Servers that do not know who is on this
 * host leave it alone there. */
static int find_place(struct pmix *pmix, struct err *err)
{
    struct exchange *exchange = &pmix->exchange;
    struct err why;

    exchange->node = (int)pmix->me.rank;
    if (read_number(pmix, true, PMIX_JOB_SIZE, &exchange->n_nodes, err) < 0)
        return -1;
    if (exchange->n_nodes < 1 || exchange->n_nodes > EXCHANGE_NODES_MAX ||
        exchange->node < 0 || exchange->node >= exchange->n_nodes)
        return err_set(err, ERR_LIMIT,
                       "PMIx: process %d of %d; 1 to %d nodes are "
                       "possible",
                       exchange->node, exchange->n_nodes, EXCHANGE_NODES_MAX);
    if (read_number(pmix, false, PMIX_LOCAL_RANK, &exchange->local, &why) < 0 ||
        read_number(pmix, true, PMIX_LOCAL_SIZE, &exchange->n_local, &why) < 0) {
        exchange->local = 0;
        exchange->n_local = 1;
    }
    return 0;
}

/* Losses are told from here on. A server without events is no reason not to work. */
static void watch_peers(struct pmix *pmix)
{
    pmix_info_t self = {.key = PMIX_EVENT_RETURN_OBJECT,
                        .value = {.type = PMIX_POINTER, .data = {.ptr = pmix}}};
    pmix_status_t codes[sizeof(losses) / sizeof(losses[0])], status;
    struct err why;

    memcpy(codes, losses, sizeof(losses)); /* the call's are not const */
    status = pmix->api.register_handler(codes, sizeof(losses) / sizeof(losses[0]), &self,
                                        1, on_event, on_registered, pmix);
    /* above 0: registered at once, its number */
    if (status < 0 ||
        (status == PMIX_SUCCESS &&
         await(pmix, &pmix->registered, PMIX_REGISTER_MS, "events", &why) < 0))
        log_warn("PMIx tells of no lost nodes here: heartbeats will do");
}

static int pmix_begin(struct pmix *pmix, struct err *err)
{
    pmix_status_t status;

    if (pmix_api_open(&pmix->api, pmix->exchange.version, err) < 0)
        return -1;
    status = pmix->api.init(&pmix->me, NULL, 0);
    if (status != PMIX_SUCCESS)
        return err_set(err, ERR_UNSUPPORTED,
                       "no PMIx server answers: %s (%d); start with `srun --mpi=pmix` or "
                       "`mpirun`, or without PMIx (--exchange files)",
                       pmix->api.error_string(status), status);
    pmix->is_open = true;
    if (find_place(pmix, err) < 0)
        return -1;
    pmix->is_lost = calloc((size_t)pmix->exchange.n_nodes, sizeof(bool));
    pmix->is_told = calloc((size_t)pmix->exchange.n_nodes, sizeof(bool));
    if (!pmix->is_lost || !pmix->is_told)
        return err_set(err, ERR_NOMEM, "no memory for an exchange");
    watch_peers(pmix);
    return 0;
}

int exchange_open_pmix(struct exchange **out, const char *folder, const char *token,
                       struct err *err)
{
    struct pmix *pmix;
    pthread_condattr_t clock;

    if (!getenv("PMIX_NAMESPACE"))
        return err_set(err, ERR_UNSUPPORTED,
                       "this program was not started by a PMIx server: use `srun "
                       "--mpi=pmix` or `mpirun`, or go without PMIx (--exchange files)");
    pmix = calloc(1, sizeof(*pmix));
    if (!pmix)
        return err_set(err, ERR_NOMEM, "no memory for an exchange");
    pmix->exchange.ops = &pmix_ops;
    pmix->is_answering = true;
    pmix->folder = folder;
    pmix->token = token;
    pthread_mutex_init(&pmix->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&pmix->changed, &clock);
    pthread_condattr_destroy(&clock);
    if (pmix_begin(pmix, err) < 0) {
        pmix_close(&pmix->exchange);
        return -1;
    }
    *out = &pmix->exchange;
    return 0;
}

#else

int exchange_open_pmix(struct exchange **out, const char *folder, const char *token,
                       struct err *err)
{
    (void)out;
    (void)folder;
    (void)token;
    return err_set(
        err, ERR_UNSUPPORTED,
        "this build has no PMIx: build where libpmix-dev is installed, or start "
        "without PMIx (--exchange files)");
}

#endif
