#include "worker/rank/results.h"

#include "common/base/rng.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NO_CATEGORY "all" /* of questions that name none */

const char *results_trim(char *text)
{
    size_t n = strlen(text);

    while (n && isspace((unsigned char)text[n - 1]))
        text[--n] = '\0';
    while (isspace((unsigned char)*text))
        text++;
    return text;
}

/* ---- lines ---- */

/* The last thing the assistant says; NULL when a question is the last turn, or nothing is
 * said. */
static const char *expected_answer(const struct json *record)
{
    const struct json *turns = json_get(record, "conversations");
    const struct json *last = json_at(turns, json_count(turns) - 1);
    const char *from = json_get_string(last, "from");

    const char *value = json_get_string(last, "value");

    return from && strcmp(from, "gpt") == 0 && value && *value ? value : NULL;
}

static int set_text(struct json *object, const char *key, const char *text,
                    struct err *err)
{
    return json_set(object, key, json_new_string(text), err);
}

static int set_expected(struct json *line, const char *expected, const char *answer,
                        struct err *err)
{
    bool is_correct;
    char *copy = strdup(expected);
    int rc = -1;

    if (!copy)
        return err_set(err, ERR_NOMEM, "out of memory");
    expected = results_trim(copy);
    is_correct = strcmp(expected, answer) == 0;
    if (set_text(line, "expected", expected, err) == 0 &&
        json_set(line, "is_correct", json_new_bool(is_correct), err) == 0)
        rc = json_get_string(line, "category")
                 ? 0
                 : set_text(line, "category", NO_CATEGORY, err);
    free(copy);
    return rc;
}

int results_fill(struct json *line, const char *full_text, const char *answer,
                 struct err *err)
{
    const char *expected = expected_answer(line);

    if (set_text(line, "full_text", full_text, err) < 0 ||
        set_text(line, "pred_answer", answer, err) < 0)
        return -1;
    return expected ? set_expected(line, expected, answer, err) : 0;
}

int results_add(struct buf *out, const char *record, const char *full_text,
                const char *answer, struct err *err)
{
    struct json *line = NULL;
    int rc = json_parse(&line, record, strlen(record), err);

    if (rc == 0 && json_type(line) != JSON_OBJECT)
        rc = err_set(err, ERR_FORMAT, "the annotation is no object");
    if (rc == 0)
        rc = results_fill(line, full_text, answer, err);
    if (rc == 0) {
        json_write(out, line, 0);
        buf_add_char(out, '\n');
        rc = buf_check(out, err);
    }
    json_free(line);
    return rc;
}

static int part_path(char *out, const char *folder, int64_t first, struct err *err)
{
    return fs_path(out, err, "%s/parts/results-part-%08" PRId64 ".jsonl", folder, first);
}

int results_write_part(const char *folder, int64_t first, const struct buf *lines,
                       struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/parts", folder) < 0 || fs_make_dirs(path, 0755, err) < 0 ||
        part_path(path, folder, first, err) < 0)
        return -1;
    return fs_write_file_atomic(path, buf_str(lines), lines->n_bytes, err);
}

/* ---- merging ---- */

/* Appends the part that begins with sample `first` to text and its lines to results. */
static int part_read(struct buf *text, struct json *results, const char *folder,
                     int64_t first, struct err *err)
{
    char path[FS_PATH_MAX];
    size_t begin = text->n_bytes;
    const char *at, *newline;

    if (part_path(path, folder, first, err) < 0)
        return -1;
    if (!fs_exists(path))
        return err_set(err, ERR_STATE, "samples from %" PRId64 " on have no results",
                       first);
    if (fs_read_file(text, path, RESULTS_FILE_MAX, err) < 0)
        return -1;
    for (at = text->data + begin; (newline = strchr(at, '\n')); at = newline + 1) {
        struct json *line = NULL;

        if (json_parse(&line, at, (size_t)(newline - at), err) < 0 ||
            json_append(results, line, err) < 0)
            return err_wrap(err, "'%s'", path);
    }
    return 0;
}

static int parts_read(struct buf *text, struct json *results, const char *folder,
                      int64_t n_samples, struct err *err)
{
    while (json_count(results) < (size_t)n_samples) {
        size_t n_before = json_count(results);

        if (part_read(text, results, folder, (int64_t)n_before, err) < 0)
            return -1;
        if (json_count(results) == n_before)
            return err_set(err, ERR_FORMAT, "the part of sample %zu is empty", n_before);
    }
    return 0;
}

/* The entry of a category in the table's list, made when it is new. */
static struct json *table_row(struct json *rows, const char *category, struct err *err)
{
    struct json *row;

    for (size_t i = 0; i < json_count(rows); i++)
        if (strcmp(json_get_string(json_at(rows, i), "category"), category) == 0)
            return json_at(rows, i);
    row = json_new(JSON_OBJECT);
    if (set_text(row, "category", category, err) < 0) {
        json_free(row);
        return NULL;
    }
    return json_append(rows, row, err) < 0 ? NULL : row;
}

static int row_count(struct json *row, bool is_correct, struct err *err)
{
    int64_t n = json_get_int(row, "n", 0) + 1;
    int64_t correct = json_get_int(row, "correct", 0) + is_correct;

    if (json_set(row, "n", json_new_int(n), err) < 0 ||
        json_set(row, "correct", json_new_int(correct), err) < 0)
        return -1;
    return json_set(row, "accuracy", json_new_double((double)correct / (double)n), err);
}

static int table_fill(struct json *table, const struct json *results, struct err *err)
{
    struct json *rows = json_new(JSON_ARRAY);
    int64_t n = (int64_t)json_count(results), correct = 0;

    if (json_set(table, "categories", rows, err) < 0)
        return -1;
    for (size_t i = 0; i < json_count(results); i++) {
        const struct json *line = json_at(results, i);
        bool is_correct = json_bool(json_get(line, "is_correct"), false);
        const char *category = json_get_string(line, "category");
        struct json *row = table_row(rows, category ? category : NO_CATEGORY, err);

        if (!row || row_count(row, is_correct, err) < 0)
            return -1;
        correct += is_correct;
    }
    if (json_set(table, "n", json_new_int(n), err) < 0)
        return -1;
    return json_set(table, "accuracy",
                    json_new_double(n ? (double)correct / (double)n : 0.0), err);
}

int results_merge(const char *folder, int64_t n_samples, const char *output,
                  struct json **table, struct json **results, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = -1;

    *results = json_new(JSON_ARRAY);
    *table = json_new(JSON_OBJECT);
    if (!*results || !*table)
        err_set(err, ERR_NOMEM, "out of memory");
    else if (parts_read(&text, *results, folder, n_samples, err) == 0 &&
             table_fill(*table, *results, err) == 0)
        rc = fs_write_file_atomic(output, buf_str(&text), text.n_bytes, err);
    buf_fini(&text);
    if (rc < 0) {
        json_free(*results);
        json_free(*table);
        *results = *table = NULL;
    }
    return rc;
}

/* ---- picking ---- */

static bool is_same_category(const struct json *a, const struct json *b)
{
    const char *one = json_get_string(a, "category");
    const char *other = json_get_string(b, "category");

    return one && other ? strcmp(one, other) == 0 : one == other;
}

/* The k-th result of the order in which they are looked at: fixed, all over the file. */
static int64_t looked_at(int64_t k, int64_t n_results)
{
    return (int64_t)rng_permute(0, 0, (uint64_t)k, (uint64_t)n_results);
}

/* How many of the first n picks are of the category of line. */
static int64_t count_picked(const struct json *results, const int64_t *picks, int64_t n,
                            const struct json *line)
{
    int64_t count = 0;

    for (int64_t i = 0; i < n; i++)
        count += is_same_category(json_at(results, (size_t)picks[i]), line);
    return count;
}

static bool is_picked(const int64_t *picks, int64_t n, int64_t number)
{
    for (int64_t i = 0; i < n; i++)
        if (picks[i] == number)
            return true;
    return false;
}

int64_t results_pick(const struct json *results, int64_t *out, int64_t n)
{
    int64_t n_picked = 0, n_results = (int64_t)json_count(results);

    if (n > n_results)
        n = n_results;
    for (int64_t round = 0; n_picked < n; round++)
        for (int64_t k = 0; k < n_results && n_picked < n; k++) {
            int64_t number = looked_at(k, n_results);
            const struct json *line = json_at(results, (size_t)number);

            if (!is_picked(out, n_picked, number) &&
                count_picked(results, out, n_picked, line) == round)
                out[n_picked++] = number;
        }
    return n_picked;
}
