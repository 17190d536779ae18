/* Who keeps whom: collectives on their way, what they take, and how a wait for one ends. */
#include "model/comm/nccl_group.h"

#include "common/base/clock.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SETTLE_FAST_NS 300000 /* NCCL takes most calls sooner: no pause between looks */
#define POLL_NS 50000
#define DRAIN_NS 5000000000 /* for what is left on the streams after an abort */
/* A collective that the device has not even begun is blamed only after so many times the
 * limit: what it stands behind is more likely at fault. */
#define LATE_TIMES 2
#define MISSING_MAX 160
#define BLAME_MAX (MISSING_MAX + 16)
#define WHAT_MAX 80

/* ---- failures ---- */

/* Waits until the streams are through, for a while: an abort's flag lets kernels end. */
static void drain(const struct nccl_set *set)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};
    const cudaStream_t streams[] = {set->stream, set->beside};
    int64_t begun_ns = clock_mono_ns();

    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++)
        while (streams[i] && cudaStreamQuery(streams[i]) == cudaErrorNotReady &&
               clock_mono_ns() - begun_ns < DRAIN_NS)
            nanosleep(&pause, NULL);
    cudaGetLastError(); /* not to be ready is no error, but kept as one */
}

/* Flags of all are set before the first is waited for: an abort waits for work on streams that
 * another's may hold up. In a group of calls NCCL sets an abort's flag at once and waits at the
 * group's end, for all at the same time (from 2.22 on: src/init.cc, ncclCommAbort, and
 * src/group.cc; before, in the call itself). It waits for graphs too, until CUDA has told it
 * that they are gone (commDestroySync): so they go in between, when they have ended. Of one
 * that has not, CUDA says that it is freed when it has (cuGraphExecDestroy). */
void nccl_abort_all(struct nccl_set *set)
{
    const struct nccl_api *api = set->n > 0 ? &set->groups[0]->api : NULL;

    if (!api)
        return;
    if (set->recording) { /* the stream takes no end of work then */
        nccl_record_fail(set->recording);
        return;
    }
    api->group_start();
    for (int i = 0; i < set->n; i++) {
        if (set->groups[i]->comm)
            api->abort(set->groups[i]->comm);
        set->groups[i]->comm = NULL;
    }
    drain(set);
    set->forget_graphs(set->state);
    api->group_end();
}

int nccl_check_open(const struct nccl_group *group, struct err *err)
{
    if (group->comm)
        return 0;
    return err_set(err, ERR_STATE, "group '%s' was given up after an earlier error",
                   group->args.name);
}

static const char *last_words(const struct nccl_group *group, ncclResult_t result)
{
    const char *text = group->comm ? group->api.last_error(group->comm) : NULL;

    return text && *text ? text : group->api.error_string(result);
}

/* Who is to blame, as well as it is known here. */
static void name_missing(const struct nccl_group *group, uint64_t number, char *out,
                         size_t n_bytes)
{
    char who[MISSING_MAX];

    if (!group->base.slot ||
        group->args.name_missing(group->args.group, number, who, sizeof(who)) < 0)
        snprintf(out, n_bytes, "of ranks 0 to %d, one or more did not come",
                 group->args.n_ranks - 1);
    else if (!who[0])
        snprintf(out, n_bytes, "all ranks have asked for it, not all devices came to it");
    else
        snprintf(out, n_bytes, "not there: %s", who);
}

/* "all-reduce number 7", "recorded collectives number 7 to 22" */
static void describe(const struct nccl_mark *mark, const struct nccl_group *group,
                     char *out, size_t n_bytes)
{
    unsigned long long last = (unsigned long long)mark->number;
    int64_t n = mark->stretch ? nccl_stretch_count(mark->stretch, group) : 1;

    if (n > 1)
        snprintf(out, n_bytes, "recorded collectives number %llu to %llu",
                 last - (unsigned long long)(n - 1), last);
    else
        snprintf(out, n_bytes, "%s number %llu", mark->what, last);
}

/* The group is of no use any more. */
static int fail(struct nccl_group *group, ncclResult_t result,
                const struct nccl_mark *mark, struct err *err)
{
    const struct comm_device_args *args = &group->args;
    bool is_peer = result == ncclRemoteError || result == ncclSystemError;
    const char *words = last_words(group, result);
    enum err_code code = is_peer ? ERR_PEER : ERR_IO;
    char who[BLAME_MAX], what[WHAT_MAX];

    if (strstr(words, "out of memory")) /* NCCL takes its own, beside the backend's */
        code = ERR_NOMEM;
    name_missing(group, mark->number, who, sizeof(who));
    describe(mark, group, what, sizeof(what));
    err_set(err, code, "group '%s', %s between devices: rank %d of %d %s: %s (%s)",
            args->name, what, args->rank, args->n_ranks,
            code == ERR_NOMEM ? "has no memory for it" : "lost the others", words, who);
    nccl_abort_all(group->set);
    return -1;
}

static int fail_late(struct nccl_group *group, int64_t waited_ms,
                     const struct nccl_mark *mark, struct err *err)
{
    const struct comm_device_args *args = &group->args;
    char who[BLAME_MAX], what[WHAT_MAX];

    name_missing(group, mark->number, who, sizeof(who));
    describe(mark, group, what, sizeof(what));
    err_set(err, ERR_TIMEOUT,
            "group '%s', %s of %zu bytes between devices: rank %d of %d waited "
            "%lld ms in vain%s; %s; the last that ended here is number %llu",
            args->name, what, mark->n_bytes, args->rank, args->n_ranks,
            (long long)waited_ms,
            mark->has_begun ? "" : ", its device did not come to it", who,
            (unsigned long long)group->last_done);
    nccl_abort_all(group->set);
    return -1;
}

int nccl_settle(struct nccl_group *group, ncclResult_t result,
                const struct nccl_mark *mark, struct err *err)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};
    int64_t begun_ns = clock_mono_ns(), waited_ns = 0;

    while (result == ncclInProgress && waited_ns <= group->args.timeout_ms * 1000000) {
        ncclResult_t asked = group->api.async_error(group->comm, &result);

        if (asked != ncclSuccess)
            result = asked;
        if (result == ncclInProgress && waited_ns < SETTLE_FAST_NS)
            sched_yield();
        else if (result == ncclInProgress)
            nanosleep(&pause, NULL);
        waited_ns = clock_mono_ns() - begun_ns;
    }
    if (result == ncclInProgress)
        return fail_late(group, waited_ns / 1000000, mark, err);
    return result == ncclSuccess ? 0 : fail(group, result, mark, err);
}

/* ---- marks ---- */

/* True when the stream has passed the event. */
static bool is_past(cudaEvent_t event, cudaError_t *error)
{
    *error = cudaEventQuery(event);
    if (*error == cudaErrorNotReady) {
        cudaGetLastError(); /* no error, but kept as one */
        *error = cudaSuccess;
        return false;
    }
    return *error == cudaSuccess;
}

static void note_done(struct nccl_group *group, const struct nccl_mark *mark)
{
    float ms = 0;

    if (mark->stretch)
        group->total_ns += nccl_stretch_ns(mark->stretch, group);
    else if (mark->is_counted &&
             cudaEventElapsedTime(&ms, mark->begin, mark->end) == cudaSuccess)
        group->total_ns += (int64_t)((double)ms * 1e6);
    group->progress_ns = clock_mono_ns();
    group->last_done = mark->number;
    group->first_mark = (group->first_mark + 1) % NCCL_MARKS;
    group->n_marks--;
}

int nccl_drop_done(struct nccl_group *group, struct err *err)
{
    while (group->n_marks > 0) {
        struct nccl_mark *mark = &group->marks[group->first_mark];
        cudaError_t error;

        if (is_past(mark->end, &error)) {
            note_done(group, mark);
            continue;
        }
        if (error == cudaSuccess && !mark->has_begun && is_past(mark->begin, &error)) {
            mark->has_begun = true;
            group->progress_ns = clock_mono_ns();
        }
        if (error != cudaSuccess)
            return err_set(err, ERR_IO, "group '%s', %s number %llu between devices: %s",
                           group->args.name, mark->what, (unsigned long long)mark->number,
                           cudaGetErrorString(error));
        return 0;
    }
    return 0;
}

struct nccl_mark *nccl_newest_mark(struct nccl_group *group)
{
    return &group->marks[(group->first_mark + group->n_marks - 1) % NCCL_MARKS];
}

int nccl_mark_begin(struct nccl_group *group, struct nccl_mark **out, cudaStream_t stream,
                    struct err *err)
{
    bool is_shared;
    struct nccl_mark *mark;

    if (nccl_drop_done(group, err) < 0)
        return -1;
    is_shared = group->n_marks == NCCL_MARKS;
    group->n_marks += !is_shared;
    mark = nccl_newest_mark(group);
    mark->is_counted = !is_shared && stream == group->set->stream;
    mark->stretch = NULL;
    *out = mark;
    if (is_shared)
        return 0;
    mark->has_begun = false;
    if (cudaEventRecord(mark->begin, stream) == cudaSuccess)
        return 0;
    group->n_marks--;
    return err_set(err, ERR_IO, "group '%s': cannot record an event", group->args.name);
}

int nccl_mark_end(struct nccl_group *group, struct nccl_mark *mark, cudaStream_t stream,
                  struct err *err)
{
    if (cudaEventRecord(mark->end, stream) == cudaSuccess)
        return 0;
    return err_set(err, ERR_IO, "group '%s', %s number %llu: cannot record an event",
                   group->args.name, mark->what, (unsigned long long)mark->number);
}

/* ---- watching ---- */

static int watch_group(struct nccl_group *group, int64_t waiting_since_ns,
                       struct err *err)
{
    const struct nccl_mark *mark;
    ncclResult_t result = ncclSuccess, asked;
    int64_t since_ns, waited_ms, limit_ms = group->args.timeout_ms;

    if (!group->comm)
        return 0; /* it was told; what is left on the streams ends by itself */
    if (nccl_drop_done(group, err) < 0)
        return -1;
    if (group->n_marks == 0)
        return 0;
    mark = &group->marks[group->first_mark];
    asked = group->api.async_error(group->comm, &result);
    if (asked != ncclSuccess)
        result = asked;
    if (result != ncclSuccess && result != ncclInProgress)
        return fail(group, result, mark, err);
    since_ns =
        group->progress_ns > waiting_since_ns ? group->progress_ns : waiting_since_ns;
    waited_ms = (clock_mono_ns() - since_ns) / 1000000;
    if (waited_ms > (mark->has_begun ? limit_ms : LATE_TIMES * limit_ms))
        return fail_late(group, waited_ms, mark, err);
    return 0;
}

int nccl_watch(struct nccl_set *set, int64_t waiting_since_ns, struct err *err)
{
    if (set->n)
        set->groups[0]->args.note_sign();
    for (int i = 0; i < set->n; i++)
        if (watch_group(set->groups[i], waiting_since_ns, err) < 0)
            return -1;
    return 0;
}

struct nccl_group *nccl_begin_wait(struct nccl_set *set)
{
    for (int i = 0; i < set->n; i++) {
        struct nccl_group *group = set->groups[i];

        if (group->n_marks == 0 || !group->base.slot)
            continue;
        group->args.note_wait(group->args.group, true);
        return group;
    }
    return NULL;
}

void nccl_end_wait(struct nccl_group *group)
{
    group->args.note_wait(group->args.group, false);
}
