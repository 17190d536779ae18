/* vneva logs: what a rank wrote, as it comes. */
#include "jobs/client/client.h"

#include <inttypes.h>

#define LOGS_BYTES (256 << 10) /* asked for at once */

static int ask_chunk(struct client *client, const struct msg_logs *wanted,
                     struct wire *reply, struct err *err)
{
    struct wire request = {.type = MSG_LOGS, .logs = *wanted};

    if (client_call(client, &request, reply, err) < 0)
        return -1;
    if (reply->type == MSG_LOG_CHUNK)
        return 0;
    err_set(err, ERR_PEER, "the coordinator answers %s to a question for logs",
            msg_type_name(reply->type));
    wire_fini(reply);
    return -1;
}

enum { CHUNK_MORE, CHUNK_END, CHUNK_INTERRUPTED };

/* Prints one chunk and says what comes after it; -1: error. */
static int print_chunk(struct client *client, struct msg_logs *at, bool is_following,
                       size_t *n_printed, struct err *err)
{
    struct wire reply = {.type = MSG_NONE};
    size_t n_bytes;
    bool is_end;

    if (ask_chunk(client, at, &reply, err) < 0)
        return -1;
    if (at->attempt && reply.log_chunk.attempt != at->attempt)
        fprintf(client->err, "== attempt %" PRId64 " ==\n", reply.log_chunk.attempt);
    n_bytes = reply.log_chunk.data.n_bytes;
    fwrite(reply.log_chunk.data.data, 1, n_bytes, client->out);
    fflush(client->out);
    at->attempt = reply.log_chunk.attempt;
    at->offset = reply.log_chunk.next;
    *n_printed += n_bytes;
    is_end = reply.log_chunk.is_end != 0;
    wire_fini(&reply);
    if (n_bytes)
        return CHUNK_MORE;
    if (is_end || !is_following)
        return CHUNK_END;
    return client_pause(client->poll_ms) ? CHUNK_INTERRUPTED : CHUNK_MORE;
}

/* Nothing was written: because there is no such rank? */
static int check_rank(struct client *client, const struct msg_logs *at, struct err *err)
{
    struct json *row;
    int64_t n_ranks;

    if (at->rank < 0)
        return 0;
    if (client_get_job(client, &row, at->job, err) < 0)
        return -1;
    n_ranks = json_get_int(row, "n_ranks", 0);
    json_free(row);
    if (n_ranks == 0 || at->rank < n_ranks)
        return 0;
    return err_set(err, ERR_NOT_FOUND,
                   "job %" PRId64 " has no rank %" PRId64 ": its attempts have %" PRId64
                   ", from 0",
                   at->job, at->rank, n_ranks);
}

int cmd_logs(struct client *client, const struct args *args)
{
    struct msg_logs at = {.max_bytes = LOGS_BYTES};
    bool is_following = args_has(args, "follow");
    size_t n_printed = 0;
    struct err err;
    int rc;

    if (client_read_job(args->words[0], &at.job, &err) < 0 ||
        args_int(args, "rank", -1, 65535, 0, &at.rank, &err) < 0 ||
        args_int(args, "attempt", 1, INT64_MAX, 0, &at.attempt, &err) < 0)
        return client_fail(client, &err);
    if (is_following)
        client_catch_interrupt();
    do
        rc = print_chunk(client, &at, is_following, &n_printed, &err);
    while (rc == CHUNK_MORE);
    if (rc == CHUNK_END && n_printed == 0)
        rc = check_rank(client, &at, &err);
    if (rc == CHUNK_INTERRUPTED) {
        fprintf(client->err, "the job goes on\n");
        return EXIT_INTERRUPTED;
    }
    return rc < 0 ? client_fail(client, &err) : EXIT_DONE;
}
