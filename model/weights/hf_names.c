#include "model/weights/hf_names.h"

#include <stdio.h>
#include <string.h>

#define LLM "model.language_model."
#define TOWER "model.vision_tower."
#define VISION TOWER "vision_model."
#define PROJECTOR "model.multi_modal_projector."

struct rule {
    const char *from, *to; /* a beginning, and what takes its place */
};

/* The first that fits. transformers 5 has no vision_model. in front of an encoder's names. */
static const struct rule llava[] = {
    {"language_model.model.", LLM},
    {"language_model.lm_head.", "lm_head."},
    {"vision_tower.vision_model.", VISION},
    {"vision_tower.", VISION},
    {"multi_modal_projector.", PROJECTOR},
    {LLM, LLM},
    {VISION, VISION},
    {TOWER, VISION},
    {PROJECTOR, PROJECTOR},
    {"lm_head.", "lm_head."},
    {NULL, NULL},
};
static const struct rule encoder[] = {
    {"vision_model.", VISION},
    {"embeddings.", VISION "embeddings."},
    {"encoder.", VISION "encoder."},
    {"pre_layrnorm.", VISION "pre_layrnorm."}, /* sic */
    {"post_layernorm.", VISION "post_layernorm."},
    {"head.", VISION "head."},
    {NULL, NULL},
};
static const struct rule decoder[] = {
    {"model.", LLM},
    {"lm_head.", "lm_head."},
    {NULL, NULL},
};
/* LLaVA's pretrain_mm_mlp_adapter: an nn.Sequential of linear, GELU, linear, or one
 * nn.Linear; VILA's: layers.0 takes 2 x 2 patches, 1 a norm, 2 and 4 linear. */
static const struct rule projector[] = {
    {"model.mm_projector.0.", PROJECTOR "linear_1."},
    {"model.mm_projector.2.", PROJECTOR "linear_2."},
    {"model.mm_projector.", PROJECTOR "linear_1."},
    {"mm_projector.0.", PROJECTOR "linear_1."},
    {"mm_projector.2.", PROJECTOR "linear_2."},
    {"mm_projector.", PROJECTOR "linear_1."},
    {"layers.1.", PROJECTOR "norm."},
    {"layers.2.", PROJECTOR "linear_1."},
    {"layers.4.", PROJECTOR "linear_2."},
    {"multi_modal_projector.", PROJECTOR},
    {PROJECTOR, PROJECTOR},
    {NULL, NULL},
};

static const struct rule *const rules[] = {
    [HF_LAYOUT_LLAVA] = llava,
    [HF_LAYOUT_ENCODER] = encoder,
    [HF_LAYOUT_DECODER] = decoder,
    [HF_LAYOUT_PROJECTOR] = projector,
};

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static bool ends(const char *name, const char *with)
{
    size_t n = strlen(name), n_with = strlen(with);

    return n >= n_with && strcmp(name + n - n_with, with) == 0;
}

/* Of CLIPModel and SiglipModel, what is not the vision encoder. */
static bool is_text_tower(const char *name)
{
    static const char *const whole[] = {"logit_scale", "logit_bias",
                                        "visual_projection.weight",
                                        "text_projection.weight"};

    for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
        if (strcmp(name, whole[i]) == 0)
            return true;
    return begins(name, "text_model.");
}

/* Buffers that older versions of transformers stored. `name` is the table's. */
static bool is_unused(const char *name)
{
    if (strcmp(name, VISION "embeddings.position_ids") == 0)
        return true;
    return begins(name, LLM) && ends(name, "rotary_emb.inv_freq");
}

enum hf_name hf_name_read(char *out, const char *name, enum hf_layout layout)
{
    if (layout == HF_LAYOUT_ENCODER && is_text_tower(name))
        return HF_NAME_PASSED;
    for (const struct rule *rule = rules[layout]; rule->from; rule++)
        if (begins(name, rule->from)) {
            int n = snprintf(out, PARAM_NAME_MAX, "%s%s", rule->to,
                             name + strlen(rule->from));

            if (n >= PARAM_NAME_MAX)
                break;
            return is_unused(out) ? HF_NAME_PASSED : HF_NAME_PARAM;
        }
    snprintf(out, PARAM_NAME_MAX, "%s", name);
    return HF_NAME_UNKNOWN;
}

void hf_name_write(char *out, const char *param_name)
{
    static const struct rule saved[] = {
        {LLM, "language_model.model."},
        {"lm_head.", "language_model.lm_head."},
        {"model.", ""},
    };

    for (size_t i = 0; i < sizeof(saved) / sizeof(saved[0]); i++)
        if (begins(param_name, saved[i].from)) {
            snprintf(out, PARAM_NAME_MAX, "%s%s", saved[i].to,
                     param_name + strlen(saved[i].from));
            return;
        }
    snprintf(out, PARAM_NAME_MAX, "%s", param_name);
}
