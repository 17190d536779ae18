#include "jobs/spec/spec_fit.h"

#include "jobs/spec/spec_estimate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RANKS_MAX 1024 /* tensor-parallel ranks tried */
#define MICRO_MAX 1024 /* micro batches tried */
#define GIB ((double)(1 << 30))
#define MIB ((double)(1 << 20))

/* From the least to the most that is computed again. */
enum recompute { RECOMPUTE_NONE, RECOMPUTE_SELECTIVE, RECOMPUTE_FULL, RECOMPUTE_COUNT };

/* A specification with some numbers changed, and what it needs. */
struct variant {
    int64_t micro, tensor_parallel, devices;
    enum recompute recompute;
    uint64_t need;
};

static enum recompute recompute_of(const struct spec *spec)
{
    const char *granularity = spec->model.activations_checkpoint_granularity;
    const char *method = spec->model.activations_checkpoint_method;

    if (!granularity)
        return RECOMPUTE_NONE;
    if (strcmp(granularity, "full") != 0)
        return RECOMPUTE_SELECTIVE;
    /* groups of several layers, or only some of them: one by one needs less */
    return spec->model.activations_checkpoint_num_layers == 1 &&
                   (!method || strcmp(method, "uniform") == 0)
               ? RECOMPUTE_COUNT - 1
               : RECOMPUTE_SELECTIVE;
}

static struct variant variant_of(const struct spec *spec)
{
    return (struct variant){
        .micro = spec->model.micro_batch_size,
        .tensor_parallel = spec->model.tensor_model_parallel_size,
        .devices = spec->trainer.devices,
        .recompute = recompute_of(spec),
    };
}

static bool is_possible(const struct spec *spec, const struct variant *v)
{
    int64_t ranks = v->devices * spec->trainer.num_nodes;

    return ranks % v->tensor_parallel == 0 && v->tensor_parallel <= v->devices &&
           spec->model.num_attention_heads % v->tensor_parallel == 0 &&
           spec->model.num_query_groups % v->tensor_parallel == 0 &&
           spec->model.global_batch_size % (v->micro * (ranks / v->tensor_parallel)) == 0;
}

static uint64_t need_of(const struct spec_fit *fit, const struct variant *v)
{
    char full[] = "full", selective[] = "selective", uniform[] = "uniform";
    struct spec spec = *fit->spec; /* borrows */
    struct spec_estimate e;

    spec.model.micro_batch_size = v->micro;
    spec.model.tensor_model_parallel_size = v->tensor_parallel;
    spec.trainer.devices = v->devices;
    if (v->recompute != recompute_of(fit->spec)) {
        spec.model.activations_checkpoint_granularity =
            v->recompute == RECOMPUTE_FULL ? full : selective;
        spec.model.activations_checkpoint_method = uniform;
        spec.model.activations_checkpoint_num_layers = 1;
    }
    spec_estimate(&e, &spec, fit->vocab, fit->n_tokens, fit->is_on_gpu);
    return spec_estimate_bytes(&e) + fit->kept_bytes;
}

uint64_t spec_fit_gpu_kept(const struct spec *spec)
{
    const char *device = spec->data.decode_device;
    int64_t n = device && strcmp(device, "cpu") == 0 ? 0 : spec->data.num_workers;

    if (n > SPEC_FIT_GPU_DECODERS_MAX)
        n = SPEC_FIT_GPU_DECODERS_MAX;
    if (spec->data.validation_data_path.count > 0)
        n *= 2; /* decoders of their own */
    return SPEC_FIT_GPU_CONTEXT + (uint64_t)n * SPEC_FIT_GPU_DECODER;
}

uint64_t spec_fit_need(const struct spec_fit *fit)
{
    struct variant v = variant_of(fit->spec);

    return need_of(fit, &v);
}

bool spec_fit_is_too_much(const struct spec_fit *fit)
{
    return fit->memory_bytes && spec_fit_need(fit) > fit->memory_bytes;
}

/* ---- the search ---- */

static int64_t at_most(int64_t n, int64_t bound)
{
    return n < bound ? n : bound;
}

/* True when it can be run and fits; need is filled when it can be run. */
static bool try(const struct spec_fit *fit, struct variant *v)
{
    v->need = 0;
    if (!is_possible(fit->spec, v))
        return false;
    v->need = need_of(fit, v);
    return v->need <= fit->memory_bytes;
}

/* The largest micro batch below the one there is. */
static bool with_smaller_micro(const struct spec_fit *fit, struct variant *v)
{
    int64_t first = v->micro - 1;

    for (int64_t micro = at_most(first, MICRO_MAX); micro > 0; micro--) {
        v->micro = micro;
        if (try(fit, v))
            return true;
    }
    return false;
}

static bool with_recompute(const struct spec_fit *fit, struct variant *v)
{
    while ((int)v->recompute + 1 < RECOMPUTE_COUNT) {
        v->recompute++;
        if (try(fit, v))
            return true;
    }
    return false;
}

/* The smallest number of tensor-parallel ranks above the one there is, on the devices there
 * are, or on as many as that takes. */
static bool with_tensor_parallel(const struct spec_fit *fit, struct variant *v)
{
    int64_t devices = v->devices;

    for (int64_t n = v->tensor_parallel + 1; n <= RANKS_MAX; n++) {
        v->tensor_parallel = n;
        v->devices = devices < n ? n : devices;
        if (try(fit, v))
            return true;
    }
    return false;
}

/* The least change of several things at once: recomputation before ranks, the largest micro
 * batch with them. least: what needs the least of all that was tried. */
static bool with_all(const struct spec_fit *fit, struct variant *v, struct variant *least)
{
    struct variant from = *v;

    for (int64_t n = from.tensor_parallel; n <= RANKS_MAX; n++)
        for (int r = (int)from.recompute; r < RECOMPUTE_COUNT; r++)
            for (int64_t micro = at_most(from.micro, MICRO_MAX); micro > 0; micro--) {
                *v = from;
                v->tensor_parallel = n;
                v->devices = from.devices < n ? n : from.devices;
                v->recompute = (enum recompute)r;
                v->micro = micro;
                if (try(fit, v))
                    return true;
                if (v->need && (!least->need || v->need < least->need))
                    *least = *v;
            }
    return false;
}

/* ---- words ---- */

static void put_bytes(struct buf *out, uint64_t n)
{
    if ((double)n < GIB)
        buf_printf(out, "%.0f MiB", (double)n / MIB);
    else
        buf_printf(out, "%.1f GiB", (double)n / GIB);
}

/* What differs from the specification, as overrides. */
static void put_words(struct buf *out, const struct spec *spec, const struct variant *v)
{
    const char *method = spec->model.activations_checkpoint_method;

    if (v->devices != spec->trainer.devices)
        buf_printf(out, "trainer.devices=%" PRId64 " ", v->devices);
    if (v->tensor_parallel != spec->model.tensor_model_parallel_size)
        buf_printf(out, "model.tensor_model_parallel_size=%" PRId64 " ",
                   v->tensor_parallel);
    if (v->micro != spec->model.micro_batch_size)
        buf_printf(out, "model.micro_batch_size=%" PRId64 " ", v->micro);
    if (v->recompute != recompute_of(spec))
        buf_printf(out, "model.activations_checkpoint_granularity=%s ",
                   v->recompute == RECOMPUTE_FULL ? "full" : "selective");
    if (v->recompute != recompute_of(spec) && method && strcmp(method, "uniform") != 0)
        buf_add_str(out, "model.activations_checkpoint_method=uniform ");
    if (v->recompute != recompute_of(spec) &&
        spec->model.activations_checkpoint_num_layers != 1)
        buf_add_str(out, "model.activations_checkpoint_num_layers=1 ");
    buf_add_str(out, "(");
    put_bytes(out, v->need);
    buf_add_str(out, ")");
}

/* One change at a time; true when one of them needs no more devices than there are. */
static bool suggest_single(struct buf *out, const struct spec_fit *fit, int *n_found)
{
    static bool (*const changes[])(const struct spec_fit *, struct variant *) = {
        with_smaller_micro, with_recompute, with_tensor_parallel};
    bool is_here = false;

    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct variant v = variant_of(fit->spec);

        if (!changes[i](fit, &v))
            continue;
        is_here = is_here || v.devices == fit->spec->trainer.devices;
        buf_add_str(out, (*n_found)++ ? "; " : "these would fit: ");
        put_words(out, fit->spec, &v);
    }
    return is_here;
}

void spec_fit_suggest(struct buf *out, const struct spec_fit *fit)
{
    struct variant v = variant_of(fit->spec), least = {0};
    int n_found = 0;

    if (suggest_single(out, fit, &n_found))
        return;
    if (with_all(fit, &v, &least)) {
        if (n_found && v.devices > fit->spec->trainer.devices)
            return;
        buf_add_str(out, n_found ? "; " : "this would fit: ");
        put_words(out, fit->spec, &v);
        return;
    }
    buf_add_str(out, "no micro batch, recomputation or number of tensor-parallel ranks "
                     "would fit; the least takes ");
    put_words(out, fit->spec, &least);
    buf_add_str(out, ": take devices with more memory, a shorter "
                     "model.encoder_seq_length or fewer frames, or freeze a part");
}

void spec_fit_describe(struct buf *out, const struct spec_fit *fit)
{
    buf_add_str(out, "a rank needs ");
    put_bytes(out, spec_fit_need(fit));
    buf_add_str(out, " of memory and has ");
    put_bytes(out, fit->memory_bytes);
    buf_add_str(out, ": ");
    spec_fit_suggest(out, fit);
}

bool spec_fit_parse_bytes(uint64_t *out, const char *text)
{
    static const char units[] = "KMGT";
    const char *unit;
    char *end;
    double n = strtod(text, &end);

    while (*end == ' ')
        end++;
    unit = *end ? strchr(units, *end) : NULL;
    if (end == text || !(n > 0))
        return false;
    for (ptrdiff_t i = unit ? unit - units : -1; i >= 0; i--)
        n *= 1024;
    end += unit != NULL;
    if (strcmp(end, "") != 0 && strcmp(end, "B") != 0 && strcmp(end, "iB") != 0)
        return false;
    if (!(n < 0x1p63))
        return false;
    *out = (uint64_t)n;
    return true;
}
