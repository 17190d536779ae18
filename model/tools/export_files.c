/* The files of an export beside its tensors. */
#include "common/base/json_file.h"
#include "model/tools/export.h"
#include "model/tools/text_files.h"
#include "model/tools/tool.h"
#include "model/weights/hf_config.h"

#include <stdio.h>
#include <string.h>

/* ---- what LLaVA's class cannot ---- */

static int refuse_projector(const struct neva_config *config, struct err *err)
{
    if (config->projector == NEVA_PROJECTOR_MLP2X_GELU)
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "LlavaForConditionalGeneration has no projector of the kind %s: train "
                   "with model.mm_cfg.mm_mlp_adapter_type: mlp2x_gelu to export",
                   config->projector == NEVA_PROJECTOR_LINEAR ? "linear"
                                                              : "mlp_downsample");
}

static int refuse_vision(const struct neva_config *config, struct err *err)
{
    bool is_clip = config->vision.encoder == NEVA_ENCODER_CLIP;

    if (is_clip && config->vision.class_token_length != 1)
        return err_set(err, ERR_UNSUPPORTED,
                       "CLIPVisionModel always has a class token: train with "
                       "model.mm_cfg.vision_encoder.class_token_length: 1 to export");
    if (!is_clip && config->vision.select_feature != NEVA_SELECT_PATCH)
        return err_set(err, ERR_UNSUPPORTED,
                       "SiglipVisionModel has no class token to select: train with "
                       "vision_select_feature: patch to export");
    return 0;
}

int export_refuse(const struct neva_config *config, struct err *err)
{
    struct json *json = NULL;
    const char *architecture;
    int rc;

    if (refuse_projector(config, err) < 0 || refuse_vision(config, err) < 0)
        return -1;
    rc = hf_config_write(&json, config, DTYPE_F32, -1, err);
    architecture = json_string(json_at(json_get(json, "architectures"), 0));
    if (rc == 0 && (!architecture || strcmp(architecture, HF_ARCHITECTURE_LLAVA) != 0))
        rc =
            err_set(err, ERR_UNSUPPORTED,
                    "no decoder of Hugging Face's has this model's normalization, "
                    "activation, biases and rotary_percentage together: rmsnorm with "
                    "swiglu (Llama), or layernorm1p with squared-relu (Nemotron), can be "
                    "exported");
    json_free(json);
    return rc;
}

/* ---- config.json ---- */

static const char *torch_name(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? "bfloat16" : dtype == DTYPE_F16 ? "float16" : "float32";
}

static bool is_llava(const struct json *config)
{
    const char *name = json_string(json_at(json_get(config, "architectures"), 0));

    return name && strcmp(name, HF_ARCHITECTURE_LLAVA) == 0;
}

/* The folder's own where it is LLaVA's: it may say what we do not know. */
static struct json *base_config(const struct export *export, struct err *err)
{
    struct json *json = NULL;

    if (is_llava(export->config))
        return json_clone(export->config);
    if (hf_config_write(&json, &weights_info(export->weights)->config, export->dtype,
                        export->image_token, err) < 0)
        return NULL;
    return json;
}

static int write_config(const struct export *export, struct err *err)
{
    struct json *json = base_config(export, err), *text = json_get(json, "text_config");
    const char *dtype_key = json_get(json, "dtype") ? "dtype" : "torch_dtype";
    const char *token_key =
        json_get(json, "image_token_id") ? "image_token_id" : "image_token_index";
    int rc = -1;

    if (json && !text && json_set(json, "text_config", json_new(JSON_OBJECT), err) == 0)
        text = json_get(json, "text_config");
    if (json &&
        json_set(json, dtype_key, json_new_string(torch_name(export->dtype)), err) == 0 &&
        json_set(json, token_key, json_new_int(export->image_token), err) == 0 &&
        json_set(text, "vocab_size", json_new_int(export->vocab), err) == 0)
        rc = json_file_write(export->temporary, "config.json", json, err);
    json_free(json);
    return rc;
}

/* ---- the others ---- */

static bool is_there(const struct export *export, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_path(path, NULL, "%s/%s", export->temporary, name) == 0 && fs_exists(path);
}

/* When generation ends: what the training's answers ended with. */
static int write_generation(const struct export *export, struct err *err)
{
    struct json *json;
    int64_t end =
        json_get_int(json_get(export->meta, "prompt"), "end_token", export->words.eos);
    int rc = 0;

    if (is_there(export, "generation_config.json"))
        return 0;
    json = json_new(JSON_OBJECT);
    if (export->words.bos >= 0)
        rc = json_set(json, "bos_token_id", json_new_int(export->words.bos), err);
    if (rc == 0 && end >= 0)
        rc = json_set(json, "eos_token_id", json_new_int(end), err);
    if (rc == 0)
        rc = json_file_write(export->temporary, "generation_config.json", json, err);
    json_free(json);
    return rc;
}

/* image_aspect_ratio of the run that trained the model, or NULL. */
static const char *trained_aspect(const struct export *export)
{
    const struct json *spec = json_get(export->meta, "spec");

    return json_get_string(json_get(json_get(spec, "model"), "data"),
                           "image_aspect_ratio");
}

/* Frames as the training saw them: `square` is squeezed to size, `pad` is padded to a
 * square first; `keep`, the shorter edge to size and the centre cut out, is the class's
 * own. */
static int set_aspect(struct json *json, const char *aspect, int64_t image_size,
                      struct err *err)
{
    struct json *size;

    if (strcmp(aspect, "pad") == 0)
        return json_set(json, "image_processor_type",
                        json_new_string("LlavaImageProcessor"), err) < 0
                   ? -1
                   : json_set(json, "do_pad", json_new_bool(true), err);
    if (strcmp(aspect, "square") != 0)
        return 0;
    size = json_new(JSON_OBJECT);
    if (json_set(size, "height", json_new_int(image_size), err) < 0 ||
        json_set(size, "width", json_new_int(image_size), err) < 0) {
        json_free(size);
        return -1;
    }
    if (json_set(json, "size", size, err) < 0)
        return -1;
    return json_set(json, "do_center_crop", json_new_bool(false), err);
}

static int write_preprocessor(const struct export *export, struct err *err)
{
    const struct neva_config *config = &weights_info(export->weights)->config;
    const char *aspect = trained_aspect(export);
    struct json *json = NULL;
    int rc = json_file_find(&json, export->temporary, "preprocessor_config.json",
                            TOOL_JSON_MAX, err);

    if (rc == 0 && !json)
        rc = hf_preprocessor_write(&json, config, err);
    if (rc == 0 && aspect && strcmp(aspect, "pad") == 0 &&
        config->vision.encoder == NEVA_ENCODER_SIGLIP)
        fprintf(stderr, "vneva export: SiglipImageProcessor cannot pad pictures as the "
                        "training did: they will be squeezed\n");
    if (rc == 0 && aspect && config->vision.encoder == NEVA_ENCODER_CLIP)
        rc = set_aspect(json, aspect, config->vision.image_size, err);
    if (rc == 0)
        rc = json_file_write(export->temporary, "preprocessor_config.json", json, err);
    json_free(json);
    return rc;
}

/* LlavaProcessor's: how many image tokens a picture becomes. */
static int write_processor(const struct export *export, struct err *err)
{
    const struct neva_config *config = &weights_info(export->weights)->config;
    bool is_full = config->vision.select_feature == NEVA_SELECT_CLS_PATCH ||
                   config->vision.encoder == NEVA_ENCODER_SIGLIP;
    struct json *json;
    int rc = -1;

    if (is_there(export, "processor_config.json"))
        return 0;
    json = json_new(JSON_OBJECT);
    if (json_set(json, "processor_class", json_new_string("LlavaProcessor"), err) == 0 &&
        json_set(json, "image_token", json_new_string(export->image_text), err) == 0 &&
        json_set(json, "patch_size", json_new_int(config->vision.patch), err) == 0 &&
        json_set(json, "num_additional_image_tokens",
                 json_new_int(config->vision.class_token_length), err) == 0 &&
        json_set(json, "vision_feature_select_strategy",
                 json_new_string(is_full ? "full" : "default"), err) == 0)
        rc = json_file_write(export->temporary, "processor_config.json", json, err);
    json_free(json);
    return rc;
}

int export_files(struct export *export, struct err *err)
{
    if (text_files_copy(export->temporary, export->from, err) < 0 ||
        (export->has_words && words_write(&export->words, export->temporary, err) < 0))
        return -1;
    if (write_config(export, err) < 0 || write_generation(export, err) < 0 ||
        write_preprocessor(export, err) < 0)
        return -1;
    return write_processor(export, err);
}
