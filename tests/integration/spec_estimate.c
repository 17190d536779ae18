/* What the client says of a run is what the model is: parameters to the last one. */
#include "jobs/spec/spec_estimate.h"
#include "common/base/buf.h"
#include "model/neva/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct spec *read_spec(const char *const *overrides, int n_overrides)
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

static struct neva_config config_of(const struct spec *spec, int64_t vocab)
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
    return c;
}

/* Parameters that are trained, of the whole model. */
static int64_t count_trained(const struct neva_config *config)
{
    struct param_table table;
    struct err err = {0};
    int64_t total = 0;

    if (param_table_build(&table, config, 0, 1, &err) < 0)
        fail_msg("%s", err.text);
    for (int i = 0; i < table.n_params; i++) {
        int64_t n = table.params[i].is_trained;

        for (int axis = 0; axis < table.params[i].n_dims; axis++)
            n *= table.params[i].dims[axis];
        total += n;
    }
    param_table_fini(&table);
    return total;
}

static void the_largest_siglip_has_its_sizes(void **state)
{
    static const char *const overrides[] = {
        "model.mm_cfg.vision_encoder.model_type=siglip",
        "model.mm_cfg.vision_encoder.hidden_size=1152",
        "model.mm_cfg.vision_encoder.num_layers=null",
        "model.mm_cfg.vision_encoder.num_attention_heads=null",
        "model.mm_cfg.vision_encoder.patch_dim=14",
        "model.mm_cfg.vision_encoder.crop_size=384",
        "model.mm_cfg.mm_mlp_adapter_type=mlp_downsample",
    };
    struct spec *spec = read_spec(overrides, 7);
    struct neva_config config = config_of(spec, 97);
    struct spec_estimate e;

    (void)state;
    assert_int_equal(spec->vision.num_layers, 27);
    assert_int_equal(spec->vision.num_attention_heads, 16);
    assert_int_equal(spec->vision.ffn_hidden_size, 4304);
    assert_string_equal(spec->vision.activation, "gelu_pytorch_tanh");
    assert_true(spec->vision.layernorm_epsilon < 2e-6);
    assert_int_equal(spec_frame_tokens(spec), 14 * 14); /* of 27 x 27 patches */
    assert_int_equal(neva_features(&config), 14 * 14);
    spec_estimate(&e, spec, 97, 1000);
    assert_int_equal(e.n_patches, 27 * 27);
    assert_int_equal(e.n_media_tokens, 4 * 14 * 14);
    assert_int_equal(e.n_vision + e.n_projector + e.n_llm, neva_n_params(&config));
    spec_free(spec);
}

static void parameters_are_those_of_the_model(void **state)
{
    static const char *const overrides[] = {
        "trainer.precision=32",
        "model.mm_cfg.mm_mlp_adapter_type=mlp2x_gelu",
        "model.share_embeddings_and_output_weights=true",
        "model.num_query_groups=2",
        "model.mm_cfg.vision_encoder.class_token_length=0",
        "model.mm_cfg.vision_encoder.vision_select_layer=-1",
        "model.mm_cfg.vision_encoder.vision_select_layer=1",
        "model.mm_cfg.vision_encoder.vision_select_feature=cls_patch",
        "model.mm_cfg.vision_encoder.model_type=siglip",
        "model.mm_cfg.mm_mlp_adapter_type=mlp_downsample",
        "model.mm_cfg.vision_encoder.hidden_size=1024",
        "model.mm_cfg.vision_encoder.patch_dim=8",
        "model.hidden_size=256",
        "model.normalization=layernorm1p",
        "model.activation=squared-relu",
        "model.bias=true",
        "model.qkv_bias=true",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(overrides) / sizeof(overrides[0]); i++) {
        struct spec *spec = read_spec(&overrides[i], 1);
        struct neva_config config = config_of(spec, 97);
        struct spec_estimate e;

        spec_estimate(&e, spec, 97, 200);
        assert_int_equal(e.n_vision + e.n_projector + e.n_llm, neva_n_params(&config));
        assert_int_equal(e.n_patches, neva_patches(&config));
        assert_int_equal(e.n_frame_tokens, neva_features(&config));
        assert_int_equal(e.n_trained, count_trained(&config));
        spec_free(spec);
    }
}

/* An estimate, of what the model lays out to the byte. */
static void memory_is_near_the_model_s_plan(void **state)
{
    static const struct {
        const char *const overrides[4];
        int tensor_parallel;
    } table[] = {
        {{"trainer.precision=32", "model.hidden_size=256", "model.micro_batch_size=1"},
         1},
        {{"trainer.precision=tf32", "model.hidden_size=256", "model.micro_batch_size=1"},
         1},
        {{"trainer.precision=bf16", "model.hidden_size=256", "model.micro_batch_size=4"},
         1},
        {{"trainer.devices=2", "model.tensor_model_parallel_size=2",
          "model.hidden_size=512"},
         2},
        {{"model.activations_checkpoint_granularity=full", "model.hidden_size=256",
          "model.num_layers=8"},
         1},
        {{"model.mm_cfg.llm.freeze=true", "model.mm_cfg.vision_encoder.freeze=true",
          "model.hidden_size=256"},
         1},
        {{"model.mm_cfg.vision_encoder.model_type=siglip", "model.hidden_size=256",
          "model.mm_cfg.mm_mlp_adapter_type=mlp_downsample"},
         1},
    };
    const int64_t vocab = 1000, n_tokens = 400;

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct spec *spec = read_spec(table[i].overrides, 3);
        struct neva_config config = config_of(spec, vocab);
        struct spec_estimate e;
        double ours, plan;

        if (spec->model.activations_checkpoint_granularity) {
            config.recompute = NEVA_RECOMPUTE_FULL;
            config.recompute_method = NEVA_RECOMPUTE_UNIFORM;
            config.recompute_layers = spec->model.activations_checkpoint_num_layers;
        }
        spec_estimate(&e, spec, vocab, n_tokens);
        ours = (double)(e.weight_bytes + e.gradient_bytes + e.optimizer_bytes +
                        e.activation_bytes);
        plan = (double)neva_plan_bytes(
            &config, table[i].tensor_parallel, spec->model.micro_batch_size, n_tokens,
            spec->model.micro_batch_size * spec->data.num_frames, true);
        print_message("case %zu: estimate %.1f MB, plan %.1f MB\n", i, ours / 1e6,
                      plan / 1e6);
        assert_true(ours > 0.85 * plan && ours < 1.15 * plan);
        spec_free(spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_those_of_the_model),
        cmocka_unit_test(the_largest_siglip_has_its_sizes),
        cmocka_unit_test(memory_is_near_the_model_s_plan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
