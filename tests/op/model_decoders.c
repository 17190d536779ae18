/* Decoders against Hugging Face's classes: tests/golden/make_decoders.py wrote weights,
 * hidden states, logits, loss, gradients and greedy tokens of tiny random models. */
#include "tests/op/expect.h"
#include "tests/op/golden.h"
#include "tests/op/tiny.h"

enum { LLAMA, LLAMA3, MISTRAL, QWEN2, NEMOTRON, GPT, STABLELM, N_DECODERS };

static const char *const names[N_DECODERS] = {
    "llama", "llama3", "mistral", "qwen2", "nemotron", "gpt", "stablelm",
};

/* What NeMo's keys would select for the model of make_decoders.py. */
static struct neva_config config_of(int decoder)
{
    struct neva_config config = tiny_config();

    config.llm.vocab = 53;
    config.llm.width = 48;
    config.llm.ffn_width = 26;
    config.llm.n_layers = 2;
    config.llm.n_heads = 8;
    config.llm.n_kv_heads = 4;
    config.llm.rope.rot_dims = 6;
    switch (decoder) {
    case LLAMA3:
        config.llm.tied = true;
        config.llm.rope = (struct rope_args){6, 500000, ROPE_LLAMA3, 8, 1, 4, 16};
        break;
    case MISTRAL:
        config.llm.rope.theta = 1000000;
        break;
    case QWEN2:
        config.llm.norm.eps = 1e-6F;
        config.llm.has_qkv_bias = true;
        config.llm.rope = (struct rope_args){6, 1000000, ROPE_LINEAR, 4, 0, 0, 0};
        break;
    case NEMOTRON:
        config.llm.norm.kind = NN_NORM_LAYER_1P;
        config.llm.mlp = NEVA_MLP_RELU_SQUARED;
        config.llm.rope.rot_dims = neva_rotary_dims(6, 0.7);
        break;
    case GPT:
        config.llm.norm.kind = NN_NORM_LAYER_1P;
        config.llm.mlp = NEVA_MLP_GELU;
        config.llm.has_bias = true;
        break;
    case STABLELM:
        config.llm.norm.kind = NN_NORM_LAYER;
        config.llm.has_qkv_bias = true;
        config.llm.rope.rot_dims = neva_rotary_dims(6, 0.34);
        break;
    default:
        break;
    }
    return config;
}

static void compare(int decoder, const char *backend, int n_ranks, enum dtype dtype)
{
    struct neva_config config = config_of(decoder);
    char file[64];

    snprintf(file, sizeof(file), "decoder_%s", names[decoder]);
    golden_compare(file, &config, backend, n_ranks, dtype);
}

static void decoders_equal_hugging_face_s_in_fp32(void)
{
    for (int decoder = 0; decoder < N_DECODERS; decoder++)
        for (int n_ranks = 1; n_ranks <= 4; n_ranks *= 2) {
            compare(decoder, "ref", n_ranks, DTYPE_F32);
            compare(decoder, "cpu", n_ranks, DTYPE_F32);
        }
}

static void decoders_are_near_in_bf16(void)
{
    for (int decoder = 0; decoder < N_DECODERS; decoder++) {
        compare(decoder, "ref", 1, DTYPE_BF16);
        compare(decoder, "cpu", 1, DTYPE_BF16);
        compare(decoder, "cpu", 2, DTYPE_BF16);
    }
}

int main(void)
{
    EXPECT_RUN(decoders_equal_hugging_face_s_in_fp32);
    EXPECT_RUN(decoders_are_near_in_bf16);
    return expect_end();
}
