/* Stands in for vneva-rank in the tests of pools: it answers every lease at once, but waits
 * while there is a file $VNEVA_FAKE_CLUSTER/hold. */
#include "common/base/log.h"
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
    char path[512];

    snprintf(path, sizeof(path), "%s/hold", getenv("VNEVA_FAKE_CLUSTER"));
    while (access(path, F_OK) == 0) {
        if (pump_poll(pump, err) < 0)
            return -1;
        if (pump_is_stopping(pump))
            return 0;
        poll(NULL, 0, LOOK_MS);
    }
    return 1;
}

static int work(struct pump *pump, struct err *err)
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
    }
    return rc;
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
    rc = work(pump, &err);
    pump_close(pump);
    return rc < 0 ? 3 : 0;
}
