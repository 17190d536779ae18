/* NeMo's own files: every key of every family is read, used, ignored or refused by name,
 * and those of jobs/examples/nemo give the models they say. */
#include "spec_help.h"

#include "jobs/spec/spec_schema.h"
#include "worker/rank/config.h"

static const char *source_path(char out[FS_PATH_MAX], const char *name)
{
    const char *source = getenv("VNEVA_SOURCE");

    assert_int_equal(fs_path(out, NULL, "%s/%s", source ? source : ".", name), 0);
    return out;
}

static bool has_note(const struct spec_list *list, const char *part)
{
    for (int64_t i = 0; i < list->count; i++)
        if (strstr(list->items[i], part))
            return true;
    return false;
}

/* ---- the files of jobs/examples/nemo ---- */

/* Parameters as the models' own pages give them: of Hugging Face's checkpoints of the
 * LLM, of CLIP ViT-L/14 at 336 pixels, and of two layers between them. */
static const struct model {
    const char *file;
    enum spec_kind kind;
    int64_t vocab, n_llm, tensor_parallel, n_ranks;
    double rotary_base;
    const char *template;
} models[] = {
    {"llama_2_7b", SPEC_PRETRAIN, 32000, 6738415616, 2, 8, 1e4, "llama_2"},
    {"llama_2_13b", SPEC_PRETRAIN, 32000, 13015864320, 4, 8, 1e4, "llama_2"},
    {"llama_2_70b", SPEC_PRETRAIN, 32000, 68976648192, 8, 32, 1e4, "llama_2"},
    {"llama_3_8b", SPEC_FINETUNE, 128256, 8030261248, 4, 8, 5e5, "llama_3"},
    {"mistral_7b", SPEC_FINETUNE, 32768, 7248023552, 4, 8, 1e6, "mistral"},
};
#define N_MODELS (sizeof(models) / sizeof(models[0]))
#define N_CLIP_L_336 303507456

/* is_fresh: without the folders of weights, which are not there. */
static struct spec *read_model(const struct model *model, bool is_fresh,
                               struct spec_notes *notes)
{
    const char *const fresh[] = {"model.mm_cfg.llm.from_pretrained=null",
                                 "model.mm_cfg.vision_encoder.from_pretrained=null"};
    char name[64], path[FS_PATH_MAX];
    struct spec *spec = NULL;
    struct err err;

    snprintf(name, sizeof(name), "jobs/examples/nemo/%s.yaml", model->file);
    if (spec_read(&spec, notes, source_path(path, name), model->kind, fresh,
                  is_fresh ? 2 : 0, &err) < 0)
        fail_msg("%s", err.text);
    return spec;
}

static void example_files_are_refused_for_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct spec_notes notes;
        struct spec *spec = read_model(&models[i], false, &notes);

        for (int64_t n = 0; n < notes.refused.count; n++)
            fail_msg("%s: %s", models[i].file, notes.refused.items[n]);
        assert_true(notes.ignored.count > 50); /* NeMo's many keys, each listed */
        assert_true(has_note(&notes.ignored, "model.data.lazy_preprocess: "));
        assert_int_equal(spec_n_ranks(spec), models[i].n_ranks);
        assert_string_equal(spec->data.conv_template, models[i].template);
        spec_free(spec);
        spec_notes_fini(&notes);
    }
}

static void example_files_give_the_models_they_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct spec_notes notes;
        struct spec *spec = read_model(&models[i], true, &notes);
        int64_t width = spec->model.hidden_size;
        int64_t n_projector = 1024 * width + width + width * width + width;
        struct neva_config config;
        struct err err = {0};

        if (config_model(&config, spec, models[i].vocab, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(neva_n_params(&config) - N_CLIP_L_336 - n_projector,
                         models[i].n_llm);
        assert_true(config.llm.rope.theta == (float)models[i].rotary_base);
        assert_int_equal(config.llm.rope.rot_dims, 128);
        assert_int_equal(config.llm.norm.kind, NN_NORM_RMS);
        assert_int_equal(config.dtype, DTYPE_BF16);
        spec_free(spec);
        spec_notes_fini(&notes);
    }
}

static void read_tree(struct spec_tree *tree, const char *path)
{
    struct buf text = BUF_INIT;
    struct err err;

    assert_int_equal(spec_tree_init(tree, &err), 0);
    if (fs_read_file(&text, path, SPEC_FILE_MAX, &err) < 0 ||
        spec_yaml_read(tree, path, buf_str(&text), text.n_bytes, &err) < 0)
        fail_msg("%s", err.text);
    buf_fini(&text);
}

/* Every member of nemo is a member of ours. */
static void expect_members(const struct json *ours, const struct json *nemo,
                           const char *path)
{
    for (size_t i = 0; json_type(nemo) == JSON_OBJECT && i < json_count(nemo); i++) {
        const char *key = json_key_at(nemo, i);
        const struct json *member = json_get(ours, key);
        char below[SPEC_PATH_MAX];
        bool is_there = false;

        for (size_t k = 0; k < json_count(ours); k++)
            is_there = is_there || strcmp(json_key_at(ours, k), key) == 0;
        snprintf(below, sizeof(below), "%s.%s", path, key);
        if (!is_there)
            fail_msg("there is no%s", below);
        expect_members(member, json_at(nemo, i), below);
    }
}

static void example_files_have_every_key_of_nemos(void **state)
{
    struct spec_tree nemo;
    char path[FS_PATH_MAX];

    (void)state;
    read_tree(&nemo, source_path(path, "tests/golden/video_neva_config.yaml"));
    assert_true(json_count(json_get(nemo.root, "model")) > 70);
    for (size_t i = 0; i < N_MODELS; i++) {
        struct spec_tree ours;
        char name[64];

        snprintf(name, sizeof(name), "jobs/examples/nemo/%s.yaml", models[i].file);
        read_tree(&ours, source_path(path, name));
        expect_members(ours.root, nemo.root, models[i].file);
        spec_tree_fini(&ours);
    }
    spec_tree_fini(&nemo);
}

/* ---- keys of NeMo's other files, of Lightning and of Megatron's optimizers ---- */

static void keys_without_a_meaning_are_listed(void **state)
{
    static const char *const overrides[] = {
        "model.sequence_parallel=True",
        "model.make_vocab_size_divisible_by=128",
        "model.moe_router_topk=2",
        "model.data.image_token_len=576",
        "model.data.lazy_preprocess=False",
        "model.mm_cfg.lita.sample_frames=4",
        "model.peft.lora_tuning.adapter_dim=32",
        "model.tokenizer.use_fast=True",
        "model.tokenizer.sentencepiece_legacy=True",
        "model.window_size=[8192,0]",
        "model.optim.contiguous_grad_buffer=True",
        "model.optim.overlap_param_sync=True",
        "model.optim.grad_sync_dtype=bf16",
        "model.optim.sched.max_steps=10",
        "trainer.strategy=ddp",
        "trainer.num_sanity_val_steps=2",
        "exp_manager.create_mlflow_logger=True",
        "exp_manager.mlflow_logger_kwargs.experiment_name=x",
        "exp_manager.early_stopping_callback_params.patience=3",
        "exp_manager.checkpoint_callback_params.save_last=False",
        "exp_manager.checkpoint_callback_params.async_save=True",
        "cluster_type=BCP",
        "hydra.run.dir=/x",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(overrides) / sizeof(overrides[0]); i++) {
        char override[128], key[128];
        const char *list[] = {override, NULL};
        struct outcome out;

        snprintf(override, sizeof(override), "+%s", overrides[i]);
        snprintf(key, sizeof(key), "%.*s", (int)strcspn(overrides[i], "="), overrides[i]);
        out = read_text(TRAIN_TEXT, SPEC_NONE, list);
        if (!out.spec)
            fail_msg("%s", out.err.text);
        if (!has_note(&out.notes.ignored, spec_schema_find(key)->path))
            fail_msg("%s is not listed", overrides[i]);
        assert_int_equal(out.notes.refused.count, 0);
        outcome_fini(&out);
    }
}

static void keys_that_would_change_the_result_are_refused(void **state)
{
    static const struct {
        const char *override, *says;
    } table[] = {
        {"model.pipeline_model_parallel_size=2", "pipeline parallelism is not built"},
        {"model.context_parallel_size=2", "context parallelism is not built"},
        {"model.expert_model_parallel_size=2", "mixtures of experts are not built"},
        {"model.num_moe_experts=8", "mixtures of experts are not built"},
        {"model.hidden_dropout=0.1", "dropout is not built"},
        {"model.attention_dropout=0.1", "dropout is not built"},
        {"model.ffn_dropout=0.1", "dropout is not built"},
        {"model.fp8=True", "fp8 is not built"},
        {"model.peft.peft_scheme=lora", "adapters (LoRA and others) are not built"},
        {"model.mm_cfg.use_lita=True", "LITA's tokens of time are not built"},
        {"model.data.packed_sequence=True", "packing is not built"},
        {"model.data.dataloader_type=single", "an order of its own"},
        {"model.data.image_token_len=256", "patch_dim 14 give: 576"},
        {"model.data.is_multimodal=False", "samples have media"},
        {"model.window_size=[4096,0]", "encoder_seq_length (8192)"},
        {"model.override_vocab_size=50304", "of weights and tokenizer"},
        {"model.fp32_residual_connection=True", "the compute type"},
        {"model.optim.amsgrad=True", "Adam's own"},
        {"model.optim.sched.max_steps=20", "trainer.max_steps (10)"},
        {"model.optim.sched.warmup_ratio=0.1", "warmup_steps"},
        {"exp_manager.ema.enable=True", "moving average"},
        {"exp_manager.create_early_stopping_callback=True", "trainer.max_steps"},
        {"exp_manager.max_time_per_run=00:04:00:00", "trainer.max_steps"},
        {"exp_manager.checkpoint_callback_params.save_weights_only=True", "goes on from"},
        {"trainer.max_time=00:04:00:00", "trainer.max_steps"},
        {"trainer.max_epochs=3", "trainer.max_steps"},
        {"trainer.limit_train_batches=0.5", "trainer.max_steps"},
        {"trainer.overfit_batches=1", "every sample is used"},
        {"trainer.accumulate_grad_batches=4", "global_batch_size"},
        {"trainer.gradient_clip_algorithm=value", "by their norm"},
        {"trainer.val_check_interval=0.25", "a whole number"},
        {"trainer.limit_val_batches=1.5", "or a part, 0.0 to 1.0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char override[128];
        const char *list[] = {override, NULL};

        snprintf(override, sizeof(override), "++%s", table[i].override);
        assert_refused(TRAIN_TEXT, list, table[i].says, NULL);
    }
    assert_refused(TRAIN_TEXT,
                   (const char *[]){"++model.optim.name=adam",
                                    "++model.optim.weight_decay=0.1", NULL},
                   "adds it to the gradient", "adamw or fused_adam");
}

/* Known to NeMo and not to us: the file is valid, and the list says what is possible. */
static void other_optimizers_and_schedules_are_listed_as_refused(void **state)
{
    static const char *const overrides[] = {"++model.optim.name=lamb",
                                            "++model.optim.sched.name=WarmupAnnealing"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct outcome out =
            read_text(TRAIN_TEXT, SPEC_NONE, (const char *[]){overrides[i], NULL});

        if (!out.spec)
            fail_msg("%s", out.err.text);
        assert_int_equal(out.notes.refused.count, 1);
        assert_says(out.notes.refused.items[0], i ? "CosineAnnealing" : "fused_adam");
        outcome_fini(&out);
    }
}

static void batches_of_validation_are_a_number_or_a_part(void **state)
{
    static const struct {
        const char *override;
        int64_t count;
        double part;
    } table[] = {{"++trainer.limit_val_batches=1", 1, 0},
                 {"++trainer.limit_val_batches=1.0", -1, 1},
                 {"++trainer.limit_val_batches=0.25", -1, 0.25},
                 {"++trainer.limit_val_batches=0", 0, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct outcome out =
            read_text(TRAIN_TEXT, SPEC_NONE, (const char *[]){table[i].override, NULL});
        struct buf json = BUF_INIT;
        struct spec *again = NULL;
        struct err err;

        if (!out.spec)
            fail_msg("%s", out.err.text);
        json_write(&json, out.spec->tree, 0);
        if (spec_from_json(&again, buf_str(&json), json.n_bytes, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(again->trainer.limit_val_batches.count, table[i].count);
        assert_true(again->trainer.limit_val_batches.part == table[i].part);
        spec_free(again);
        buf_fini(&json);
        outcome_fini(&out);
    }
}

/* The keys of neva_inference.yaml, with its values but for the model. */
static void inference_files_are_read(void **state)
{
    static const char text[] =
        "neva_model_file: /m\n"
        "prompt_file: /p\n"
        "output_file: /o\n"
        "cluster_type: BCP\n"
        "tensor_model_parallel_size: 2\n"
        "pipeline_model_parallel_size: 1\n"
        "pipeline_model_parallel_split_rank: 0\n"
        "base_model_file: null\n"
        "checkpoint_dir: null\n"
        "checkpoint_name: null\n"
        "hparams_file: null\n"
        "quality: 9\n"
        "toxicity: 0\n"
        "server: False\n"
        "port: 5555\n"
        "web_server: False\n"
        "quantization: {algorithm: awq, enable: False}\n"
        "inference:\n"
        "  {greedy: False, top_k: 0, top_p: 0.9, temperature: 0.2,\n"
        "   add_BOS: False, tokens_to_generate: 256,\n"
        "   all_probs: False, repetition_penalty: 1.2,\n"
        "   min_tokens_to_generate: 0, compute_logprob: False,\n"
        "   end_strings: ['<extra_id_1>'], media_base_path: /m,\n"
        "   insert_media_token: left, insert_vid_token: null,\n"
        "   media_type: image}\n"
        "trainer:\n"
        "  {devices: 8, num_nodes: 1, accelerator: gpu,\n"
        "   logger: False, precision: bf16}\n";
    struct outcome out = read_text(text, SPEC_EVALUATE, NULL);

    (void)state;
    if (!out.spec)
        fail_msg("%s", out.err.text);
    assert_int_equal(out.spec->evaluate.tokens_to_generate, 256);
    assert_false(out.spec->evaluate.greedy);
    assert_true(out.spec->evaluate.top_p == 0.9 && out.spec->evaluate.temperature == 0.2);
    assert_true(out.spec->evaluate.repetition_penalty == 1.2);
    assert_int_equal(out.notes.refused.count, 0);
    assert_true(has_note(&out.notes.ignored, "inference.insert_vid_token"));
    outcome_fini(&out);
    out = read_text(text, SPEC_EVALUATE, (const char *[]){"inference.top_p=0", NULL});
    assert_null(out.spec);
    assert_says(out.err.text, "inference.top_p");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(example_files_are_refused_for_nothing),
        cmocka_unit_test(example_files_give_the_models_they_name),
        cmocka_unit_test(example_files_have_every_key_of_nemos),
        cmocka_unit_test(keys_without_a_meaning_are_listed),
        cmocka_unit_test(keys_that_would_change_the_result_are_refused),
        cmocka_unit_test(other_optimizers_and_schedules_are_listed_as_refused),
        cmocka_unit_test(batches_of_validation_are_a_number_or_a_part),
        cmocka_unit_test(inference_files_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
