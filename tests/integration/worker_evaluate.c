/* Real ranks under a scripted agent: a trained model answers the questions of a dataset. */
#include "common/base/fs.h"
#include "tests/integration/worker_data.h"
#include "tests/integration/worker_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json *run_evaluate(const struct world *world, const char *job,
                                 const char *run, int n_ranks, const char *const *more)
{
    struct buf spec = BUF_INIT, result = BUF_INIT;
    struct json *table;
    struct gang gang;
    char folder[128];

    world_folder(folder, world, job);
    data_spec_evaluate(&spec, run, world->dataset, more);
    gang_start(&gang, folder, "evaluate", buf_str(&spec), n_ranks, 1, "", NULL);
    gang_do(&gang, "plan", 0, 0, "{}", &result);
    assert_string_equal(buf_str(&result), "{\"n_samples\":48}");
    gang_do(&gang, "work", 20, 20, "{}", &result); /* in any order */
    gang_do(&gang, "work", 0, 20, "{}", &result);
    gang_do(&gang, "work", 40, 8, "{}", &result);
    buf_reset(&result);
    gang_do(&gang, "finish", 0, 48, "{}", &result);
    gang_finish(&gang);
    gang_fini(&gang);
    table = world_parse(buf_str(&result));
    buf_fini(&spec);
    buf_fini(&result);
    return table;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);

    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* Every line's full_text is one mark of the video, the question, and the answer. */
static void expect_full_texts(const char *path)
{
    struct buf text = BUF_INIT;
    char *newline;

    world_read_file(&text, path);
    for (char *at = text.data; (newline = strchr(at, '\n')); at = newline + 1) {
        struct json *line;
        const char *full, *video;

        *newline = '\0';
        line = world_parse(at);
        full = json_get_string(line, "full_text");
        video = strstr(full, "<video>");
        assert_non_null(video);
        assert_null(strstr(video + 1, "<video>"));
        assert_true(ends_with(full, json_get_string(line, "pred_answer")));
        json_free(line);
    }
    buf_fini(&text);
}

static void evaluation_answers_every_question_in_order(void **state)
{
    static const char *const alone[] = {"inference.examples=5", NULL};
    static const char *const two[] = {"model.tensor_model_parallel_size=2",
                                      "inference.batch_size=3", NULL};
    const struct world *world = *state;
    struct buf text = BUF_INIT;
    struct json *table, *examples;
    char path[256], run[128], a[128], b[128];

    world_train(world, "to-ask", world_two_tensor, NULL, path);
    world_folder(run, world, "to-ask");
    table = run_evaluate(world, "answers", run, 1, alone);
    assert_int_equal(json_get_int(table, "n", 0), DATA_QUESTIONS);
    assert_true(json_count(json_get(table, "categories")) > 1);
    json_free(table);
    json_free(run_evaluate(world, "answers-two", path, 2, two));
    world_folder(a, world, "answers");
    world_folder(b, world, "answers-two");
    world_expect_same_file(a, b, "results.jsonl");
    snprintf(path, sizeof(path), "%s/results.jsonl", a);
    expect_full_texts(path);
    snprintf(path, sizeof(path), "%s/examples/examples.json", a);
    world_read_file(&text, path);
    examples = world_parse(buf_str(&text));
    assert_int_equal(json_count(examples), 5);
    assert_int_equal(json_count(json_get(json_at(examples, 0), "frames")), 4);
    snprintf(path, sizeof(path), "%s/examples/%s", a,
             json_string(json_at(json_get(json_at(examples, 0), "frames"), 3)));
    assert_true(fs_exists(path));
    json_free(examples);
    buf_fini(&text);
}

/* Whatever the batches and the ranks. */
static void drawn_answers_are_the_same_again(void **state)
{
    static const char *const drawn[] = {"inference.greedy=false",
                                        "inference.temperature=2",
                                        "inference.top_p=0.95",
                                        "inference.repetition_penalty=1.2",
                                        "inference.min_tokens_to_generate=2",
                                        "inference.examples=0",
                                        "inference.batch_size=3",
                                        "model.tensor_model_parallel_size=2",
                                        NULL};
    static const char *const greedy[] = {"inference.examples=0", NULL};
    const char *alone[sizeof(drawn) / sizeof(drawn[0])] = {NULL};
    const struct world *world = *state;
    char path[256], run[128], a[128], b[128];

    memcpy(alone, drawn, sizeof(drawn) - 3 * sizeof(drawn[0]));
    world_train(world, "to-draw", world_two_tensor, NULL, path);
    world_folder(run, world, "to-draw");
    json_free(run_evaluate(world, "drawn", run, 1, alone));
    json_free(run_evaluate(world, "drawn-two", run, 2, drawn));
    json_free(run_evaluate(world, "not-drawn", run, 1, greedy));
    world_folder(a, world, "drawn");
    world_folder(b, world, "drawn-two");
    world_expect_same_file(a, b, "results.jsonl");
    world_folder(b, world, "not-drawn");
    assert_false(world_is_same_file(a, b, "results.jsonl"));
}

/* The first answer of an evaluation. */
static void first_answer(char *out, size_t n_bytes, const struct world *world,
                         const char *job)
{
    struct buf text = BUF_INIT;
    struct json *line;
    char path[256];

    snprintf(path, sizeof(path), "%s/%s/results.jsonl", world->folder, job);
    world_read_file(&text, path);
    *strchr(text.data, '\n') = '\0';
    line = world_parse(text.data);
    snprintf(out, n_bytes, "%s", json_get_string(line, "pred_answer"));
    json_free(line);
    buf_fini(&text);
}

/* Here at the last letter of what the first is without. */
static void answers_end_at_their_strings(void **state)
{
    static const char *const plain[] = {"inference.examples=0", NULL};
    char key[64], path[256], run[128], whole[128], cut[128];
    const char *const ended[] = {"inference.examples=0", key, NULL};
    const struct world *world = *state;
    size_t n;

    world_train(world, "to-end", world_two_tensor, NULL, path);
    world_folder(run, world, "to-end");
    json_free(run_evaluate(world, "not-ended", run, 1, plain));
    first_answer(whole, sizeof(whole), world, "not-ended");
    n = strlen(whole);
    assert_true(n > 1);
    snprintf(key, sizeof(key), "inference.end_strings=['%c']", whole[n - 1]);
    json_free(run_evaluate(world, "ended", run, 1, ended));
    first_answer(cut, sizeof(cut), world, "ended");
    assert_true(strlen(cut) < n && strncmp(cut, whole, strlen(cut)) == 0);
    assert_null(strchr(cut, whole[n - 1]));
}

static void spliced_evaluation_sees_one_frame(void **state)
{
    static const char *const first[] = {"model.data.splice_single_frame=first",
                                        "inference.examples=1", NULL};
    const struct world *world = *state;
    struct buf text = BUF_INIT;
    struct json *examples;
    char path[256], run[128];

    world_train(world, "to-splice", world_two_tensor, NULL, path);
    world_folder(run, world, "to-splice");
    json_free(run_evaluate(world, "spliced", run, 1, first));
    snprintf(path, sizeof(path), "%s/spliced/examples/examples.json", world->folder);
    world_read_file(&text, path);
    examples = world_parse(buf_str(&text));
    assert_int_equal(json_count(json_get(json_at(examples, 0), "frames")), 1);
    json_free(examples);
    buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluation_answers_every_question_in_order),
        cmocka_unit_test(drawn_answers_are_the_same_again),
        cmocka_unit_test(answers_end_at_their_strings),
        cmocka_unit_test(spliced_evaluation_sees_one_frame),
    };

    return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
