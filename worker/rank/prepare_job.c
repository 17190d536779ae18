/* A prepare job: annotations and media become a prepared dataset (dataprep/prepare). Its
 * ranks need no model; with several only rank 0 works.
 */
#include "common/base/clock.h"
#include "common/base/stage.h"
#include "dataprep/dataset/dataset.h"
#include "dataprep/prepare/from_spec.h"
#include "worker/rank/engine.h"
#include "worker/rank/rank.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREPARE_REQUESTS 64 /* media files probed or decoded ahead */
#define PREPARE_REPORT_MS 500

struct prepare_job {
    struct rank *rank;
    struct prepare_config config;
    struct decode_pool *pool;
    struct frame_service service;
    int64_t reported_ms;
};

static void prepare_close(void *state)
{
    struct prepare_job *job = state;

    if (!job)
        return;
    feed_log_decoding(job->pool);
    decode_pool_destroy(job->pool);
    free(job);
}

static int prepare_open(void **state, struct rank *rank, struct err *err)
{
    struct prepare_job *job = calloc(1, sizeof(*job));
    struct decode_pool_config pool;
    struct frame_config frames;

    if (!job)
        return err_set(err, ERR_NOMEM, "cannot allocate a prepare job");
    *state = job;
    job->rank = rank;
    if (prepare_from_spec(&job->config, rank->spec, err) < 0 ||
        config_frames(&frames, rank->spec, NULL, err) < 0)
        return -1;
    config_pool(&pool, rank->spec, &frames, rank->decode_program, rank->n_cpus,
                PREPARE_REQUESTS);
    pool.cache_bytes = 0; /* every file is looked at once */
    /* mostly probes, and the CPU tells damage better: a GPU is used when asked for only */
    config_decode(&pool, rank->spec,
                  strcmp(rank->spec->data.decode_device, "cuda") == 0
                      ? (int)rank->start->device
                      : -1);
    if (decode_pool_create(&job->pool, &pool, err) < 0)
        return -1;
    job->service = decode_pool_service(job->pool);
    return 0;
}

/* Called between samples. */
static int prepare_report(void *state, int64_t done, int64_t total, struct err *err)
{
    struct prepare_job *job = state;
    int64_t now_ms = clock_mono_ms();

    stage_touch();
    if (pump_poll(job->rank->pump, err) < 0)
        return -1;
    if (pump_is_stopping(job->rank->pump))
        return err_set(err, ERR_STATE, "asked to stop");
    if (now_ms - job->reported_ms < PREPARE_REPORT_MS && done < total)
        return 0;
    job->reported_ms = now_ms;
    return pump_progress(job->rank->pump, "prepare", -1, done, total, NULL, err);
}

/* What the dataset says of itself, with the reasons of the rejects. */
static int prepare_result(const struct prepare_job *job, struct json *summary,
                          struct buf *result, struct err *err)
{
    struct json *json = json_new(JSON_OBJECT);
    const struct dataset_info *info;
    struct dataset *dataset = NULL;
    char fingerprint[17];
    int rc = -1;

    if (dataset_open(&dataset, job->config.output, err) < 0)
        goto out;
    info = dataset_info(dataset);
    snprintf(fingerprint, sizeof(fingerprint), "%016" PRIx64, info->fingerprint);
    if (json_set(json, "path", json_new_string(job->config.output), err) < 0 ||
        json_set(json, "n_samples", json_new_int(info->n_samples), err) < 0 ||
        json_set(json, "n_rejects", json_new_int(info->n_rejects), err) < 0 ||
        json_set(json, "fingerprint", json_new_string(fingerprint), err) < 0 ||
        json_set(json, "reasons", json_clone(json_get(summary, "reasons")), err) < 0)
        goto out;
    json_write(result, json, 0);
    rc = 1;
out:
    dataset_close(dataset);
    json_free(json);
    return rc;
}

static int prepare_run_finish(struct prepare_job *job, struct buf *result,
                              struct err *err)
{
    struct json *summary = NULL;
    int rc = -1;

    if (prepare_finish(&job->config, &summary, err) == 0)
        rc = prepare_result(job, summary, result, err);
    json_free(summary);
    return rc;
}

static int prepare_run(void *state, const struct msg_task_start *task, struct buf *result,
                       struct err *err)
{
    struct prepare_job *job = state;
    struct prepare_progress progress = {job, prepare_report};
    int64_t n_samples = 0, n_rejects = 0;

    if (job->rank->layout.rank != 0)
        return 1; /* rank 0 answers for all */
    if (strcmp(task->phase, "plan") == 0) {
        if (prepare_plan(&job->config, &n_samples, err) < 0)
            return -1;
        buf_printf(result, "{\"n_samples\":%" PRId64 "}", n_samples);
        return 1;
    }
    if (strcmp(task->phase, "finish") == 0)
        return prepare_run_finish(job, result, err);
    if (prepare_range(&job->config, &job->service, task->first, task->count, &progress,
                      &n_rejects, err) < 0)
        return pump_is_stopping(job->rank->pump) ? 0 : -1;
    buf_printf(result, "{\"n_samples\":%" PRId64 ",\"n_rejects\":%" PRId64 "}",
               task->count, n_rejects);
    return 1;
}

const struct rank_kind rank_kind_prepare = {
    .open = prepare_open,
    .run = prepare_run,
    .close = prepare_close,
};
