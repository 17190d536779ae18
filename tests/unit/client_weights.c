/* What `vneva submit --check` says of weights: where each part comes from, sizes that a
 * folder decides, and what would be refused before a device is held. */
#define _GNU_SOURCE /* mkdtemp */
#include "spec_help.h"

#include "jobs/client/preflight.h"

/* A LLaVA-1.5 of 7 B, as its own config.json has it: much is the class's default. */
#define LLAVA_7B                                                                         \
    "{\"architectures\": [\"LlavaForConditionalGeneration\"], \"model_type\": "          \
    "\"llava\", \"text_config\": {\"model_type\": \"llama\", \"vocab_size\": 32064}, "   \
    "\"vision_config\": {\"hidden_size\": 1024, \"image_size\": 336, "                   \
    "\"intermediate_size\": 4096, \"model_type\": \"clip_vision_model\", "               \
    "\"num_attention_heads\": 16, \"num_hidden_layers\": 24, \"patch_size\": 14}}"
#define LLAVA_7B_PARAMETERS 7063427072

/* The least a run says that leaves the rest to folders. */
#define SILENT_TEXT                                                                      \
    "kind: finetune\n"                                                                   \
    "trainer: {max_steps: 10}\n"                                                         \
    "model:\n"                                                                           \
    "  global_batch_size: 4\n"                                                           \
    "  mm_cfg: {mm_mlp_adapter_type: mlp2x_gelu}\n"                                      \
    "  data: {data_path: /}\n" /* a folder, and no dataset: noted */                     \
    "  optim: {lr: 1e-3}\n"

/* The same with sizes. */
#define WHOLE_TEXT                                                                       \
    SILENT_TEXT "  num_layers: 2\n  hidden_size: 64\n  num_attention_heads: 4\n"

struct place {
    char folder[64];
};

static int setup(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    *state = place;
    strcpy(place->folder, "/tmp/vneva-weights-XXXXXX");
    return mkdtemp(place->folder) ? 0 : -1;
}

static int teardown(void **state)
{
    struct place *place = *state;

    fs_remove_tree(place->folder, NULL);
    free(place);
    return 0;
}

/* The folder of a new file place/folder/name. */
static const char *with_file(const struct place *place, const char *folder,
                             const char *name, const char *text)
{
    static char path[256];
    char file[512];

    snprintf(path, sizeof(path), "%s/%s", place->folder, folder);
    assert_int_equal(fs_make_dirs(path, 0700, NULL), 0);
    snprintf(file, sizeof(file), "%s/%s", path, name);
    assert_int_equal(fs_write_file_atomic(file, text, strlen(text), NULL), 0);
    return path;
}

static const char *golden(const char *name)
{
    static char paths[2][512];
    static int next;
    char *path = paths[next++ % 2];

    snprintf(path, sizeof(paths[0]), "%s/tests/golden/weights/%s", getenv("VNEVA_SOURCE"),
             name);
    return path;
}

struct seen {
    struct outcome out;
    struct json *report; /* NULL: see err */
    struct err err;
};

/* up to two overrides "KEY=PATH" */
static struct seen look(const char *text, const char *key, const char *path,
                        const char *key2, const char *path2)
{
    char first[1024], second[1024];
    const char *overrides[] = {first, key2 ? second : NULL, NULL};
    const struct device device = {0}; /* its memory is not known */
    struct seen seen = {.report = NULL};

    snprintf(first, sizeof(first), "++%s=%s", key, path);
    if (key2)
        snprintf(second, sizeof(second), "++%s=%s", key2, path2);
    seen.out = read_text(text, SPEC_NONE, overrides);
    if (!seen.out.spec)
        fail_msg("%s", seen.out.err.text);
    if (preflight(&seen.report, seen.out.spec, &device, &seen.out.notes, &seen.err) < 0)
        seen.report = NULL;
    return seen;
}

static void seen_fini(struct seen *seen)
{
    json_free(seen->report);
    outcome_fini(&seen->out);
}

static bool is_refused(const struct seen *seen, const char *part)
{
    const struct spec_list *list = &seen->out.notes.refused;

    for (int64_t i = 0; i < list->count; i++)
        if (strstr(list->items[i], part))
            return true;
    return false;
}

static const struct json *find_part(const struct seen *seen, const char *part)
{
    const struct json *list = json_get(seen->report, "weights");

    for (size_t i = 0; i < json_count(list); i++)
        if (strcmp(json_get_string(json_at(list, i), "part"), part) == 0)
            return json_at(list, i);
    fail_msg("nothing is said of '%s'", part);
    return NULL;
}

#define LLM "model.mm_cfg.llm.from_pretrained"
#define ENCODER "model.mm_cfg.vision_encoder.from_pretrained"
#define ADAPTER "model.mm_cfg.pretrain_mm_mlp_adapter"
#define RESTORE "model.restore_from_path"

static void each_part_says_where_it_comes_from(void **state)
{
    struct seen seen = look(SILENT_TEXT, LLM, golden("llama"), ENCODER, golden("clip"));
    const struct json *sizes;

    (void)state;
    if (!seen.report)
        fail_msg("%s", seen.err.text);
    assert_string_equal(json_get_string(find_part(&seen, "LLM"), "what"),
                        "LlamaForCausalLM");
    assert_string_equal(json_get_string(find_part(&seen, "vision encoder"), "what"),
                        "CLIPModel");
    assert_null(json_get_string(find_part(&seen, "projector"), "from")); /* fresh */
    sizes = json_get(seen.report, "sample");
    assert_int_equal(json_get_int(sizes, "patches", 0), 4); /* 8 / 4, squared */
    assert_int_equal(json_get_int(json_get(seen.report, "training"), "vocab", 0), 53);
    seen_fini(&seen);
}

/* The class token that cls_patch selects is CLIP's: which encoder it is, the folder says. */
static void family_of_the_encoder_is_the_folders(void **state)
{
    static const struct {
        const char *folder;
        int64_t n_tokens;
    } table[] = {{"clip", 5}, {"siglip", 4}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct seen seen =
            look(WHOLE_TEXT, ENCODER, golden(table[i].folder),
                 "model.mm_cfg.vision_encoder.vision_select_feature", "cls_patch");

        if (!seen.report)
            fail_msg("%s", seen.err.text);
        assert_int_equal(json_get_int(json_get(seen.report, "sample"), "frame_tokens", 0),
                         table[i].n_tokens);
        seen_fini(&seen);
    }
}

static void sizes_left_open_are_those_of_the_folder(void **state)
{
    const char *path = with_file(*state, "llava", "config.json", LLAVA_7B);
    struct seen seen = look(SILENT_TEXT, RESTORE, path, NULL, NULL);

    if (!seen.report)
        fail_msg("%s", seen.err.text);
    assert_int_equal(json_get_int(json_get(seen.report, "parameters"), "total", 0),
                     LLAVA_7B_PARAMETERS);
    assert_string_equal(json_get_string(find_part(&seen, "all"), "from"), path);
    seen_fini(&seen);
}

static void sizes_that_differ_are_refused(void **state)
{
    struct seen seen = look(SILENT_TEXT, LLM, golden("llama"), "model.num_layers", "3");

    (void)state;
    assert_true(is_refused(&seen, "model.num_layers is 3, but the weights in '"));
    assert_true(is_refused(&seen, "' have 2"));
    seen_fini(&seen);
}

/* A checkpoint's sizes are in a file of the rank's: nothing is made up. */
static void parameters_are_not_guessed(void **state)
{
    const char *path = with_file(*state, "old", "checkpoint.json", "{}");
    struct seen seen = look(SILENT_TEXT, RESTORE, path, NULL, NULL);

    assert_non_null(seen.report);
    assert_null(json_get(seen.report, "parameters"));
    assert_int_equal(json_get_int(json_get(seen.report, "training"), "steps", 0), 10);
    seen_fini(&seen);
}

static void what_is_no_model_is_refused_with_what_to_do(void **state)
{
    static const struct {
        const char *key, *name;
        bool is_file; /* the path is the file's, not its folder's */
        const char *says;
    } table[] = {
        {LLM, "model.nemo", true, "convert_llama_nemo_to_hf.py"},
        {RESTORE, "model.nemo", true, "model.restore_from_path: '"},
        {ADAPTER, "mm.nemo", true, "is a NeMo archive"},
        {"model.resume_from_checkpoint", "last.ckpt", true, "of PyTorch Lightning"},
        {ENCODER, "adapter_config.json", false, "is a LoRA adapter"},
        {LLM, "readme.txt", false, "it has no config.json"},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char name[32], path[512];
        const char *folder;
        struct seen seen;

        snprintf(name, sizeof(name), "case-%zu", i);
        folder = with_file(*state, name, table[i].name, "{}");
        snprintf(path, sizeof(path), "%s%s%s", folder, table[i].is_file ? "/" : "",
                 table[i].is_file ? table[i].name : "");
        seen = look(WHOLE_TEXT, table[i].key, path, NULL, NULL);
        if (!is_refused(&seen, table[i].says))
            fail_msg("%s of %s is not refused", table[i].key, path);
        seen_fini(&seen);
    }
}

static void model_to_be_asked_is_looked_at(void **state)
{
    static const char text[] = "kind: evaluate\nneva_model_file: /x\nprompt_file: /\n";
    struct seen seen = look(text, "neva_model_file", golden("llava"), NULL, NULL);

    assert_string_equal(json_get_string(find_part(&seen, "all"), "what"),
                        "LlavaForConditionalGeneration");
    seen_fini(&seen);
    seen = look(text, "neva_model_file", with_file(*state, "none", "readme", "x"), NULL,
                NULL);
    assert_true(is_refused(&seen, "neva_model_file: '"));
    seen_fini(&seen);
    seen =
        look(text, "neva_model_file", with_file(*state, "job", "logs", "x"), NULL, NULL);
    assert_false(
        is_refused(&seen, "neva_model_file")); /* it may have a checkpoint soon */
    seen_fini(&seen);
    seen = look(text, "neva_model_file", "/nowhere", NULL, NULL);
    assert_null(seen.report);
    assert_says(seen.err.text, "neva_model_file: '/nowhere' is not there");
    seen_fini(&seen);
}

static void folder_of_a_run_is_looked_into(void **state)
{
    struct place *place = *state;
    char used[256], new[256];
    struct seen seen;

    with_file(place, "used/checkpoints/step-00000004-a1", "checkpoint.json", "{}");
    snprintf(used, sizeof(used), "%s/used", place->folder);
    snprintf(new, sizeof(new), "%s/new", place->folder);
    seen = look(WHOLE_TEXT, "exp_manager.explicit_log_dir", used, NULL, NULL);
    assert_true(is_refused(&seen, "has checkpoints of an earlier run"));
    seen_fini(&seen);
    seen = look(WHOLE_TEXT, "exp_manager.explicit_log_dir", used,
                "exp_manager.resume_if_exists", "true");
    assert_false(is_refused(&seen, "explicit_log_dir"));
    assert_string_equal(json_get_string(find_part(&seen, "all"), "from"), used);
    seen_fini(&seen);
    seen = look(WHOLE_TEXT, "exp_manager.explicit_log_dir", new,
                "exp_manager.resume_if_exists", "true");
    assert_true(is_refused(&seen, "has no checkpoint to go on from"));
    seen_fini(&seen);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_part_says_where_it_comes_from),
        TEST(family_of_the_encoder_is_the_folders),
        TEST(sizes_left_open_are_those_of_the_folder),
        TEST(sizes_that_differ_are_refused),
        TEST(parameters_are_not_guessed),
        TEST(what_is_no_model_is_refused_with_what_to_do),
        TEST(model_to_be_asked_is_looked_at),
        TEST(folder_of_a_run_is_looked_into),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
