/* A spec beside the configuration of a folder of weights: who decides, what is refused. */
#include "spec_help.h"

#include "worker/rank/config.h"

/* The least a run says that leaves sizes and kinds to folders. */
#define SILENT_TEXT                                                                      \
    "kind: pretrain\n"                                                                   \
    "trainer: {max_steps: 10, precision: 32}\n"                                          \
    "model:\n"                                                                           \
    "  global_batch_size: 4\n"                                                           \
    "  encoder_seq_length: 64\n"                                                         \
    "  restore_from_path: /w\n"                                                          \
    "  mm_cfg: {mm_mlp_adapter_type: mlp2x_gelu}\n"                                      \
    "  data: {data_path: /data}\n"                                                       \
    "  optim: {lr: 1e-3}\n"

static const struct weights_info folder = {
    .architecture = "LlavaForConditionalGeneration",
    .parts = WEIGHTS_ALL,
    .config =
        {
            .vision = {.encoder = NEVA_ENCODER_CLIP,
                       .image_size = 28,
                       .patch = 14,
                       .width = 32,
                       .ffn_width = 48,
                       .n_layers = 3,
                       .n_heads = 4,
                       .select_layer = 2, /* of 3: the spec's -2 */
                       .class_token_length = 1,
                       .act = ACT_GELU,
                       .eps = 1e-5F,
                       .mean = {0.5F, 0.4F, 0.3F},
                       .std = {0.2F, 0.2F, 0.1F}},
            .projector = NEVA_PROJECTOR_MLP2X_GELU,
            .projector_no_bias = true,
            .llm = {.vocab = 99,
                    .width = 64,
                    .ffn_width = 80,
                    .n_layers = 2,
                    .n_heads = 8,
                    .n_kv_heads = 2,
                    .norm = {NN_NORM_LAYER, 1e-6F},
                    .mlp = NEVA_MLP_SWIGLU,
                    .has_qkv_bias = true,
                    .rope = {.rot_dims = 4,
                             .theta = 500000,
                             .scaling = ROPE_LLAMA3,
                             .factor = 32, /* Llama 3.2's, which no key says */
                             .low_freq_factor = 1,
                             .high_freq_factor = 4,
                             .original_positions = 8192},
                    .tied = true},
            .max_tokens = 128,
        },
};

/* The configuration of SILENT_TEXT and an override, beside the folder's. */
static int configure(struct neva_config *config, const struct weights_info *info,
                     const char *override, struct err *err)
{
    char plus[128];
    const char *list[] = {plus, NULL};
    struct outcome out;
    int rc;

    snprintf(plus, sizeof(plus), "++%s", override);
    out = read_text(SILENT_TEXT, SPEC_NONE, list);
    if (!out.spec)
        fail_msg("%s", out.err.text);
    rc = config_model(config, out.spec, info->config.llm.vocab, err);
    if (rc == 0)
        rc = config_from_weights(config, out.spec, info, WEIGHTS_ALL, "/w", err);
    outcome_fini(&out);
    return rc;
}

static void silent_spec_takes_all_of_the_folder(void **state)
{
    const struct neva_config *has = &folder.config;
    struct neva_config config;
    struct err err;

    (void)state;
    if (configure(&config, &folder, "name=x", &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(config.vision.image_size, 28);
    assert_int_equal(config.vision.n_layers, 3);
    assert_int_equal(config.vision.act, ACT_GELU);
    assert_memory_equal(config.vision.mean, has->vision.mean, sizeof(has->vision.mean));
    assert_true(config.projector_no_bias);
    assert_int_equal(config.llm.width, 64);
    assert_int_equal(config.llm.n_kv_heads, 2);
    assert_int_equal(config.llm.norm.kind, NN_NORM_LAYER);
    assert_true(config.llm.norm.eps == 1e-6F);
    assert_true(config.llm.has_qkv_bias && !config.llm.has_bias && config.llm.tied);
    assert_int_equal(config.llm.rope.rot_dims, 4);
    assert_true(config.llm.rope.theta == 500000);
    assert_int_equal(config.llm.rope.scaling, ROPE_LLAMA3);
    assert_true(config.llm.rope.factor == 32);
    assert_int_equal(config.max_tokens, 64); /* the spec's: how long a row may be */
    assert_int_equal(config.vision.select_layer, -2);
}

static void siglip_s_folder_says_so_itself(void **state)
{
    static const char *const overrides[] = {
        "name=x", "model.mm_cfg.vision_encoder.model_type=siglip",
        "model.mm_cfg.vision_encoder.class_token_length=1", /* as NeMo's files have it */
    };
    struct weights_info siglip = folder;
    struct neva_config config;
    struct err err;

    (void)state;
    siglip.config.vision.encoder = NEVA_ENCODER_SIGLIP;
    siglip.config.vision.class_token_length = 0;
    siglip.config.vision.has_head = true;
    for (size_t i = 0; i < sizeof(overrides) / sizeof(overrides[0]); i++) {
        if (configure(&config, &siglip, overrides[i], &err) < 0)
            fail_msg("%s: %s", overrides[i], err.text);
        assert_int_equal(config.vision.encoder, NEVA_ENCODER_SIGLIP);
        assert_int_equal(config.vision.class_token_length, 0);
        assert_true(config.vision.has_head);
    }
    assert_int_equal(
        configure(&config, &siglip, "model.mm_cfg.vision_encoder.model_type=clip", &err),
        -1);
    assert_non_null(strstr(err.text, "model_type is clip, but the weights in '/w'"));
}

static void a_projector_that_reads_other_rows_is_refused(void **state)
{
    struct weights_info other = folder;
    struct neva_config config;
    struct err err;

    (void)state;
    other.config.vision.select_layer = -1;
    assert_int_equal(configure(&config, &other, "name=x", &err), -1);
    assert_non_null(strstr(err.text, "vision_select_layer is -2"));
    assert_non_null(strstr(err.text, "reads -1 and patch"));
    if (configure(&config, &other, "model.mm_cfg.vision_encoder.vision_select_layer=3",
                  &err) < 0)
        fail_msg("%s", err.text);
    other.config.vision.select_layer = -2;
    other.config.vision.select_feature = NEVA_SELECT_CLS_PATCH;
    assert_int_equal(configure(&config, &other, "name=x", &err), -1);
    other.parts = WEIGHTS_VISION; /* an encoder alone says nothing of it */
    if (configure(&config, &other, "name=x", &err) < 0)
        fail_msg("%s", err.text);
}

static void spec_that_says_the_same_is_taken(void **state)
{
    static const char *const overrides[] = {
        "model.num_layers=2",
        "model.layernorm_epsilon=1e-6",
        "model.rotary_percentage=0.5",
        "model.rotary_base=500000",
        "model.activation=fast-swiglu",
        "model.normalization=layernorm",
        "model.qkv_bias=true",
        "model.share_embeddings_and_output_weights=true",
        "model.mm_cfg.vision_encoder.crop_size=[28,28]",
        "model.mm_cfg.vision_encoder.activation=gelu",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(overrides) / sizeof(overrides[0]); i++) {
        struct neva_config config;
        struct err err;

        if (configure(&config, &folder, overrides[i], &err) < 0)
            fail_msg("%s: %s", overrides[i], err.text);
        assert_int_equal(config.llm.rope.rot_dims, 4);
    }
}

static void contradictions_name_key_values_and_folder(void **state)
{
    static const struct {
        const char *override, *says;
    } table[] = {
        {"model.num_layers=3", "model.num_layers is 3, but the weights in '/w' "
                               "(LlavaForConditionalGeneration) have 2"},
        {"model.ffn_hidden_size=96", "model.ffn_hidden_size is 96"},
        {"model.num_query_groups=8", "model.num_query_groups is 8"},
        {"model.rotary_base=10000", "model.rotary_base is 10000"},
        {"model.layernorm_epsilon=1e-5", "is 1e-05, but the weights in '/w'"},
        {"model.normalization=rmsnorm", "model.normalization is rmsnorm"},
        {"model.activation=squared-relu", "is squared-relu, but"},
        {"model.qkv_bias=false", "model.qkv_bias is false, but"},
        {"model.share_embeddings_and_output_weights=false", "have true"},
        {"model.scale_positional_embedding=false", "ask for no scaling"},
        {"model.scale_positional_embedding=true", "llama3 scaling (factor 8)"},
        {"model.seq_len_interpolation_factor=4", "linear scaling (factor 4)"},
        {"model.mm_cfg.mm_mlp_adapter_type=linear", "adapter_type is linear"},
        {"model.mm_cfg.vision_encoder.patch_dim=7", "patch_dim is 7"},
        {"model.mm_cfg.vision_encoder.activation=quick_gelu", "have gelu"},
        {"model.mm_cfg.vision_encoder.layernorm_epsilon=1e-6", "have 1e-05"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct neva_config config;
        struct err err;

        if (configure(&config, &folder, table[i].override, &err) == 0)
            fail_msg("%s is taken", table[i].override);
        assert_int_equal(err.code, ERR_INVALID);
        assert_says(err.text, table[i].says);
    }
}

static void longer_rows_than_the_window_of_attention_are_refused(void **state)
{
    struct weights_info mistral = folder;
    struct neva_config config;
    struct err err;

    (void)state;
    mistral.sliding_window = 64;
    if (configure(&config, &mistral, "name=x", &err) < 0)
        fail_msg("%s", err.text);
    mistral.sliding_window = 63;
    assert_int_equal(configure(&config, &mistral, "name=x", &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_says(err.text, "model.encoder_seq_length (64) is longer than the window");
}

/* Of an LLM's folder nothing else is taken. */
static void parts_take_their_own_keys_only(void **state)
{
    static const char *const overrides[] = {"++model.mm_cfg.llm.from_pretrained=/w",
                                            "~model.num_layers", "~model.hidden_size",
                                            "~model.num_attention_heads", NULL};
    struct outcome out = read_text(TRAIN_TEXT, SPEC_NONE, overrides);
    struct neva_config config;
    struct err err;

    (void)state;
    if (!out.spec)
        fail_msg("%s", out.err.text);
    if (config_model(&config, out.spec, 99, &err) < 0 ||
        config_from_weights(&config, out.spec, &folder, WEIGHTS_LLM, "/w", &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(config.llm.n_layers, 2);
    assert_int_equal(config.vision.image_size, 336); /* the defaults of the encoder */
    assert_int_equal(config.vision.n_layers, 24);
    assert_int_equal(config.projector, NEVA_PROJECTOR_LINEAR);
    assert_false(config.projector_no_bias);
    outcome_fini(&out);
}

/* Without a folder the sizes are needed, as ever. */
static void sizes_are_needed_where_no_folder_says_them(void **state)
{
    (void)state;
    assert_refused(SILENT_TEXT, (const char *[]){"model.restore_from_path=null", NULL},
                   "model.num_layers", "model.num_attention_heads");
    assert_refused(SILENT_TEXT,
                   (const char *[]){"model.restore_from_path=null",
                                    "++model.mm_cfg.vision_encoder.from_pretrained=/w",
                                    NULL},
                   "model.hidden_size", NULL);
    assert_refused(SILENT_TEXT, (const char *[]){"++restore_from_path=/other", NULL},
                   "restore_from_path ('/other') and model.restore_from_path ('/w')",
                   "set one of them");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silent_spec_takes_all_of_the_folder),
        cmocka_unit_test(siglip_s_folder_says_so_itself),
        cmocka_unit_test(a_projector_that_reads_other_rows_is_refused),
        cmocka_unit_test(spec_that_says_the_same_is_taken),
        cmocka_unit_test(contradictions_name_key_values_and_folder),
        cmocka_unit_test(longer_rows_than_the_window_of_attention_are_refused),
        cmocka_unit_test(parts_take_their_own_keys_only),
        cmocka_unit_test(sizes_are_needed_where_no_folder_says_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
