#include "tests/integration/worker_gang.h"

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/json.h"
#include "common/net/secret.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GANG_JOB 1
#define ENDPOINT_MAX 128

/* ---- receiving ---- */

static void note_end(struct gang *gang, int r)
{
    struct buf piece = BUF_INIT;

    while (child_log_read(child_get_log(gang->ranks[r]), &piece, clock_mono_ms()))
        ;
    if (getenv("VNEVA_TEST_VERBOSE"))
        fputs(buf_str(&piece), stderr);
    buf_fini(&piece);
    gang->has_ended[r] = true;
    snprintf(gang->reasons[r], sizeof(gang->reasons[r]), "%s",
             child_log_last_error(child_get_log(gang->ranks[r])));
}

/* One message of any rank; false when there is none now. Ends are noted. */
static bool gang_poll(struct gang *gang, struct wire *message)
{
    for (int r = 0; r < gang->n_ranks; r++) {
        struct buf piece = BUF_INIT;
        struct err err = {0};
        int rc;

        if (gang->has_ended[r])
            continue;
        child_log_read(child_get_log(gang->ranks[r]), &piece, clock_mono_ms());
        if (getenv("VNEVA_TEST_VERBOSE"))
            fputs(buf_str(&piece), stderr);
        buf_fini(&piece);
        rc = child_receive(gang->ranks[r], message, &err);
        if (rc < 0)
            fail_msg("rank %d: %s", r, err.text);
        if (rc > 0)
            return true;
        if (child_reap(gang->ranks[r], &gang->statuses[r])) {
            if (child_receive(gang->ranks[r], message, &err) > 0) {
                note_end(gang, r);
                return true;
            }
            note_end(gang, r);
        }
    }
    return false;
}

static bool all_ended(const struct gang *gang)
{
    for (int r = 0; r < gang->n_ranks; r++)
        if (!gang->has_ended[r])
            return false;
    return true;
}

static void keep_metrics(struct gang *gang, const struct wire *message)
{
    if (message->type == MSG_PROGRESS && message->progress.step >= 0)
        buf_printf(&gang->metrics, "%s\n", message->progress.metrics);
}

/* The next message of one of two types; false when all ranks have ended. */
static bool gang_expect(struct gang *gang, enum msg_type a, enum msg_type b,
                        struct wire *message)
{
    int64_t end_ms = clock_mono_ms() + GANG_DEADLINE_MS;

    while (clock_mono_ms() < end_ms) {
        if (!gang_poll(gang, message)) {
            if (all_ended(gang))
                return false;
            poll(NULL, 0, 5);
            continue;
        }
        if (message->type == a || message->type == b)
            return true;
        keep_metrics(gang, message);
        wire_fini(message);
    }
    fail_msg("%s did not come in time", msg_type_name(a));
    return false;
}

/* ---- starting ---- */

static void gang_send(struct gang *gang, const struct wire *message)
{
    struct err err = {0};

    for (int r = 0; r < gang->n_ranks; r++)
        if (!gang->has_ended[r])
            child_send(gang->ranks[r], message, &err); /* one may just have died */
}

/* Collects RANK_READY of all, sends PEERS. */
static void gang_introduce(struct gang *gang)
{
    struct json *list;
    char endpoints[GANG_RANKS_MAX][ENDPOINT_MAX];
    struct wire message, peers = {.type = MSG_PEERS};
    struct buf text = BUF_INIT;
    struct err err = {0};

    for (int i = 0; i < gang->n_ranks; i++) {
        if (!gang_expect(gang, MSG_RANK_READY, MSG_RANK_READY, &message))
            return; /* the test will see the exits */
        assert_in_range(message.rank_ready.rank, 0, gang->n_ranks - 1);
        snprintf(endpoints[message.rank_ready.rank], ENDPOINT_MAX, "%s",
                 message.rank_ready.endpoint);
        wire_fini(&message);
    }
    list = json_new(JSON_ARRAY);
    for (int i = 0; i < gang->n_ranks; i++)
        json_append(list, json_new_string(endpoints[i]), &err);
    json_write(&text, list, 0);
    peers.peers = (struct msg_peers){GANG_JOB, gang->attempt, buf_str(&text)};
    gang_send(gang, &peers);
    buf_fini(&text);
    json_free(list);
}

void gang_start(struct gang *gang, const char *folder, const char *kind, const char *spec,
                int n_ranks, int64_t attempt, const char *resume,
                const char *const *hosts)
{
    static const char secret[NET_SECRET_BYTES] = "of this gang";
    char program[FS_PATH_MAX];
    struct err err = {0};

    *gang = (struct gang){.n_ranks = n_ranks, .attempt = attempt};
    assert_int_equal(fs_make_dirs(folder, 0755, &err), 0);
    assert_int_equal(fs_path(program, &err, "%s/vneva-rank", getenv("VNEVA_BIN")), 0);
    for (int r = 0; r < n_ranks; r++) {
        struct child_config config = {program, hosts ? hosts[r] : "here", "127.0.0.1",
                                      n_ranks};
        struct msg_rank_start start = {.job = GANG_JOB,
                                       .attempt = attempt,
                                       .rank = r,
                                       .n_ranks = n_ranks,
                                       .device = r,
                                       .kind = kind,
                                       .name = "test",
                                       .spec = spec,
                                       .folder = folder,
                                       .resume = resume,
                                       .secret = {secret, sizeof(secret)}};

        if (child_start(&gang->ranks[r], &config, &start, &err) < 0)
            fail_msg("%s", err.text);
    }
    gang_introduce(gang);
}

void gang_fini(struct gang *gang)
{
    for (int r = 0; r < gang->n_ranks; r++)
        child_destroy(gang->ranks[r]);
    buf_fini(&gang->metrics);
    *gang = (struct gang){0};
}

/* ---- leases ---- */

int64_t gang_lease(struct gang *gang, const char *phase, int64_t first, int64_t count,
                   const char *args)
{
    struct wire message = {.type = MSG_TASK_START};

    message.task_start = (struct msg_task_start){.job = GANG_JOB,
                                                 .attempt = gang->attempt,
                                                 .task = ++gang->next_task,
                                                 .phase = phase,
                                                 .first = first,
                                                 .count = count,
                                                 .args = args};
    gang_send(gang, &message);
    return gang->next_task;
}

int gang_answer(struct gang *gang, struct buf *out)
{
    struct wire message;
    bool is_done;

    if (!gang_expect(gang, MSG_TASK_DONE, MSG_TASK_FAILED, &message))
        return -1;
    is_done = message.type == MSG_TASK_DONE;
    buf_add_str(out, is_done ? message.task_done.result : message.task_failed.reason);
    wire_fini(&message);
    return is_done;
}

void gang_wait_step(struct gang *gang, int64_t step)
{
    struct wire message;
    int64_t done;

    do {
        if (!gang_expect(gang, MSG_PROGRESS, MSG_PROGRESS, &message))
            fail_msg("the ranks ended: %s", gang->reasons[0]);
        keep_metrics(gang, &message);
        done = message.progress.done;
        wire_fini(&message);
    } while (done < step);
}

void gang_do(struct gang *gang, const char *phase, int64_t first, int64_t count,
             const char *args, struct buf *result)
{
    int rc;

    gang_lease(gang, phase, first, count, args);
    rc = gang_answer(gang, result);
    if (rc < 0)
        fail_msg("the ranks ended: %s", gang->reasons[0]);
    if (rc == 0)
        fail_msg("%s", buf_str(result));
}

/* ---- ending ---- */

void gang_wait_end(struct gang *gang)
{
    struct wire message;

    /* No rank sends this: it waits until all have ended. */
    if (gang_expect(gang, MSG_RANK_EXIT, MSG_RANK_EXIT, &message))
        fail_msg("a rank sent RANK_EXIT");
}

void gang_finish(struct gang *gang)
{
    struct wire message = {.type = MSG_RANK_DONE, .rank_done = {GANG_JOB, gang->attempt}};

    gang_send(gang, &message);
    gang_wait_end(gang);
    for (int r = 0; r < gang->n_ranks; r++)
        if (gang->statuses[r] != 0)
            fail_msg("rank %d ended with %d: %s", r, gang->statuses[r], gang->reasons[r]);
}

void gang_signal(struct gang *gang, int rank, int signal)
{
    kill(child_pid(gang->ranks[rank]), signal);
}
