/* What the client says of a run is what the model is: parameters to the last one. */
#include "jobs/spec/spec_estimate.h"
#include "model/neva/internal.h"
#include "tests/integration/spec_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

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
    struct spec *spec = spec_model_read(overrides, 7);
    struct neva_config config = spec_model_config(spec, 97);
    struct spec_estimate e;

    (void)state;
    assert_int_equal(spec->vision.num_layers, 27);
    assert_int_equal(spec->vision.num_attention_heads, 16);
    assert_int_equal(spec->vision.ffn_hidden_size, 4304);
    assert_string_equal(spec->vision.activation, "gelu_pytorch_tanh");
    assert_true(spec->vision.layernorm_epsilon < 2e-6);
    assert_int_equal(spec_frame_tokens(spec), 14 * 14); /* of 27 x 27 patches */
    assert_int_equal(neva_features(&config), 14 * 14);
    spec_estimate(&e, spec, 97, 1000, false);
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
        struct spec *spec = spec_model_read(&overrides[i], 1);
        struct neva_config config = spec_model_config(spec, 97);
        struct spec_estimate e;

        spec_estimate(&e, spec, 97, 200, false);
        assert_int_equal(e.n_vision + e.n_projector + e.n_llm, neva_n_params(&config));
        assert_int_equal(e.n_patches, neva_patches(&config));
        assert_int_equal(e.n_frame_tokens, neva_features(&config));
        assert_int_equal(e.n_trained, count_trained(&config));
        spec_free(spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_those_of_the_model),
        cmocka_unit_test(the_largest_siglip_has_its_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
