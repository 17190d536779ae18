#include "jobs/client/device.h"

#include "jobs/spec/spec_fit.h"

#include <string.h>

static bool is_word(const char *text, const char *word)
{
    return text && strcmp(text, word) == 0;
}

/* Whether the specification leaves open what computes. */
static bool asks_for(const struct spec *spec, bool is_gpu)
{
    const char *backend = spec->backend, *accelerator = spec->trainer.accelerator;

    if (backend && !is_word(backend, "auto"))
        return is_word(backend, "cuda") == is_gpu;
    if (is_word(accelerator, "gpu") || is_word(accelerator, "cpu"))
        return is_word(accelerator, "gpu") == is_gpu;
    return true;
}

/* Of a CPU's memory the ranks that run there have equal parts; a GPU's are shared only where
 * an agent runs more ranks than it has GPUs. */
static uint64_t memory_of(const struct json *worker, const struct spec *spec, bool is_gpu)
{
    int64_t n_devices = json_get_int(worker, "n_devices", 0);
    int64_t n = n_devices, ranks = spec_n_ranks(spec);

    if (n < 1)
        return 0;
    if (!is_gpu && ranks < n)
        n = ranks;
    return (uint64_t)(json_get_int(worker, "memory_bytes", 0) / n);
}

/* From the rows of view "workers". */
static void choose(struct device *out, const struct json *workers,
                   const struct spec *spec)
{
    *out = (struct device){.is_gpu = !asks_for(spec, false)};
    for (size_t i = 0; i < json_count(workers); i++) {
        const struct json *worker = json_at(workers, i);
        bool is_gpu = is_word(json_get_string(worker, "device_kind"), "gpu");
        uint64_t memory = memory_of(worker, spec, is_gpu);
        const char *host = json_get_string(worker, "host");

        if (!is_word(json_get_string(worker, "state"), "up") || !asks_for(spec, is_gpu))
            continue;
        if (!out->memory_bytes || memory > out->memory_bytes)
            out->is_gpu = is_gpu;
        if (memory <= out->memory_bytes)
            continue;
        out->memory_bytes = memory;
        snprintf(out->where, sizeof(out->where), "agent on '%s'", host ? host : "?");
    }
}

int device_find(struct device *out, struct client *client, const struct args *args,
                const struct spec *spec, struct err *err)
{
    const char *given = args_value(args, "memory");
    struct json *workers = NULL;
    struct err ignored;

    *out = (struct device){.is_gpu = given && asks_for(spec, true)};
    if (spec_kind_is_training(spec->kind) && client_is_served(client) &&
        client_query(client, &workers, "workers", 0, 0, 0, &ignored) == 0 &&
        json_count(workers) > 0)
        choose(out, workers, spec);
    json_free(workers);
    if (!given)
        return 0;
    if (!spec_fit_parse_bytes(&out->memory_bytes, given))
        return err_set(err, ERR_INVALID,
                       "--memory '%s' is no size: a number with K, M, G or T, as 80G",
                       given);
    snprintf(out->where, sizeof(out->where), "--memory");
    return 0;
}
