/* Whole models against Hugging Face's LlavaForConditionalGeneration: encoder, projector
 * and decoder, of tests/golden/make_llava.py. The rows of its batch are a video, text
 * alone, and an image before a video. */
#include "tests/op/expect.h"
#include "tests/op/golden.h"
#include "tests/op/tiny.h"

enum { CLIP_B32, CLIP_L14, CLIP_L14_336, CLIP_DOWN, SIGLIP, SIGLIP_DOWN, N_MODELS };

static const char *const files[N_MODELS] = {
    "llava_clip_b32",  "llava_clip_l14", "llava_clip_l14_336",
    "llava_clip_down", "llava_siglip",   "llava_siglip_down",
};

static struct neva_config clip(int64_t grid, int64_t patch)
{
    struct neva_config config = tiny_config();

    config.vision.image_size = grid * patch;
    config.vision.patch = patch;
    config.vision.width = 16;
    for (int c = 0; c < 3; c++) {
        config.vision.mean[c] = (const float[]){0.48145466F, 0.4578275F, 0.40821073F}[c];
        config.vision.std[c] = (const float[]){0.26862954F, 0.26130258F, 0.27577711F}[c];
    }
    config.llm.vocab = 53;
    config.llm.width = 32;
    config.llm.ffn_width = 26;
    config.llm.n_layers = 2;
    config.llm.n_heads = 8;
    config.llm.n_kv_heads = 4;
    config.llm.rope.rot_dims = 4;
    config.max_tokens = 256;
    return config;
}

static struct neva_config siglip(bool has_head)
{
    struct neva_config config = clip(3, 4);

    config.vision.encoder = NEVA_ENCODER_SIGLIP;
    config.vision.image_size = 13;
    config.vision.class_token_length = 0;
    config.vision.has_head = has_head;
    config.vision.act = ACT_GELU_TANH;
    config.vision.eps = 1e-6F;
    for (int c = 0; c < 3; c++)
        config.vision.mean[c] = config.vision.std[c] = 0.5F;
    return config;
}

static void with_mistral(struct neva_config *config)
{
    config->llm.rope.theta = 1000000;
}

static void with_qwen2(struct neva_config *config)
{
    config->llm.norm.eps = 1e-6F;
    config->llm.has_qkv_bias = true;
    config->llm.rope.theta = 1000000;
}

/* What NeMo's keys would select for the model of make_llava.py. */
static struct neva_config config_of(int model)
{
    struct neva_config config = clip(3, 6);

    switch (model) {
    case CLIP_L14:
        config = clip(2, 4);
        config.vision.select_layer = 1;
        config.projector = NEVA_PROJECTOR_LINEAR;
        break;
    case CLIP_L14_336:
        config = clip(4, 4);
        config.vision.act = ACT_GELU;
        config.vision.select_layer = -1;
        config.vision.select_feature = NEVA_SELECT_CLS_PATCH;
        config.projector_no_bias = true;
        with_mistral(&config);
        break;
    case CLIP_DOWN:
        config = clip(4, 4);
        config.projector = NEVA_PROJECTOR_MLP_DOWNSAMPLE;
        with_qwen2(&config);
        break;
    case SIGLIP:
        config = siglip(true);
        with_qwen2(&config);
        break;
    case SIGLIP_DOWN:
        config = siglip(false);
        config.projector = NEVA_PROJECTOR_MLP_DOWNSAMPLE;
        with_mistral(&config);
        break;
    default:
        break;
    }
    return config;
}

static void whole_models_equal_hugging_face_s_in_fp32(void)
{
    for (int model = 0; model < N_MODELS; model++) {
        struct neva_config config = config_of(model);

        for (int n_ranks = 1; n_ranks <= 4; n_ranks *= 2) {
            golden_compare(files[model], &config, "ref", n_ranks, DTYPE_F32);
            golden_compare(files[model], &config, "cpu", n_ranks, DTYPE_F32);
        }
    }
}

static void they_do_with_a_frozen_encoder_and_with_recomputation(void)
{
    for (int model = 0; model < N_MODELS; model++) {
        struct neva_config config = config_of(model);

        config.vision.freeze = true;
        golden_compare(files[model], &config, "ref", 1, DTYPE_F32);
        golden_compare(files[model], &config, "cpu", 4, DTYPE_F32);
        config.vision.freeze = false;
        config.recompute = NEVA_RECOMPUTE_FULL;
        config.recompute_layers = 2;
        golden_compare(files[model], &config, "cpu", 2, DTYPE_F32);
    }
}

static void whole_models_are_near_in_bf16(void)
{
    for (int model = 0; model < N_MODELS; model++) {
        struct neva_config config = config_of(model);

        golden_compare(files[model], &config, "ref", 1, DTYPE_BF16);
        golden_compare(files[model], &config, "cpu", 1, DTYPE_BF16);
        golden_compare(files[model], &config, "cpu", 2, DTYPE_BF16);
    }
}

int main(void)
{
    EXPECT_RUN(whole_models_equal_hugging_face_s_in_fp32);
    EXPECT_RUN(they_do_with_a_frozen_encoder_and_with_recomputation);
    EXPECT_RUN(whole_models_are_near_in_bf16);
    return expect_end();
}
