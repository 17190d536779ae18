#include "model/optim/loss_scale.h"

#define FACTOR 2.0

void loss_scale_init(struct loss_scale *s, const struct loss_scale_config *config)
{
    *s = (struct loss_scale){.scale = config->initial, .n_left = config->hysteresis - 1};
}

int loss_scale_check(const struct loss_scale *s, struct err *err)
{
    /* written so that NaN is refused */
    if (!(s->scale >= LOSS_SCALE_MIN && s->scale <= LOSS_SCALE_MAX) || s->n_good < 0 ||
        s->n_left < 0 || s->n_stuck < 0 || s->n_skipped < 0)
        return err_set(err, ERR_FORMAT,
                       "the loss scale of the checkpoint is damaged: scale %g, counts "
                       "%lld, %lld, %lld, %lld",
                       s->scale, (long long)s->n_good, (long long)s->n_left,
                       (long long)s->n_stuck, (long long)s->n_skipped);
    return 0;
}

static void shrink(struct loss_scale *s)
{
    s->n_stuck += s->scale <= LOSS_SCALE_MIN;
    s->scale /= FACTOR;
    if (s->scale < LOSS_SCALE_MIN)
        s->scale = LOSS_SCALE_MIN;
}

static void grow(struct loss_scale *s, const struct loss_scale_config *config)
{
    s->n_good = 0;
    s->n_left = config->hysteresis - 1;
    if (s->scale * FACTOR <= LOSS_SCALE_MAX)
        s->scale *= FACTOR;
}

void loss_scale_update(struct loss_scale *s, const struct loss_scale_config *config,
                       bool has_overflow)
{
    if (has_overflow) {
        s->n_good = 0;
        s->n_skipped++;
        if (s->n_left > 0)
            s->n_left--;
        else
            shrink(s);
        return;
    }
    s->n_stuck = 0;
    s->n_good++;
    if (s->n_good >= config->growth_interval)
        grow(s, config);
}

bool loss_scale_is_stuck(const struct loss_scale *s)
{
    return s->n_stuck >= LOSS_SCALE_STUCK;
}
