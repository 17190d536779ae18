#include "worker/rank/memory.h"

#include "common/base/log.h"
#include "jobs/spec/spec_estimate.h"
#include "jobs/spec/spec_fit.h"
#include "worker/rank/batch.h"

#include <stdio.h>
#include <string.h>

#define WORD_MAX 20

/* ---- the largest micro batch ---- */

struct longest {
    int64_t n_tokens, n_frames; /* of a sample */
};

static struct longest longest_of(const struct engine *engine, const struct corpus *corpus)
{
    const struct frame_config *frames = &engine->frames;
    int64_t each = frames->frame_tokens;
    int64_t wanted = frames->splice == MEDIA_SPLICE_NONE ? frames->num_frames : 1;
    struct longest l = {.n_tokens = corpus_longest(corpus, wanted, each)};

    if (l.n_tokens < 1 || l.n_tokens > frames->max_tokens)
        l.n_tokens = frames->max_tokens;
    l.n_frames = each > 0 ? l.n_tokens / each : 0;
    if (wanted >= 0 && wanted < l.n_frames)
        l.n_frames = wanted;
    return l;
}

int memory_reserve(struct engine *engine, const struct corpus *corpus, int64_t micro,
                   struct err *err)
{
    struct longest l = longest_of(engine, corpus);
    int64_t n_tokens = batch_round_tokens(l.n_tokens, engine->frames.max_tokens);

    return neva_reserve(engine->model, micro, n_tokens, micro * l.n_frames, err);
}

/* ---- what was expected ---- */

/* A specification with the sizes that a folder of weights may have said. Borrows. */
struct sized {
    struct spec spec;
    char norm[WORD_MAX], activation[WORD_MAX], projector[WORD_MAX], encoder[WORD_MAX];
};

static char *word(char *at, const char *text)
{
    snprintf(at, WORD_MAX, "%s", text);
    return at;
}

static void size_llm(struct sized *sized, const struct neva_config *config)
{
    struct spec *spec = &sized->spec;

    spec->model.num_layers = config->llm.n_layers;
    spec->model.hidden_size = config->llm.width;
    spec->model.ffn_hidden_size = config->llm.ffn_width;
    spec->model.num_attention_heads = config->llm.n_heads;
    spec->model.num_query_groups = config->llm.n_kv_heads;
    spec->model.share_embeddings_and_output_weights = config->llm.tied;
    spec->model.bias = config->llm.has_bias;
    spec->model.qkv_bias = config->llm.has_qkv_bias;
    spec->model.normalization =
        word(sized->norm, config->llm.norm.kind == NN_NORM_RMS ? "rmsnorm" : "layernorm");
    spec->model.activation =
        word(sized->activation, config->llm.mlp == NEVA_MLP_SWIGLU ? "swiglu" : "gelu");
}

static void size_vision(struct sized *sized, const struct neva_config *config)
{
    static const char *const projectors[] = {[NEVA_PROJECTOR_LINEAR] = "linear",
                                             [NEVA_PROJECTOR_MLP2X_GELU] = "mlp2x_gelu",
                                             [NEVA_PROJECTOR_MLP_DOWNSAMPLE] =
                                                 "mlp_downsample"};
    struct spec *spec = &sized->spec;

    spec->mm_cfg.mm_mlp_adapter_type =
        word(sized->projector, projectors[config->projector]);
    spec->vision.model_type =
        word(sized->encoder,
             config->vision.encoder == NEVA_ENCODER_SIGLIP ? "siglip" : "clip");
    spec->vision.crop_size = config->vision.image_size;
    spec->vision.patch_dim = config->vision.patch;
    spec->vision.hidden_size = config->vision.width;
    spec->vision.ffn_hidden_size = config->vision.ffn_width;
    spec->vision.num_layers = config->vision.n_layers;
    spec->vision.num_attention_heads = config->vision.n_heads;
}

static struct spec_fit fit_of(const struct engine *engine, const struct corpus *corpus,
                              struct sized *sized)
{
    const struct neva_config *config = &engine->model_config;
    struct backend_memory memory;

    sized->spec = *engine->rank->spec;
    if (sized->spec.n_threads < 1)
        sized->spec.n_threads = engine->rank->n_cpus;
    size_llm(sized, config);
    size_vision(sized, config);
    engine->backend->ops->memory(engine->backend, &memory);
    return (struct spec_fit){
        .spec = &sized->spec,
        .vocab = config->llm.vocab,
        .n_tokens = longest_of(engine, corpus).n_tokens,
        .is_on_gpu = !engine->backend->ops->is_host,
        .memory_bytes =
            memory.used + memory.free, /* others have the rest, the driver too */
    };
}

int memory_explain(const struct engine *engine, const struct corpus *corpus,
                   struct err *err)
{
    struct buf text = BUF_INIT;
    struct sized sized;
    struct spec_fit fit;
    uint64_t need;

    if (err->code != ERR_NOMEM || !engine->backend || !corpus)
        return -1;
    fit = fit_of(engine, corpus, &sized);
    need = spec_fit_need(&fit);
    if (need < fit.memory_bytes - fit.memory_bytes / 10)
        return -1; /* it was something else: the estimate is not further away than that */
    if (need <= fit.memory_bytes)
        fit.memory_bytes = need - 1;
    spec_fit_describe(&text, &fit);
    buf_printf(&text, "; %s", err->text); /* last: a long text is cut */
    err_set(err, ERR_NOMEM, "%s", buf_str(&text));
    buf_fini(&text);
    return -1;
}

void memory_log(const struct engine *engine, const struct corpus *corpus)
{
    struct backend_memory memory;
    struct spec_estimate e;
    struct sized sized;
    struct spec_fit fit = fit_of(engine, corpus, &sized);

    engine->backend->ops->memory(engine->backend, &memory);
    spec_estimate(&e, fit.spec, fit.vocab, fit.n_tokens, fit.is_on_gpu);
    log_info(
        "memory: %.0f MiB at most so far, %.0f MiB were expected of the longest sample",
        (double)memory.peak / (1 << 20), (double)spec_estimate_bytes(&e) / (1 << 20));
}
