#include "worker/rank/examples.h"

#include "common/base/fs.h"
#include "common/base/json_file.h"
#include "worker/rank/results.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The last thing a person asks, without the marks of media. */
static int example_question(struct buf *out, const struct json *line, struct err *err)
{
    static const char *const marks[] = {"<video>", "<image>"};
    const struct json *turns = json_get(line, "conversations");
    size_t n = json_count(turns);
    const char *text = n > 1 ? json_get_string(json_at(turns, n - 2), "value") : "";

    for (const char *at = text ? text : ""; *at;) {
        size_t skip = 0;

        for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
            if (strncmp(at, marks[i], strlen(marks[i])) == 0)
                skip = strlen(marks[i]);
        if (!skip)
            buf_add_char(out, *at);
        at += skip ? skip : 1;
    }
    return buf_check(out, err);
}

static int write_frame(const char *folder, const char *name, const uint8_t *rgb,
                       int64_t size, struct err *err)
{
    char path[FS_PATH_MAX];
    uint8_t *png = NULL;
    size_t n_bytes = 0;
    int rc;

    if (fs_path(path, err, "%s/%s", folder, name) < 0 ||
        media_encode_png(&png, &n_bytes, rgb, size, size, err) < 0)
        return -1;
    rc = fs_write_file_atomic(path, png, n_bytes, err);
    free(png);
    return rc;
}

/* Writes the frames of the batch's one sample; their names into the list. */
static int write_frames(struct json *names, const char *folder, const struct batch *batch,
                        int64_t number, int64_t size, struct err *err)
{
    const struct neva_batch *it = batch_get(batch);

    for (int64_t f = 0; f < it->n_frames; f++) {
        char name[64];

        snprintf(name, sizeof(name), "%04" PRId64 "-%" PRId64 ".png", number, f);
        if (write_frame(folder, name, it->pixels + f * size * size * 3, size, err) < 0 ||
            json_append(names, json_new_string(name), err) < 0)
            return -1;
    }
    return 0;
}

static int set_copy(struct json *object, const char *key, const struct json *line,
                    const char *from, struct err *err)
{
    const struct json *value = json_get(line, from);

    return json_set(object, key, value ? json_clone(value) : json_new(JSON_NULL), err);
}

static int example_fill(struct json *example, const struct json *line,
                        const char *question, struct err *err)
{
    char *copy = strdup(question);
    int rc = -1;

    if (!copy)
        return err_set(err, ERR_NOMEM, "out of memory");
    if (set_copy(example, "id", line, "id", err) == 0 &&
        set_copy(example, "category", line, "category", err) == 0 &&
        json_set(example, "question", json_new_string(results_trim(copy)), err) == 0 &&
        set_copy(example, "expected", line, "expected", err) == 0 &&
        set_copy(example, "given", line, "pred_answer", err) == 0)
        rc = set_copy(example, "is_correct", line, "is_correct", err);
    free(copy);
    return rc;
}

static int example_add(struct json *examples, const char *folder, struct batch *batch,
                       const struct json *results, int64_t number, int64_t size,
                       struct err *err)
{
    const struct json *line = json_at(results, (size_t)number);
    struct json *example = json_new(JSON_OBJECT), *names = json_new(JSON_ARRAY);
    struct buf question = BUF_INIT;
    int rc = -1;

    if (batch_plan(batch, &number, 1, err) == 0 && batch_finish(batch, err) == 0 &&
        example_question(&question, line, err) == 0 &&
        example_fill(example, line, buf_str(&question), err) == 0 &&
        write_frames(names, folder, batch, number, size, err) == 0) {
        rc = json_set(example, "frames", names, err);
        names = NULL;
        if (rc == 0) {
            rc = json_append(examples, example, err);
            example = NULL;
        }
    }
    buf_fini(&question);
    json_free(names);
    json_free(example);
    return rc;
}

int examples_write(const char *folder, const struct batch_source *source,
                   const struct json *results, int64_t n, struct err *err)
{
    int64_t picked[EXAMPLES_MAX], n_picked;
    struct json *examples = json_new(JSON_ARRAY);
    struct batch *batch = NULL;
    char path[FS_PATH_MAX];
    int rc = -1;

    n_picked = results_pick(results, picked, n < EXAMPLES_MAX ? n : EXAMPLES_MAX);
    if (fs_path(path, err, "%s/examples", folder) < 0 ||
        fs_make_dirs(path, 0755, err) < 0 || batch_create(&batch, source, 1, err) < 0)
        goto out;
    for (int64_t i = 0; i < n_picked; i++)
        if (example_add(examples, path, batch, results, picked[i],
                        source->frames->image_size, err) < 0)
            goto out;
    rc = json_file_write(path, "examples.json", examples, err);
out:
    batch_destroy(batch);
    json_free(examples);
    return rc;
}
