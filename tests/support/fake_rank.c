/* Stands in for vneva-rank in the tests of the agent and of pools: it answers every lease at
 * once. While there is a file $VNEVA_FAKE_CLUSTER/hold it waits; and a "spec" of RANK_START
 * that is one of these words says how else it behaves:
 *     fail       logs two errors and ends with status 3
 *     last-words answers one lease and ends at once
 *     stubborn   does not hear SIGTERM
 *     stuck      says that it is in an all-reduce of step 41, and stays there
 */
#include "common/base/log.h"
#include "common/base/stage.h"
#include "worker/rank/pump.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_SAMPLES 8
#define LOOK_MS 5

static void write_result(char *out, size_t n_bytes, const struct msg_rank_start *start,
                         const struct msg_task_start *task)
{
    int64_t end = task->first + task->count;

    if (strcmp(start->kind, "prepare") != 0)
        snprintf(out, n_bytes,
                 "{\"checkpoint\": {\"path\": \"/step-%" PRId64 "\", \"step\": %" PRId64
                 ", \"consumed_samples\": 0, \"val_loss\": 1}}",
                 end, end);
    else if (strcmp(task->phase, "plan") == 0)
        snprintf(out, n_bytes, "{\"n_samples\": %d}", N_SAMPLES);
    else if (strcmp(task->phase, "finish") == 0)
        snprintf(out, n_bytes,
                 "{\"path\": \"/data\", \"n_samples\": %d, \"n_rejects\": 0, "
                 "\"fingerprint\": \"f\"}",
                 N_SAMPLES);
    else
        snprintf(out, n_bytes, "{\"first\": %" PRId64 "}", task->first);
}

/* 1: go on, 0: asked to stop. */
static int wait_while_held(struct pump *pump, struct err *err)
{
    const char *folder = getenv("VNEVA_FAKE_CLUSTER");
    char path[512];

    snprintf(path, sizeof(path), "%s/hold", folder ? folder : "");
    while (folder && access(path, F_OK) == 0) {
        if (pump_poll(pump, err) < 0)
            return -1;
        if (pump_is_stopping(pump))
            return 0;
        poll(NULL, 0, LOOK_MS);
    }
    return 1;
}

static int work(struct pump *pump, bool is_once, struct err *err)
{
    const struct msg_task_start *task;
    struct json *peers = NULL;
    char result[256];
    int rc = pump_meet(pump, "somewhere", &peers, err);

    json_free(peers);
    while (rc > 0 && (rc = pump_next_task(pump, &task, err)) > 0) {
        rc = strcmp(task->phase, "work") == 0 ? wait_while_held(pump, err) : 1;
        if (rc <= 0)
            break;
        write_result(result, sizeof(result), pump_start(pump), task);
        if (pump_task_done(pump, result, err) < 0)
            return -1;
        if (is_once)
            return 0;
    }
    return rc;
}

static int run(struct pump *pump, struct err *err)
{
    const char *how = pump_start(pump)->spec;
    struct json *peers = NULL;

    if (strcmp(how, "fail") == 0) {
        log_error("a first mishap");
        log_error("the disk is on fire");
        log_info("this is no error");
        return err_set(err, ERR_IO, "failed as told");
    }
    if (strcmp(how, "stubborn") == 0) {
        pump_meet(pump, "somewhere", &peers, err); /* returns when PEERS comes: never */
        for (;;)
            pause();
    }
    if (strcmp(how, "stuck") == 0) {
        const char *fd = getenv("VNEVA_STAGE_FD");

        if (!fd || stage_attach((int)strtol(fd, NULL, 10), "it", err) < 0)
            return -1;
        stage_begin("all-reduce", "tensor", STAGE_FREE);
        stage_set_step(41);
        for (;;)
            pause();
    }
    return work(pump, strcmp(how, "last-words") == 0, err);
}

int main(void)
{
    const char *fd = getenv("VNEVA_AGENT_FD");
    struct pump *pump = NULL;
    struct err err = {0};
    int rc;

    log_init("rank", LOG_INFO);
    if (!fd || pump_open(&pump, (int)strtol(fd, NULL, 10), &err) < 0)
        return 2;
    rc = run(pump, &err);
    pump_close(pump);
    return rc < 0 ? 3 : 0;
}
