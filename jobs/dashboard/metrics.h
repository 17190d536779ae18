/* metrics.h - numbers for Prometheus, in its text format 0.0.4
 *
 * Pure: rows in, text out. Base units and names as Prometheus asks for them; a number that
 * is not known is left out, and so is a family without any.
 * Source: https://prometheus.io/docs/instrumenting/exposition_formats/ and
 * https://prometheus.io/docs/practices/naming/
 */
#ifndef VNEVA_JOBS_DASHBOARD_METRICS_H
#define VNEVA_JOBS_DASHBOARD_METRICS_H

#include "common/base/buf.h"
#include "common/base/json.h"

#include <stdint.h>

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* facts: lists of rows, each of which may be missing:
 *     states       {"state", "n"}                    jobs by state
 *     tasks        {"state", "n", "n_failures"}
 *     attempts     {"cause", "n"}                    those that ended
 *     workers      {"agent", "host", "device_kind", "state", "n_devices", "n_busy",
 *                   "last_seen_ms"}
 *     jobs         {"job", "name", "kind", "done", "total"}    those that run
 *     steps        {"job", "step", "loss", "val_loss", "lr", "grad_norm", "step_ms",
 *                   "wait_ms", "comm_ms", "samples_per_s", "tokens_per_s", "tflops",
 *                   "time_ms"}                       the newest of each that runs
 *     ranks        {"job", "memory_bytes", "since_ms", "n"}    sum, least, number
 *     checkpoints  {"job", "step", "created_ms"}     the newest of each that runs
 * NULL: the coordinator is down, and only that is told. */
void metrics_write(struct buf *out, const struct json *facts, int64_t now_ms);

#endif
