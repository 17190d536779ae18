/* Training that starts from folders of weights: which values a run begins with, what stays
 * frozen, what does not fit. The folders are tests/golden/weights: LlamaForCausalLM and
 * CLIPModel in bf16, LlavaForConditionalGeneration in fp32. */
#include "common/base/fs.h"
#include "model/backend/half.h"
#include "model/weights/weights.h"
#include "tests/integration/worker_data.h"
#include "tests/integration/worker_home.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KEYS_MAX 64
#define PATH_MAX_HERE 512

struct start {
    struct home home;
    char dataset[128];
};

/* The file says nothing of what the folders say. */
static const char *const silent[] = {
    "model.num_layers=null",
    "model.hidden_size=null",
    "model.ffn_hidden_size=null",
    "model.num_attention_heads=null",
    "model.num_query_groups=null",
    "model.normalization=null",
    "model.activation=null",
    "model.layernorm_epsilon=null",
    "model.rotary_base=null",
    "model.rotary_percentage=null",
    "model.bias=null",
    "model.share_embeddings_and_output_weights=null",
    "model.mm_cfg.vision_encoder.crop_size=null",
    "model.mm_cfg.vision_encoder.patch_dim=null",
    "model.mm_cfg.vision_encoder.hidden_size=null",
    "model.mm_cfg.vision_encoder.ffn_hidden_size=null",
    "model.mm_cfg.vision_encoder.num_layers=null",
    "model.mm_cfg.vision_encoder.num_attention_heads=null",
    "model.mm_cfg.vision_encoder.activation=null",
    "model.mm_cfg.vision_encoder.vision_select_layer=-2",
    "model.mm_cfg.vision_encoder.class_token_length=1",
    "model.mm_cfg.mm_mlp_adapter_type=mlp2x_gelu",
    "model.mm_cfg.llm.freeze=true",
    "model.mm_cfg.vision_encoder.freeze=true",
    "model.optim.sched.min_lr=0",
    "model.optim.sched.warmup_steps=0",
    "exp_manager.resume_if_exists=false",
    "trainer.val_check_interval=100",
    "trainer.max_steps=3",
};
#define N_SILENT (sizeof(silent) / sizeof(silent[0]))

static const char *golden(const char *name)
{
    static char paths[8][PATH_MAX_HERE];
    static int next;
    char *path = paths[next++ % 8];

    snprintf(path, PATH_MAX_HERE, "%s/tests/golden/weights/%s", getenv("VNEVA_SOURCE"),
             name);
    return path;
}

/* "KEY=PATH", of its own for a while. */
static const char *from(const char *key, const char *path)
{
    static char texts[8][2 * PATH_MAX_HERE];
    static int next;
    char *text = texts[next++ % 8];

    snprintf(text, sizeof(texts[0]), "%s=%s", key, path);
    return text;
}

#define LLM(path) from("model.mm_cfg.llm.from_pretrained", path)
#define ENCODER(path) from("model.mm_cfg.vision_encoder.from_pretrained", path)
#define PROJECTOR(path) from("model.mm_cfg.pretrain_mm_mlp_adapter", path)
#define RESTORE(path) from("model.restore_from_path", path)
#define NO_STEP "model.optim.lr=0" /* the weights stay what they were at the beginning */

static int64_t submit(struct start *start, const char *const *more)
{
    const char *keys[KEYS_MAX + 1];
    size_t n = 0;

    for (; n < N_SILENT; n++)
        keys[n] = silent[n];
    for (; *more && n < KEYS_MAX; more++)
        keys[n++] = *more;
    assert_null(*more);
    keys[n] = NULL;
    return home_submit_training(&start->home, start->dataset, keys);
}

#define SUBMIT(start, ...) submit(start, (const char *[]){__VA_ARGS__, NULL})

/* Runs the job; its last checkpoint. */
static void run(struct start *start, int64_t job, char out[PATH_MAX_HERE])
{
    home_wait_done(&start->home, job);
    home_last_checkpoint(&start->home, job, out, PATH_MAX_HERE);
}

/* ---- comparing ---- */

static struct weights *open_weights(const char *path)
{
    struct weights *weights = NULL;
    struct err err;

    if (weights_open(&weights, path, &err) < 0)
        fail_msg("%s", err.text);
    return weights;
}

/* Parameter i as fp32; the caller frees. */
static float *read_floats(struct weights *weights, int i, int64_t *n)
{
    const struct param *param = &weights_params(weights)->params[i];
    enum dtype dtype = param->value.dtype;
    float *out;
    char *raw;
    struct err err;

    *n = 1;
    for (int d = 0; d < param->n_dims; d++)
        *n *= param->dims[d];
    out = malloc((size_t)*n * sizeof(*out));
    raw = malloc((size_t)*n * dtype_bytes(dtype));
    assert_non_null(out);
    assert_non_null(raw);
    if (weights_read(weights, i, raw, &err) < 0)
        fail_msg("%s", err.text);
    for (int64_t k = 0; k < *n; k++) {
        uint16_t half = ((uint16_t *)(void *)raw)[dtype == DTYPE_F32 ? 0 : k];

        out[k] = dtype == DTYPE_F32    ? ((float *)(void *)raw)[k]
                 : dtype == DTYPE_BF16 ? bf16_to_float(half)
                                       : f16_to_float(half);
    }
    free(raw);
    return out;
}

static int find_param(struct weights *weights, const char *name)
{
    const struct param_table *table = weights_params(weights);

    for (int i = 0; i < table->n_params; i++)
        if (strcmp(table->params[i].name, name) == 0)
            return i;
    fail_msg("'%s' is missing", name);
    return -1;
}

/* Whether every element that the folder has is the same in the checkpoint, part by part:
 * a larger vocabulary has more rows behind. */
static bool is_same(const char *checkpoint, const char *folder, enum param_group group)
{
    struct weights *ours = open_weights(checkpoint), *theirs = open_weights(folder);
    const struct param_table *table = weights_params(theirs);
    bool same = true;
    int n_seen = 0;

    for (int i = 0; i < table->n_params; i++) {
        int64_t n, n_theirs;
        float *a, *b;

        if (table->params[i].group != group)
            continue;
        a = read_floats(ours, find_param(ours, table->params[i].name), &n);
        b = read_floats(theirs, i, &n_theirs);
        assert_true(n >= n_theirs);
        same = same && memcmp(a, b, (size_t)n_theirs * sizeof(*a)) == 0;
        free(a);
        free(b);
        n_seen++;
    }
    assert_true(n_seen > 0);
    weights_close(ours);
    weights_close(theirs);
    return same;
}

/* ---- tests ---- */

static int setup(void **state)
{
    static const char *const small[] = {"model.mm_cfg.vision_encoder.crop_size=8",
                                        "model.mm_cfg.vision_encoder.patch_dim=4", NULL};
    struct start *start = calloc(1, sizeof(*start));

    *state = start;
    home_init(&start->home, 2);
    home_prepare(&start->home, small, start->dataset, sizeof(start->dataset));
    return 0;
}

static int teardown(void **state)
{
    struct start *start = *state;

    home_fini(&start->home);
    free(start);
    return 0;
}

/* LLaVA's two stages, on two tensor-parallel ranks. */
static void projector_of_the_first_stage_begins_the_second(void **state)
{
    struct start *start = *state;
    char first[PATH_MAX_HERE], second[PATH_MAX_HERE], again[PATH_MAX_HERE];
    const char *llama = golden("llama"), *clip = golden("clip");

    run(start, SUBMIT(start, LLM(llama), ENCODER(clip), "model.optim.lr=1e-3"), first);
    assert_true(is_same(first, llama, PARAM_LLM)); /* frozen, to the bit */
    assert_true(is_same(first, clip, PARAM_VISION));
    run(start, SUBMIT(start, LLM(llama), ENCODER(clip), PROJECTOR(first), NO_STEP),
        second);
    assert_true(is_same(second, first, PARAM_PROJECTOR));
    assert_true(is_same(second, llama, PARAM_LLM));
    /* Learning again: projector and LLM move, the encoder does not. */
    run(start,
        SUBMIT(start, LLM(llama), ENCODER(clip), PROJECTOR(first),
               "model.mm_cfg.llm.freeze=false", "model.optim.lr=1e-3"),
        again);
    assert_false(is_same(again, first, PARAM_PROJECTOR));
    assert_false(is_same(again, llama, PARAM_LLM));
    assert_true(is_same(again, clip, PARAM_VISION));
}

static void whole_model_is_restored_and_parts_are_taken_out(void **state)
{
    struct start *start = *state;
    char whole[PATH_MAX_HERE], parts[PATH_MAX_HERE];
    const char *llava = golden("llava");

    run(start,
        SUBMIT(start, PROJECTOR(golden("projector/mm_projector.bin")),
               LLM(golden("llama")), ENCODER(golden("clip")), NO_STEP),
        parts);
    assert_true(is_same(parts, golden("projector"), PARAM_PROJECTOR)); /* LLaVA's file */
    run(start, SUBMIT(start, RESTORE(llava), NO_STEP), whole);
    run(start, SUBMIT(start, LLM(llava), ENCODER(llava), PROJECTOR(llava), NO_STEP),
        parts);
    for (int group = 0; group < PARAM_GROUP_COUNT; group++) {
        assert_true(is_same(whole, llava, (enum param_group)group));
        assert_true(is_same(parts, llava, (enum param_group)group));
    }
}

/* Another family: what its config.json says, no key had to. */
static void qwen2_and_siglip_are_taken_as_they_are(void **state)
{
    struct start *start = *state;
    const char *qwen2 = golden("qwen2"), *siglip = golden("siglip");
    char first[PATH_MAX_HERE], second[PATH_MAX_HERE];

    run(start, SUBMIT(start, LLM(qwen2), ENCODER(siglip), NO_STEP), first);
    assert_true(is_same(first, qwen2, PARAM_LLM));
    assert_true(is_same(first, siglip, PARAM_VISION));
    run(start, SUBMIT(start, RESTORE(first), NO_STEP), second);
    assert_true(is_same(second, qwen2, PARAM_LLM));
    assert_true(is_same(second, siglip, PARAM_VISION));
}

/* A checkpoint says its sizes and its rotation (which no key could) by itself. */
static void checkpoint_of_such_a_run_is_asked_and_gone_on_from(void **state)
{
    struct start *start = *state;
    char first[PATH_MAX_HERE], second[PATH_MAX_HERE];
    struct buf spec = BUF_INIT;
    struct weights *weights;

    run(start,
        SUBMIT(start, LLM(golden("llama")), ENCODER(golden("clip")),
               "model.optim.lr=1e-3"),
        first);
    weights = open_weights(first);
    assert_int_equal(weights_info(weights)->config.llm.rope.scaling, ROPE_LLAMA3);
    assert_int_equal(weights_info(weights)->config.llm.rope.original_positions, 16);
    weights_close(weights);
    run(start, SUBMIT(start, RESTORE(first), NO_STEP), second);
    assert_true(is_same(second, first, PARAM_LLM));
    data_spec_evaluate(&spec, first, start->dataset, NULL);
    home_wait_done(&start->home, home_submit(&start->home, "evaluate", buf_str(&spec)));
    buf_fini(&spec);
    data_spec_evaluate(&spec, golden("llava"), start->dataset, NULL);
    home_expect_failed(
        &start->home, home_submit(&start->home, "evaluate", buf_str(&spec)),
        "was prepared with another tokenizer"); /* of more than 53 entries */
    buf_fini(&spec);
}

/* vneva export, vneva import */
static void move(const char *verb, const char *path, const char *out)
{
    char command[3 * PATH_MAX_HERE];

    snprintf(command, sizeof(command), "'%s/vneva-model' %s '%s' '%s' > '%s.log' 2>&1",
             getenv("VNEVA_BIN"), verb, path, out, out);
    assert_int_equal(system(command), 0);
}

static void read_answers(struct buf *out, struct start *start, const char *model)
{
    struct buf spec = BUF_INIT;
    char path[PATH_MAX_HERE];
    struct err err;
    int64_t job;

    data_spec_evaluate(&spec, model, start->dataset,
                       (const char *[]){"trainer.precision=32", NULL});
    job = home_submit(&start->home, "evaluate", buf_str(&spec));
    home_wait_done(&start->home, job);
    snprintf(path, sizeof(path), "%s/jobs/%lld/results.jsonl", start->home.folder,
             (long long)job);
    if (fs_read_file(out, path, 1 << 24, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(out->n_bytes > 0);
    buf_fini(&spec);
}

/* What is taken out answers as what it was made of, and can be trained on. */
static void exported_folder_answers_as_its_checkpoint(void **state)
{
    struct start *start = *state;
    char checkpoint[PATH_MAX_HERE], out[PATH_MAX_HERE], in[PATH_MAX_HERE],
        again[PATH_MAX_HERE];
    struct buf ours = BUF_INIT, theirs = BUF_INIT, imported = BUF_INIT;

    run(start,
        SUBMIT(start, LLM(golden("llama")), ENCODER(golden("clip")),
               "model.mm_cfg.llm.freeze=false", "model.optim.lr=1e-2",
               "trainer.max_steps=20"),
        checkpoint);
    snprintf(out, sizeof(out), "%s/exported", start->home.folder);
    snprintf(in, sizeof(in), "%s/imported", start->home.folder);
    move("export", checkpoint, out);
    move("import", out, in);
    read_answers(&ours, start, checkpoint);
    read_answers(&theirs, start, out);
    read_answers(&imported, start, in);
    assert_string_equal(buf_str(&theirs), buf_str(&ours));
    assert_string_equal(buf_str(&imported), buf_str(&ours));
    run(start, SUBMIT(start, RESTORE(out), NO_STEP), again);
    assert_true(is_same(again, checkpoint, PARAM_LLM));
    buf_fini(&ours);
    buf_fini(&theirs);
    buf_fini(&imported);
}

static void what_does_not_fit_is_refused_by_key_and_folder(void **state)
{
    struct start *start = *state;
    const char *llama = golden("llama"), *clip = golden("clip");

    home_expect_failed(&start->home,
                       SUBMIT(start, LLM(llama), ENCODER(clip), "model.num_layers=3"),
                       "model.num_layers is 3, but the weights in '");
    home_expect_failed(&start->home,
                       SUBMIT(start, LLM(llama), ENCODER(clip),
                              "model.scale_positional_embedding=false"),
                       "ask for no scaling");
    home_expect_failed(&start->home, SUBMIT(start, LLM(golden("mistral")), ENCODER(clip)),
                       "is longer than the window of attention (32)");
    home_expect_failed(&start->home, SUBMIT(start, LLM(clip), ENCODER(clip)),
                       "(CLIPModel) holds vision encoder and no LLM");
    home_expect_failed(
        &start->home, SUBMIT(start, RESTORE(llama)),
        "(LlamaForCausalLM) holds LLM and no vision encoder and projector");
    home_expect_failed(&start->home, SUBMIT(start, LLM("/nowhere"), ENCODER(clip)),
                       "model.mm_cfg.llm.from_pretrained: '/nowhere' is not there");
}

#define TEST(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(projector_of_the_first_stage_begins_the_second),
        TEST(whole_model_is_restored_and_parts_are_taken_out),
        TEST(qwen2_and_siglip_are_taken_as_they_are),
        TEST(checkpoint_of_such_a_run_is_asked_and_gone_on_from),
        TEST(exported_folder_answers_as_its_checkpoint),
        TEST(what_does_not_fit_is_refused_by_key_and_folder),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
