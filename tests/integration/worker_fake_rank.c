/* Stands in for vneva-rank in the tests of the agent. The "spec" of RANK_START says how it
 * behaves:
 *     fail       logs two errors and ends with status 3
 *     work       answers every lease with {"first": N}, ends after RANK_DONE
 *     last-words answers one lease and ends at once
 *     stubborn   does not hear SIGTERM
 *     stuck      says that it is in an all-reduce of step 41, and stays there
 */
#include "common/base/log.h"
#include "common/base/stage.h"
#include "worker/rank/pump.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int work(struct pump *pump, bool is_once, struct err *err)
{
    const struct msg_task_start *task;
    struct json *peers = NULL;
    char result[64];
    int rc = pump_meet(pump, "somewhere", &peers, err);

    json_free(peers);
    while (rc > 0 && (rc = pump_next_task(pump, &task, err)) > 0) {
        snprintf(result, sizeof(result), "{\"first\":%" PRId64 "}", task->first);
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
