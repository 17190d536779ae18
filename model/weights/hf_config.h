/* hf_config.h - Hugging Face's config.json and preprocessor_config.json, to and from the
 * model's configuration
 *
 * Pure: JSON in, JSON out. A key that is absent has the default of its class, as in
 * transformers 4.57; a value that we do not have is refused by key and value.
 * Source: https://github.com/huggingface/transformers, src/transformers/models:
 * llava, clip, siglip, llama, mistral, qwen2, stablelm, nemotron (configuration_*.py).
 */
#ifndef VNEVA_MODEL_WEIGHTS_HF_CONFIG_H
#define VNEVA_MODEL_WEIGHTS_HF_CONFIG_H

#include "common/base/json.h"
#include "model/weights/weights.h"

#define HF_CONFIG_JSON_MAX ((size_t)16 << 20)
#define HF_ARCHITECTURE_MAX 64
#define HF_ARCHITECTURE_LLAVA "LlavaForConditionalGeneration"
/* A model that LLaVA's class cannot express: as it, and the object "vneva" says the rest. */
#define HF_ARCHITECTURE_OWN "VnevaForConditionalGeneration"

/* How the tensors of a folder are named. */
enum hf_layout {
    HF_LAYOUT_LLAVA,
    HF_LAYOUT_ENCODER,
    HF_LAYOUT_DECODER,
    HF_LAYOUT_PROJECTOR
};

struct hf_config {
    char architecture[HF_ARCHITECTURE_MAX];
    enum hf_layout layout;
    unsigned parts;           /* enum weights_part */
    struct neva_config model; /* zero where the parts say nothing */
    int64_t sliding_window; /* rows longer than this would attend to less; 0: no bound */
    int64_t image_token;    /* image_token_index; -1: not said */
};

/* ERR_UNSUPPORTED: an architecture or a value we do not have. model.vision.mean and std are
 * those of the encoder's kind until hf_preprocessor_read. */
int hf_config_read(struct hf_config *out, const struct json *root, struct err *err);

/* image_mean and image_std of a preprocessor_config.json into model->vision. */
int hf_preprocessor_read(struct neva_config *model, const struct json *root,
                         struct err *err);

/* The whole model's config.json. `stored`: the type of the weights beside it. image_token
 * -1: left to the default. The caller frees *out. */
int hf_config_write(struct json **out, const struct neva_config *model, enum dtype stored,
                    int64_t image_token, struct err *err);

/* CLIPImageProcessor's or SiglipImageProcessor's preprocessor_config.json. */
int hf_preprocessor_write(struct json **out, const struct neva_config *model,
                          struct err *err);

/* ---- shared by reading and writing ---- */

/* "quick_gelu", "gelu", "gelu_pytorch_tanh"; NULL for what has no name */
const char *hf_activation_name(enum activation act);

extern const float hf_clip_mean[3], hf_clip_std[3];

#endif
