/* What a run leaves in its folder: checkpoints that stay or go, the sample log, result
 * lines and their table.
 */
#define _GNU_SOURCE /* mkdtemp */
#include "common/base/fs.h"
#include "worker/rank/checkpoints.h"
#include "worker/rank/results.h"
#include "worker/rank/sample_log.h"
#include "worker/rank/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int setup(void **state)
{
    char *folder = strdup("/tmp/vneva-run-files-XXXXXX");

    *state = folder;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    fs_remove_tree(*state, NULL);
    free(*state);
    return 0;
}

static struct json *parse(const char *text)
{
    struct json *json = NULL;
    struct err err = {0};

    if (json_parse(&json, text, strlen(text), &err) < 0)
        fail_msg("%s", err.text);
    return json;
}

/* ---- checkpoints ---- */

static void make_checkpoint(const char *folder, int64_t step, int64_t attempt)
{
    char path[FS_PATH_MAX], file[FS_PATH_MAX];
    struct err err = {0};

    assert_int_equal(checkpoint_path(path, folder, step, attempt, &err), 0);
    assert_int_equal(fs_make_dirs(path, 0755, &err), 0);
    assert_int_equal(fs_path(file, &err, "%s/checkpoint.json", path), 0);
    assert_int_equal(fs_write_file_atomic(file, "{}", 2, &err), 0);
}

static bool has_checkpoint(const char *folder, int64_t step, int64_t attempt)
{
    char path[FS_PATH_MAX];
    struct err err = {0};

    assert_int_equal(checkpoint_path(path, folder, step, attempt, &err), 0);
    return fs_is_dir(path);
}

static void checkpoints_no_lease_keeps_are_deleted(void **state)
{
    const char *folder = *state;
    char path[FS_PATH_MAX], half[FS_PATH_MAX];
    struct buf args = BUF_INIT;
    struct json *json;
    struct err err = {0};

    make_checkpoint(folder, 10, 1);
    make_checkpoint(folder, 20, 1);
    make_checkpoint(folder, 20, 2); /* of another attempt, never registered */
    make_checkpoint(folder, 30, 2);
    make_checkpoint(folder, 40, 2); /* written, not registered yet */
    assert_int_equal(fs_path(half, &err, "%s/checkpoints/step-00000010-a1.tmp", folder),
                     0);
    assert_int_equal(fs_make_dirs(half, 0755, &err), 0);
    assert_int_equal(checkpoint_path(path, folder, 20, 1, &err), 0);
    buf_printf(&args, "{\"newest_step\":30,\"keep\":[\"%s\"]}", path);
    json = parse(buf_str(&args));
    assert_int_equal(checkpoints_clean(folder, json, &err), 0);
    assert_false(has_checkpoint(folder, 10, 1));
    assert_true(has_checkpoint(folder, 20, 1));
    assert_false(has_checkpoint(folder, 20, 2));
    assert_true(has_checkpoint(folder, 30, 2)); /* the newest stays, listed or not */
    assert_true(has_checkpoint(folder, 40, 2));
    assert_false(fs_exists(half));
    json_free(json);
    buf_fini(&args);
}

static void lease_without_list_deletes_nothing(void **state)
{
    struct json *json = parse("{}");
    struct err err = {0};

    assert_int_equal(checkpoints_clean(*state, json, &err), 0);
    make_checkpoint(*state, 10, 1);
    assert_int_equal(checkpoints_clean(*state, json, &err), 0);
    assert_true(has_checkpoint(*state, 10, 1));
    json_free(json);
}

static void lease_that_keeps_all_clears_only_what_is_half_written(void **state)
{
    struct json *json = parse("{\"newest_step\":30}");
    char half[FS_PATH_MAX];
    struct err err = {0};

    make_checkpoint(*state, 10, 1);
    make_checkpoint(*state, 30, 1);
    assert_int_equal(
        fs_path(half, &err, "%s/checkpoints/step-00000020-a1.tmp", (char *)*state), 0);
    assert_int_equal(fs_make_dirs(half, 0755, &err), 0);
    assert_int_equal(checkpoints_clean(*state, json, &err), 0);
    assert_true(has_checkpoint(*state, 10, 1));
    assert_true(has_checkpoint(*state, 30, 1));
    assert_false(fs_exists(half));
    json_free(json);
}

static void all_that_is_half_written_goes_before_an_attempt(void **state)
{
    static const char *const names[] = {"step-00000010-a1.tmp", "step-00000020-a2.tmp"};
    char half[2][FS_PATH_MAX];
    struct err err = {0};

    assert_int_equal(checkpoints_clean_unfinished(*state, &err), 0); /* no folder yet */
    make_checkpoint(*state, 10, 1);
    make_checkpoint(*state, 20, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            fs_path(half[i], &err, "%s/checkpoints/%s", (char *)*state, names[i]), 0);
        assert_int_equal(fs_make_dirs(half[i], 0755, &err), 0);
    }
    assert_int_equal(checkpoints_clean_unfinished(*state, &err), 0);
    assert_true(has_checkpoint(*state, 10, 1));
    assert_true(has_checkpoint(*state, 20, 1));
    assert_false(fs_exists(half[0]));
    assert_false(fs_exists(half[1]));
}

static void last_k_checkpoints_stay_at_the_end(void **state)
{
    struct json *known = parse("[\"x/checkpoints/step-00000010-a1\"]"), *merged, *args;
    char path[FS_PATH_MAX];
    struct buf text = BUF_INIT;
    struct err err = {0};

    for (int64_t step = 10; step <= 50; step += 10) {
        make_checkpoint(*state, step, 1);
        assert_int_equal(checkpoint_path(path, *state, step, 1, &err), 0);
        if (step > 10)
            assert_int_equal(checkpoints_add(known, path, &err), 0);
    }
    assert_int_equal(checkpoint_path(path, *state, 30, 1, &err), 0);
    buf_printf(&text, "{\"newest_step\":30,\"keep\":[\"%s\"]}", path);
    args = parse(buf_str(&text));
    merged = checkpoints_merge(known, args, &err); /* 30 is kept, 40 and 50 are newer */
    assert_int_equal(json_count(merged), 3);
    assert_int_equal(checkpoints_clean_end(*state, merged, 0, &err), 0);
    assert_true(has_checkpoint(*state, 10, 1)); /* 0: all stay */
    assert_int_equal(checkpoints_clean_end(*state, merged, 2, &err), 0);
    for (int64_t step = 10; step <= 50; step += 10)
        assert_int_equal(has_checkpoint(*state, step, 1), step >= 40);
    json_free(known);
    json_free(merged);
    json_free(args);
    buf_fini(&text);
}

static void newest_checkpoint_of_a_run_is_found(void **state)
{
    char found[FS_PATH_MAX], path[FS_PATH_MAX], half[FS_PATH_MAX];
    struct err err = {0};

    assert_int_equal(checkpoints_find(found, *state, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    make_checkpoint(*state, 90, 1);
    make_checkpoint(*state, 100, 2);
    assert_int_equal(
        fs_path(half, &err, "%s/checkpoints/step-00000200-a2.tmp", (char *)*state), 0);
    assert_int_equal(fs_make_dirs(half, 0755, &err), 0);
    assert_int_equal(checkpoint_path(path, *state, 100, 2, &err), 0);
    assert_int_equal(checkpoints_find(found, *state, &err), 0);
    assert_string_equal(found, path);
    assert_int_equal(checkpoints_find(found, path, &err), 0); /* the checkpoint itself */
    assert_string_equal(found, path);
}

static void source_found_once_holds_when_its_run_goes_on(void **state)
{
    char run[FS_PATH_MAX], first[FS_PATH_MAX], found[FS_PATH_MAX];
    struct err err = {0};

    assert_int_equal(fs_path(run, &err, "%s/run", (char *)*state), 0);
    assert_int_equal(checkpoints_find_once(found, *state, run, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND); /* and nothing is noted */
    make_checkpoint(run, 10, 1);
    assert_int_equal(checkpoints_find_once(first, *state, run, &err), 0);
    make_checkpoint(run, 20, 1);
    assert_int_equal(checkpoints_find_once(found, *state, run, &err), 0);
    assert_string_equal(found, first);
}

static void going_on_under_other_settings_is_refused(void **state)
{
    struct json *meta = parse("{\"step\":5,\"binding\":{\"model.seed\":1,\"x\":null}}");
    struct json *same = parse("{\"model.seed\":1,\"x\":null}");
    struct json *other = parse("{\"model.seed\":2,\"x\":null}");
    struct err err = {0};
    int64_t step = 0;

    (void)state;
    assert_int_equal(checkpoints_check(&step, meta, same, &err), 0);
    assert_int_equal(step, 5);
    assert_int_equal(checkpoints_check(&step, meta, other, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.text, "model.seed was 1"));
    json_free(meta);
    json_free(same);
    json_free(other);
}

/* ---- sample log ---- */

static void expect_log(const char *folder, const char *expected)
{
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    struct err err = {0};

    assert_int_equal(fs_path(path, &err, "%s/samples.log", folder), 0);
    assert_int_equal(fs_read_file(&text, path, 1 << 20, &err), 0);
    assert_string_equal(buf_str(&text), expected);
    buf_fini(&text);
}

static void sample_log_is_cut_to_the_step_gone_on_from(void **state)
{
    struct order order = {
        .seed = 1, .n_samples = 1, .micro = 2, .global = 2, .n_data = 1};
    struct sample_log *log = NULL;
    struct err err = {0};

    assert_int_equal(sample_log_open(&log, *state, 0, true, &err), 0);
    for (int64_t step = 0; step < 3; step++)
        assert_int_equal(sample_log_add(log, &order, step, &err), 0);
    sample_log_close(log);
    expect_log(*state, "0 0 0\n1 0 0\n2 0 0\n");
    assert_int_equal(sample_log_open(&log, *state, 1, false, &err), 0);
    expect_log(*state, "0 0 0\n");
    assert_int_equal(sample_log_add(log, &order, 1, &err), 0);
    sample_log_close(log);
    expect_log(*state, "0 0 0\n1 0 0\n");
    assert_int_equal(sample_log_open(&log, *state, 3, false, &err),
                     -1); /* step 2 is missing */
    assert_int_equal(err.code, ERR_FORMAT);
}

/* ---- results ---- */

static void add_result(struct buf *lines, const char *category, const char *answer)
{
    struct buf record = BUF_INIT;
    struct err err = {0};

    buf_printf(&record,
               "{\"id\":\"q\",\"category\":\"%s\",\"conversations\":["
               "{\"from\":\"human\",\"value\":\"<video>\\nwhat?\"},"
               "{\"from\":\"gpt\",\"value\":\"yes\"}]}",
               category);
    if (results_add(lines, buf_str(&record), "what? yes", answer, &err) < 0)
        fail_msg("%s", err.text);
    buf_fini(&record);
}

static void result_has_the_questions_fields_and_ours(void **state)
{
    struct buf lines = BUF_INIT;
    struct json *line;

    (void)state;
    add_result(&lines, "kind", "yes");
    line = parse(buf_str(&lines));
    assert_string_equal(json_get_string(line, "id"), "q");
    assert_int_equal(json_count(json_get(line, "conversations")), 2);
    assert_string_equal(json_get_string(line, "full_text"), "what? yes");
    assert_string_equal(json_get_string(line, "pred_answer"), "yes");
    assert_string_equal(json_get_string(line, "expected"), "yes");
    assert_true(json_bool(json_get(line, "is_correct"), false));
    assert_string_equal(json_get_string(line, "category"), "kind");
    json_free(line);
    buf_fini(&lines);
}

static void only_the_whole_answer_is_correct(void **state)
{
    static const char *const wrong[] = {"yes.", "Yes", "ye", "", "yes yes"};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct buf lines = BUF_INIT;
        struct json *line;

        add_result(&lines, "kind", wrong[i]);
        line = parse(buf_str(&lines));
        assert_false(json_bool(json_get(line, "is_correct"), true));
        json_free(line);
        buf_fini(&lines);
    }
}

static void write_part(const char *folder, int64_t first, const char *const *categories,
                       const char *const *answers, int n)
{
    struct buf lines = BUF_INIT;
    struct err err = {0};

    for (int i = 0; i < n; i++)
        add_result(&lines, categories[i], answers[i]);
    assert_int_equal(results_write_part(folder, first, &lines, &err), 0);
    buf_fini(&lines);
}

static void parts_merge_into_results_and_table(void **state)
{
    static const char *const categories[] = {"a", "a", "b"}, *const answers[] = {
                                                                 "yes", "no", "yes"};
    struct json *table = NULL, *results = NULL, *row;
    char output[FS_PATH_MAX];
    struct err err = {0};
    int64_t picked[3];

    write_part(*state, 0, categories, answers, 3);
    write_part(*state, 3, categories, answers, 2);
    assert_int_equal(fs_path(output, &err, "%s/results.jsonl", (char *)*state), 0);
    assert_int_equal(results_merge(*state, 5, output, &table, &results, &err), 0);
    assert_int_equal(json_count(results), 5);
    assert_int_equal(json_get_int(table, "n", 0), 5);
    assert_true(json_get_double(table, "accuracy", 0) == 3.0 / 5.0);
    assert_int_equal(json_count(json_get(table, "categories")), 2);
    row = json_at(json_get(table, "categories"), 0);
    assert_string_equal(json_get_string(row, "category"), "a");
    assert_int_equal(json_get_int(row, "n", 0), 4);
    assert_int_equal(json_get_int(row, "correct", 0), 2);
    assert_int_equal(results_pick(results, picked, 3), 3);
    assert_true((picked[0] == 2) != (picked[1] == 2)); /* one of a, the one of b... */
    assert_int_not_equal(picked[2], 2);                /* ...the next of a */
    assert_int_not_equal(picked[2], picked[0]);
    assert_int_not_equal(picked[2], picked[1]);
    assert_true(fs_exists(output));
    json_free(table);
    json_free(results);
}

static void missing_part_is_named(void **state)
{
    static const char *const categories[] = {"a"}, *const answers[] = {"yes"};
    struct json *table = NULL, *results = NULL;
    char output[FS_PATH_MAX];
    struct err err = {0};

    write_part(*state, 0, categories, answers, 1);
    assert_int_equal(fs_path(output, &err, "%s/results.jsonl", (char *)*state), 0);
    assert_int_equal(results_merge(*state, 3, output, &table, &results, &err), -1);
    assert_string_equal(err.text, "samples from 1 on have no results");
    assert_false(fs_exists(output));
}

static void answers_are_trimmed(void **state)
{
    char text[] = " \n left and right \n", blank[] = " \n";

    (void)state;
    assert_string_equal(results_trim(text), "left and right");
    assert_string_equal(results_trim(blank), "");
}

/* ---- metrics ---- */

static void window_gives_means_and_begins_anew(void **state)
{
    struct window window = {.n_steps = 4,
                            .step_ns = 2000000000,
                            .wait_ns = 40000000,
                            .loss_sum = 30,
                            .n_labels = 10,
                            .n_samples = 100,
                            .n_tokens = 5000,
                            .flops = 4e12};
    struct err err = {0};
    struct json *metrics = window_metrics(&window, &err);

    (void)state;
    assert_true(json_get_double(metrics, "loss", 0) == 3.0);
    assert_true(json_get_double(metrics, "step_ms", 0) == 500.0);
    assert_true(json_get_double(metrics, "wait_ms", 0) == 10.0);
    assert_true(json_get_double(metrics, "samples_per_s", 0) == 50.0);
    assert_true(json_get_double(metrics, "tokens_per_s", 0) == 2500.0);
    assert_true(json_get_double(metrics, "tflops", 0) == 2.0);
    assert_int_equal(window.n_steps, 0);
    json_free(metrics);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(checkpoints_no_lease_keeps_are_deleted),
        TEST(lease_without_list_deletes_nothing),
        TEST(lease_that_keeps_all_clears_only_what_is_half_written),
        TEST(all_that_is_half_written_goes_before_an_attempt),
        TEST(last_k_checkpoints_stay_at_the_end),
        TEST(newest_checkpoint_of_a_run_is_found),
        TEST(source_found_once_holds_when_its_run_goes_on),
        TEST(going_on_under_other_settings_is_refused),
        TEST(sample_log_is_cut_to_the_step_gone_on_from),
        TEST(result_has_the_questions_fields_and_ours),
        TEST(only_the_whole_answer_is_correct),
        TEST(parts_merge_into_results_and_table),
        TEST(missing_part_is_named),
        TEST(answers_are_trimmed),
        TEST(window_gives_means_and_begins_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
