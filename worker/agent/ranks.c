#include "worker/agent/ranks.h"

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/net/address.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define IPC_PREFIX "ipc://"
#define LOOPBACK "127.0.0.1"

void ranks_fini(struct ranks *ranks)
{
    while (ranks->n_children)
        child_destroy(ranks->children[--ranks->n_children]);
}

/* ---- starting ---- */

static struct child *find(const struct ranks *ranks, struct child_id id)
{
    for (int i = 0; i < ranks->n_children; i++) {
        struct child_id it = child_id(ranks->children[i]);

        if (it.job == id.job && it.attempt == id.attempt && it.rank == id.rank)
            return ranks->children[i];
    }
    return NULL;
}

static void remove_at(struct ranks *ranks, int i)
{
    child_destroy(ranks->children[i]);
    ranks->n_children--;
    ranks->children[i] = ranks->children[ranks->n_children];
}

/* Whether the rank's end is known here and not yet to the coordinator. */
static bool has_exit(const struct ranks *ranks, struct child_id id)
{
    for (int i = 0; i < link_n_waiting(ranks->link); i++) {
        const struct wire *message = link_waiting_at(ranks->link, i);

        if (message->type == MSG_RANK_EXIT && message->rank_exit.job == id.job &&
            message->rank_exit.attempt == id.attempt &&
            message->rank_exit.rank == id.rank)
            return true;
    }
    return false;
}

/* RANK_EXIT into the spool. There is room: SPOOL_RESERVED is more than AGENT_RANKS_MAX. */
static void put_exit(struct ranks *ranks, struct child_id id, int status,
                     const char *reason)
{
    struct wire message = {.type = MSG_RANK_EXIT}, owned;
    struct err err = {0};

    message.rank_exit =
        (struct msg_rank_exit){id.job, id.attempt, id.rank, status, reason};
    if (wire_clone(&owned, &message, &err) < 0 || link_put(ranks->link, &owned, &err) < 0)
        log_error("cannot report the end of rank %" PRId64 ": %s", id.rank, err.text);
}

/* Of a socket file the coordinator's network endpoint, which it writes beside it, if it has
 * one: else no other machine has ranks of its jobs. */
static const char *network_endpoint(const char *endpoint, char out[KEY_ENDPOINT_BYTES])
{
    char home[FS_PATH_MAX];

    if (strncmp(endpoint, IPC_PREFIX, strlen(IPC_PREFIX)) != 0)
        return endpoint;
    if (fs_parent(home, endpoint + strlen(IPC_PREFIX), NULL) < 0)
        return endpoint;
    return keys_read_endpoint(out, home, NULL) == 0 ? out : endpoint;
}

/* Asked for every rank that has peers: addresses come and go. Without one, loopback. */
static int find_address(const struct ranks *ranks, const struct msg_rank_start *start,
                        char out[NET_ADDRESS_BYTES], struct err *err)
{
    const struct agent_config *config = ranks->config;
    char network[KEY_ENDPOINT_BYTES];
    int rc = 0;

    snprintf(out, NET_ADDRESS_BYTES, LOOPBACK);
    if (start->n_ranks > 1)
        rc = config->address ? net_address_named(out, config->address, err)
                             : net_address_towards(
                                   out, network_endpoint(config->endpoint, network), err);
    if (rc < 0)
        snprintf(out, NET_ADDRESS_BYTES, LOOPBACK);
    return rc;
}

void ranks_start(struct ranks *ranks, const struct msg_rank_start *start)
{
    char address[NET_ADDRESS_BYTES];
    struct child_config config = {ranks->config->rank_program, ranks->config->host,
                                  address, ranks->config->n_devices};
    struct child_id id = {start->job, start->attempt, start->rank};
    struct err err = {0};

    if (find(ranks, id) || has_exit(ranks, id))
        return; /* the coordinator asks again after its own restart */
    if (find_address(ranks, start, address, &err) < 0)
        log_warn("%s: ranks of other hosts will not reach those here", err.text);
    if (ranks->n_children == AGENT_RANKS_MAX)
        err_set(&err, ERR_LIMIT, "the agent runs %d ranks already", AGENT_RANKS_MAX);
    else if (child_start(&ranks->children[ranks->n_children], &config, start, &err) ==
             0) {
        log_info("job %" PRId64 " attempt %" PRId64 " rank %" PRId64 ": process %d",
                 id.job, id.attempt, id.rank,
                 (int)child_pid(ranks->children[ranks->n_children]));
        ranks->n_children++;
        return;
    }
    log_error("cannot start rank %" PRId64 " of job %" PRId64 ": %s", id.rank, id.job,
              err.text);
    put_exit(ranks, id, 127, err.text);
}

/* ---- telling them ---- */

/* To every rank of the attempt here. One that cannot take it is stuck, and is killed. */
void ranks_forward(struct ranks *ranks, int64_t job, int64_t attempt,
                   const struct wire *message)
{
    for (int i = 0; i < ranks->n_children; i++) {
        struct child *child = ranks->children[i];
        struct err err = {0};

        if (child_id(child).job != job || child_id(child).attempt != attempt)
            continue;
        if (child_send(child, message, &err) < 0) {
            log_error("%s", err.text);
            child_stop(child, 0, clock_mono_ms());
        }
    }
}

void ranks_stop(struct ranks *ranks, const struct msg_rank_stop *stop)
{
    for (int i = 0; i < ranks->n_children; i++) {
        struct child_id id = child_id(ranks->children[i]);

        if (id.job == stop->job && id.attempt == stop->attempt &&
            (stop->rank < 0 || id.rank == stop->rank))
            child_stop(ranks->children[i], stop->grace_ms, clock_mono_ms());
    }
}

void ranks_stop_all(struct ranks *ranks, int64_t grace_ms, int64_t now_ms)
{
    for (int i = 0; i < ranks->n_children; i++)
        child_stop(ranks->children[i], grace_ms, now_ms);
}

/* ---- hearing them ---- */

/* One message of a rank. It may only speak for itself. */
static void take_report(struct ranks *ranks, struct child *child, struct wire *message)
{
    struct err err = {0};
    int rc = 0;

    switch (message->type) {
    case MSG_RANK_READY:
        rc = child_set_endpoint(child, message->rank_ready.endpoint, &err);
        link_report(ranks->link, message);
        break;
    case MSG_PROGRESS:
        link_report(ranks->link, message);
        break;
    case MSG_TASK_DONE:
    case MSG_TASK_FAILED:
        rc = link_put(ranks->link, message, &err);
        break;
    default:
        rc = err_set(&err, ERR_PEER, "a rank sent %s", msg_type_name(message->type));
        wire_fini(message);
    }
    if (rc < 0)
        log_error("rank %" PRId64 ": %s", child_id(child).rank, err.text);
}

/* All that is there, unless the spool is full: then the rank waits. */
static void read_reports(struct ranks *ranks, struct child *child)
{
    struct wire message;
    struct err err = {0};
    int rc;

    while (!link_is_full(ranks->link) &&
           (rc = child_receive(child, &message, &err)) != 0) {
        if (rc > 0) {
            take_report(ranks, child, &message);
            continue;
        }
        log_error("rank %" PRId64 ": %s", child_id(child).rank, err.text);
        child_stop(child, 0, clock_mono_ms());
    }
}

static bool read_log(struct ranks *ranks, struct child *child)
{
    struct buf piece = BUF_INIT;
    struct child_id id = child_id(child);
    bool is_more = child_log_read(child_get_log(child), &piece, clock_mono_ms());

    if (piece.n_bytes) {
        struct wire message = {.type = MSG_LOG}, owned;
        struct err err = {0};

        message.log =
            (struct msg_log){id.job, id.attempt, id.rank, {piece.data, piece.n_bytes}};
        if (wire_clone(&owned, &message, &err) == 0)
            link_report(ranks->link, &owned);
    }
    buf_fini(&piece);
    return is_more;
}

void ranks_take_reports(struct ranks *ranks)
{
    for (int i = 0; i < ranks->n_children; i++) {
        read_reports(ranks, ranks->children[i]);
        read_log(ranks, ranks->children[i]);
    }
}

void ranks_reap(struct ranks *ranks)
{
    for (int i = ranks->n_children - 1; i >= 0; i--) {
        struct child *child = ranks->children[i];
        char reason[CHILD_LOG_LINE_MAX];
        int status;

        if (!child_reap(child, &status))
            continue;
        read_reports(ranks, child);
        while (read_log(ranks, child))
            ;
        snprintf(reason, sizeof(reason), "%s",
                 child_log_last_error(child_get_log(child)));
        if (!reason[0] && status > 128)
            snprintf(reason, sizeof(reason), "killed by signal %d (%s)", status - 128,
                     strsignal(status - 128));
        log_info("job %" PRId64 " attempt %" PRId64 " rank %" PRId64 " ended: %d%s%s",
                 child_id(child).job, child_id(child).attempt, child_id(child).rank,
                 status, reason[0] ? ", " : "", reason);
        put_exit(ranks, child_id(child), status, reason);
        remove_at(ranks, i);
    }
}

/* ---- telling of them ---- */

static void list_rank(struct buf *out, struct child_id id)
{
    buf_printf(out,
               "%s{\"job\":%" PRId64 ",\"attempt\":%" PRId64 ",\"rank\":%" PRId64 "}",
               out->n_bytes > 1 ? "," : "", id.job, id.attempt, id.rank);
}

void ranks_list(const struct ranks *ranks, struct buf *out)
{
    buf_add_char(out, '[');
    for (int i = 0; i < ranks->n_children; i++)
        list_rank(out, child_id(ranks->children[i]));
    for (int i = 0; i < link_n_waiting(ranks->link); i++) {
        const struct wire *message = link_waiting_at(ranks->link, i);

        if (message->type == MSG_RANK_EXIT)
            list_rank(out, (struct child_id){message->rank_exit.job,
                                             message->rank_exit.attempt,
                                             message->rank_exit.rank});
    }
    buf_add_char(out, ']');
}

/* RANK_READY is not durable: a coordinator that died on it is told again. */
void ranks_tell_ready(struct ranks *ranks)
{
    for (int i = 0; i < ranks->n_children; i++) {
        struct child_id id = child_id(ranks->children[i]);
        const char *endpoint = child_endpoint(ranks->children[i]);
        struct wire message = {.type = MSG_RANK_READY};

        if (!endpoint)
            continue;
        message.rank_ready = (struct msg_rank_ready){
            id.job, id.attempt, id.rank, endpoint, child_pid(ranks->children[i])};
        link_report(ranks->link, &message);
    }
}

void ranks_tell_stages(struct ranks *ranks)
{
    for (int i = 0; i < ranks->n_children; i++) {
        const struct child *child = ranks->children[i];
        struct child_id id = child_id(child);
        struct wire message = {.type = MSG_RANK_STAGE}, owned;
        struct stage_now stage;
        struct err err;

        child_stage(child, &stage);
        message.rank_stage = (struct msg_rank_stage){
            .job = id.job,
            .attempt = id.attempt,
            .rank = id.rank,
            .stage = stage.text,
            .for_ms = (clock_mono_ns() - stage.since_ns) / 1000000,
            .limit_ms = stage.limit_ms,
            .step = stage.step,
            .memory_bytes = child_memory_bytes(child),
        };
        if (wire_clone(&owned, &message, &err) == 0)
            link_report(ranks->link, &owned);
    }
}

/* ---- waiting ---- */

void ranks_tick(struct ranks *ranks, int64_t now_ms)
{
    for (int i = 0; i < ranks->n_children; i++)
        child_tick(ranks->children[i], now_ms);
}

int64_t ranks_next_ms(const struct ranks *ranks)
{
    int64_t due_ms = INT64_MAX;

    for (int i = 0; i < ranks->n_children; i++)
        if (child_next_ms(ranks->children[i]) < due_ms)
            due_ms = child_next_ms(ranks->children[i]);
    return due_ms;
}

int ranks_poll(const struct ranks *ranks, struct pollfd out[2 * AGENT_RANKS_MAX])
{
    bool is_full = link_is_full(ranks->link);
    int n = 0;

    for (int i = 0; i < ranks->n_children; i++) {
        out[n++] = (struct pollfd){.fd = is_full ? -1 : child_fd(ranks->children[i]),
                                   .events = POLLIN};
        out[n++] = (struct pollfd){.fd = child_log_fd(child_get_log(ranks->children[i])),
                                   .events = POLLIN};
    }
    return n;
}
