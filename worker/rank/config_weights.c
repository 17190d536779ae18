/* A spec beside the config.json of a folder of weights: silent keys take the folder's
 * value, the others must have it. */
#include "worker/rank/config.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#define SAME 1e-6 /* relative: numbers that were texts */

enum field { FIELD_INT, FIELD_FLOAT, FIELD_BOOL, FIELD_WORD };

static const char *const norms[] = {[NN_NORM_RMS] = "rmsnorm",
                                    [NN_NORM_LAYER] = "layernorm",
                                    [NN_NORM_LAYER_1P] = "layernorm1p"};
static const char *const mlps[] = {[NEVA_MLP_SWIGLU] = "swiglu",
                                   [NEVA_MLP_RELU_SQUARED] = "squared-relu",
                                   [NEVA_MLP_GELU] = "gelu"};
static const char *const acts[] = {[ACT_NONE] = "none",
                                   [ACT_GELU] = "gelu",
                                   [ACT_GELU_TANH] = "gelu_pytorch_tanh",
                                   [ACT_QUICK_GELU] = "quick_gelu",
                                   [ACT_RELU_SQUARED] = "squared-relu"};
static const char *const projectors[] = {[NEVA_PROJECTOR_LINEAR] = "linear",
                                         [NEVA_PROJECTOR_MLP2X_GELU] = "mlp2x_gelu",
                                         [NEVA_PROJECTOR_MLP_DOWNSAMPLE] =
                                             "mlp_downsample"};

static const char *const encoders[] = {
    [NEVA_ENCODER_CLIP] = "clip", [NEVA_ENCODER_SIGLIP] = "siglip"};

#define AT(name) offsetof(struct neva_config, name)
#define VISION "model.mm_cfg.vision_encoder."

/* A key of NeMo's and its place in the configuration. */
static const struct row {
    const char *key;
    unsigned part;
    enum field field;
    size_t offset;
    const char *const *words; /* of FIELD_WORD, by value */
    const char *unit;         /* said behind a number */
} rows[] = {
    {VISION "model_type", WEIGHTS_VISION, FIELD_WORD, AT(vision.encoder), encoders, ""},
    {VISION "crop_size", WEIGHTS_VISION, FIELD_INT, AT(vision.image_size), NULL, ""},
    {VISION "patch_dim", WEIGHTS_VISION, FIELD_INT, AT(vision.patch), NULL, ""},
    {VISION "hidden_size", WEIGHTS_VISION, FIELD_INT, AT(vision.width), NULL, ""},
    {VISION "ffn_hidden_size", WEIGHTS_VISION, FIELD_INT, AT(vision.ffn_width), NULL, ""},
    {VISION "num_layers", WEIGHTS_VISION, FIELD_INT, AT(vision.n_layers), NULL, ""},
    {VISION "num_attention_heads", WEIGHTS_VISION, FIELD_INT, AT(vision.n_heads), NULL,
     ""},
    {VISION "activation", WEIGHTS_VISION, FIELD_WORD, AT(vision.act), acts, ""},
    {VISION "layernorm_epsilon", WEIGHTS_VISION, FIELD_FLOAT, AT(vision.eps), NULL, ""},
    {"model.mm_cfg.mm_mlp_adapter_type", WEIGHTS_PROJECTOR, FIELD_WORD, AT(projector),
     projectors, ""},
    {"model.num_layers", WEIGHTS_LLM, FIELD_INT, AT(llm.n_layers), NULL, ""},
    {"model.hidden_size", WEIGHTS_LLM, FIELD_INT, AT(llm.width), NULL, ""},
    {"model.ffn_hidden_size", WEIGHTS_LLM, FIELD_INT, AT(llm.ffn_width), NULL, ""},
    {"model.num_attention_heads", WEIGHTS_LLM, FIELD_INT, AT(llm.n_heads), NULL, ""},
    {"model.num_query_groups", WEIGHTS_LLM, FIELD_INT, AT(llm.n_kv_heads), NULL, ""},
    {"model.normalization", WEIGHTS_LLM, FIELD_WORD, AT(llm.norm.kind), norms, ""},
    {"model.layernorm_epsilon", WEIGHTS_LLM, FIELD_FLOAT, AT(llm.norm.eps), NULL, ""},
    {"model.activation", WEIGHTS_LLM, FIELD_WORD, AT(llm.mlp), mlps, ""},
    {"model.bias", WEIGHTS_LLM, FIELD_BOOL, AT(llm.has_bias), NULL, ""},
    {"model.qkv_bias", WEIGHTS_LLM, FIELD_BOOL, AT(llm.has_qkv_bias), NULL, ""},
    {"model.rotary_percentage", WEIGHTS_LLM, FIELD_INT, AT(llm.rope.rot_dims), NULL,
     " rotated dimensions"},
    {"model.rotary_base", WEIGHTS_LLM, FIELD_FLOAT, AT(llm.rope.theta), NULL, ""},
    {"model.share_embeddings_and_output_weights", WEIGHTS_LLM, FIELD_BOOL, AT(llm.tied),
     NULL, ""},
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static size_t field_bytes(const struct row *row)
{
    static const size_t bytes[] = {[FIELD_INT] = sizeof(int64_t),
                                   [FIELD_FLOAT] = sizeof(float),
                                   [FIELD_BOOL] = sizeof(bool),
                                   [FIELD_WORD] = sizeof(int)};

    return bytes[row->field];
}

_Static_assert(sizeof(enum nn_norm_kind) == sizeof(int), "words are read as int");

static bool is_same(const struct row *row, const void *a, const void *b)
{
    float x, y;

    if (row->field != FIELD_FLOAT)
        return memcmp(a, b, field_bytes(row)) == 0;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return fabs((double)x - (double)y) <= SAME * fabs((double)y);
}

static void write_value(struct buf *out, const struct row *row, const void *at)
{
    int64_t whole;
    float number;
    bool flag;
    int word;

    switch (row->field) {
    case FIELD_INT:
        memcpy(&whole, at, sizeof(whole));
        buf_printf(out, "%" PRId64 "%s", whole, row->unit);
        break;
    case FIELD_FLOAT:
        memcpy(&number, at, sizeof(number));
        buf_printf(out, "%g", (double)number);
        break;
    case FIELD_BOOL:
        memcpy(&flag, at, sizeof(flag));
        buf_add_str(out, flag ? "true" : "false");
        break;
    case FIELD_WORD:
        memcpy(&word, at, sizeof(word));
        buf_add_str(out, row->words[word]);
        break;
    }
}

static int fail_other(const struct row *row, const void *ours, const void *theirs,
                      const struct weights_info *info, const char *path, struct err *err)
{
    struct buf is = BUF_INIT, has = BUF_INIT;

    write_value(&is, row, ours);
    write_value(&has, row, theirs);
    err_set(err, ERR_INVALID, "%s is %s, but the weights in '%s' (%s) have %s", row->key,
            buf_str(&is), path, info->architecture, buf_str(&has));
    buf_fini(&is);
    buf_fini(&has);
    return -1;
}

/* Llama 3.1's scaling and linear interpolation: two keys, and no key for the figures. */
static int take_scaling(struct neva_config *config, const struct spec *spec,
                        const struct weights_info *info, const char *path,
                        struct err *err)
{
    static const char *const names[] = {[ROPE_PLAIN] = "no scaling",
                                        [ROPE_LINEAR] = "linear scaling",
                                        [ROPE_LLAMA3] = "llama3 scaling"};
    const struct rope_args *theirs = &info->config.llm.rope;
    struct rope_args *ours = &config->llm.rope;
    bool is_said = spec_is_set(spec, "model.scale_positional_embedding") ||
                   spec_is_set(spec, "model.seq_len_interpolation_factor");

    if (!is_said || (ours->scaling == theirs->scaling &&
                     (ours->scaling == ROPE_PLAIN || ours->factor == theirs->factor))) {
        *ours = *theirs;
        return 0;
    }
    return err_set(err, ERR_INVALID,
                   "model.scale_positional_embedding and seq_len_interpolation_factor "
                   "ask for %s (factor %g), but the weights in '%s' (%s) have %s (factor "
                   "%g)",
                   names[ours->scaling], (double)ours->factor, path, info->architecture,
                   names[theirs->scaling], (double)theirs->factor);
}

static int64_t selected_layer(const struct neva_config *config)
{
    int64_t layer = config->vision.select_layer;

    return layer < 0 ? config->vision.n_layers + 1 + layer : layer;
}

/* A projector goes with the rows it learnt from. Keys have defaults, so a folder that says
 * otherwise is not passed over; only one with encoder and projector says. */
static int check_selection(const struct neva_config *config,
                           const struct weights_info *info, unsigned parts,
                           const char *path, struct err *err)
{
    static const char *const names[] = {
        [NEVA_SELECT_PATCH] = "patch", [NEVA_SELECT_CLS_PATCH] = "cls_patch"};
    const unsigned both = WEIGHTS_VISION | WEIGHTS_PROJECTOR;
    const struct neva_config *theirs = &info->config;
    bool is_same_rows = config->vision.class_token_length == 0 ||
                        config->vision.select_feature == theirs->vision.select_feature;

    if (!(parts & WEIGHTS_PROJECTOR) || (info->parts & both) != both ||
        (is_same_rows && selected_layer(config) == selected_layer(theirs)))
        return 0;
    return err_set(err, ERR_INVALID,
                   VISION "vision_select_layer is %" PRId64
                          " and vision_select_feature %s, but the projector in '%s' (%s) "
                          "reads %" PRId64 " and %s: set the two keys to that",
                   config->vision.select_layer, names[config->vision.select_feature],
                   path, info->architecture, theirs->vision.select_layer,
                   names[theirs->vision.select_feature]);
}

/* What no key says. */
static void take_rest(struct neva_config *config, const struct neva_config *theirs,
                      unsigned parts)
{
    if (parts & WEIGHTS_VISION) {
        if (config->vision.encoder == NEVA_ENCODER_SIGLIP)
            config->vision.class_token_length = 0; /* the key is CLIP's */
        config->vision.has_head = theirs->vision.has_head;
        memcpy(config->vision.mean, theirs->vision.mean, sizeof(theirs->vision.mean));
        memcpy(config->vision.std, theirs->vision.std, sizeof(theirs->vision.std));
    }
    if (parts & WEIGHTS_PROJECTOR)
        config->projector_no_bias = theirs->projector_no_bias;
}

/* The part of a head, now that the size of a head is known; it may have been silent. */
static void set_rotary_dims(struct neva_config *config, const struct spec *spec)
{
    config->llm.rope.rot_dims = neva_rotary_dims(config->llm.width / config->llm.n_heads,
                                                 spec->model.rotary_percentage);
}

int config_from_weights(struct neva_config *config, const struct spec *spec,
                        const struct weights_info *info, unsigned parts, const char *path,
                        struct err *err)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct row *row = &rows[i];
        char *ours = (char *)config + row->offset;
        const char *theirs = (const char *)&info->config + row->offset;

        if (!(row->part & parts))
            continue;
        if (row->offset == AT(llm.rope.rot_dims))
            set_rotary_dims(config, spec);
        if (!spec_is_set(spec, row->key))
            memcpy(ours, theirs, field_bytes(row));
        else if (!is_same(row, ours, theirs))
            return fail_other(row, ours, theirs, info, path, err);
    }
    take_rest(config, &info->config, parts);
    if (check_selection(config, info, parts, path, err) < 0)
        return -1;
    if ((parts & WEIGHTS_LLM) && info->sliding_window &&
        config->max_tokens > info->sliding_window)
        return err_set(err, ERR_UNSUPPORTED,
                       "model.encoder_seq_length (%" PRId64 ") is longer than the window "
                       "of attention (%" PRId64 ") of the weights in '%s' (%s), which is "
                       "not built: at most %" PRId64 " can be honoured",
                       config->max_tokens, info->sliding_window, path, info->architecture,
                       info->sliding_window);
    return parts & WEIGHTS_LLM ? take_scaling(config, spec, info, path, err) : 0;
}
