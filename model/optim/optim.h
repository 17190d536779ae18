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
    float clip; /* 0: off */
    int64_t warmup_steps, constant_steps, max_steps;
    float min_lr; /* NeMo's CosineAnnealing: linear warm-up, cosine from lr
                                     to min_lr at max_steps - constant_steps, then min_lr */
};

/* Learning rate of step `step` (from 0). Pure. */
float optim_lr(const struct optim_config *config, int64_t step);

struct optim_report {
    float lr;
    double grad_norm; /* before clipping, after division by n_labels */
};

/* Sums gradients over the data group, divides by n_labels (of the global batch), clips,
 * updates, zeroes the gradients. step counts from 0. A gradient that is not finite is
 * ERR_FORMAT and names the first parameter; nothing is updated. COLLECTIVE in both groups */
int optim_step(struct neva *model, struct comm *data_group,
               const struct optim_config *config, int64_t step, int64_t n_labels,
               struct optim_report *report, struct err *err);

#endif
