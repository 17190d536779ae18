/* vneva submit, with and without --check, against a scripted coordinator. */
#include "client_help.h"

#include "dataprep/dataset/manifest.h"
#include "jobs/client/sentencepiece.h"
#include "jobs/client/vocabulary.h"

/* ---- submit ---- */

static void write_file(const char *path, const char *text)
{
    struct err err;

    if (fs_write_file_atomic(path, text, strlen(text), &err) < 0)
        fail_msg("%s", err.text);
}

/* As dataprep writes it, of one annotation file. */
static void make_dataset(const char *home, const char *name, int version, int vocab,
                         const char *file)
{
    char path[300], manifest[512];

    snprintf(path, sizeof(path), "%s/%s", home, name);
    assert_int_equal(fs_make_dirs(path, 0700, NULL), 0);
    snprintf(path, sizeof(path), "%s/%s/manifest.json", home, name);
    snprintf(manifest, sizeof(manifest),
             "{\"version\": %d, \"n_samples\": 12, \"longest_tokens\": 700, "
             "\"settings\": {\"image_size\": 336, \"patch\": 14, "
             "\"frame_tokens\": 576, \"num_frames\": 8, \"splice\": \"none\", "
             "\"vocab\": %d, \"data_paths\": [\"%s\"]}}",
             version, vocab, file);
    write_file(path, manifest);
}

/* A training specification with its dataset, in the fake's folder. */
static void make_spec(const char *home, char spec[256], char data[256])
{
    snprintf(spec, 256, "%s/train.yaml", home);
    snprintf(data, 256, "model.data.data_path=%s/set", home);
    make_dataset(home, "set", MANIFEST_VERSION, 123, "/a.jsonl");
    write_file(spec, TRAIN_TEXT);
}

static void submit_hands_in_the_resolved_tree(void **state)
{
    static const struct fake_rule rules[] = {
        {.type = MSG_SUBMIT, .answer = MSG_SUBMITTED, .a = 7, .b = 1},
        FAKE_ROWS(NULL, JOB_FAILED),
        {.type = MSG_NONE}};
    struct fake *fake = fake_start(rules);
    char spec[256], data[256];
    struct spec *received = NULL;
    const struct msg_submit *asked;
    struct said said;
    struct err err;

    (void)state;
    make_spec(fake_home(fake), spec, data);
    said = client_says(fake_home(fake),
                       W("submit", spec, data, "model.num_layers=5", "--json"));
    assert_int_equal(said.status, EXIT_DONE);
    assert_says(said.out, "\"job\": 7");
    said_fini(&said);
    asked = &fake_asked(fake, 1)->submit; /* behind a look at the workers */
    assert_string_equal(asked->kind, "pretrain");
    assert_int_equal(strlen(asked->request_id), 32);
    if (spec_from_json(&received, asked->spec, strlen(asked->spec), &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(received->model.num_layers, 5);
    spec_free(received);
    said = client_says(fake_home(fake), W("submit", spec, data, "--quiet"));
    assert_string_equal(said.out, "7\n");
    said_fini(&said);
    said = client_says(fake_home(fake), W("submit", spec, data, "--wait"));
    assert_int_equal(said.status, EXIT_JOB_FAILED); /* the job's end decides */
    assert_says(said.out, "submitted job 7");
    assert_string_not_equal(fake_asked(fake, 3)->submit.request_id, asked->request_id);
    said_fini(&said);
    fake_stop(fake);
}

static void assert_only_looked(const struct fake *fake)
{
    for (int i = 0; fake_asked(fake, i); i++)
        assert_int_equal(fake_asked(fake, i)->type, MSG_QUERY);
}

static void check_says_what_a_job_would_do_and_submits_nothing(void **state)
{
    struct fake *fake = fake_start(no_rules);
    char spec[256], data[256];
    struct said said;

    (void)state;
    make_spec(fake_home(fake), spec, data);
    said = client_says(fake_home(fake), W("submit", "--check", spec, data));
    assert_int_equal(said.status, EXIT_DONE);
    assert_says(said.out, "(12 samples, the longest 700 tokens)");
    assert_says(said.out, "8 frames x 576 patches = 4608 tokens");
    assert_says(said.out, "vocabulary   123 entries\n");
    assert_says(said.out, "check        fine");
    said_fini(&said);
    said = client_says(fake_home(fake), W("submit", "--check", "--json", spec, data));
    assert_says(said.out, "\"total\": ");
    assert_says(said.out, "\"refused\": []");
    said_fini(&said);
    assert_only_looked(fake);
    fake_stop(fake);
}

static void a_dataset_that_ranks_cannot_read_is_refused(void **state)
{
    struct fake *fake = fake_start(no_rules);
    char spec[256], data[256], set[300];
    struct said said;

    (void)state;
    make_spec(fake_home(fake), spec, data);
    make_dataset(fake_home(fake), "newer", MANIFEST_VERSION + 1, 123, "/b.jsonl");
    make_dataset(fake_home(fake), "other", MANIFEST_VERSION, 124, "/b.jsonl");
    snprintf(set, sizeof(set), "model.data.data_path=%s/newer", fake_home(fake));
    said = client_says(fake_home(fake), W("submit", spec, set));
    assert_int_equal(said.status, EXIT_USAGE);
    assert_says(said.err, "/newer' is of version 2, this program reads version 1: "
                          "prepare the dataset again");
    said_fini(&said);
    snprintf(set, sizeof(set), "model.data.validation_data_path=%s/other",
             fake_home(fake));
    said = client_says(fake_home(fake), W("submit", spec, data, set));
    assert_int_equal(said.status, EXIT_USAGE);
    assert_says(said.err, "/other' was prepared for a vocabulary of 124, not 123");
    said_fini(&said);
    assert_only_looked(fake);
    fake_stop(fake);
}

static void a_validation_on_what_is_trained_on_is_named(void **state)
{
    static const struct fake_rule rules[] = {
        {.type = MSG_SUBMIT, .answer = MSG_SUBMITTED, .a = 7, .b = 1},
        {.type = MSG_NONE}};
    struct fake *fake = fake_start(rules);
    char spec[256], data[256], set[300];
    struct said said;

    (void)state;
    make_spec(fake_home(fake), spec, data);
    make_dataset(fake_home(fake), "same", MANIFEST_VERSION, 123, "/a.jsonl");
    make_dataset(fake_home(fake), "held", MANIFEST_VERSION, 123, "/b.jsonl");
    snprintf(set, sizeof(set), "model.data.validation_data_path=%s/held",
             fake_home(fake));
    said = client_says(fake_home(fake), W("submit", "--check", spec, data, set));
    assert_null(strstr(said.out, "trained on"));
    said_fini(&said);
    snprintf(set, sizeof(set), "model.data.validation_data_path=%s/same",
             fake_home(fake));
    said = client_says(fake_home(fake), W("submit", "--check", spec, data, set));
    assert_says(said.out, "/same' is of '/a.jsonl', which is trained on");
    said_fini(&said);
    said = client_says(fake_home(fake), W("submit", spec, data, set));
    assert_int_equal(said.status, EXIT_DONE);
    assert_says(said.err, "/same' is of '/a.jsonl', which is trained on");
    said_fini(&said);
    fake_stop(fake);
}

static void what_cannot_run_is_listed_by_check_and_refused_by_submit(void **state)
{
    struct fake *fake = fake_start(no_rules);
    char spec[256], data[256];
    struct said said;

    (void)state;
    make_spec(fake_home(fake), spec, data);
    said = client_says(fake_home(fake),
                       W("submit", "--check", spec, data, "model.activation=reglu"));
    assert_int_equal(said.status, EXIT_JOB_FAILED);
    assert_says(said.out, "model.activation: \"reglu\" cannot be run by this version");
    said_fini(&said);
    said =
        client_says(fake_home(fake), W("submit", spec, data, "model.activation=reglu"));
    assert_int_equal(said.status, EXIT_USAGE);
    assert_says(said.err, "model.activation: \"reglu\" cannot be run by this version");
    said_fini(&said);
    said = client_says(fake_home(fake), W("submit", spec, data,
                                          "model.mm_cfg.vision_encoder.crop_size=224"));
    assert_says(said.err, "was prepared for crop_size 336, not 224");
    said_fini(&said);
    said = client_says(
        fake_home(fake),
        W("submit", spec, data, "model.mm_cfg.mm_mlp_adapter_type=mlp_downsample"));
    assert_says(said.err, "was prepared for 576 tokens a frame, not 144");
    said_fini(&said);
    said =
        client_says(fake_home(fake), W("submit", spec, data, "model.data.num_frames=-1"));
    assert_says(said.err, "was prepared for num_frames 8, not -1");
    said_fini(&said);
    assert_only_looked(fake);
    fake_stop(fake);
}

static void files_that_are_not_there_are_named(void **state)
{
    struct fake *fake = fake_start(no_rules);
    char spec[256], data[256];

    (void)state;
    make_spec(fake_home(fake), spec, data);
    assert_run(no_rules, W("submit", spec, "model.data.data_path=/nonexistent/set"),
               EXIT_USAGE, NULL, "model.data.data_path: '/nonexistent/set'");
    assert_run(no_rules, W("submit", "/nonexistent.yaml"), EXIT_USAGE, NULL,
               "/nonexistent.yaml");
    assert_run(no_rules,
               W("submit", spec, data, "model.restore_from_path=/nonexistent/c"),
               EXIT_USAGE, NULL, "'/nonexistent/c' is not there");
    assert_run(no_rules,
               W("submit", spec, data, "model.mm_cfg.llm.from_pretrained=org/llm"),
               EXIT_USAGE, NULL, "nothing is downloaded");
    fake_stop(fake);
}

static void what_does_not_fit_is_refused_with_what_would(void **state)
{
    static const struct fake_rule rules[] = {
        FAKE_ROWS("workers",
                  "[{\"host\": \"old\", \"state\": \"lost\", \"device_kind\": \"gpu\","
                  "  \"n_devices\": 1, \"memory_bytes\": 99000000000},"
                  " {\"host\": \"n1\", \"state\": \"up\", \"device_kind\": \"gpu\","
                  "  \"n_devices\": 2, \"memory_bytes\": 40000000000},"
                  " {\"host\": \"n2\", \"state\": \"up\", \"device_kind\": \"gpu\","
                  "  \"n_devices\": 8, \"memory_bytes\": 100000000000}]"),
        {.type = MSG_SUBMIT, .answer = MSG_SUBMITTED, .a = 7, .b = 1},
        {.type = MSG_NONE},
    };
    struct fake *fake = fake_start(rules);
    char spec[256], data[256];
    struct said said;

    (void)state;
    make_spec(fake_home(fake), spec, data);
    said = client_says(fake_home(fake),
                       W("submit", "--check", spec, data, "model.hidden_size=4096",
                         "model.micro_batch_size=4", "model.data.decode_device=cpu"));
    assert_says(said.out, "of 18.6 GiB a rank may take\n");
    assert_says(said.out, "  - memory (agent on 'n1'): a rank needs ");
    assert_says(said.out, "these would fit: model.micro_batch_size=1 (");
    said_fini(&said);
    said = client_says(fake_home(fake), W("submit", spec, data, "model.hidden_size=4096",
                                          "model.micro_batch_size=4"));
    assert_int_equal(said.status, EXIT_USAGE);
    assert_says(said.err, "memory (agent on 'n1'): a rank needs ");
    said_fini(&said);
    assert_only_looked(fake);
    said =
        client_says(fake_home(fake), W("submit", spec, data, "model.hidden_size=4096",
                                       "model.micro_batch_size=4", "--memory", "80 GiB"));
    assert_int_equal(said.status, EXIT_DONE);
    said_fini(&said);
    said =
        client_says(fake_home(fake), W("submit", "--check", spec, data, "--memory=1M"));
    assert_says(said.out, "memory (--memory): a rank needs ");
    said_fini(&said);
    said =
        client_says(fake_home(fake), W("submit", "--check", spec, data, "--memory=1X"));
    assert_int_equal(said.status, EXIT_USAGE);
    assert_says(said.err, "--memory '1X' is no size");
    said_fini(&said);
    fake_stop(fake);
}

static void nemo_file_passes_the_check_as_it_is(void **state)
{
    struct fake *fake = fake_start(no_rules);
    char nemo[FS_PATH_MAX], data[256], llm[256];
    struct said said;

    (void)state;
    assert_int_equal(fs_path(nemo, NULL, "%s/tests/golden/video_neva_config.yaml",
                             getenv("VNEVA_SOURCE")),
                     0);
    snprintf(data, sizeof(data), "%s/train.jsonl", fake_home(fake));
    write_file(data, "");
    snprintf(data, sizeof(data), "model.data.data_path=%s/train.jsonl", fake_home(fake));
    snprintf(llm, sizeof(llm), "model.mm_cfg.llm.from_pretrained=%s", fake_home(fake));
    said = client_says(fake_home(fake),
                       W("submit", "--check", "--kind", "pretrain", nemo, data, llm));
    assert_int_equal(said.status, EXIT_JOB_FAILED);
    assert_says(said.out, "ranks        8: tensor parallel 1 x data parallel 8");
    assert_says(said.out, "parameters   13.2 B");
    assert_says(said.out, "8 frames x 576 patches = 4608 tokens");
    assert_says(said.out, "memory       about ");
    assert_says(said.out, "a submit would be refused");
    said_fini(&said);
    said =
        client_says(fake_home(fake), W("submit", "--kind", "pretrain", nemo, data, llm));
    assert_int_equal(said.status, EXIT_USAGE);
    assert_says(said.err, "model.data.num_frames: 8 frames of 576 patches");
    said_fini(&said);
    fake_stop(fake);
}

/* ---- tokens of a tokenizer ---- */

static void pieces_of_a_sentencepiece_model_are_counted(void **state)
{
    char path[FS_PATH_MAX];

    (void)state;
    assert_int_equal(
        fs_path(path, NULL, "%s/tests/golden/tiny_llama.model", getenv("VNEVA_SOURCE")),
        0);
    assert_int_equal(sentencepiece_count(path), 4096);
    assert_int_equal(sentencepiece_count(NULL), 0);
    assert_int_equal(sentencepiece_count("/nonexistent"), 0);
    assert_int_equal(fs_path(path, NULL, "%s/README.md", getenv("VNEVA_SOURCE")), 0);
    assert_int_equal(sentencepiece_count(path), 0); /* another file is none */
}

static void tokens_of_a_tokenizer_json_are_counted(void **state)
{
    static char *extras[] = {(char *)"<|im_end|>", (char *)"<extra_id_0>"};
    const struct spec_list none = {NULL, 0}, two = {extras, 2};
    char path[FS_PATH_MAX];

    (void)state;
    assert_int_equal(fs_path(path, NULL, "%s/tests/golden/tokenizer_qwen2.json",
                             getenv("VNEVA_SOURCE")),
                     0);
    assert_int_equal(vocabulary_count(path, &none), 903);
    assert_int_equal(vocabulary_count(path, &two), 904); /* it has one of them */
    assert_int_equal(vocabulary_count(NULL, &none), 0);
    assert_int_equal(fs_path(path, NULL, "%s/tests", getenv("VNEVA_SOURCE")), 0);
    assert_int_equal(vocabulary_count(path, &two), 0); /* a folder without one */
    assert_int_equal(
        fs_path(path, NULL, "%s/tests/golden/tiny_llama.model", getenv("VNEVA_SOURCE")),
        0);
    assert_int_equal(vocabulary_count(path, &two), 4098);
}

/* NeMo's model.tokenizer.type is a name on a hub. */
static void a_tokenizer_on_a_hub_is_refused_with_what_to_give(void **state)
{
    struct fake *fake = fake_start(no_rules);
    char spec[256], data[256], output[256], frames[256];

    (void)state;
    snprintf(spec, sizeof(spec), "%s/prepare.yaml", fake_home(fake));
    snprintf(data, sizeof(data), "%s/a.jsonl", fake_home(fake));
    write_file(spec, "kind: prepare\nmodel:\n  encoder_seq_length: 100\n  mm_cfg: "
                     "{vision_encoder: {crop_size: [28, 28], patch_dim: 14}}\n  data: "
                     "{conv_template: v1, num_frames: 4}\n");
    write_file(data, "");
    snprintf(data, sizeof(data), "model.data.data_path=%s/a.jsonl", fake_home(fake));
    snprintf(output, sizeof(output), "model.data.output=%s/set", fake_home(fake));
    snprintf(frames, sizeof(frames), "model.data.video_folder=%s", fake_home(fake));
    assert_run(no_rules,
               W("submit", spec, data, output, frames,
                 "model.tokenizer.library=huggingface", "model.tokenizer.type=org/llm"),
               EXIT_USAGE, NULL,
               "model.tokenizer.type: 'org/llm' is no file here, and nothing is "
               "downloaded: give the path of a folder with a tokenizer.json");
    fake_stop(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(submit_hands_in_the_resolved_tree),
        cmocka_unit_test(check_says_what_a_job_would_do_and_submits_nothing),
        cmocka_unit_test(what_cannot_run_is_listed_by_check_and_refused_by_submit),
        cmocka_unit_test(a_dataset_that_ranks_cannot_read_is_refused),
        cmocka_unit_test(a_validation_on_what_is_trained_on_is_named),
        cmocka_unit_test(files_that_are_not_there_are_named),
        cmocka_unit_test(what_does_not_fit_is_refused_with_what_would),
        cmocka_unit_test(nemo_file_passes_the_check_as_it_is),
        cmocka_unit_test(pieces_of_a_sentencepiece_model_are_counted),
        cmocka_unit_test(tokens_of_a_tokenizer_json_are_counted),
        cmocka_unit_test(a_tokenizer_on_a_hub_is_refused_with_what_to_give),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
