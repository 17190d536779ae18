#include "model/neva/internal.h"

#include <math.h>

int64_t neva_grid(const struct neva_config *config)
{
    return config->vision.image_size / config->vision.patch;
}

int64_t neva_patches(const struct neva_config *config)
{
    return neva_grid(config) * neva_grid(config);
}

static bool selects_class(const struct neva_config *config)
{
    return config->vision.select_feature == NEVA_SELECT_CLS_PATCH &&
           config->vision.class_token_length > 0;
}

int64_t neva_features(const struct neva_config *config)
{
    int64_t half = (neva_grid(config) + 1) / 2;

    if (config->projector == NEVA_PROJECTOR_MLP_DOWNSAMPLE)
        return half * half;
    return neva_patches(config) + selects_class(config);
}

int64_t neva_feature_rows(const struct neva_config *config)
{
    return config->projector == NEVA_PROJECTOR_MLP_DOWNSAMPLE ? 4 : 1;
}

int64_t neva_vision_tokens(const struct neva_config *config)
{
    return neva_patches(config) + config->vision.class_token_length;
}

int64_t neva_vision_layers(const struct neva_config *config)
{
    int64_t layer = config->vision.select_layer;

    return layer < 0 ? config->vision.n_layers + 1 + layer : layer;
}

struct block_config neva_vision_block(const struct neva_config *config)
{
    return (struct block_config){
        .width = config->vision.width,
        .n_heads = config->vision.n_heads,
        .n_kv_heads = config->vision.n_heads,
        .head_size = config->vision.width / config->vision.n_heads,
        .ffn_width = config->vision.ffn_width,
        .is_trained = !config->vision.freeze,
        .act = config->vision.act,
        .norm = {NN_NORM_LAYER, config->vision.eps},
    };
}

int64_t neva_rotary_dims(int64_t head_size, double percentage)
{
    /* 1e-9: 0.7 of 10 are 7, whatever 0.7 is in binary */
    return (int64_t)((double)head_size * percentage + 1e-9);
}

struct block_config neva_llm_block(const struct neva_config *config, int n_ranks)
{
    return (struct block_config){
        .width = config->llm.width,
        .n_heads = config->llm.n_heads / n_ranks,
        .n_kv_heads = config->llm.n_kv_heads / n_ranks,
        .head_size = config->llm.width / config->llm.n_heads,
        .ffn_width = (config->llm.ffn_width + n_ranks - 1) / n_ranks,
        .norm = config->llm.norm,
        .is_gated = config->llm.mlp == NEVA_MLP_SWIGLU,
        .act = config->llm.mlp == NEVA_MLP_GELU ? ACT_GELU : ACT_RELU_SQUARED,
        .is_causal = true,
        .is_trained = !config->llm.freeze,
        .rope = config->llm.rope,
    };
}

void neva_frame_share(int64_t n_frames, int rank, int n_ranks, int64_t *first,
                      int64_t *count)
{
    int64_t share = n_frames / n_ranks, rest = n_frames % n_ranks;

    *first = rank * share + (rank < rest ? rank : rest);
    *count = share + (rank < rest);
}

/* ---- checks ---- */

static int need_positive(const char *key, int64_t value, struct err *err)
{
    if (value > 0 && value <= INT32_MAX)
        return 0;
    return err_set(err, ERR_INVALID, "%s is %lld: it must be a whole number above 0", key,
                   (long long)value);
}

static int need_divisor(const char *key, int64_t value, const char *by_key, int64_t by,
                        struct err *err)
{
    if (value % by == 0)
        return 0;
    return err_set(err, ERR_INVALID, "%s (%lld) must be a multiple of %s (%lld)", key,
                   (long long)value, by_key, (long long)by);
}

static int check_sizes(const struct neva_config *config, struct err *err)
{
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {
        {"model.mm_cfg.vision_encoder.crop_size", config->vision.image_size},
        {"model.mm_cfg.vision_encoder.patch_dim", config->vision.patch},
        {"model.mm_cfg.vision_encoder.hidden_size", config->vision.width},
        {"model.mm_cfg.vision_encoder.ffn_hidden_size", config->vision.ffn_width},
        {"model.mm_cfg.vision_encoder.num_layers", config->vision.n_layers},
        {"model.mm_cfg.vision_encoder.num_attention_heads", config->vision.n_heads},
        {"the tokenizer's vocabulary", config->llm.vocab},
        {"model.hidden_size", config->llm.width},
        {"model.ffn_hidden_size", config->llm.ffn_width},
        {"model.num_layers", config->llm.n_layers},
        {"model.num_attention_heads", config->llm.n_heads},
        {"model.num_query_groups", config->llm.n_kv_heads},
        {"model.encoder_seq_length", config->max_tokens},
    };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        if (need_positive(sizes[i].key, sizes[i].value, err) < 0)
            return -1;
    if (config->llm.vocab > HEAD_VOCAB_MAX)
        return err_set(err, ERR_LIMIT, "the vocabulary has %lld entries, more than %d",
                       (long long)config->llm.vocab, HEAD_VOCAB_MAX);
    return 0;
}

/* Which rows of which layer the projector reads. */
static int check_selection(const struct neva_config *config, struct err *err)
{
    int64_t n = config->vision.n_layers, class_length = config->vision.class_token_length;
    bool is_siglip = config->vision.encoder == NEVA_ENCODER_SIGLIP;

    if (class_length < 0 || class_length > !is_siglip)
        return err_set(err, ERR_INVALID,
                       "model.mm_cfg.vision_encoder.class_token_length is %lld: %s",
                       (long long)class_length,
                       is_siglip ? "SigLIP has no class token, it must be 0"
                                 : "1 (CLIP) or 0");
    if (config->vision.has_head && !is_siglip)
        return err_set(err, ERR_INVALID,
                       "vision_use_head: CLIP has no pooling head, only SigLIP has");
    if (config->vision.select_layer > n || config->vision.select_layer < -n - 1)
        return err_set(err, ERR_INVALID,
                       "model.mm_cfg.vision_encoder.vision_select_layer is %lld: of %lld "
                       "layers -1 is the last, -2 the one before, 0 the embeddings and "
                       "%lld the last again",
                       (long long)config->vision.select_layer, (long long)n,
                       (long long)n);
    if (config->projector == NEVA_PROJECTOR_MLP_DOWNSAMPLE && selects_class(config))
        return err_set(err, ERR_INVALID,
                       "model.mm_cfg.mm_mlp_adapter_type 'mlp_downsample' joins "
                       "neighbouring patches, a class token has no neighbours: set "
                       "model.mm_cfg.vision_encoder.vision_select_feature to 'patch'");
    return 0;
}

static int check_vision(const struct neva_config *config, struct err *err)
{
    if (config->vision.image_size < config->vision.patch)
        return err_set(err, ERR_INVALID,
                       "model.mm_cfg.vision_encoder.crop_size (%lld) must not be under "
                       "patch_dim (%lld)",
                       (long long)config->vision.image_size,
                       (long long)config->vision.patch);
    if (need_divisor("model.mm_cfg.vision_encoder.hidden_size", config->vision.width,
                     "num_attention_heads", config->vision.n_heads, err) < 0 ||
        check_selection(config, err) < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (!(config->vision.std[i] > 0))
            return err_set(err, ERR_INVALID,
                           "the pixels' standard deviation %d is not "
                           "above 0",
                           i);
    return 0;
}

static int check_rope(const struct neva_config *config, struct err *err)
{
    const struct rope_args *rope = &config->llm.rope;
    int64_t head_size = config->llm.width / config->llm.n_heads;

    if (rope->rot_dims < 2 || rope->rot_dims % 2 || rope->rot_dims > head_size)
        return err_set(err, ERR_INVALID,
                       "model.rotary_percentage of hidden_size / num_attention_heads "
                       "(%lld) are %lld: rotary embedding turns pairs, it must be even "
                       "and 2 to %lld",
                       (long long)head_size, (long long)rope->rot_dims,
                       (long long)head_size);
    if (!(rope->theta > 0))
        return err_set(err, ERR_INVALID, "model.rotary_base must be above 0");
    if (rope->scaling != ROPE_PLAIN && !(rope->factor > 0))
        return err_set(err, ERR_INVALID,
                       "model.seq_len_interpolation_factor must be above 0");
    if (rope->scaling == ROPE_LLAMA3 &&
        (!(rope->low_freq_factor > 0) || rope->original_positions < 1 ||
         !(rope->high_freq_factor > rope->low_freq_factor)))
        return err_set(err, ERR_INVALID,
                       "Llama 3's rotary scaling needs 0 < low < high frequency factor "
                       "and the positions first trained on");
    return 0;
}

static int check_llm(const struct neva_config *config, int n_ranks, struct err *err)
{
    if (need_divisor("model.hidden_size", config->llm.width, "num_attention_heads",
                     config->llm.n_heads, err) < 0 ||
        need_divisor("model.num_attention_heads", config->llm.n_heads, "num_query_groups",
                     config->llm.n_kv_heads, err) < 0 ||
        need_divisor("model.num_attention_heads", config->llm.n_heads,
                     "tensor_model_parallel_size", n_ranks, err) < 0)
        return -1;
    if (config->llm.n_kv_heads % n_ranks)
        return err_set(err, ERR_INVALID,
                       "model.num_query_groups (%lld) must be a multiple of "
                       "tensor_model_parallel_size (%d): key-value heads are not "
                       "replicated, use fewer tensor-parallel ranks",
                       (long long)config->llm.n_kv_heads, n_ranks);
    return check_rope(config, err);
}

int neva_config_check(const struct neva_config *config, int n_ranks, struct err *err)
{
    if (n_ranks < 1 || n_ranks > NEVA_RANKS_MAX)
        return err_set(err, ERR_INVALID,
                       "model.tensor_model_parallel_size is %d: 1 to %d", n_ranks,
                       NEVA_RANKS_MAX);
    if (check_sizes(config, err) < 0 || check_vision(config, err) < 0 ||
        check_llm(config, n_ranks, err) < 0)
        return -1;
    if (config->dtype != DTYPE_F32 && config->dtype != DTYPE_BF16 &&
        config->dtype != DTYPE_F16)
        return err_set(err, ERR_INVALID,
                       "trainer.precision: compute type must be 32, "
                       "bf16 or 16");
    if (!(config->init_std >= 0) || !(config->vision.eps > 0) ||
        !(config->llm.norm.eps > 0))
        return err_set(err, ERR_INVALID,
                       "model.init_method_std must be 0 or more and "
                       "layernorm_epsilon above 0");
    if (config->recompute == NEVA_RECOMPUTE_FULL && config->recompute_layers < 1)
        return err_set(err, ERR_INVALID,
                       "model.activations_checkpoint_num_layers is %lld: with "
                       "granularity 'full' it must be 1 or more",
                       (long long)config->recompute_layers);
    return 0;
}

/* ---- counts ---- */

int64_t neva_n_params(const struct neva_config *config)
{
    struct param_table table;
    int64_t total = 0;

    if (param_table_build(&table, config, 0, 1, NULL) < 0)
        return -1;
    for (int i = 0; i < table.n_params; i++) {
        int64_t n = 1;

        for (int axis = 0; axis < table.params[i].n_dims; axis++)
            n *= table.params[i].dims[axis];
        total += n;
    }
    param_table_fini(&table);
    return total;
}

/* One layer's forward operations on n rows, of which each attends to `keys` on average:
 * products of all weights, q k^T and p v. */
static double block_flops(const struct block_config *block, double n, double keys)
{
    double d = (double)block->width, f = (double)block->ffn_width;
    double q = (double)(block->n_heads * block->head_size);
    double kv = (double)(block->n_kv_heads * block->head_size);

    return 2 * n * (d * (q + 2 * kv) + q * d + d * f * (block->is_gated ? 3 : 2)) +
           4 * n * keys * q;
}

/* Forward once, gradients of the inputs once, those of the weights once (attention has
 * none: its gradient is two products for each one forward). */
static double stack_step_flops(const struct block_config *block, int64_t n_layers,
                               double n, double keys, bool has_backward,
                               const struct neva_config *config)
{
    double all = block_flops(block, n, keys), weights = block_flops(block, n, 0);
    double core = all - weights, once = all, again = 0;
    double down = 2 * n * (double)(block->width * block->ffn_width);
    int64_t group = config->recompute_layers, n_again = n_layers, n_groups;

    if (!has_backward)
        return (double)n_layers * once;
    once += 2 * core + weights * (block->is_trained ? 2 : 1);
    if (config->recompute == NEVA_RECOMPUTE_SELECTIVE)
        again = (double)n_layers * core;
    if (config->recompute == NEVA_RECOMPUTE_FULL) {
        if (config->recompute_method == NEVA_RECOMPUTE_BLOCK) {
            n_again = group < n_layers ? group : n_layers;
            group = 1;
        }
        n_groups = (n_again + group - 1) / group;
        /* the last group is still there; of each other one the last product is left out */
        again = (double)((n_groups - 1) * group) * all - (double)(n_groups - 1) * down;
    }
    return (double)n_layers * once + again;
}

/* The norm of mlp_downsample is trained, so the gradient goes through its first product
 * even with a frozen encoder. */
static double projector_step_flops(const struct neva_config *config, double n_frames)
{
    double n = n_frames * (double)neva_features(config), d = (double)config->llm.width;
    double width = (double)(config->vision.width * neva_feature_rows(config));
    bool needs_dx =
        !config->vision.freeze || config->projector == NEVA_PROJECTOR_MLP_DOWNSAMPLE;
    double second = config->projector == NEVA_PROJECTOR_LINEAR ? 0 : 2 * n * d * d;

    return 2 * n * width * d * (needs_dx ? 3 : 2) + second * 3;
}

double neva_step_flops(const struct neva_config *config, int64_t n_samples,
                       int64_t n_tokens, int64_t n_frames, int64_t n_labels)
{
    struct block_config vision = neva_vision_block(config),
                        llm = neva_llm_block(config, 1);
    double tokens = (double)n_samples * (double)n_tokens, labels = (double)n_labels;
    double patches = (double)n_frames * (double)neva_patches(config);
    double rows = (double)n_frames * (double)neva_vision_tokens(config);
    double dv = (double)config->vision.width, d = (double)config->llm.width;
    double pixels = 3.0 * (double)(config->vision.patch * config->vision.patch);
    double head = 2 * labels * d * (double)config->llm.vocab;
    bool trains_vision = !config->vision.freeze;

    return 2 * patches * pixels * dv * (trains_vision ? 2 : 1) +
           stack_step_flops(&vision, neva_vision_layers(config), rows,
                            (double)neva_vision_tokens(config), trains_vision, config) +
           projector_step_flops(config, (double)n_frames) +
           stack_step_flops(&llm, config->llm.n_layers, tokens,
                            ((double)n_tokens + 1) / 2, true, config) +
           head * (config->llm.freeze ? 2 : 3);
}
