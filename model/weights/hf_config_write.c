#include "model/weights/hf_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- building: the first failure stays ---- */

struct sink {
    struct json *json;
    struct err *err;
    bool has_failed;
};

static void put(struct sink *s, const char *key, struct json *child)
{
    if (json_set(s->json, key, child, s->has_failed ? NULL : s->err) < 0)
        s->has_failed = true;
}

static void put_int(struct sink *s, const char *key, int64_t value)
{
    put(s, key, json_new_int(value));
}

static void put_word(struct sink *s, const char *key, const char *value)
{
    put(s, key, json_new_string(value));
}

static void put_flag(struct sink *s, const char *key, bool value)
{
    put(s, key, json_new_bool(value));
}

/* The shortest decimal that is this float again: 1e-05 and not 9.99999974737875e-06. */
static double shortest(float value)
{
    char text[32];

    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            return strtod(text, NULL);
    }
    return (double)value;
}

static void put_float(struct sink *s, const char *key, float value)
{
    put(s, key, json_new_double(shortest(value)));
}

static void put_floats(struct sink *s, const char *key, const float *values)
{
    struct json *list = json_new(JSON_ARRAY);

    for (int i = 0; i < 3 && list; i++)
        if (json_append(list, json_new_double(shortest(values[i])), s->err) < 0)
            s->has_failed = true;
    put(s, key, list);
}

static struct sink object(const struct sink *parent)
{
    return (struct sink){json_new(JSON_OBJECT), parent->err, parent->has_failed};
}

static void put_object(struct sink *s, const char *key, struct sink *child)
{
    s->has_failed |= child->has_failed;
    put(s, key, child->json);
}

/* ---- the decoder ---- */

/* The class that computes the same, or NULL. */
static const struct hf_text_class *class_of(const struct neva_config *model)
{
    bool is_gated = model->llm.mlp == NEVA_MLP_SWIGLU;
    bool is_whole = model->llm.rope.rot_dims == model->llm.width / model->llm.n_heads;
    bool is_plain = model->llm.rope.scaling == ROPE_PLAIN;

    if (model->llm.norm.kind == NN_NORM_RMS && is_gated && is_whole)
        return hf_text_class_find(
            model->llm.has_bias || !model->llm.has_qkv_bias ? "llama" : "qwen2");
    if (model->llm.norm.kind == NN_NORM_LAYER && is_gated && !model->llm.has_bias)
        return hf_text_class_find("stablelm");
    if (model->llm.norm.kind == NN_NORM_LAYER_1P && !is_gated && is_plain &&
        (model->llm.has_bias || !model->llm.has_qkv_bias))
        return hf_text_class_find("nemotron");
    return NULL;
}

static void put_rope(struct sink *s, const struct rope_args *rope)
{
    struct sink scaling = object(s);

    put_float(s, "rope_theta", rope->theta);
    if (rope->scaling == ROPE_PLAIN) {
        json_free(scaling.json);
        return;
    }
    put_word(&scaling, "rope_type", rope->scaling == ROPE_LINEAR ? "linear" : "llama3");
    put_float(&scaling, "factor", rope->factor);
    if (rope->scaling == ROPE_LLAMA3) {
        put_float(&scaling, "low_freq_factor", rope->low_freq_factor);
        put_float(&scaling, "high_freq_factor", rope->high_freq_factor);
        put_int(&scaling, "original_max_position_embeddings", rope->original_positions);
    }
    put_object(s, "rope_scaling", &scaling);
}

/* A factor of which the reader's rounding down makes rot_dims again. */
static double rotary_factor(int64_t rot_dims, int64_t head_size)
{
    double factor = (double)rot_dims / (double)head_size;

    if ((int64_t)((double)head_size * factor) < rot_dims)
        factor = nextafter(factor, 2);
    return factor;
}

static void put_text(struct sink *parent, const struct neva_config *model,
                     const struct hf_text_class *class)
{
    struct sink s = object(parent);
    int64_t head_size = model->llm.width / model->llm.n_heads;
    bool is_own = !class;

    if (is_own) /* "vneva" says the rest */
        class = hf_text_class_find("llama");
    put_word(&s, "model_type", class->model_type);
    put_int(&s, "vocab_size", model->llm.vocab);
    put_int(&s, "hidden_size", model->llm.width);
    put_int(&s, "intermediate_size", model->llm.ffn_width);
    put_int(&s, "num_hidden_layers", model->llm.n_layers);
    put_int(&s, "num_attention_heads", model->llm.n_heads);
    put_int(&s, "num_key_value_heads", model->llm.n_kv_heads);
    put_int(&s, "max_position_embeddings", model->max_tokens);
    put_float(&s, class->eps_key, model->llm.norm.eps);
    put_flag(&s, "tie_word_embeddings", model->llm.tied);
    put_rope(&s, &model->llm.rope);
    if (class->has_partial_rotary)
        put(&s, "partial_rotary_factor",
            json_new_double(rotary_factor(model->llm.rope.rot_dims, head_size)));
    put_word(&s, "hidden_act",
             class->norm != NN_NORM_LAYER_1P   ? "silu"
             : model->llm.mlp == NEVA_MLP_GELU ? "gelu"
                                               : "relu2");
    if (strcmp(class->model_type, "stablelm") == 0)
        put_flag(&s, "use_qkv_bias", model->llm.has_qkv_bias);
    if (!is_own && (strcmp(class->model_type, "llama") == 0 ||
                    strcmp(class->model_type, "nemotron") == 0)) {
        put_flag(&s, "attention_bias", model->llm.has_bias);
        put_flag(&s, "mlp_bias", model->llm.has_bias);
    }
    put_object(parent, "text_config", &s);
}

/* ---- the encoder ---- */

static void put_vision(struct sink *parent, const struct neva_config *model)
{
    struct sink s = object(parent);
    bool is_clip = model->vision.encoder == NEVA_ENCODER_CLIP;

    put_word(&s, "model_type", is_clip ? "clip_vision_model" : "siglip_vision_model");
    put_int(&s, "image_size", model->vision.image_size);
    put_int(&s, "patch_size", model->vision.patch);
    put_int(&s, "hidden_size", model->vision.width);
    put_int(&s, "intermediate_size", model->vision.ffn_width);
    put_int(&s, "num_hidden_layers", model->vision.n_layers);
    put_int(&s, "num_attention_heads", model->vision.n_heads);
    put_int(&s, "num_channels", 3);
    put_word(&s, "hidden_act", hf_activation_name(model->vision.act));
    put_float(&s, "layer_norm_eps", model->vision.eps);
    if (!is_clip)
        put_flag(&s, "vision_use_head", model->vision.has_head);
    put_object(parent, "vision_config", &s);
}

/* ---- the whole ---- */

/* True when LLaVA's class computes what this model does. */
static bool is_llava(const struct neva_config *model)
{
    bool is_clip = model->vision.encoder == NEVA_ENCODER_CLIP;

    return model->projector == NEVA_PROJECTOR_MLP2X_GELU && class_of(model) &&
           model->vision.class_token_length == is_clip;
}

static void put_own(struct sink *parent, const struct neva_config *model)
{
    static const char *const projectors[] = {"linear", "mlp2x_gelu", "mlp_downsample"};
    static const char *const selected[] = {"patch", "cls_patch"};
    static const char *const norms[] = {"rmsnorm", "layernorm", "layernorm1p"};
    static const char *const mlps[] = {"swiglu", "squared-relu", "gelu"};
    struct sink s = object(parent);

    put_word(&s, "mm_mlp_adapter_type", projectors[model->projector]);
    put_word(&s, "vision_select_feature", selected[model->vision.select_feature]);
    put_int(&s, "class_token_length", model->vision.class_token_length);
    put_word(&s, "normalization", norms[model->llm.norm.kind]);
    put_word(&s, "activation", mlps[model->llm.mlp]);
    put_flag(&s, "bias", model->llm.has_bias);
    put_flag(&s, "qkv_bias", model->llm.has_qkv_bias);
    put_int(&s, "rotary_dims", model->llm.rope.rot_dims);
    put_object(parent, "vneva", &s);
}

static const char *torch_dtype(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? "bfloat16" : dtype == DTYPE_F16 ? "float16" : "float32";
}

int hf_config_write(struct json **out, const struct neva_config *model, enum dtype stored,
                    int64_t image_token, struct err *err)
{
    struct sink s = {json_new(JSON_OBJECT), err, false};
    struct json *names = json_new(JSON_ARRAY);
    bool is_own = !is_llava(model);
    bool is_full = model->vision.select_feature == NEVA_SELECT_CLS_PATCH ||
                   model->vision.encoder == NEVA_ENCODER_SIGLIP;

    if (json_append(names,
                    json_new_string(is_own ? HF_ARCHITECTURE_OWN : HF_ARCHITECTURE_LLAVA),
                    err) < 0)
        s.has_failed = true;
    put(&s, "architectures", names);
    put_word(&s, "model_type", is_own ? "vneva" : "llava");
    put_word(&s, "torch_dtype", torch_dtype(stored));
    if (image_token >= 0)
        put_int(&s, "image_token_index", image_token);
    put_int(&s, "image_seq_length", neva_features(model));
    put_int(&s, "vision_feature_layer", model->vision.select_layer);
    put_word(&s, "vision_feature_select_strategy", is_full ? "full" : "default");
    put_word(&s, "projector_hidden_act", "gelu");
    put_flag(&s, "multimodal_projector_bias", !model->projector_no_bias);
    put_flag(&s, "tie_word_embeddings", model->llm.tied);
    put_vision(&s, model);
    put_text(&s, model, is_own ? NULL : class_of(model));
    if (is_own)
        put_own(&s, model);
    if (s.has_failed) {
        json_free(s.json);
        return -1;
    }
    *out = s.json;
    return 0;
}

int hf_preprocessor_write(struct json **out, const struct neva_config *model,
                          struct err *err)
{
    struct sink s = {json_new(JSON_OBJECT), err, false};
    struct sink crop = object(&s), size = object(&s);
    bool is_clip = model->vision.encoder == NEVA_ENCODER_CLIP;

    put_word(&s, "image_processor_type",
             is_clip ? "CLIPImageProcessor" : "SiglipImageProcessor");
    put_flag(&s, "do_resize", true);
    if (is_clip)
        put_int(&size, "shortest_edge", model->vision.image_size);
    put_int(is_clip ? &crop : &size, "height", model->vision.image_size);
    put_int(is_clip ? &crop : &size, "width", model->vision.image_size);
    put_object(&s, "size", &size);
    if (is_clip) {
        put_flag(&s, "do_center_crop", true);
        put_object(&s, "crop_size", &crop);
    } else {
        json_free(crop.json);
    }
    put_int(&s, "resample", 3); /* bicubic */
    put_flag(&s, "do_rescale", true);
    put(&s, "rescale_factor", json_new_double(1.0 / 255));
    put_flag(&s, "do_normalize", true);
    put_floats(&s, "image_mean", model->vision.mean);
    put_floats(&s, "image_std", model->vision.std);
    put_flag(&s, "do_convert_rgb", true);
    if (s.has_failed) {
        json_free(s.json);
        return -1;
    }
    *out = s.json;
    return 0;
}
