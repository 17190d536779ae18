#define _GNU_SOURCE /* sched_getaffinity */
#include "worker/rank/rank.h"

#include "common/base/log.h"
#include "common/base/stage.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct rank_kind *kind_of(enum spec_kind kind)
{
    switch (kind) {
    case SPEC_PREPARE:
        return &rank_kind_prepare;
    case SPEC_PRETRAIN:
    case SPEC_FINETUNE:
        return &rank_kind_train;
    case SPEC_EVALUATE:
        return &rank_kind_evaluate;
    default:
        return NULL;
    }
}

/* ---- meeting ---- */

/* This rank's share of the CPUs: every device of the host has an equal one, for a rank of
 * another job may run on it. */
static int cpu_share(const struct groups *groups)
{
    const char *devices = getenv("VNEVA_DEVICES");
    long n_shares = devices ? strtol(devices, NULL, 10) : 1;
    cpu_set_t set;
    int n;

    if (n_shares < groups_n_on_host(groups))
        n_shares = groups_n_on_host(groups);
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    n = CPU_COUNT(&set) / (int)n_shares;
    return n > 0 ? n : 1;
}

/* 1: connected, 0: asked to stop. */
static int rank_meet(struct rank *rank, struct err *err)
{
    const char *host = getenv("VNEVA_HOST"), *address = getenv("VNEVA_ADDRESS");
    struct json *endpoints = NULL;
    struct buf unique = BUF_INIT;
    int rc;

    stage_begin("meeting the other ranks", NULL, STAGE_WAITING);
    if (groups_open(&rank->groups, &rank->layout, host ? host : "localhost",
                    address ? address : "127.0.0.1", err) < 0)
        return -1;
    rc = pump_meet(rank->pump, groups_endpoint(rank->groups), &endpoints, err);
    if (rc <= 0)
        return rc;
    buf_printf(&unique, "%s %" PRId64 " %" PRId64, rank->start->folder, rank->start->job,
               rank->start->attempt);
    rc = buf_check(&unique, err);
    if (rc == 0)
        rc = groups_connect(rank->groups, endpoints, buf_str(&unique),
                            &rank->start->secret, err);
    buf_fini(&unique);
    json_free(endpoints);
    rank->n_cpus = cpu_share(rank->groups);
    return rc < 0 ? -1 : 1;
}

/* The page that the agent reads; a rank started without one is not watched. */
static int attach_stage(int64_t rank, struct err *err)
{
    const char *fd = getenv("VNEVA_STAGE_FD");
    char who[32];

    snprintf(who, sizeof(who), "rank%" PRId64, rank);
    return fd ? stage_attach((int)strtol(fd, NULL, 10), who, err) : 0;
}

static int rank_open(struct rank *rank, int fd, const char *program_folder,
                     struct err *err)
{
    char who[32];

    if (pump_open(&rank->pump, fd, err) < 0)
        return -1;
    rank->start = pump_start(rank->pump);
    if (attach_stage(rank->start->rank, err) < 0)
        return -1;
    snprintf(who, sizeof(who), "rank[%" PRId64 "]", rank->start->rank);
    log_init(who, LOG_INFO);
    if (fs_path(rank->decode_program, err, "%s/vneva-decode", program_folder) < 0)
        return -1;
    if (spec_from_json(&rank->spec, rank->start->spec, strlen(rank->start->spec), err) <
        0)
        return err_wrap(err, "cannot read the job's spec");
    stage_set_limit((int64_t)(rank->spec->stuck_after_s * 1000));
    return layout_make(&rank->layout, rank->start->n_ranks, rank->start->rank,
                       rank->spec->model.tensor_model_parallel_size, err);
}

static void rank_close(struct rank *rank)
{
    groups_close(rank->groups);
    spec_free(rank->spec);
    pump_close(rank->pump);
}

/* ---- leases ---- */

/* Only a rank alone may go on after a failure: the others of a gang are in the middle of
 * a collective. */
static bool can_go_on(const struct rank *rank)
{
    return rank->layout.n_ranks == 1 && !spec_kind_is_training(rank->spec->kind);
}

/* When a peer is lost, or the system refuses a rank that trains (a disk that is full), the
 * lease is not at fault: no TASK_FAILED, the attempt just ends, and may be tried again
 * oftener and later. */
static bool is_nobodys_fault(const struct rank *rank, const struct err *err)
{
    if (rank->layout.n_ranks > 1 && (err->code == ERR_PEER || err->code == ERR_TIMEOUT))
        return true;
    return spec_kind_is_training(rank->spec->kind) && err->code == ERR_IO;
}

/* 1: on with the next, 0: asked to stop, -1: the rank has to end. */
static int rank_do_task(struct rank *rank, const struct rank_kind *kind, void *state,
                        const struct msg_task_start *task, struct err *err)
{
    struct buf result = BUF_INIT;
    struct err why = {0};
    int rc = kind->run(state, task, &result, &why);

    if (rc > 0 && buf_check(&result, &why) < 0)
        rc = -1;
    if (rc > 0 && pump_task_done(rank->pump, buf_str(&result), err) < 0)
        rc = -1;
    else if (rc < 0 && is_nobodys_fault(rank, &why))
        *err = why;
    else if (rc < 0 && pump_task_failed(rank->pump, why.text, err) == 0) {
        if (can_go_on(rank)) {
            log_error("%s", why.text);
            rc = 1;
        } else {
            *err = why;
        }
    }
    buf_fini(&result);
    return rc;
}

static int next_task(struct rank *rank, const struct msg_task_start **task,
                     struct err *err)
{
    int rc;

    stage_begin("waiting for a lease", NULL, STAGE_WAITING);
    rc = pump_next_task(rank->pump, task, err);
    if (rc > 0 && strcmp((*task)->phase, "work") == 0)
        stage_begin(spec_kind_is_training(rank->spec->kind) ? "training" : "work", NULL,
                    STAGE_LIMITED);
    else if (rc > 0) /* looks at all of the data: that takes as long as it takes */
        stage_begin(strcmp((*task)->phase, "plan") == 0 ? "plan" : "finish", NULL,
                    STAGE_FREE);
    return rc;
}

static int rank_work(struct rank *rank, struct err *err)
{
    const struct rank_kind *kind = kind_of(rank->spec->kind);
    const struct msg_task_start *task;
    void *state = NULL;
    int rc;

    if (!kind)
        return err_set(err, ERR_UNSUPPORTED, "a rank cannot run jobs of kind '%s'",
                       spec_kind_name(rank->spec->kind));
    stage_begin("loading", NULL, STAGE_LIMITED);
    rc = kind->open(&state, rank, err);
    if (rc == 0)
        while ((rc = next_task(rank, &task, err)) > 0 &&
               (rc = rank_do_task(rank, kind, state, task, err)) > 0)
            ;
    stage_begin("ending", NULL, STAGE_LIMITED);
    if (rc == 0 && !pump_is_stopping(rank->pump) && kind->end)
        rc = kind->end(state, err);
    kind->close(state);
    return rc < 0 ? -1 : 0;
}

int rank_run(int fd, const char *program_folder, struct err *err)
{
    struct rank rank = {0};
    int rc = rank_open(&rank, fd, program_folder, err);

    if (rc == 0)
        rc = rank_meet(&rank, err);
    if (rc > 0)
        rc = rank_work(&rank, err);
    rank_close(&rank);
    return rc;
}
