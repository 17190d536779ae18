#include "model/weights/hf_config.h"
#include "model/weights/hf_source.h"
#include "model/weights/hf_text.h"

#include <stdio.h>
#include <string.h>

/* ---- tables ---- */

const float hf_clip_mean[3] = {0.48145466F, 0.4578275F, 0.40821073F};
const float hf_clip_std[3] = {0.26862954F, 0.26130258F, 0.27577711F};

static const struct {
    const char *name;
    enum activation act;
} activations[] = {
    {"quick_gelu", ACT_QUICK_GELU},
    {"gelu", ACT_GELU},
    {"gelu_pytorch_tanh", ACT_GELU_TANH},
    {"gelu_new", ACT_GELU_TANH}, /* the same formula under its older name */
};
#define N_ACTIVATIONS ((int)(sizeof(activations) / sizeof(activations[0])))

const char *hf_activation_name(enum activation act)
{
    for (int i = 0; i < N_ACTIVATIONS; i++)
        if (activations[i].act == act)
            return activations[i].name;
    return NULL;
}

static enum activation activation(struct source *s, const char *key,
                                  const char *otherwise)
{
    const char *name = source_word(s, key, otherwise);

    for (int i = 0; i < N_ACTIVATIONS; i++)
        if (strcmp(activations[i].name, name) == 0)
            return activations[i].act;
    source_fail(s, key, ERR_UNSUPPORTED,
                "is '%.60s': quick_gelu, gelu or gelu_pytorch_tanh", name);
    return ACT_NONE;
}

/* ---- encoders ---- */

static void read_vision(struct source *s, enum neva_encoder encoder,
                        struct neva_config *model)
{
    bool is_clip = encoder == NEVA_ENCODER_CLIP;

    model->vision.encoder = encoder;
    model->vision.image_size = source_size(s, "image_size", 224);
    model->vision.patch = source_size(s, "patch_size", is_clip ? 32 : 16);
    model->vision.width = source_size(s, "hidden_size", 768);
    model->vision.ffn_width = source_size(s, "intermediate_size", 3072);
    model->vision.n_layers = source_size(s, "num_hidden_layers", 12);
    model->vision.n_heads = source_size(s, "num_attention_heads", 12);
    model->vision.act =
        activation(s, "hidden_act", is_clip ? "quick_gelu" : "gelu_pytorch_tanh");
    model->vision.eps = (float)source_number(s, "layer_norm_eps", is_clip ? 1e-5 : 1e-6);
    model->vision.class_token_length = is_clip;
    model->vision.has_head = !is_clip && source_flag(s, "vision_use_head", true);
    if (source_whole(s, "num_channels", 3) != 3)
        source_fail(s, "num_channels", ERR_UNSUPPORTED, "is %lld: only 3 can be read",
                    (long long)source_whole(s, "num_channels", 3));
    if (model->vision.width % model->vision.n_heads)
        source_fail(s, "hidden_size", ERR_INVALID, "(%lld) is no multiple of %lld heads",
                    (long long)model->vision.width, (long long)model->vision.n_heads);
    if (model->vision.image_size < model->vision.patch)
        source_fail(s, "patch_size", ERR_INVALID, "is above image_size");
    for (int i = 0; i < 3; i++) {
        model->vision.mean[i] = is_clip ? hf_clip_mean[i] : 0.5F;
        model->vision.std[i] = is_clip ? hf_clip_std[i] : 0.5F;
    }
}

/* CLIPModel's configuration has the encoder's inside it, CLIPVisionModel's is it. Old ones
 * (OpenAI's) also have vision_config_dict, which then is all that counts. */
static void read_encoder(struct source *s, enum neva_encoder encoder,
                         struct hf_config *out)
{
    struct source inner = source_part(s, "vision_config_dict", "vision_config_dict.");

    if (!inner.json)
        inner = source_part(s, "vision_config", "vision_config.");
    if (!inner.json)
        inner = *s;
    read_vision(&inner, encoder, &out->model);
    s->has_failed = inner.has_failed;
}

/* ---- LLaVA ---- */

static enum neva_encoder encoder_of(struct source *s)
{
    const char *type = source_word(s, "model_type", "clip_vision_model");

    if (strcmp(type, "siglip_vision_model") == 0)
        return NEVA_ENCODER_SIGLIP;
    if (strcmp(type, "clip_vision_model") != 0)
        source_fail(s, "model_type", ERR_UNSUPPORTED,
                    "is '%.40s': clip_vision_model or siglip_vision_model", type);
    return NEVA_ENCODER_CLIP;
}

/* What LLaVA takes for vision_config where there is none: ViT-L/14 at 336. */
static void default_vision(struct neva_config *model)
{
    model->vision.image_size = 336;
    model->vision.patch = 14;
    model->vision.width = 1024;
    model->vision.ffn_width = 4096;
    model->vision.n_layers = 24;
    model->vision.n_heads = 16;
}

static void read_selection(struct source *s, struct neva_config *model)
{
    const char *strategy = source_word(s, "vision_feature_select_strategy", "default");
    bool is_full = strcmp(strategy, "full") == 0;
    int64_t layer = source_whole(s, "vision_feature_layer", -2);

    if (!is_full && strcmp(strategy, "default") != 0)
        source_fail(s, "vision_feature_select_strategy", ERR_UNSUPPORTED,
                    "is '%.40s': default or full", strategy);
    if (!is_full && model->vision.encoder == NEVA_ENCODER_SIGLIP)
        source_fail(
            s, "vision_feature_select_strategy", ERR_UNSUPPORTED,
            "is 'default', which drops a patch of an encoder without class token: "
            "only 'full' can be read with SigLIP");
    if (layer > model->vision.n_layers || layer < -model->vision.n_layers - 1)
        source_fail(s, "vision_feature_layer", ERR_INVALID, "names none of %lld layers",
                    (long long)model->vision.n_layers);
    model->vision.select_layer = layer;
    model->vision.select_feature = is_full && model->vision.encoder == NEVA_ENCODER_CLIP
                                       ? NEVA_SELECT_CLS_PATCH
                                       : NEVA_SELECT_PATCH;
}

static void read_llava(struct source *s, struct hf_config *out)
{
    struct source text = source_part(s, "text_config", "text_config.");
    struct source vision = source_part(s, "vision_config", "vision_config.");
    const char *type = source_word(&text, "model_type", "llama");
    const struct hf_text_class *class = hf_text_class_find(type);

    if (!class)
        source_fail(&text, "model_type", ERR_UNSUPPORTED,
                    "is '%.40s': llama, mistral, qwen2, stablelm or nemotron", type);
    else
        hf_text_read(&text, class, out);
    vision.has_failed |= text.has_failed;
    read_vision(&vision, encoder_of(&vision), &out->model);
    if (!vision.json)
        default_vision(&out->model);
    s->has_failed |= vision.has_failed;
    read_selection(s, &out->model);
    out->model.projector = NEVA_PROJECTOR_MLP2X_GELU;
    out->model.projector_no_bias = !source_flag(s, "multimodal_projector_bias", true);
    if (activation(s, "projector_hidden_act", "gelu") != ACT_GELU)
        source_fail(s, "projector_hidden_act", ERR_UNSUPPORTED, "is '%.40s': only gelu",
                    source_word(s, "projector_hidden_act", ""));
    out->image_token =
        source_whole(s, "image_token_index", source_whole(s, "image_token_id", 32000));
}

/* ---- what LLaVA's class cannot say: NeMo's keys in "vneva" ---- */

/* The place of a word in a list, or an error that shows the list. */
static int choice(struct source *s, const char *key, const char *const *words, int n)
{
    const char *name = source_word(s, key, "");

    for (int i = 0; i < n; i++)
        if (strcmp(words[i], name) == 0)
            return i;
    source_fail(s, key, ERR_UNSUPPORTED, "is '%.40s', which this program does not know",
                name);
    return 0;
}

static void read_own(struct source *s, struct neva_config *model)
{
    static const char *const projectors[] = {"linear", "mlp2x_gelu", "mlp_downsample"};
    static const char *const selected[] = {"patch", "cls_patch"};
    static const char *const norms[] = {"rmsnorm", "layernorm", "layernorm1p"};
    static const char *const mlps[] = {"swiglu", "squared-relu", "gelu"};
    struct source own = source_part(s, "vneva", "vneva.");

    if (!own.json)
        source_fail(s, "vneva", ERR_INVALID, "is missing from a " HF_ARCHITECTURE_OWN);
    model->projector =
        (enum neva_projector)choice(&own, "mm_mlp_adapter_type", projectors, 3);
    model->vision.select_feature =
        (enum neva_select)choice(&own, "vision_select_feature", selected, 2);
    model->vision.class_token_length = source_whole(&own, "class_token_length", 1);
    model->llm.norm.kind = (enum nn_norm_kind)choice(&own, "normalization", norms, 3);
    model->llm.mlp = (enum neva_mlp)choice(&own, "activation", mlps, 3);
    model->llm.has_bias = source_flag(&own, "bias", false);
    model->llm.has_qkv_bias = source_flag(&own, "qkv_bias", false);
    model->llm.rope.rot_dims = source_size(&own, "rotary_dims", 0);
    s->has_failed |= own.has_failed;
}

/* ---- the whole ---- */

static void read_own_model(struct source *s, struct hf_config *out)
{
    read_llava(s, out);
    read_own(s, &out->model);
}

static void read_clip(struct source *s, struct hf_config *out)
{
    read_encoder(s, NEVA_ENCODER_CLIP, out);
}

static void read_siglip(struct source *s, struct hf_config *out)
{
    read_encoder(s, NEVA_ENCODER_SIGLIP, out);
}

static void read_decoder(struct source *s, struct hf_config *out)
{
    for (int i = 0; i < HF_TEXT_CLASSES; i++)
        if (strcmp(hf_text_classes[i].architecture, out->architecture) == 0)
            hf_text_read(s, &hf_text_classes[i], out);
}

/* model_type: for a file without "architectures". */
static const struct architecture {
    const char *name, *model_type;
    enum hf_layout layout;
    unsigned parts;
    void (*read)(struct source *s, struct hf_config *out);
} architectures[] = {
    {HF_ARCHITECTURE_LLAVA, "llava", HF_LAYOUT_LLAVA, WEIGHTS_ALL, read_llava},
    {HF_ARCHITECTURE_OWN, "vneva", HF_LAYOUT_LLAVA, WEIGHTS_ALL, read_own_model},
    {"CLIPModel", "clip", HF_LAYOUT_ENCODER, WEIGHTS_VISION, read_clip},
    {"CLIPVisionModel", "clip_vision_model", HF_LAYOUT_ENCODER, WEIGHTS_VISION,
     read_clip},
    {"CLIPVisionModelWithProjection", NULL, HF_LAYOUT_ENCODER, WEIGHTS_VISION, read_clip},
    {"SiglipModel", "siglip", HF_LAYOUT_ENCODER, WEIGHTS_VISION, read_siglip},
    {"SiglipVisionModel", "siglip_vision_model", HF_LAYOUT_ENCODER, WEIGHTS_VISION,
     read_siglip},
    {"LlamaForCausalLM", "llama", HF_LAYOUT_DECODER, WEIGHTS_LLM, read_decoder},
    {"MistralForCausalLM", "mistral", HF_LAYOUT_DECODER, WEIGHTS_LLM, read_decoder},
    {"Qwen2ForCausalLM", "qwen2", HF_LAYOUT_DECODER, WEIGHTS_LLM, read_decoder},
    {"StableLmForCausalLM", "stablelm", HF_LAYOUT_DECODER, WEIGHTS_LLM, read_decoder},
    {"NemotronForCausalLM", "nemotron", HF_LAYOUT_DECODER, WEIGHTS_LLM, read_decoder},
};
#define N_ARCHITECTURES ((int)(sizeof(architectures) / sizeof(architectures[0])))

static const struct architecture *find_architecture(struct source *s)
{
    const char *name = json_string(json_at(json_get(s->json, "architectures"), 0));
    const char *type = source_word(s, "model_type", "");

    for (int i = 0; i < N_ARCHITECTURES; i++)
        if (name ? strcmp(architectures[i].name, name) == 0
                 : architectures[i].model_type &&
                       strcmp(architectures[i].model_type, type) == 0)
            return &architectures[i];
    if (!name && !type[0])
        source_fail(s, "architectures", ERR_FORMAT,
                    "and model_type are missing: nothing says what the model is");
    else if (name && strncmp(name, "LlavaLlama", 10) == 0)
        source_fail(
            s, "architectures", ERR_UNSUPPORTED,
            "is '%.60s', LLaVA's own code: bring it into Hugging Face's form with "
            "transformers' convert_llava_weights_to_hf.py",
            name);
    else
        source_fail(s, name ? "architectures" : "model_type", ERR_UNSUPPORTED,
                    "is '%.60s': " HF_ARCHITECTURE_LLAVA ", CLIPModel, CLIPVisionModel, "
                    "SiglipModel, SiglipVisionModel and the ForCausalLM of Llama, "
                    "Mistral, Qwen2, StableLm, Nemotron can be read",
                    name ? name : type);
    return NULL;
}

int hf_config_read(struct hf_config *out, const struct json *root, struct err *err)
{
    struct source s = {root, "", err, false};
    const struct architecture *architecture;

    *out = (struct hf_config){.image_token = -1};
    if (json_type(root) != JSON_OBJECT)
        return err_set(err, ERR_FORMAT, "the configuration is no JSON object");
    architecture = find_architecture(&s);
    if (!architecture)
        return -1;
    snprintf(out->architecture, sizeof(out->architecture), "%s", architecture->name);
    out->layout = architecture->layout;
    out->parts = architecture->parts;
    if (source_value(&s, "quantization_config"))
        source_fail(&s, "quantization_config", ERR_UNSUPPORTED,
                    "is there: quantized weights cannot be read");
    architecture->read(&s, out);
    return s.has_failed ? -1 : 0;
}

int hf_preprocessor_read(struct neva_config *model, const struct json *root,
                         struct err *err)
{
    struct source s = {root, "", err, false};
    const char *const keys[] = {"image_mean", "image_std"};
    double rescale = source_number(&s, "rescale_factor", 1.0 / 255);

    if (!(rescale > 0.999 / 255 && rescale < 1.001 / 255))
        source_fail(&s, "rescale_factor", ERR_UNSUPPORTED, "is %g: only 1/255", rescale);
    source_only_flag(&s, "do_rescale", true, true);
    for (int i = 0; i < 2; i++) {
        const struct json *list = source_value(&s, keys[i]);
        float *to = i == 0 ? model->vision.mean : model->vision.std;

        for (int c = 0; c < 3 && list; c++) {
            to[c] = (float)json_double(json_at(list, (size_t)c), -1);
            if (json_count(list) != 3 || !(to[c] > 0))
                source_fail(&s, keys[i], ERR_INVALID, "must be three numbers above 0");
        }
        for (int c = 0; c < 3 && !source_flag(&s, "do_normalize", true); c++)
            to[c] = i == 0 ? 0 : 1;
    }
    return s.has_failed ? -1 : 0;
}
