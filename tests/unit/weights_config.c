/* config.json to the model's configuration and back; what cannot be had is refused by key
 * and value. */
#include "common/base/json_file.h"
#include "model/weights/hf_config.h"
#include "model/weights/hf_names.h"
#include "model/weights/manifest.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

static struct json *golden_config(const char *name)
{
    struct json *root = NULL;
    struct err err = {0};
    char path[512];

    snprintf(path, sizeof(path), "%s/tests/golden/weights/%s", getenv("VNEVA_SOURCE"),
             name);
    EXPECT_OK(json_file_read(&root, path, "config.json", HF_CONFIG_JSON_MAX, &err), &err);
    return root;
}

/* The object's member "PART.KEY" or "KEY" becomes `value`, JSON; NULL: goes away. */
static void set(struct json *root, const char *key, const char *value)
{
    const char *dot = strchr(key, '.');
    struct json *to = root, *child = NULL;
    struct err err = {0};
    char part[32];

    if (dot) {
        snprintf(part, sizeof(part), "%.*s", (int)(dot - key), key);
        to = json_get(root, part);
        key = dot + 1;
    }
    json_remove(to, key);
    if (!value)
        return;
    EXPECT_OK(json_parse(&child, value, strlen(value), &err), &err);
    EXPECT_OK(json_set(to, key, child, &err), &err);
}

/* ---- refused ---- */

static void values_we_do_not_have_are_refused_by_key(void)
{
    static const struct {
        const char *folder, *key, *value, *says;
    } cases[] = {
        {"llava", "architectures", "[\"LlavaNextForConditionalGeneration\"]",
         "architectures is 'LlavaNext"},
        {"llava", "architectures", "[\"LlavaLlamaForCausalLM\"]",
         "convert_llava_weights_to_hf"},
        {"llava", "quantization_config", "{\"bits\": 4}", "quantization_config"},
        {"llava", "vision_feature_layer", "[-2, -5]", "vision_feature_layer is a"},
        {"llava", "vision_feature_layer", "3", "vision_feature_layer names none of 2"},
        {"llava", "vision_feature_layer", "-4", "vision_feature_layer names none"},
        {"llava", "vision_feature_select_strategy", "\"cls\"", "strategy is 'cls'"},
        {"llava_siglip", "vision_feature_select_strategy", "\"default\"", "SigLIP"},
        {"llava", "projector_hidden_act", "\"quick_gelu\"", "is 'quick_gelu'"},
        {"llava", "projector_hidden_act", "\"relu\"", "projector_hidden_act is 'relu'"},
        {"llava", "text_config.model_type", "\"gemma\"", "text_config.model_type is"},
        {"llava", "text_config.hidden_act", "\"gelu\"", "text_config.hidden_act is"},
        {"llava", "text_config.head_dim", "8", "text_config.head_dim is 8"},
        {"llava", "text_config.hidden_size", "25", "text_config.head_dim"},
        {"llava", "text_config.hidden_size", "0", "text_config.hidden_size is 0"},
        {"llava", "text_config.hidden_size", "\"24\"", "hidden_size is a string"},
        {"llava", "text_config.num_key_value_heads", "4", "does not divide 6"},
        {"llava", "text_config.attention_bias", "true", "mlp_bias is not"},
        {"llava", "text_config.mlp_bias", "true", "text_config.mlp_bias is true"},
        {"llava", "text_config.partial_rotary_factor", "0.5", "is 0.5, for Llama"},
        {"llava", "text_config.rope_theta", "0", "rope_theta must be above 0"},
        {"llava", "text_config.rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2}",
         "rope_scaling.rope_type is 'dynamic'"},
        {"llava", "text_config.rope_scaling", "{\"rope_type\": \"yarn\"}", "'yarn'"},
        {"llava", "text_config.rope_scaling", "{\"rope_type\": \"linear\"}",
         "rope_scaling.factor"},
        {"llama", "rope_scaling",
         "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 16}",
         "low_freq_factor must"},
        {"llama", "rope_scaling",
         "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
         "\"high_freq_factor\": 4}",
         "original_max_position_embeddings is 0"},
        {"nemotron", "rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 2}",
         "which NemotronForCausalLM does not have"},
        {"nemotron", "hidden_act", "\"silu\"", "hidden_act is 'silu'"},
        {"stablelm", "qk_layernorm", "true", "qk_layernorm is true"},
        {"stablelm", "use_parallel_residual", "true", "use_parallel_residual is true"},
        {"llava", "vision_config.model_type", "\"pixtral\"", "vision_config.model_type"},
        {"llava", "vision_config.num_channels", "1", "vision_config.num_channels is 1"},
        {"llava", "vision_config.hidden_act", "\"relu\"", "vision_config.hidden_act"},
        {"llava", "vision_config.patch_size", "9", "patch_size is above image_size"},
        {"clip", "vision_config.hidden_size", "13", "no multiple of 2 heads"},
        {"llava", "vision_config", "7", "vision_config is a whole number"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct json *root = golden_config(cases[i].folder);
        struct hf_config config;
        struct err err = {0};

        EXPECT_OK(hf_config_read(&config, root, &err), &err);
        set(root, cases[i].key, cases[i].value);
        EXPECT_MSG(hf_config_read(&config, root, &err) < 0, "read: %s = %s", cases[i].key,
                   cases[i].value);
        EXPECT_MSG(strstr(err.text, cases[i].says), "'%s' should say '%s'", err.text,
                   cases[i].says);
        json_free(root);
    }
}

/* ---- defaults ---- */

static struct hf_config read_text(const char *text)
{
    struct json *root = NULL;
    struct hf_config config = {0};
    struct err err = {0};

    EXPECT_OK(json_parse(&root, text, strlen(text), &err), &err);
    EXPECT_OK(hf_config_read(&config, root, &err), &err);
    json_free(root);
    return config;
}

/* What config.json says of a model: the rest is the run's. */
static bool is_same(const struct neva_config *a, const struct neva_config *b)
{
    return a->vision.encoder == b->vision.encoder &&
           a->vision.image_size == b->vision.image_size &&
           a->vision.patch == b->vision.patch && a->vision.width == b->vision.width &&
           a->vision.ffn_width == b->vision.ffn_width &&
           a->vision.n_layers == b->vision.n_layers &&
           a->vision.n_heads == b->vision.n_heads &&
           a->vision.select_layer == b->vision.select_layer &&
           a->vision.select_feature == b->vision.select_feature &&
           a->vision.class_token_length == b->vision.class_token_length &&
           a->vision.has_head == b->vision.has_head && a->vision.act == b->vision.act &&
           a->vision.eps == b->vision.eps && a->projector == b->projector &&
           a->projector_no_bias == b->projector_no_bias && a->llm.vocab == b->llm.vocab &&
           a->llm.width == b->llm.width && a->llm.ffn_width == b->llm.ffn_width &&
           a->llm.n_layers == b->llm.n_layers && a->llm.n_heads == b->llm.n_heads &&
           a->llm.n_kv_heads == b->llm.n_kv_heads &&
           a->llm.norm.kind == b->llm.norm.kind && a->llm.norm.eps == b->llm.norm.eps &&
           a->llm.mlp == b->llm.mlp && a->llm.has_bias == b->llm.has_bias &&
           a->llm.has_qkv_bias == b->llm.has_qkv_bias && a->llm.tied == b->llm.tied &&
           a->llm.rope.rot_dims == b->llm.rope.rot_dims &&
           a->llm.rope.theta == b->llm.rope.theta &&
           a->llm.rope.scaling == b->llm.rope.scaling &&
           a->llm.rope.factor == b->llm.rope.factor &&
           a->llm.rope.low_freq_factor == b->llm.rope.low_freq_factor &&
           a->llm.rope.high_freq_factor == b->llm.rope.high_freq_factor &&
           a->llm.rope.original_positions == b->llm.rope.original_positions &&
           a->max_tokens == b->max_tokens;
}

/* llava-1.5-7b-hf leaves most to LlamaConfig. */
static void absent_keys_have_the_defaults_of_their_class(void)
{
    struct hf_config c = read_text(
        "{\"architectures\": [\"LlavaForConditionalGeneration\"], \"model_type\": "
        "\"llava\", \"text_config\": {\"max_position_embeddings\": 4096, \"model_type\": "
        "\"llama\", \"rms_norm_eps\": 1e-05, \"torch_dtype\": \"float16\", "
        "\"vocab_size\": "
        "32064}, \"vision_config\": {\"hidden_size\": 1024, \"image_size\": 336, "
        "\"intermediate_size\": 4096, \"model_type\": \"clip_vision_model\", "
        "\"num_attention_heads\": 16, \"num_hidden_layers\": 24, \"patch_size\": 14, "
        "\"projection_dim\": 768, \"vocab_size\": 32000}}");

    EXPECT(c.model.llm.width == 4096 && c.model.llm.ffn_width == 11008 &&
           c.model.llm.n_layers == 32 && c.model.llm.n_heads == 32 &&
           c.model.llm.n_kv_heads == 32 && c.model.llm.vocab == 32064 &&
           c.model.llm.norm.eps == 1e-5F && c.model.llm.rope.theta == 10000 &&
           c.model.llm.rope.rot_dims == 128 && !c.model.llm.tied);
    EXPECT(c.model.vision.act == ACT_QUICK_GELU && c.model.vision.select_layer == -2 &&
           c.model.vision.select_feature == NEVA_SELECT_PATCH);
    EXPECT(c.image_token == 32000 && c.model.max_tokens == 4096);
    c = read_text("{\"model_type\": \"llava\"}");
    EXPECT(c.model.vision.width == 1024 && c.model.vision.image_size == 336 &&
           c.model.vision.n_layers == 24 && c.model.llm.vocab == 32000 &&
           c.model.max_tokens == 2048 && c.model.llm.norm.eps == 1e-6F);
    c = read_text("{\"model_type\": \"mistral\"}");
    EXPECT(c.model.llm.n_kv_heads == 8 && c.sliding_window == 4096 &&
           c.model.max_tokens == 4096 && c.model.llm.ffn_width == 14336);
    c = read_text("{\"model_type\": \"mistral\", \"sliding_window\": null, "
                  "\"num_key_value_heads\": null}");
    EXPECT(c.model.llm.n_kv_heads == 32 && c.sliding_window == 0 &&
           c.model.max_tokens == 131072);
    c = read_text("{\"model_type\": \"qwen2\", \"sliding_window\": 4096}");
    EXPECT(c.sliding_window == 0 && c.model.llm.has_qkv_bias);
    c = read_text("{\"model_type\": \"qwen2\", \"sliding_window\": 512, "
                  "\"use_sliding_window\": true}");
    EXPECT(c.sliding_window == 512 && c.model.max_tokens == 512);
    c = read_text("{\"model_type\": \"nemotron\"}");
    EXPECT(c.model.llm.n_heads == 48 && c.model.llm.n_kv_heads == 48 &&
           c.model.llm.rope.rot_dims == 64);
    c = read_text("{\"model_type\": \"stablelm\"}");
    EXPECT(c.model.llm.rope.rot_dims == 20 && !c.model.llm.has_qkv_bias);
    c = read_text("{\"model_type\": \"siglip_vision_model\"}");
    EXPECT(c.model.vision.patch == 16 && c.model.vision.has_head);
    c = read_text("{\"model_type\": \"clip_vision_model\"}");
    EXPECT(c.model.vision.patch == 32 && c.parts == WEIGHTS_VISION);
    c = read_text(
        "{\"model_type\": \"clip\", \"vision_config\": {\"patch_size\": 16, "
        "\"hidden_size\": 1024}, \"vision_config_dict\": {\"patch_size\": 14}}");
    EXPECT(c.model.vision.patch == 14 && c.model.vision.width == 768);
}

/* defaults.json has every class's configuration with all keys: it says what one without
 * any says. */
static void defaults_are_those_of_transformers(void)
{
    struct json *root = NULL;
    struct err err = {0};
    char path[512], text[128];

    snprintf(path, sizeof(path), "%s/tests/golden/weights", getenv("VNEVA_SOURCE"));
    EXPECT_OK(json_file_read(&root, path, "defaults.json", HF_CONFIG_JSON_MAX, &err),
              &err);
    EXPECT(json_count(root) == 8);
    for (size_t i = 0; i < json_count(root); i++) {
        struct hf_config full, empty;

        snprintf(text, sizeof(text), "{\"model_type\": \"%s\"}", json_key_at(root, i));
        empty = read_text(text);
        EXPECT_OK(hf_config_read(&full, json_at(root, i), &err), &err);
        EXPECT_MSG(is_same(&full.model, &empty.model) &&
                       full.sliding_window == empty.sliding_window &&
                       full.image_token == empty.image_token && full.parts == empty.parts,
                   "%s has other defaults", json_key_at(root, i));
    }
    json_free(root);
}

static void rotary_settings_are_read_in_every_spelling(void)
{
    struct hf_config c = read_text("{\"model_type\": \"llama\", \"rope_scaling\": "
                                   "{\"type\": \"linear\", \"factor\": 2.5}}");

    EXPECT(c.model.llm.rope.scaling == ROPE_LINEAR && c.model.llm.rope.factor == 2.5F);
    c = read_text("{\"model_type\": \"llama\", \"rope_parameters\": {\"rope_type\": "
                  "\"linear\", \"factor\": 4, \"rope_theta\": 5e5}}");
    EXPECT(c.model.llm.rope.scaling == ROPE_LINEAR && c.model.llm.rope.factor == 4 &&
           c.model.llm.rope.theta == 500000);
    c = read_text("{\"model_type\": \"nemotron\", \"rope_parameters\": {\"rope_type\": "
                  "\"default\", \"partial_rotary_factor\": 0.25}}");
    EXPECT(c.model.llm.rope.scaling == ROPE_PLAIN && c.model.llm.rope.rot_dims == 32);
}

/* ---- and back ---- */

static void check_round(const struct neva_config *config, const char *architecture)
{
    struct json *written = NULL, *preprocessor = NULL;
    struct hf_config back;
    struct err err = {0};

    if (!EXPECT_OK(hf_config_write(&written, config, DTYPE_BF16, 7, &err), &err))
        return;
    if (EXPECT_OK(hf_config_read(&back, written, &err), &err)) {
        EXPECT_MSG(strcmp(back.architecture, architecture) == 0, "%s, wanted %s",
                   back.architecture, architecture);
        EXPECT_MSG(is_same(config, &back.model), "a %s came back as another",
                   architecture);
        EXPECT(back.image_token == 7);
    }
    EXPECT_OK(hf_preprocessor_write(&preprocessor, config, &err), &err);
    EXPECT_OK(hf_preprocessor_read(&back.model, preprocessor, &err), &err);
    for (int c = 0; c < 3; c++)
        EXPECT(back.model.vision.mean[c] == config->vision.mean[c] &&
               back.model.vision.std[c] == config->vision.std[c]);
    json_free(written);
    json_free(preprocessor);
}

static void configurations_come_back_as_they_were(void)
{
    static const char *const names[] = {"llama", "mistral", "qwen2", "stablelm",
                                        "nemotron"};
    struct neva_config config = tiny_config();

    for (int i = 0; i < 5; i++) {
        struct json *root = golden_config(names[i]);
        struct hf_config from;
        struct err err = {0};

        EXPECT_OK(hf_config_read(&from, root, &err), &err);
        config.llm = from.model.llm;
        check_round(&config, HF_ARCHITECTURE_LLAVA);
        config.llm.rope.rot_dims = 2; /* of 4, or of 2 with mistral */
        check_round(&config,
                    i < 3 && i != 1 ? HF_ARCHITECTURE_OWN : HF_ARCHITECTURE_LLAVA);
        json_free(root);
    }
    config = tiny_config();
    config.projector_no_bias = true;
    config.vision.select_feature = NEVA_SELECT_CLS_PATCH;
    config.vision.select_layer = 1;
    check_round(&config, HF_ARCHITECTURE_LLAVA);
    config.vision.encoder = NEVA_ENCODER_SIGLIP;
    config.vision.select_feature = NEVA_SELECT_PATCH;
    config.vision.class_token_length = 0;
    config.vision.has_head = true;
    config.vision.act = ACT_GELU_TANH;
    check_round(&config, HF_ARCHITECTURE_LLAVA);
}

static void what_llava_cannot_say_is_said_in_vneva(void)
{
    struct neva_config config = tiny_config();

    config.projector = NEVA_PROJECTOR_LINEAR;
    check_round(&config, HF_ARCHITECTURE_OWN);
    config.projector = NEVA_PROJECTOR_MLP_DOWNSAMPLE;
    check_round(&config, HF_ARCHITECTURE_OWN);
    config = tiny_config();
    config.vision.class_token_length = 0;
    check_round(&config, HF_ARCHITECTURE_OWN);
    config = tiny_decoder_config(TINY_GPT); /* layernorm, GELU, biases */
    check_round(&config, HF_ARCHITECTURE_OWN);
    config.llm.mlp = NEVA_MLP_SWIGLU;
    check_round(&config, HF_ARCHITECTURE_OWN);
    config = tiny_decoder_config(TINY_NEMOTRON);
    config.llm.has_qkv_bias = true;
    check_round(&config, HF_ARCHITECTURE_OWN);
    config.llm.rope.scaling = ROPE_LINEAR;
    config.llm.rope.factor = 2;
    check_round(&config, HF_ARCHITECTURE_OWN);
}

static void rotated_dimensions_survive_every_fraction(void)
{
    for (int64_t head = 2; head <= 256; head += 2)
        for (int64_t rot = 2; rot <= head; rot += 2) {
            struct neva_config config = tiny_decoder_config(TINY_NEMOTRON);
            struct json *written = NULL;
            struct hf_config back;
            struct err err = {0};

            config.llm.n_heads = config.llm.n_kv_heads = 1;
            config.llm.width = head;
            config.llm.rope.rot_dims = rot;
            EXPECT_OK(hf_config_write(&written, &config, DTYPE_F32, -1, &err), &err);
            EXPECT_OK(hf_config_read(&back, written, &err), &err);
            EXPECT_MSG(back.model.llm.rope.rot_dims == rot, "%lld of %lld became %lld",
                       (long long)rot, (long long)head,
                       (long long)back.model.llm.rope.rot_dims);
            json_free(written);
        }
}

/* ---- preprocessing ---- */

static void preprocessor_settings_are_read_or_refused(void)
{
    static const struct {
        const char *text, *says; /* "": read */
    } cases[] = {
        {"{\"image_mean\": [0.1, 0.2, 0.3], \"image_std\": [1, 2, 3]}", ""},
        {"{\"image_mean\": [0.1, 0.2]}", "image_mean must be three"},
        {"{\"image_std\": [0, 1, 1]}", "image_std must be three numbers above 0"},
        {"{\"rescale_factor\": 0.5}", "rescale_factor is 0.5"},
        {"{\"do_rescale\": false}", "do_rescale is false"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct neva_config config = tiny_config();
        struct json *root = NULL;
        struct err err = {0};
        int rc;

        EXPECT_OK(json_parse(&root, cases[i].text, strlen(cases[i].text), &err), &err);
        rc = hf_preprocessor_read(&config, root, &err);
        EXPECT_MSG((rc < 0) == (cases[i].says[0] != 0), "%s", cases[i].text);
        EXPECT_MSG(strstr(err.text, cases[i].says), "'%s' should say '%s'", err.text,
                   cases[i].says);
        if (rc == 0)
            EXPECT(config.vision.mean[2] == 0.3F && config.vision.std[2] == 3);
        json_free(root);
    }
}

/* ---- names ---- */

static void names_are_the_table_s_or_known_or_unknown(void)
{
    static const struct {
        enum hf_layout layout;
        const char *name, *param; /* NULL: passed over; "": unknown */
    } cases[] = {
        {HF_LAYOUT_LLAVA, "language_model.model.norm.weight",
         "model.language_model.norm.weight"},
        {HF_LAYOUT_LLAVA, "language_model.lm_head.weight", "lm_head.weight"},
        {HF_LAYOUT_LLAVA, "model.multi_modal_projector.linear_1.bias",
         "model.multi_modal_projector.linear_1.bias"},
        {HF_LAYOUT_LLAVA, "vision_tower.vision_model.embeddings.position_ids", NULL},
        {HF_LAYOUT_LLAVA, "language_model.model.layers.3.self_attn.rotary_emb.inv_freq",
         NULL},
        {HF_LAYOUT_LLAVA, "vision_tower.embeddings.class_embedding",
         "model.vision_tower.vision_model.embeddings.class_embedding"},
        {HF_LAYOUT_LLAVA, "model.vision_tower.encoder.layers.0.mlp.fc1.bias",
         "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"},
        {HF_LAYOUT_ENCODER, "head.probe", "model.vision_tower.vision_model.head.probe"},
        {HF_LAYOUT_ENCODER, "pre_layrnorm.bias",
         "model.vision_tower.vision_model.pre_layrnorm.bias"},
        {HF_LAYOUT_ENCODER, "embeddings.position_ids", NULL},
        {HF_LAYOUT_LLAVA, "logit_scale", ""},
        {HF_LAYOUT_LLAVA, "image_newline", ""},
        {HF_LAYOUT_ENCODER, "text_model.final_layer_norm.weight", NULL},
        {HF_LAYOUT_ENCODER, "logit_scale", NULL},
        {HF_LAYOUT_ENCODER, "visual_projection.weight", NULL},
        {HF_LAYOUT_ENCODER, "vision_model.post_layernorm.bias",
         "model.vision_tower.vision_model.post_layernorm.bias"},
        {HF_LAYOUT_ENCODER, "classifier.weight", ""},
        {HF_LAYOUT_DECODER, "model.layers.0.self_attn.rotary_emb.inv_freq", NULL},
        {HF_LAYOUT_DECODER, "model.embed_tokens.weight",
         "model.language_model.embed_tokens.weight"},
        {HF_LAYOUT_DECODER, "score.weight", ""},
        {HF_LAYOUT_PROJECTOR, "model.mm_projector.2.bias",
         "model.multi_modal_projector.linear_2.bias"},
        {HF_LAYOUT_PROJECTOR, "model.mm_projector.weight",
         "model.multi_modal_projector.linear_1.weight"},
        {HF_LAYOUT_PROJECTOR, "layers.1.weight",
         "model.multi_modal_projector.norm.weight"},
        {HF_LAYOUT_PROJECTOR, "lm_head.weight", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[PARAM_NAME_MAX] = "", saved[PARAM_NAME_MAX], back[PARAM_NAME_MAX];
        enum hf_name kind = hf_name_read(out, cases[i].name, cases[i].layout);

        if (!cases[i].param)
            EXPECT_MSG(kind == HF_NAME_PASSED, "%s", cases[i].name);
        else if (!cases[i].param[0])
            EXPECT_MSG(kind == HF_NAME_UNKNOWN, "%s became %s", cases[i].name, out);
        else
            EXPECT_MSG(kind == HF_NAME_PARAM && strcmp(out, cases[i].param) == 0,
                       "%s became %s", cases[i].name, out);
        if (kind != HF_NAME_PARAM)
            continue;
        hf_name_write(saved, out); /* which means the same */
        EXPECT(hf_name_read(back, saved, HF_LAYOUT_LLAVA) == HF_NAME_PARAM &&
               strcmp(back, out) == 0);
    }
}

int main(void)
{
    EXPECT_RUN(values_we_do_not_have_are_refused_by_key);
    EXPECT_RUN(absent_keys_have_the_defaults_of_their_class);
    EXPECT_RUN(defaults_are_those_of_transformers);
    EXPECT_RUN(rotary_settings_are_read_in_every_spelling);
    EXPECT_RUN(configurations_come_back_as_they_were);
    EXPECT_RUN(what_llava_cannot_say_is_said_in_vneva);
    EXPECT_RUN(rotated_dimensions_survive_every_fraction);
    EXPECT_RUN(preprocessor_settings_are_read_or_refused);
    EXPECT_RUN(names_are_the_table_s_or_known_or_unknown);
    return expect_end();
}
