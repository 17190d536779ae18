#include "coordinator/reactor.h"
#include "common/base/clock.h"
#include "common/base/log.h"

#include <string.h>

#define RECEIVE_MAX 1000    /* messages of one turn */
#define TICK_MS 100         /* longest wait: timers and retries are this exact */
#define LAZY_MS 200         /* how long writes nobody waits for may wait for others */
#define ENDING_MS 10000     /* for ranks to end after SHUTDOWN, beyond their grace */
#define SEEN_MS 300         /* after the last has ended: whoever watches sees how */
#define SAME_ERROR_MS 10000 /* between two log lines that say the same */

struct reactor {
    struct core *core;
    struct net_server *server;
    unsigned keys_version; /* of the keys that the agents were last checked against */
    int64_t first_write_mono_ms; /* of the open transaction; 0: none */
    int64_t ending_mono_ms;      /* since when; 0: not ending */
    int64_t open_mono_ms;        /* when an attempt was last seen that had not ended */
    struct err last_error;
    int64_t last_error_mono_ms;
};

static void phase_receive(struct reactor *reactor)
{
    struct core *core = reactor->core;
    int64_t timeout_ms = queries_wait_ms(core->queries, TICK_MS);
    struct net_peer from;
    struct wire message;
    struct err err;

    for (int n = 0; n < RECEIVE_MAX; n++, timeout_ms = 0) {
        int rc = net_server_receive(reactor->server, &from, &message, timeout_ms, &err);

        core->wall_ms = clock_wall_ms();
        core->mono_ms = clock_mono_ms();
        if (rc < 0)
            log_error("%s", err.text);
        if (rc <= 0)
            return;
        core_receive(core, &from, &message);
        wire_fini(&message);
    }
}

static void phase_keys(struct reactor *reactor)
{
    unsigned version = net_server_keys_version(reactor->server);

    if (version == reactor->keys_version)
        return;
    reactor->keys_version = version;
    agents_check_keys(reactor->core, reactor->server);
}

/* An answer makes what it tells of durable first; the rest waits a little for company. */
static bool is_commit_due(struct reactor *reactor)
{
    struct core *core = reactor->core;

    if (!store_has_writes(core->store))
        return false;
    if (!reactor->first_write_mono_ms)
        reactor->first_write_mono_ms = core->mono_ms;
    return core->outbox.count > 0 ||
           core->mono_ms - reactor->first_write_mono_ms >= LAZY_MS;
}

static void report(struct reactor *reactor, const struct err *err)
{
    int64_t now_ms = reactor->core->mono_ms;

    if (strcmp(err->text, reactor->last_error.text) == 0 &&
        now_ms - reactor->last_error_mono_ms < SAME_ERROR_MS)
        return;
    log_error("nothing of this turn is kept: %s", err->text);
    reactor->last_error = *err;
    reactor->last_error_mono_ms = now_ms;
}

/* 1: committed or nothing to do; 0: failed, and the model is as the store has it. */
static int phase_commit(struct reactor *reactor, struct err *err)
{
    struct core *core = reactor->core;
    struct err why;

    if (outbox_check(&core->outbox, &why) < 0)
        store_fail(core->store, &why);
    if (!is_commit_due(reactor))
        return 1;
    reactor->first_write_mono_ms = 0;
    if (store_commit(core->store, &why) == 0)
        return 1;
    report(reactor, &why);
    err_wrap(&why, "the coordinator cannot store it");
    outbox_refuse(&core->outbox, reactor->server, &why);
    return core_recover(core, err) < 0 ? -1 : 0;
}

static void phase_send(struct reactor *reactor)
{
    struct err err;

    if (outbox_send(&reactor->core->outbox, reactor->server, &err) < 0)
        log_error("%s", err.text);
    model_sweep(&reactor->core->model);
}

/* What pools have decided becomes calls only when nothing of it can be lost any more. */
static void phase_act(struct reactor *reactor)
{
    if (!store_has_writes(reactor->core->store))
        pools_act(reactor->core);
}

/* Answers tell of what was committed before, so they wait for no commit. */
static void phase_answer(struct reactor *reactor)
{
    queries_send(reactor->core->queries, reactor->server);
}

/* After SHUTDOWN: all attempts have ended, or had time to. */
static bool is_over(struct reactor *reactor)
{
    struct core *core = reactor->core;

    if (!core->is_ending)
        return false;
    if (!reactor->ending_mono_ms)
        reactor->ending_mono_ms = reactor->open_mono_ms = core->mono_ms;
    if (core->mono_ms - reactor->ending_mono_ms >=
        core->ending_grace_ms + core->ending_linger_ms + ENDING_MS)
        return true;
    if (!pools_are_quiet(core))
        return false;
    for (size_t i = 0; i < core->model.n_jobs; i++)
        if (job_count_open(core->model.jobs[i])) {
            reactor->open_mono_ms = core->mono_ms;
            return false;
        }
    return core->mono_ms - reactor->open_mono_ms >=
           (core->ending_linger_ms > SEEN_MS ? core->ending_linger_ms : SEEN_MS);
}

int reactor_run(struct core *core, struct net_server *server,
                const volatile sig_atomic_t *stop, struct err *err)
{
    struct reactor reactor = {.core = core, .server = server};
    int rc;

    while (!*stop && !is_over(&reactor)) {
        phase_receive(&reactor);
        phase_keys(&reactor);
        pools_poll(core);
        core_timers(core);
        core_decide(core);
        rc = phase_commit(&reactor, err);
        if (rc < 0)
            return -1;
        if (rc > 0) {
            phase_send(&reactor);
            phase_act(&reactor);
        }
        phase_answer(&reactor);
    }
    /* What still waits for company; there is nobody left to tell of a failure. */
    return store_has_writes(core->store) ? store_commit(core->store, err) : 0;
}
