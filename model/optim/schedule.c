#include "model/optim/optim.h"

#include <math.h>

/* Source: NeMo, nemo/core/optim/lr_scheduler.py, CosineAnnealing and
 * WarmupAnnealHoldPolicy: two formulas, without and with constant_steps. */

static double cosine(const struct optim_config *config, double share)
{
    double range = (double)config->lr - (double)config->min_lr;

    return (double)config->min_lr + range * 0.5 * (1 + cos(3.141592653589793 * share));
}

static double share_of(int64_t part, int64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : 1;
}

float optim_lr(const struct optim_config *config, int64_t step)
{
    int64_t warmup = config->warmup_steps > 0 ? config->warmup_steps : 0;
    int64_t decay = config->max_steps - warmup - config->constant_steps;
    double lr = (double)config->lr;

    if (config->constant_steps > 0) {
        if (warmup > 0 && step <= warmup)
            return (float)(lr * (double)step / (double)warmup);
        if (step > warmup + decay)
            return config->min_lr;
        return (float)cosine(config, share_of(step - warmup, decay));
    }
    if (warmup > 0 && step <= warmup)
        return (float)(lr * (double)(step + 1) / (double)(warmup + 1));
    if (step > config->max_steps)
        return config->min_lr;
    return (float)cosine(config, share_of(step - warmup, decay));
}
