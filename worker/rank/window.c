#include "worker/rank/window.h"

static int set_number(struct json *json, const char *key, double value, struct err *err)
{
    return json_set(json, key, json_new_double(value), err);
}

/* A window may hold nothing but skipped steps whose loss was not finite. */
static int set_loss(struct json *json, const struct window *window, struct err *err)
{
    if (window->n_labels <= 0)
        return 0;
    return set_number(json, "loss", window->loss_sum / window->n_labels, err);
}

static int set_scale(struct json *json, const struct window *window, struct err *err)
{
    if (window->loss_scale <= 0)
        return 0;
    if (set_number(json, "loss_scale", window->loss_scale, err) < 0)
        return -1;
    return json_set(json, "skipped_steps", json_new_int(window->n_skipped), err);
}

struct json *window_metrics(struct window *window, struct err *err)
{
    struct json *json = json_new(JSON_OBJECT);
    double n_steps = window->n_steps ? (double)window->n_steps : 1;
    double seconds = window->step_ns ? (double)window->step_ns * 1e-9 : 1;

    if (set_loss(json, window, err) < 0 || set_scale(json, window, err) < 0 ||
        set_number(json, "lr", window->lr, err) < 0 ||
        set_number(json, "grad_norm", window->grad_norm, err) < 0 ||
        set_number(json, "step_ms", (double)window->step_ns * 1e-6 / n_steps, err) < 0 ||
        set_number(json, "wait_ms", (double)window->wait_ns * 1e-6 / n_steps, err) < 0 ||
        set_number(json, "comm_ms", (double)window->comm_ns * 1e-6 / n_steps, err) < 0 ||
        set_number(json, "samples_per_s", window->n_samples / seconds, err) < 0 ||
        set_number(json, "tokens_per_s", window->n_tokens / seconds, err) < 0 ||
        set_number(json, "tflops", window->flops / seconds * 1e-12, err) < 0) {
        json_free(json);
        return NULL;
    }
    *window = (struct window){0};
    return json;
}
