/* window.h - what happened since the last report, as metrics
 *
 * Sums over the steps of a window; window_metrics turns them into means and rates, and
 * begins the next window. Pure but for the JSON it makes.
 * Units: ns in, ms and per second out.
 */
#ifndef VNEVA_WORKER_RANK_WINDOW_H
#define VNEVA_WORKER_RANK_WINDOW_H

#include "common/base/json.h"

#include <stdint.h>

struct window {
    int64_t n_steps, step_ns, wait_ns, comm_ns;
    double loss_sum;            /* over label tokens, of all ranks */
    double n_labels, n_samples; /* of all ranks */
    double n_tokens, flops;
    double lr, grad_norm; /* of the last step */
    double loss_scale;    /* after it; 0: the precision has none */
    int64_t n_skipped;    /* steps of the run until then */
};

/* {"loss","lr","grad_norm","step_ms","wait_ms","comm_ms","samples_per_s","tokens_per_s","tflops"}; with a
 * loss scale "loss_scale" and "skipped_steps" too; without "loss" where no step had one.
 * NULL when out of memory. The window is empty afterwards. */
struct json *window_metrics(struct window *window, struct err *err);

#endif
