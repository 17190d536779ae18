#include "worker/rank/scaling.h"

#include "common/base/log.h"

#include <inttypes.h>
#include <string.h>

void scaling_init(struct scaling *scaling, const struct spec *spec)
{
    static const struct loss_scale_config off = {
        .initial = 1, .growth_interval = 1, .hysteresis = 1};

    *scaling = (struct scaling){.is_on = strcmp(spec->trainer.precision, "16") == 0};
    scaling->config = off;
    if (scaling->is_on)
        scaling->config = (struct loss_scale_config){
            .initial = spec->model.native_amp_init_scale,
            .growth_interval = spec->model.native_amp_growth_interval,
            .hysteresis = spec->model.hysteresis,
        };
    loss_scale_init(&scaling->state, &scaling->config);
}

int scaling_read(struct scaling *scaling, const struct json *meta, struct err *err)
{
    const struct json *old = json_get(meta, "loss_scale");
    struct loss_scale state = {
        .scale = json_get_double(old, "scale", 0),
        .n_good = json_get_int(old, "good_steps", -1),
        .n_left = json_get_int(old, "overflows_left", -1),
        .n_stuck = json_get_int(old, "overflows_at_minimum", -1),
        .n_skipped = json_get_int(old, "skipped_steps", -1),
    };

    if (!old)
        return 0;
    if (loss_scale_check(&state, err) < 0)
        return -1;
    if (scaling->is_on)
        scaling->state = state;
    scaling->state.n_skipped = state.n_skipped;
    return 0;
}

static int set_int(struct json *json, const char *key, int64_t value, struct err *err)
{
    return json_set(json, key, json_new_int(value), err);
}

int scaling_write(const struct scaling *scaling, struct json *meta, struct err *err)
{
    const struct loss_scale *s = &scaling->state;
    struct json *json;

    if (!scaling->is_on && s->n_skipped == 0)
        return 0;
    json = json_new(JSON_OBJECT);
    if (json_set(json, "scale", json_new_double(s->scale), err) == 0 &&
        set_int(json, "good_steps", s->n_good, err) == 0 &&
        set_int(json, "overflows_left", s->n_left, err) == 0 &&
        set_int(json, "overflows_at_minimum", s->n_stuck, err) == 0 &&
        set_int(json, "skipped_steps", s->n_skipped, err) == 0)
        return json_set(meta, "loss_scale", json, err);
    json_free(json);
    return -1;
}

int64_t scaling_n_updates(const struct scaling *scaling, int64_t step)
{
    return step - scaling->state.n_skipped;
}

int scaling_update(struct scaling *scaling, const struct optim_report *report,
                   int64_t step, struct err *err)
{
    struct loss_scale *s = &scaling->state;

    if (!scaling->is_on)
        return 0;
    loss_scale_update(s, &scaling->config, report->is_skipped);
    if (!report->is_skipped)
        return 0;
    log_info("step %" PRId64 " is skipped: gradient of %s is not finite; the loss scale "
             "is %g from here on",
             step, report->overflow, s->scale);
    if (loss_scale_is_stuck(s))
        return err_set(err, ERR_FORMAT,
                       "gradient of %s is not finite even at the smallest loss scale, %d "
                       "times in a row: try trainer.precision bf16, or a lower learning "
                       "rate",
                       report->overflow, LOSS_SCALE_STUCK);
    return 0;
}
