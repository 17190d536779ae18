#include "dataprep/annotations/record.h"

#include <string.h>

static const char *const keys[] = {[MEDIA_VIDEO] = "video", [MEDIA_IMAGE] = "image"};

int record_id(struct buf *out, const struct json *record)
{
    const struct json *id = json_get(record, "id");

    if (json_type(id) == JSON_STRING && json_string_bytes(id))
        buf_add_str(out, json_string(id));
    else if (json_type(id) == JSON_INT)
        buf_printf(out, "%lld", (long long)json_int(id, 0));
    else
        return -1;
    return 0;
}

/* Number of media a record names under a key. */
static int64_t count_names(const struct json *value)
{
    if (json_type(value) == JSON_NULL)
        return 0;
    return json_type(value) == JSON_ARRAY ? (int64_t)json_count(value) : 1;
}

/* A name must stay below the media root: no absolute path, no "..". */
static int check_name(const char *name, size_t n_bytes, struct err *err)
{
    if (!name || !n_bytes || strlen(name) != n_bytes)
        return err_set(err, ERR_INVALID, "a media name is no text, empty or holds a NUL");
    if (n_bytes >= MEDIA_PATH_MAX)
        return err_set(err, ERR_LIMIT, "a media name of %zu bytes, at most %d fit",
                       n_bytes, MEDIA_PATH_MAX - 1);
    if (name[0] == '/')
        return err_set(err, ERR_DENIED,
                       "'%s' is an absolute path; name media below the media root", name);
    for (const char *part = name; part; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return err_set(err, ERR_DENIED, "'%s' leads out of the media root", name);
    }
    return 0;
}

static int read_segment(double *start_s, double *end_s, const struct json *record,
                        struct err *err)
{
    const struct json *start = json_get(record, "start");
    const struct json *end = json_get(record, "end");

    *start_s = json_double(start, 0);
    *end_s = json_double(end, 0);
    if ((json_type(start) != JSON_NULL && json_double(start, -1) < 0) ||
        (json_type(end) != JSON_NULL && json_double(end, -1) <= *start_s))
        return err_set(err, ERR_INVALID,
                       "'start' and 'end' must be seconds, 0 <= start < end");
    return 0;
}

static int check_counts(const struct json *record, const enum media_kind *placeholders,
                        int64_t n, struct err *err)
{
    for (int kind = MEDIA_VIDEO; kind <= MEDIA_IMAGE; kind++) {
        int64_t n_names = count_names(json_get(record, keys[kind])), n_wanted = 0;

        for (int64_t i = 0; i < n; i++)
            n_wanted += (int)placeholders[i] == kind;
        if (n_names != n_wanted)
            return err_set(err, ERR_INVALID,
                           "%lld <%s> placeholders in the human turns, but %lld under "
                           "'%s'",
                           (long long)n_wanted, keys[kind], (long long)n_names,
                           keys[kind]);
    }
    return 0;
}

int record_find_media(struct record_media *out, const struct json *record,
                      const enum media_kind *placeholders, int64_t n, struct err *err)
{
    size_t next[2] = {0, 0};
    double start_s, end_s;

    if (check_counts(record, placeholders, n, err) < 0 ||
        read_segment(&start_s, &end_s, record, err) < 0)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        enum media_kind kind = placeholders[i];
        const struct json *value = json_get(record, keys[kind]);

        if (json_type(value) == JSON_ARRAY)
            value = json_at(value, next[kind]++);
        if (check_name(json_string(value), json_string_bytes(value), err) < 0)
            return -1;
        out[i] = (struct record_media){.kind = kind, .name = json_string(value)};
        if (kind == MEDIA_VIDEO) {
            out[i].start_s = start_s;
            out[i].end_s = end_s;
        }
    }
    return 0;
}
