#include "tests/integration/spec_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct spec *spec_model_read(const char *const *overrides, int n_overrides)
{
    static const char text[] = "kind: pretrain\n"
                               "trainer: {max_steps: 10}\n"
                               "model:\n"
                               "  global_batch_size: 4\n"
                               "  num_layers: 3\n"
                               "  hidden_size: 64\n"
                               "  ffn_hidden_size: 176\n"
                               "  num_attention_heads: 4\n"
                               "  encoder_seq_length: 512\n"
                               "  mm_cfg:\n"
                               "    vision_encoder: {patch_dim: 16, crop_size: 64,\n"
                               "      hidden_size: 48, num_layers: 2,\n"
                               "      num_attention_heads: 2}\n"
                               "  data: {data_path: /d, num_frames: 4}\n"
                               "  optim: {lr: 1e-3}\n";
    char path[] = "/tmp/vneva-estimate-XXXXXX";
    int fd = mkstemp(path);
    struct spec *spec = NULL;
    struct spec_notes notes;
    struct err err;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    if (spec_read(&spec, &notes, path, SPEC_NONE, overrides, n_overrides, &err) < 0)
        fail_msg("%s", err.text);
    unlink(path);
    spec_notes_fini(&notes);
    return spec;
}

static void set_recompute(struct neva_config *c, const struct spec *spec)
{
    const char *granularity = spec->model.activations_checkpoint_granularity;
    const char *method = spec->model.activations_checkpoint_method;

    if (granularity && strcmp(granularity, "full") == 0)
        c->recompute = NEVA_RECOMPUTE_FULL;
    else if (granularity)
        c->recompute = NEVA_RECOMPUTE_SELECTIVE;
    if (method && strcmp(method, "block") == 0)
        c->recompute_method = NEVA_RECOMPUTE_BLOCK;
    c->recompute_layers = spec->model.activations_checkpoint_num_layers;
}

struct neva_config spec_model_config(const struct spec *spec, int64_t vocab)
{
    struct neva_config c = {0};

    c.vision.image_size = spec->vision.crop_size;
    c.vision.patch = spec->vision.patch_dim;
    c.vision.width = spec->vision.hidden_size;
    c.vision.ffn_width = spec->vision.ffn_hidden_size;
    c.vision.n_layers = spec->vision.num_layers;
    c.vision.n_heads = spec->vision.num_attention_heads;
    c.vision.select_layer = spec->vision.vision_select_layer;
    c.vision.class_token_length = spec_class_tokens(spec);
    if (strcmp(spec->vision.model_type, "siglip") == 0)
        c.vision.encoder = NEVA_ENCODER_SIGLIP;
    if (strcmp(spec->vision.vision_select_feature, "cls_patch") == 0)
        c.vision.select_feature = NEVA_SELECT_CLS_PATCH;
    for (int i = 0; i < 3; i++)
        c.vision.std[i] = 1;
    c.vision.eps = (float)spec->vision.layernorm_epsilon;
    c.vision.freeze = spec->vision.freeze;
    c.projector = strcmp(spec->mm_cfg.mm_mlp_adapter_type, "linear") == 0
                      ? NEVA_PROJECTOR_LINEAR
                  : strcmp(spec->mm_cfg.mm_mlp_adapter_type, "mlp2x_gelu") == 0
                      ? NEVA_PROJECTOR_MLP2X_GELU
                      : NEVA_PROJECTOR_MLP_DOWNSAMPLE;
    c.llm.vocab = vocab;
    c.llm.width = spec->model.hidden_size;
    c.llm.ffn_width = spec->model.ffn_hidden_size;
    c.llm.n_layers = spec->model.num_layers;
    c.llm.n_heads = spec->model.num_attention_heads;
    c.llm.n_kv_heads = spec->model.num_query_groups;
    c.llm.tied = spec->model.share_embeddings_and_output_weights;
    c.llm.norm.kind = strcmp(spec->model.normalization, "layernorm1p") == 0
                          ? NN_NORM_LAYER_1P
                          : NN_NORM_RMS;
    c.llm.mlp = strcmp(spec->model.activation, "squared-relu") == 0
                    ? NEVA_MLP_RELU_SQUARED
                    : NEVA_MLP_SWIGLU;
    c.llm.has_bias = spec->model.bias;
    c.llm.has_qkv_bias = spec->model.qkv_bias;
    c.llm.norm.eps = (float)spec->model.layernorm_epsilon;
    c.llm.rope.rot_dims = c.llm.width / c.llm.n_heads;
    c.llm.rope.theta = (float)spec->model.rotary_base;
    c.llm.freeze = spec->mm_cfg.llm_freeze;
    c.max_tokens = spec->model.encoder_seq_length;
    c.dtype = strstr(spec->trainer.precision, "32") ? DTYPE_F32 : DTYPE_BF16;
    c.init_std = (float)spec->model.init_method_std;
    set_recompute(&c, spec);
    return c;
}
