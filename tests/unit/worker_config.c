/* NeMo's keys into the settings of model, optimizer, batches and decoders. */
#include "worker/rank/config.h"
#include "worker/rank/scaling.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define VOCAB 321

/* What the tests look at is said here, so that the quickstart's figures may change. */
static const char *const own_keys[] = {
    "model.data.data_path=/d",
    "model.data.validation_data_path=/v",
    "model.tokenizer.model=/t",
    "trainer.precision=bf16",
    "trainer.max_steps=1500",
    "trainer.gradient_clip_val=1.0",
    "model.micro_batch_size=16",
    "model.global_batch_size=32",
    "model.encoder_seq_length=256",
    "model.num_layers=4",
    "model.hidden_size=96",
    "model.ffn_hidden_size=256",
    "model.num_attention_heads=4",
    "model.num_query_groups=2",
    "model.use_scaled_init_method=True",
    "model.seed=1234",
    "model.activations_checkpoint_granularity=full",
    "model.activations_checkpoint_method=uniform",
    "model.activations_checkpoint_num_layers=1",
    "model.mm_cfg.mm_mlp_adapter_type=mlp2x_gelu",
    "model.mm_cfg.llm.freeze=False",
    "model.mm_cfg.vision_encoder.freeze=False",
    "model.mm_cfg.vision_encoder.patch_dim=16",
    "model.mm_cfg.vision_encoder.crop_size=64",
    "model.mm_cfg.vision_encoder.hidden_size=96",
    "model.mm_cfg.vision_encoder.ffn_hidden_size=384",
    "model.mm_cfg.vision_encoder.num_layers=2",
    "model.mm_cfg.vision_encoder.num_attention_heads=4",
    "model.mm_cfg.vision_encoder.vision_select_layer=-1",
    "model.mm_cfg.vision_encoder.class_token_length=0",
    "model.data.num_frames=4",
    "model.optim.lr=1e-3",
    "model.optim.weight_decay=0.01",
    "model.optim.betas=[0.9,0.95]",
    "model.optim.sched.warmup_steps=100",
    "model.optim.sched.min_lr=1e-5",
};
#define N_OWN_KEYS ((int)(sizeof(own_keys) / sizeof(own_keys[0])))
#define KEYS_MAX 64

/* The quickstart's training spec, our own keys, and more overrides (ended by NULL). */
static struct spec *read_spec(const char *first, ...)
{
    const char *keys[KEYS_MAX];
    char path[4096];
    struct spec *spec = NULL;
    struct spec_notes notes = {0};
    struct err err = {0};
    int n = 0;
    va_list more;

    for (; n < N_OWN_KEYS; n++)
        keys[n] = own_keys[n];
    va_start(more, first);
    for (const char *key = first; key && n < KEYS_MAX; key = va_arg(more, const char *))
        keys[n++] = key;
    va_end(more);
    snprintf(path, sizeof(path), "%s/jobs/quickstart/train.yaml", getenv("VNEVA_SOURCE"));
    if (spec_read(&spec, &notes, path, SPEC_NONE, keys, n, &err) < 0)
        fail_msg("%s", err.text);
    spec_notes_fini(&notes);
    return spec;
}

static void siglip_gives_its_model(void **state)
{
    struct spec *spec =
        read_spec("model.mm_cfg.vision_encoder.model_type=siglip",
                  "model.mm_cfg.vision_encoder.activation=null",
                  "model.mm_cfg.vision_encoder.class_token_length=1",
                  "model.mm_cfg.vision_encoder.vision_select_feature=cls_patch",
                  "model.mm_cfg.mm_mlp_adapter_type=mlp_downsample", NULL);
    struct neva_config config;
    struct frame_config frames;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_model(&config, spec, VOCAB, &err), 0);
    assert_int_equal(config.vision.encoder, NEVA_ENCODER_SIGLIP);
    assert_int_equal(config.vision.class_token_length, 0); /* NeMo's files say 1 */
    assert_int_equal(config.vision.select_feature, NEVA_SELECT_CLS_PATCH);
    assert_int_equal(config.vision.act, ACT_GELU_TANH);
    assert_true(config.vision.eps > 0.9e-6F && config.vision.eps < 1.1e-6F);
    for (int i = 0; i < 3; i++)
        assert_true(config.vision.mean[i] == 0.5F && config.vision.std[i] == 0.5F);
    assert_int_equal(config.projector, NEVA_PROJECTOR_MLP_DOWNSAMPLE);
    assert_int_equal(config_frames(&frames, spec, NULL, &err), 0);
    assert_int_equal(frames.frame_tokens, 4); /* of 4 x 4 patches */
    assert_int_equal(frames.frame_tokens, neva_features(&config));
    spec_free(spec);
}

static void quickstart_gives_its_model(void **state)
{
    struct spec *spec = read_spec(NULL, NULL);
    struct neva_config config;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_model(&config, spec, VOCAB, &err), 0);
    assert_int_equal(config.vision.image_size, 64);
    assert_int_equal(config.vision.patch, 16);
    assert_int_equal(config.vision.width, 96);
    assert_int_equal(config.vision.ffn_width, 384);
    assert_int_equal(config.vision.n_layers, 2);
    assert_int_equal(config.vision.select_layer, -1);
    assert_int_equal(config.vision.class_token_length, 0);
    assert_false(config.vision.freeze);
    assert_true(config.vision.mean[0] > 0.48F && config.vision.mean[0] < 0.49F);
    assert_int_equal(config.projector, NEVA_PROJECTOR_MLP2X_GELU);
    assert_int_equal(config.llm.vocab, VOCAB);
    assert_int_equal(config.llm.width, 96);
    assert_int_equal(config.llm.n_heads, 4);
    assert_int_equal(config.llm.n_kv_heads, 2);
    assert_false(config.llm.freeze);
    assert_int_equal(config.max_tokens, 256);
    assert_int_equal(config.dtype, DTYPE_BF16);
    assert_int_equal(config.recompute, NEVA_RECOMPUTE_FULL);
    assert_int_equal(config.recompute_method, NEVA_RECOMPUTE_UNIFORM);
    assert_int_equal(config.recompute_layers, 1);
    assert_int_equal(config.seed, 1234);
    assert_true(config.scaled_init);
    spec_free(spec);
}

static void precision_chooses_the_compute_type(void **state)
{
    static const struct {
        const char *key;
        enum dtype dtype;
    } cases[] = {{"trainer.precision=32", DTYPE_F32},
                 {"trainer.precision=bf16", DTYPE_BF16},
                 {"trainer.precision=tf32", DTYPE_F32},
                 {"trainer.precision=16", DTYPE_F16}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spec *spec = read_spec(cases[i].key, NULL);
        struct neva_config config;
        struct err err = {0};

        assert_int_equal(config_model(&config, spec, VOCAB, &err), 0);
        assert_int_equal(config.dtype, cases[i].dtype);
        spec_free(spec);
    }
}

static void heads_without_groups_have_keys_of_their_own(void **state)
{
    struct spec *spec = read_spec("model.num_query_groups=null", NULL);
    struct neva_config config;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_model(&config, spec, VOCAB, &err), 0);
    assert_int_equal(config.llm.n_kv_heads, 4);
    spec_free(spec);
}

static void nvgpt_gives_nemotron_s_decoder(void **state)
{
    struct spec *spec =
        read_spec("model.normalization=layernorm1p", "model.activation=squared-relu",
                  "model.rotary_percentage=0.5", "model.num_query_groups=2", NULL);
    struct neva_config config;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_model(&config, spec, VOCAB, &err), 0);
    assert_int_equal(config.llm.norm.kind, NN_NORM_LAYER_1P);
    assert_int_equal(config.llm.mlp, NEVA_MLP_RELU_SQUARED);
    assert_int_equal(config.llm.rope.rot_dims, 12); /* of 96 / 4 */
    assert_int_equal(config.llm.rope.scaling, ROPE_PLAIN);
    assert_false(config.llm.has_bias || config.llm.has_qkv_bias);
    spec_free(spec);
}

static void biases_and_longer_contexts_are_taken_over(void **state)
{
    struct spec *spec =
        read_spec("model.qkv_bias=true", "model.normalization=layernorm",
                  "model.activation=gelu", "model.seq_len_interpolation_factor=4", NULL);
    struct neva_config config;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_model(&config, spec, VOCAB, &err), 0);
    assert_int_equal(config.llm.norm.kind, NN_NORM_LAYER);
    assert_int_equal(config.llm.mlp, NEVA_MLP_GELU);
    assert_true(config.llm.has_qkv_bias && !config.llm.has_bias);
    assert_int_equal(config.llm.rope.scaling, ROPE_LINEAR);
    assert_true(config.llm.rope.factor == 4);
    spec_free(spec);
    spec = read_spec("model.bias=true", "model.scale_positional_embedding=true", NULL);
    assert_int_equal(config_model(&config, spec, VOCAB, &err), 0);
    assert_true(config.llm.has_bias);
    assert_int_equal(config.llm.rope.scaling, ROPE_LLAMA3);
    assert_int_equal(config.llm.rope.original_positions, 8192);
    spec_free(spec);
}

static void other_decoders_are_refused_by_key(void **state)
{
    struct spec *spec = read_spec(NULL, NULL);
    struct neva_config config;
    struct err err = {0};
    char *kept = spec->model.normalization, other[] = "low_precision_layernorm";
    char act[] = "reglu";

    (void)state;
    spec->model.normalization = other;
    assert_int_equal(config_model(&config, spec, VOCAB, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "model.normalization: 'low_precision_layernorm'"));
    assert_non_null(strstr(err.text, "'rmsnorm'"));
    spec->model.normalization = kept;
    kept = spec->model.activation;
    spec->model.activation = act;
    assert_int_equal(config_model(&config, spec, VOCAB, &err), -1);
    assert_non_null(strstr(err.text, "model.activation: 'reglu'"));
    spec->model.activation = kept;
    spec_free(spec);
}

static void only_fp16_has_a_loss_scale(void **state)
{
    static const char *const others[] = {"trainer.precision=32", "trainer.precision=tf32",
                                         "trainer.precision=bf16-mixed"};
    struct optim_config config;
    struct scaling scaling;
    struct spec *spec;
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        spec = read_spec(others[i], NULL);
        scaling_init(&scaling, spec);
        assert_int_equal(config_optim(&config, spec, &err), 0);
        assert_true(!scaling.is_on && scaling.state.scale == 1 && !config.skips_overflow);
        spec_free(spec);
    }
    spec = read_spec("trainer.precision=16", NULL);
    scaling_init(&scaling, spec);
    assert_int_equal(config_optim(&config, spec, &err), 0);
    assert_true(scaling.is_on && config.skips_overflow);
    assert_true(scaling.state.scale == 4294967296.0);
    assert_int_equal(scaling.config.growth_interval, 1000);
    assert_int_equal(scaling.config.hysteresis, 2);
    spec_free(spec);
    spec = read_spec("trainer.precision=16-mixed", "model.native_amp_init_scale=65536",
                     "model.native_amp_growth_interval=7", "model.hysteresis=3", NULL);
    scaling_init(&scaling, spec);
    assert_true(scaling.is_on && scaling.state.scale == 65536);
    assert_int_equal(scaling.config.growth_interval, 7);
    assert_int_equal(scaling.config.hysteresis, 3);
    spec_free(spec);
}

static void the_loss_scale_goes_through_a_checkpoint(void **state)
{
    struct spec *spec = read_spec("trainer.precision=16", NULL);
    struct spec *other = read_spec("trainer.precision=bf16", NULL);
    const struct optim_report bad = {.is_skipped = true, .overflow = "a.weight"};
    const struct optim_report good = {0};
    struct json *meta = json_new(JSON_OBJECT);
    struct scaling run, rest, bf16;
    struct err err = {0};

    (void)state;
    scaling_init(&run, spec);
    for (int step = 0; step < 4; step++)
        assert_int_equal(scaling_update(&run, step < 3 ? &bad : &good, step, &err), 0);
    assert_int_equal(scaling_n_updates(&run, 4), 1);
    assert_int_equal(scaling_write(&run, meta, &err), 0);
    scaling_init(&rest, spec);
    assert_int_equal(scaling_read(&rest, meta, &err), 0);
    assert_memory_equal(&rest.state, &run.state, sizeof(run.state));
    scaling_init(&bf16, other);
    assert_int_equal(scaling_read(&bf16, meta, &err), 0);
    assert_true(bf16.state.scale == 1 && scaling_n_updates(&bf16, 4) == 1);
    assert_int_equal(
        json_set(json_get(meta, "loss_scale"), "scale", json_new_int(0), &err), 0);
    assert_int_equal(scaling_read(&rest, meta, &err), -1);
    json_free(meta);
    spec_free(spec);
    spec_free(other);
}

static void optimizer_gets_schedule_and_clipping(void **state)
{
    struct spec *spec = read_spec("model.optim.sched.constant_steps=7", NULL);
    struct optim_config config;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_optim(&config, spec, &err), 0);
    assert_true(config.lr == 1e-3F && config.min_lr == 1e-5F);
    assert_true(config.beta1 == 0.9F && config.beta2 == 0.95F);
    assert_true(config.weight_decay == 0.01F && config.clip == 1.0F);
    assert_int_equal(config.warmup_steps, 100);
    assert_int_equal(config.constant_steps, 7);
    assert_int_equal(config.max_steps, 1500);
    spec_free(spec);
}

static void global_batch_is_divided_over_data_ranks(void **state)
{
    struct spec *spec = read_spec("model.micro_batch_size=4", NULL);
    struct batch_config config;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_batch(&config, spec, 1, &err), 0);
    assert_int_equal(config.n_micro, 8);
    assert_int_equal(config_batch(&config, spec, 4, &err), 0);
    assert_int_equal(config.n_micro, 2);
    assert_int_equal(config_batch(&config, spec, 3, &err), -1);
    assert_non_null(strstr(err.text, "model.global_batch_size (32)"));
    spec_free(spec);
}

static void spliced_video_is_one_frame_a_request(void **state)
{
    struct spec *spec = read_spec("model.data.splice_single_frame=last", NULL);
    struct frame_config frames;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_frames(&frames, spec, NULL, &err), 0);
    assert_int_equal(frames.splice, MEDIA_SPLICE_LAST);
    assert_int_equal(config_request_frames(&frames), 1);
    spec_free(spec);
}

static void the_processor_follows_the_encoder(void **state)
{
    struct spec *spec = read_spec("model.mm_cfg.vision_encoder.model_type=siglip", NULL);
    struct frame_config frames;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_frames(&frames, spec, NULL, &err), 0);
    assert_int_equal(frames.processor, MEDIA_PROCESSOR_SIGLIP);
    spec_free(spec);
    spec = read_spec("model.mm_cfg.vision_encoder.model_type=siglip",
                     "model.data.image_aspect_ratio=keep", NULL);
    assert_int_equal(config_frames(&frames, spec, NULL, &err), -1);
    assert_non_null(strstr(err.text, "take square or pad"));
    spec_free(spec);
    spec = read_spec("model.seed=1", NULL);
    assert_int_equal(config_frames(&frames, spec, NULL, &err), 0);
    assert_int_equal(frames.processor, MEDIA_PROCESSOR_CLIP);
    spec_free(spec);
}

static void all_frames_are_bounded_by_the_tokens_that_fit(void **state)
{
    struct spec *spec = read_spec("model.data.num_frames=-1", NULL);
    struct frame_config frames;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_frames(&frames, spec, NULL, &err), 0);
    assert_int_equal(frames.num_frames, -1);
    assert_int_equal(config_request_frames(&frames), 256 / 16); /* 16 patches a frame */
    spec_free(spec);
}

static void pool_is_bounded_in_memory_and_processes(void **state)
{
    struct spec *spec = read_spec("model.data.num_workers=8", NULL);
    struct decode_pool_config pool;
    struct frame_config frames;
    struct err err = {0};

    (void)state;
    assert_int_equal(config_frames(&frames, spec, NULL, &err), 0);
    config_pool(&pool, spec, &frames, "/p", 2, 1000000);
    assert_int_equal(pool.n_processes, 2);
    assert_int_equal(pool.slot_bytes, 4 * 64 * 64 * 3);
    assert_true((uint64_t)pool.n_slots * pool.slot_bytes <= 512u << 20);
    config_pool(&pool, spec, &frames, "/p", 1, 10);
    assert_int_equal(pool.n_processes, 1);
    assert_int_equal(pool.n_slots, 10);
    assert_int_equal(pool.deadline_ms, 30000);
    spec_free(spec);
}

static void decode_device_chooses_who_decodes(void **state)
{
    static const struct {
        const char *override;
        int gpu;
        enum media_decode decode;
    } cases[] = {
        {"model.data.decode_device=auto", 3, MEDIA_DECODE_AUTO},
        {"model.data.decode_device=auto", -1, MEDIA_DECODE_CPU},
        {"model.data.decode_device=cpu", 3, MEDIA_DECODE_CPU},
        {"model.data.decode_device=cuda", 3, MEDIA_DECODE_CUDA},
        {"model.data.decode_device=cuda", -1, MEDIA_DECODE_CPU},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spec *spec = read_spec(cases[i].override, NULL);
        struct decode_pool_config pool = {.device = 7};

        config_decode(&pool, spec, cases[i].gpu);
        assert_int_equal(pool.decode, cases[i].decode);
        assert_int_equal(pool.device, cases[i].gpu);
        spec_free(spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quickstart_gives_its_model),
        cmocka_unit_test(siglip_gives_its_model),
        cmocka_unit_test(precision_chooses_the_compute_type),
        cmocka_unit_test(heads_without_groups_have_keys_of_their_own),
        cmocka_unit_test(nvgpt_gives_nemotron_s_decoder),
        cmocka_unit_test(biases_and_longer_contexts_are_taken_over),
        cmocka_unit_test(other_decoders_are_refused_by_key),
        cmocka_unit_test(only_fp16_has_a_loss_scale),
        cmocka_unit_test(the_loss_scale_goes_through_a_checkpoint),
        cmocka_unit_test(optimizer_gets_schedule_and_clipping),
        cmocka_unit_test(global_batch_is_divided_over_data_ranks),
        cmocka_unit_test(spliced_video_is_one_frame_a_request),
        cmocka_unit_test(the_processor_follows_the_encoder),
        cmocka_unit_test(all_frames_are_bounded_by_the_tokens_that_fit),
        cmocka_unit_test(pool_is_bounded_in_memory_and_processes),
        cmocka_unit_test(decode_device_chooses_who_decodes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
