#include "model/weights/hf_text.h"

#include <string.h>

const struct hf_text_class hf_text_classes[HF_TEXT_CLASSES] = {
    {"llama", "LlamaForCausalLM", 32000, 4096, 11008, 32, 32, 0, 2048, 0, "rms_norm_eps",
     1e-6, 1, false, true, NN_NORM_RMS, "silu"},
    {"mistral", "MistralForCausalLM", 32000, 4096, 14336, 32, 32, 8, 131072, 4096,
     "rms_norm_eps", 1e-6, 1, false, true, NN_NORM_RMS, "silu"},
    {"qwen2", "Qwen2ForCausalLM", 151936, 4096, 22016, 32, 32, 32, 32768, 4096,
     "rms_norm_eps", 1e-6, 1, false, true, NN_NORM_RMS, "silu"},
    {"stablelm", "StableLmForCausalLM", 50304, 2560, 6912, 32, 32, 32, 4096, 0,
     "layer_norm_eps", 1e-5, 0.25, true, true, NN_NORM_LAYER, "silu"},
    {"nemotron", "NemotronForCausalLM", 256000, 6144, 24576, 32, 48, 0, 4096, 0,
     "norm_eps", 1e-5, 0.5, true, false, NN_NORM_LAYER_1P, "relu2"},
};

const struct hf_text_class *hf_text_class_find(const char *model_type)
{
    for (int i = 0; i < HF_TEXT_CLASSES; i++)
        if (strcmp(hf_text_classes[i].model_type, model_type) == 0)
            return &hf_text_classes[i];
    return NULL;
}

static void read_rope_scaling(struct source *s, const struct hf_text_class *class,
                              const struct json *json, struct rope_args *rope)
{
    struct source in = {json, "rope_scaling.", s->err, s->has_failed};
    const char *type = source_word(&in, "rope_type", source_word(&in, "type", "default"));

    if (strcmp(type, "linear") == 0)
        rope->scaling = ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0)
        rope->scaling = ROPE_LLAMA3;
    else if (strcmp(type, "default") != 0)
        source_fail(&in, "rope_type", ERR_UNSUPPORTED,
                    "is '%.40s': default, linear and llama3 can be read", type);
    if (rope->scaling != ROPE_PLAIN && !class->has_scaled_rotary)
        source_fail(&in, "rope_type", ERR_UNSUPPORTED,
                    "is '%.40s', which %s does not have", type, class->architecture);
    if (rope->scaling != ROPE_PLAIN)
        rope->factor = (float)source_number(&in, "factor", 0);
    if (rope->scaling != ROPE_PLAIN && !(rope->factor > 0))
        source_fail(&in, "factor", ERR_INVALID, "must be there and above 0");
    if (rope->scaling == ROPE_LLAMA3) {
        rope->low_freq_factor = (float)source_number(&in, "low_freq_factor", 0);
        rope->high_freq_factor = (float)source_number(&in, "high_freq_factor", 0);
        rope->original_positions =
            source_size(&in, "original_max_position_embeddings", 0);
        if (!(rope->low_freq_factor > 0 &&
              rope->high_freq_factor > rope->low_freq_factor))
            source_fail(&in, "low_freq_factor", ERR_INVALID,
                        "must be above 0 and below high_freq_factor");
    }
    s->has_failed = in.has_failed;
}

/* Two forms: rope_theta, rope_scaling and partial_rotary_factor side by side, or, newer,
 * all of them inside rope_parameters. */
static void read_rope(struct source *s, const struct hf_text_class *class,
                      int64_t head_size, struct rope_args *rope)
{
    const struct json *parameters = source_value(s, "rope_parameters");
    const struct json *scaling =
        parameters ? parameters : source_value(s, "rope_scaling");
    struct source in = *s;
    double rotary;

    rope->theta = (float)source_number(s, "rope_theta", 10000);
    rotary = source_number(s, "partial_rotary_factor", class->rotary);
    if (parameters) {
        in = (struct source){parameters, "rope_parameters.", s->err, s->has_failed};
        rope->theta = (float)source_number(&in, "rope_theta", (double)rope->theta);
        rotary = source_number(&in, "partial_rotary_factor", rotary);
        s->has_failed = in.has_failed;
    }
    if (!(rope->theta > 0))
        source_fail(s, "rope_theta", ERR_INVALID, "must be above 0");
    if (!(rotary > 0 && rotary <= 1) || (rotary < 1 && !class->has_partial_rotary))
        source_fail(s, "partial_rotary_factor", ERR_UNSUPPORTED, "is %g, for %s", rotary,
                    class->architecture);
    rope->rot_dims = (int64_t)((double)head_size * rotary);
    if (scaling)
        read_rope_scaling(s, class, scaling, rope);
}

/* Biases: Qwen2 always has them in q, k, v; StableLm by use_qkv_bias; the others by
 * attention_bias (q, k, v, o) and mlp_bias, which must agree. */
static void read_biases(struct source *s, const struct hf_text_class *class,
                        struct neva_config *out)
{
    bool attention = source_flag(s, "attention_bias", false),
         mlp = source_flag(s, "mlp_bias", false);

    if (strcmp(class->model_type, "qwen2") == 0) {
        out->llm.has_qkv_bias = true;
    } else if (strcmp(class->model_type, "stablelm") == 0) {
        out->llm.has_qkv_bias = source_flag(s, "use_qkv_bias", false);
        source_only_flag(s, "qk_layernorm", false, false);
        source_only_flag(s, "use_parallel_residual", false, false);
    } else if (strcmp(class->model_type, "mistral") != 0) {
        if (attention != mlp)
            source_fail(s, attention ? "attention_bias" : "mlp_bias", ERR_UNSUPPORTED,
                        "is true and %s is not: both or neither can be read",
                        attention ? "mlp_bias" : "attention_bias");
        out->llm.has_bias = attention;
    }
}

/* The feed-forward layers, by hidden_act. */
static void read_mlp(struct source *s, const struct hf_text_class *class,
                     struct neva_config *out)
{
    const char *act = source_word(s, "hidden_act", class->hidden_act);
    bool is_gated = class->norm != NN_NORM_LAYER_1P;

    if (is_gated && (strcmp(act, "silu") == 0 || strcmp(act, "swish") == 0))
        out->llm.mlp = NEVA_MLP_SWIGLU;
    else if (!is_gated && strcmp(act, "relu2") == 0)
        out->llm.mlp = NEVA_MLP_RELU_SQUARED;
    else if (!is_gated && strcmp(act, "gelu") == 0)
        out->llm.mlp = NEVA_MLP_GELU;
    else
        source_fail(s, "hidden_act", ERR_UNSUPPORTED, "is '%.40s': %s for %s", act,
                    is_gated ? "silu" : "relu2 or gelu", class->architecture);
}

/* Rows up to the window are the same with and without it. Qwen2 has it where
 * use_sliding_window says so, from layer max_window_layers on. */
static int64_t read_window(struct source *s, const struct hf_text_class *class,
                           int64_t n_layers)
{
    if (class->sliding_window == 0 || source_is_null(s, "sliding_window"))
        return 0;
    if (strcmp(class->model_type, "qwen2") == 0 &&
        (!source_flag(s, "use_sliding_window", false) ||
         source_whole(s, "max_window_layers", 28) >= n_layers))
        return 0;
    return source_size(s, "sliding_window", class->sliding_window);
}

void hf_text_read(struct source *s, const struct hf_text_class *class,
                  struct hf_config *out)
{
    struct neva_config *model = &out->model;
    int64_t head_size;

    model->llm.vocab = source_size(s, "vocab_size", class->vocab);
    model->llm.width = source_size(s, "hidden_size", class->width);
    model->llm.ffn_width = source_size(s, "intermediate_size", class->ffn_width);
    model->llm.n_layers = source_size(s, "num_hidden_layers", class->n_layers);
    model->llm.n_heads = source_size(s, "num_attention_heads", class->n_heads);
    model->llm.n_kv_heads =
        source_size(s, "num_key_value_heads",
                    class->n_kv_heads && !source_is_null(s, "num_key_value_heads")
                        ? class->n_kv_heads
                        : model->llm.n_heads);
    head_size = model->llm.width / model->llm.n_heads;
    if (model->llm.width % model->llm.n_heads ||
        source_whole(s, "head_dim", head_size) != head_size)
        source_fail(
            s, "head_dim", ERR_UNSUPPORTED,
            "is %lld: only hidden_size / num_attention_heads (%lld / %lld) can be read",
            (long long)source_whole(s, "head_dim", head_size),
            (long long)model->llm.width, (long long)model->llm.n_heads);
    if (model->llm.n_heads % model->llm.n_kv_heads)
        source_fail(s, "num_key_value_heads", ERR_INVALID,
                    "(%lld) does not divide %lld heads", (long long)model->llm.n_kv_heads,
                    (long long)model->llm.n_heads);
    model->llm.norm.kind = class->norm;
    model->llm.norm.eps = (float)source_number(s, class->eps_key, class->eps);
    model->llm.tied = source_flag(s, "tie_word_embeddings", false);
    model->max_tokens = source_size(s, "max_position_embeddings", class->max_positions);
    read_rope(s, class, head_size, &model->llm.rope);
    read_mlp(s, class, model);
    read_biases(s, class, model);
    out->sliding_window = read_window(s, class, model->llm.n_layers);
    if (out->sliding_window && out->sliding_window < model->max_tokens)
        model->max_tokens = out->sliding_window;
}
