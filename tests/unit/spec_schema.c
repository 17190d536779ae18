/* The table of keys, what is checked, and what comes out. */
#include "spec_help.h"

#include "jobs/spec/spec_schema.h"

static const char *nemo_file(char out[FS_PATH_MAX])
{
    const char *source = getenv("VNEVA_SOURCE");

    assert_int_equal(fs_path(out, NULL, "%s/tests/golden/video_neva_config.yaml",
                             source ? source : "."),
                     0);
    return out;
}

/* A value of the key's type that is right: its default, a choice or something plain. */
static const char *right_value(const struct spec_key *key)
{
    static char choice[64];

    if (key->choices) {
        snprintf(choice, sizeof(choice), "%.*s", (int)strcspn(key->choices, "|"),
                 key->choices);
        return choice;
    }
    switch (key->type) {
    case SPEC_INT:
    case SPEC_SIDE:
    case SPEC_SHARE:
        snprintf(choice, sizeof(choice), "%.0f", key->max < 0 ? key->max : key->min);
        return choice;
    case SPEC_NUMBER:
        snprintf(choice, sizeof(choice), "%g", key->min);
        return choice;
    case SPEC_BOOL:
        return "true";
    case SPEC_PAIR:
        return "[0.1,0.2]";
    default:
        return "text";
    }
}

static const char *wrong_value(enum spec_type type)
{
    switch (type) {
    case SPEC_INT:
        return "1.5";
    case SPEC_STRING:
    case SPEC_PATH:
    case SPEC_MAYBE_PATH:
    case SPEC_PATHS:
    case SPEC_STRINGS:
    case SPEC_PAIR:
        return "[1]";
    case SPEC_SIDE:
        return "[1,2]";
    default:
        return "wrong";
    }
}

/* Checks a tree of this one key; needed keys and defaults come after, so what is said is
 * about this key if it is wrong. */
static int check_one(const char *path, const char *value, struct err *err)
{
    struct spec_tree tree;
    struct spec_notes notes = {{NULL, 0}, {NULL, 0}};
    char override[512];
    int rc;

    snprintf(override, sizeof(override), "+%s=%s", path, value);
    assert_int_equal(spec_tree_init(&tree, err), 0);
    if (spec_override_apply(&tree, override, err) < 0)
        fail_msg("%s", err->text);
    rc = spec_check(&tree, SPEC_PRETRAIN, NULL, &notes, err);
    spec_tree_fini(&tree);
    spec_notes_fini(&notes);
    return rc;
}

static void every_key_takes_right_values_and_refuses_wrong_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < spec_n_keys; i++) {
        const struct spec_key *key = &spec_keys[i];
        struct err err;

        if (key->type == SPEC_GROUP)
            continue;
        assert_int_equal(check_one(key->path, right_value(key), &err), -1);
        assert_says(err.text, "needs "); /* the rest is missing, this key was fine */
        if (key->use == SPEC_IGNORED)
            continue;
        assert_int_equal(check_one(key->path, wrong_value(key->type), &err), -1);
        assert_says(err.text, key->path);
        assert_says(err.text, key->use == SPEC_FIXED ? "cannot be honoured" : "expected");
    }
}

static void every_number_is_held_to_its_bounds(void **state)
{
    (void)state;
    for (size_t i = 0; i < spec_n_keys; i++) {
        const struct spec_key *key = &spec_keys[i];
        char value[40];
        struct err err;

        if (key->use != SPEC_USED || (key->type != SPEC_INT && key->type != SPEC_NUMBER))
            continue;
        assert_true(key->min < key->max);
        snprintf(value, sizeof(value), "%.0f", key->min - 1);
        assert_int_equal(check_one(key->path, value, &err), -1);
        assert_says(err.text, key->path);
        assert_says(err.text, "expected");
    }
}

static void every_key_is_there_once_and_means_something(void **state)
{
    (void)state;
    for (size_t i = 0; i < spec_n_keys; i++) {
        assert_ptr_equal(spec_schema_find(spec_keys[i].path), &spec_keys[i]);
        assert_false(spec_schema_is_group(spec_keys[i].path));
        assert_non_null(spec_keys[i].meaning);
    }
}

static void a_misspelt_key_finds_its_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < spec_n_keys; i++) {
        const char *path = spec_keys[i].path;
        char wrong[SPEC_PATH_MAX], near[SPEC_PATH_MAX] = "";
        size_t n = strlen(path);

        if (spec_keys[i].type == SPEC_GROUP || n < 6)
            continue;
        snprintf(wrong, sizeof(wrong), "%.*s%s", (int)n - 2, path, path + n - 1);
        if (spec_schema_find(wrong))
            continue;
        spec_schema_suggest(near, wrong);
        if (strcmp(near, path) != 0)
            fail_msg("'%s' suggests '%s', not '%s'", wrong, near, path);
    }
}

static void unknown_keys_are_refused_with_place_and_suggestion(void **state)
{
    (void)state;
    assert_refused(TRAIN_TEXT "  optimm: {lr: 1}\n", NULL,
                   ":11: model.optimm: no such key", "model.optim");
    assert_refused(TRAIN_TEXT "  hiden_size: 3\n", NULL,
                   "did you mean 'model.hidden_size'?", ":11: ");
    assert_refused("trainerr: {devices: 2}\nkind: prepare\n", NULL,
                   ":1: trainerr: no such key; did you mean 'trainer'?", NULL);
    assert_refused(TRAIN_TEXT "zzzzqqqq: 3\n", NULL, "zzzzqqqq: no such key", NULL);
    assert_refused(TRAIN_TEXT, (const char *[]){"+model.xyzw.abcd=1", NULL},
                   "override '+model.xyzw.abcd=1': ", "no such key");
    assert_refused("trainer: 3\nkind: prepare\n", NULL, ":1: trainer: is a group", NULL);
}

static void wrong_types_show_value_and_what_was_expected(void **state)
{
    (void)state;
    assert_refused(TRAIN_TEXT, (const char *[]){"model.num_layers=four", NULL},
                   "model.num_layers: expected a whole number, got string \"four\"",
                   "override 'model.num_layers=four'");
    assert_refused(TRAIN_TEXT, (const char *[]){"trainer.precision=fp7", NULL},
                   "32, bf16 or 16", "\"fp7\"");
    assert_refused(TRAIN_TEXT,
                   (const char *[]){"model.data.data_path=[a,'\?\?\?']", NULL},
                   "data_path: '\?\?\?' stands for a value to be given", NULL);
    assert_refused(TRAIN_TEXT, (const char *[]){"model.tokenizer.model='\?\?\?'", NULL},
                   "model: '\?\?\?' stands for a value to be given", NULL);
    assert_refused(TRAIN_TEXT, (const char *[]){"model.num_layers='\?\?\?'", NULL},
                   "stands for a value", NULL);
    assert_refused(
        TRAIN_TEXT, (const char *[]){"+model.pipeline_model_parallel_size=2", NULL},
        "2 cannot be honoured: pipeline parallelism is not built", "possible: 1 or null");
}

/* A prepare job wants a path for the library that it names. */
static void tokenizers_have_a_path_each(void **state)
{
    static const char text[] = "kind: prepare\nmodel:\n  data: {data_path: a.jsonl, "
                               "output: out, conv_template: v1, num_frames: 4}\n"
                               "  mm_cfg: {vision_encoder: {crop_size: [28, 28], "
                               "patch_dim: 14}}\n  encoder_seq_length: 100\n";
    static const char *const huggingface[] = {"model.tokenizer.library=huggingface",
                                              "model.tokenizer.type=org/name",
                                              "model.tokenizer.model=t.model", NULL};
    static const char *const megatron[] = {"model.tokenizer.library=megatron",
                                           "model.tokenizer.model=t.model", NULL};
    struct outcome out;
    const char *key;

    (void)state;
    assert_refused(text, NULL, "model.tokenizer.model (a SentencePiece .model file",
                   "model.tokenizer.library=huggingface");
    assert_refused(text, (const char *[]){"model.tokenizer.library=huggingface", NULL},
                   "model.tokenizer.type (a folder with a tokenizer.json)", NULL);
    out = read_text(text, SPEC_NONE, megatron);
    assert_int_equal(out.notes.refused.count, 1);
    assert_says(out.notes.refused.items[0], "model.tokenizer.library: \"megatron\"");
    outcome_fini(&out);
    out = read_text(text, SPEC_NONE, huggingface);
    assert_non_null(out.spec);
    assert_string_equal(spec_tokenizer(out.spec, &key), "org/name");
    assert_string_equal(key, "model.tokenizer.type");
    outcome_fini(&out);
    out = read_text(text, SPEC_NONE, huggingface + 1);
    assert_non_null(out.spec);
    assert_non_null(strstr(spec_tokenizer(out.spec, &key), "t.model"));
    assert_string_equal(key, "model.tokenizer.model");
    outcome_fini(&out);
}

static void decoding_on_a_gpu_needs_a_rank_on_one(void **state)
{
    static const char cuda[] = "model.data.decode_device=cuda";
    const char *fine[] = {cuda, "backend=cuda", NULL};
    const char *cpu[] = {cuda, "backend=cpu", NULL};
    const char *accelerator[] = {cuda, "trainer.accelerator=cpu", NULL};
    struct outcome out = read_text(TRAIN_TEXT, SPEC_NONE, fine);

    (void)state;
    assert_string_equal(out.spec->data.decode_device, "cuda");
    outcome_fini(&out);
    out = read_text(TRAIN_TEXT, SPEC_NONE, NULL);
    assert_string_equal(out.spec->data.decode_device, "auto");
    outcome_fini(&out);
    assert_refused(TRAIN_TEXT, cpu, "model.data.decode_device: cuda", "backend is cpu");
    assert_refused(TRAIN_TEXT, accelerator, "trainer.accelerator is cpu",
                   "set decode_device to auto or cpu");
}

static void numbers_that_do_not_divide_get_suggestions(void **state)
{
    static const struct {
        const char *override, *says;
    } table[] = {
        {"model.num_attention_heads=6", "hidden_size (64) is not a multiple"},
        {"model.tensor_model_parallel_size=2", "trainer.devices x num_nodes (1)"},
        {"model.num_query_groups=3", "num_query_groups 2"},
        {"model.mm_cfg.vision_encoder.crop_size=[100, 100]", "try 98 or 112"},
        {"model.mm_cfg.vision_encoder.hidden_size=96", "no CLIP encoder has"},
        {"model.mm_cfg.vision_encoder.vision_select_layer=-30", "before the first"},
        {"model.mm_cfg.vision_encoder.vision_select_layer=30", "behind the last"},
        {"model.mm_cfg.vision_encoder.crop_size=7", "must not be under"},
        {"model.optim.sched.warmup_steps=11", "more than trainer.max_steps 10"},
        {"model.optim.sched.min_lr=1", "above model.optim.lr"},
        {"model.data.num_frames=0", "expected -1, or 1"},
        {"+model.kv_channels=7", "hidden_size / num_attention_heads (16)"},
        {"model.rotary_percentage=0.2", "(16) is 3: rotary positions need an even"},
        {"model.rotary_percentage=0", "is 0: rotary positions need an even"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const char *overrides[] = {table[i].override, NULL};

        assert_refused(TRAIN_TEXT, overrides, table[i].says, NULL);
    }
    assert_refused(TRAIN_TEXT,
                   (const char *[]){"model.mm_cfg.vision_encoder.model_type=siglip",
                                    "model.mm_cfg.vision_encoder.hidden_size=96", NULL},
                   "no SigLIP encoder has", NULL);
    assert_refused(
        TRAIN_TEXT,
        (const char *[]){"model.mm_cfg.vision_encoder.vision_select_feature=cls_patch",
                         "model.mm_cfg.mm_mlp_adapter_type=mlp_downsample", NULL},
        "a class token has no neighbours", NULL);
    assert_refused(TRAIN_TEXT,
                   (const char *[]){"model.scale_positional_embedding=true",
                                    "model.seq_len_interpolation_factor=2", NULL},
                   "both scale the rotation", NULL);
}

static void what_is_missing_is_named_all_at_once(void **state)
{
    (void)state;
    assert_refused("kind: pretrain\n", NULL, "trainer.max_steps", "model.data.data_path");
    assert_refused("kind: evaluate\n", NULL, "neva_model_file", "prompt_file");
    assert_refused("name: x\n", NULL, "no kind", "--kind");
    assert_refused("kind: bake\n", NULL, ":1: kind: 'bake'", "prepare");
}

static void defaults_follow_other_keys(void **state)
{
    struct outcome out = read_text(
        TRAIN_TEXT, SPEC_NONE, (const char *[]){"trainer.val_check_interval=7", NULL});

    (void)state;
    if (!out.spec)
        fail_msg("%s", out.err.text);
    assert_int_equal(out.spec->exp_manager.every_n_train_steps, 7);
    assert_int_equal(out.spec->model.num_query_groups, 4);
    assert_int_equal(out.spec->model.ffn_hidden_size, 256);
    assert_int_equal(out.spec->vision.num_layers, 24); /* CLIP-L for width 1024 */
    assert_int_equal(out.spec->vision.num_attention_heads, 16);
    assert_int_equal(out.spec->vision.ffn_hidden_size, 4096);
    assert_string_equal(out.spec->name, "pretrain");
    assert_string_equal(out.spec->data.conv_template, "v1");
    assert_string_equal(out.spec->trainer.precision, "bf16");
    assert_true(out.spec->optim.beta1 == 0.9 && out.spec->optim.beta2 == 0.95);
    assert_int_equal(out.notes.refused.count, 0);
    outcome_fini(&out);
}

static void batch_kinds_have_tasks_of_some_samples(void **state)
{
    static const char text[] = "neva_model_file: /c\nprompt_file: /d\n"
                               "tensor_model_parallel_size: 2\n";
    struct outcome out = read_text(text, SPEC_EVALUATE, NULL);

    (void)state;
    if (!out.spec)
        fail_msg("%s", out.err.text);
    assert_int_equal(out.spec->data.shard_size, 256);
    assert_int_equal(out.spec->model.tensor_model_parallel_size, 2);
    assert_int_equal(spec_n_ranks(out.spec), 2);
    outcome_fini(&out);
}

static void values_are_made_plain(void **state)
{
    char folder[FS_PATH_MAX], expected[FS_PATH_MAX + 32];
    const char *overrides[] = {"model.data.data_path=[./a,/b]",
                               "trainer.precision=32",
                               "model.mm_cfg.llm.from_pretrained=\"\"",
                               "model.mm_cfg.vision_encoder.from_pretrained=org/clip",
                               "model.mm_cfg.vision_encoder.crop_size=224",
                               NULL};
    struct outcome out = read_text(TRAIN_TEXT, SPEC_FINETUNE, overrides);

    (void)state;
    if (!out.spec)
        fail_msg("%s", out.err.text);
    assert_non_null(getcwd(folder, sizeof(folder)));
    snprintf(expected, sizeof(expected), "%s/a", folder);
    assert_int_equal(out.spec->data.data_path.count, 2);
    assert_string_equal(out.spec->data.data_path.items[0], expected);
    assert_string_equal(out.spec->data.data_path.items[1], "/b");
    assert_string_equal(out.spec->trainer.precision, "32");
    assert_null(out.spec->mm_cfg.llm_from_pretrained);
    assert_string_equal(out.spec->vision.from_pretrained, "org/clip"); /* a name */
    assert_int_equal(out.spec->vision.crop_size, 224);
    assert_int_equal(out.spec->kind, SPEC_FINETUNE);
    outcome_fini(&out);
}

static void spec_survives_the_way_through_json(void **state)
{
    struct outcome out =
        read_text(TRAIN_TEXT, SPEC_NONE, (const char *[]){"name='a \"${b}\" c'", NULL});
    struct buf first = BUF_INIT, second = BUF_INIT;
    struct spec *again = NULL;
    struct err err;

    (void)state;
    assert_null(out.spec); /* ${b} names nothing: the quotes do not protect it */
    out = read_text(TRAIN_TEXT, SPEC_NONE,
                    (const char *[]){"name='a \"\\\\${b}\" c'", NULL});
    if (!out.spec)
        fail_msg("%s", out.err.text);
    json_write(&first, out.spec->tree, 0);
    if (spec_from_json(&again, buf_str(&first), first.n_bytes, &err) < 0)
        fail_msg("%s", err.text);
    json_write(&second, again->tree, 0);
    assert_string_equal(buf_str(&first), buf_str(&second));
    assert_string_equal(again->name, "a \"${b}\" c");
    assert_int_equal(again->vision.num_layers, out.spec->vision.num_layers);
    for (size_t i = 0; i < spec_n_keys; i++) /* everything explicit */
        if (spec_keys[i].use == SPEC_USED && spec_keys[i].text &&
            (spec_keys[i].kinds & SPEC_OF(SPEC_PRETRAIN)))
            assert_non_null(spec_tree_get(again->tree, spec_keys[i].path));
    spec_free(again);
    buf_fini(&first);
    buf_fini(&second);
    outcome_fini(&out);
}

static void json_is_checked_as_strictly(void **state)
{
    static const struct {
        const char *json, *says;
    } table[] = {
        {"{\"kind\": \"prepare\"", "specification"},
        {"[]", "object"},
        {"{}", "no kind"},
        {"{\"kind\": \"pretrain\"}", "needs"},
        {"{\"kind\": \"pretrain\", \"modle\": 1}", "no such key"},
        {"{\"kind\": \"evaluate\", \"neva_model_file\": 3}", "expected a path"},
    };
    struct outcome out = read_text(TRAIN_TEXT, SPEC_NONE,
                                   (const char *[]){"model.activation=reglu", NULL});
    struct buf text = BUF_INIT;
    struct spec *spec = NULL;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_int_equal(
            spec_from_json(&spec, table[i].json, strlen(table[i].json), &err), -1);
        assert_says(err.text, table[i].says);
    }
    assert_non_null(out.spec);
    assert_int_equal(out.notes.refused.count, 1);
    json_write(&text, out.spec->tree, 0);
    assert_int_equal(spec_from_json(&spec, buf_str(&text), text.n_bytes, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_says(err.text, "model.activation");
    buf_fini(&text);
    outcome_fini(&out);
}

static void every_prefix_of_json_is_an_error_and_no_crash(void **state)
{
    struct outcome out = read_text(TRAIN_TEXT, SPEC_NONE, NULL);
    struct buf text = BUF_INIT;

    (void)state;
    json_write(&text, out.spec->tree, 0);
    for (size_t n = 0; n < text.n_bytes; n++) {
        struct spec *spec = NULL;

        assert_int_equal(spec_from_json(&spec, buf_str(&text), n, NULL), -1);
    }
    buf_fini(&text);
    outcome_fini(&out);
}

static bool has_note(const struct spec_list *list, const char *part)
{
    for (int64_t i = 0; i < list->count; i++)
        if (strstr(list->items[i], part))
            return true;
    return false;
}

static void global_batch_that_does_not_divide_is_noted(void **state)
{
    static const struct {
        const char *override, *says;
    } table[] = {
        {"model.micro_batch_size=3", "model.global_batch_size (4) is not a multiple of "
                                     "model.micro_batch_size (3): try 3 or 6"},
        {"trainer.devices=3", "data-parallel ranks (3): try 3 or 6"},
        {"trainer.devices=16", "ranks (16): try 16"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const char *overrides[] = {table[i].override, NULL};
        struct outcome out = read_text(TRAIN_TEXT, SPEC_NONE, overrides);

        if (!out.spec)
            fail_msg("%s", out.err.text);
        assert_true(has_note(&out.notes.refused, table[i].says));
        outcome_fini(&out);
    }
}

static void nemo_file_is_read_as_it_is(void **state)
{
    char path[FS_PATH_MAX];
    const char *overrides[] = {"model.data.data_path=/data/train.jsonl",
                               "model.mm_cfg.llm.from_pretrained=/data/llm"};
    struct spec *spec = NULL;
    struct spec_notes notes;
    struct err err;

    (void)state;
    if (spec_read(&spec, &notes, nemo_file(path), SPEC_PRETRAIN, overrides, 2, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(spec_n_ranks(spec), 8);
    assert_int_equal(spec->model.num_query_groups, 8);
    assert_string_equal(spec->data.conv_template, "llama_2");
    assert_true(spec->optim.lr == 2e-3 && spec->model.layernorm_epsilon == 1e-5);
    assert_false(has_note(&notes.refused, "model.activation"));
    assert_false(has_note(&notes.refused, "model.normalization"));
    assert_false(has_note(&notes.refused, "model.rotary_percentage"));
    assert_true(spec->model.rotary_percentage == 0.5);
    assert_true(spec->model.seq_len_interpolation_factor == 0); /* as the weights say */
    assert_false(has_note(&notes.refused, "conv_template"));
    assert_true(has_note(&notes.refused, "4608 tokens"));
    assert_true(has_note(&notes.refused, "ranks (8): try 8"));
    assert_true(has_note(&notes.ignored, "model.posistion_embedding_type"));
    assert_true(has_note(&notes.ignored, "exp_manager.wandb_logger_kwargs"));
    spec_free(spec);
    spec_notes_fini(&notes);
}

static void examples_can_be_run_as_they_are(void **state)
{
    static const char *const names[] = {"prepare", "pretrain", "finetune", "evaluate"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct spec_notes notes;
        struct spec *spec;
        struct err err;
        char path[FS_PATH_MAX];

        assert_int_equal(fs_path(path, NULL, "%s/jobs/examples/%s.yaml",
                                 getenv("VNEVA_SOURCE"), names[i]),
                         0);
        if (spec_read(&spec, &notes, path, SPEC_NONE, NULL, 0, &err) < 0)
            fail_msg("%s", err.text);
        assert_string_equal(spec_kind_name(spec->kind), names[i]);
        assert_int_equal(notes.refused.count, 0);
        assert_int_equal(notes.ignored.count, 0);
        spec_free(spec);
        spec_notes_fini(&notes);
    }
}

static void description_names_every_key(void **state)
{
    struct buf text = BUF_INIT;

    (void)state;
    spec_describe(&text);
    for (size_t i = 0; i < spec_n_keys; i++)
        assert_says(buf_str(&text), spec_keys[i].path);
    buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_takes_right_values_and_refuses_wrong_ones),
        cmocka_unit_test(every_number_is_held_to_its_bounds),
        cmocka_unit_test(every_key_is_there_once_and_means_something),
        cmocka_unit_test(a_misspelt_key_finds_its_name),
        cmocka_unit_test(unknown_keys_are_refused_with_place_and_suggestion),
        cmocka_unit_test(wrong_types_show_value_and_what_was_expected),
        cmocka_unit_test(tokenizers_have_a_path_each),
        cmocka_unit_test(decoding_on_a_gpu_needs_a_rank_on_one),
        cmocka_unit_test(numbers_that_do_not_divide_get_suggestions),
        cmocka_unit_test(what_is_missing_is_named_all_at_once),
        cmocka_unit_test(defaults_follow_other_keys),
        cmocka_unit_test(batch_kinds_have_tasks_of_some_samples),
        cmocka_unit_test(values_are_made_plain),
        cmocka_unit_test(spec_survives_the_way_through_json),
        cmocka_unit_test(json_is_checked_as_strictly),
        cmocka_unit_test(every_prefix_of_json_is_an_error_and_no_crash),
        cmocka_unit_test(global_batch_that_does_not_divide_is_noted),
        cmocka_unit_test(nemo_file_is_read_as_it_is),
        cmocka_unit_test(examples_can_be_run_as_they_are),
        cmocka_unit_test(description_names_every_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
