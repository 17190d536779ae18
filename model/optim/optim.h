/* optim.h - the optimizer step over the parameter table, and the learning rate
 *
 * AdamW with fp32 master weights and global gradient clipping, as NeMo's fused_adam with
 * gradient_clip_val. The norm is that of the whole model: replicated parameters count
 * once, sharded ones are summed over the tensor-parallel group.
 */
#ifndef VNEVA_MODEL_OPTIM_OPTIM_H
#define VNEVA_MODEL_OPTIM_OPTIM_H

#include "model/neva/neva.h"

struct optim_config {
    float lr, beta1, beta2, eps, weight_decay;
    float clip;          /* 0: off */
    bool skips_overflow; /* a gradient that is not finite is no error: see optim_step */
    int64_t warmup_steps, constant_steps, max_steps;
    float min_lr; /* NeMo's CosineAnnealing: linear warm-up, cosine from lr
                                     to min_lr at max_steps - constant_steps, then min_lr */
};

/* Learning rate of step `step` (from 0). Pure. */
float optim_lr(const struct optim_config *config, int64_t step);

struct optim_report {
    float lr;
    double
        loss_sum; /* of the global batch: neva_step's since neva_zero_grad, all ranks */
    double grad_norm;     /* before clipping, after division by n_labels and loss scale */
    bool is_skipped;      /* nothing was updated; grad_norm is 0 */
    const char *overflow; /* then: the first parameter whose gradient was not finite */
};

/* Sums gradients over the data group, divides by n_labels (of the global batch), clips,
 * updates, zeroes the gradients. step counts updates from 0. A gradient that is not finite,
 * on whichever rank, is ERR_FORMAT on all and names the first parameter, and nothing is
 * updated; with skips_overflow the report says so instead. Gradients are zero afterwards in
 * either case, and divided by the loss scale (neva_set_loss_scale). The report's loss_sum is
 * there in case of such an error too.
 * Waits for the device once, for the sums: the update itself goes on while the caller
 * prepares the next step. COLLECTIVE in both groups */
int optim_step(struct neva *model, struct comm *data_group,
               const struct optim_config *config, int64_t step, int64_t n_labels,
               struct optim_report *report, struct err *err);

#endif
