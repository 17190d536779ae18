/* The phases of a launch, from the files of all nodes, for people and programs. */
#include "common/base/fs.h"
#include "slurm/node/phases.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FILE_BYTES_MAX (16u << 20) /* of one node, over all launches of a run */
#define SHOWN_MAX 8                /* nodes named in a row of the table */

/* Every whole line of one node's file, appended to out. A last line that is not whole yet
 * (its node writes it, or died in it) is left out. */
static int read_lines(struct json *out, const char *path, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = fs_read_file(&text, path, FILE_BYTES_MAX, err);
    char *at = text.data, *end;

    while (rc == 0 && at && (end = strchr(at, '\n'))) {
        struct json *line;

        if (json_parse(&line, at, (size_t)(end - at), err) < 0)
            rc = err_wrap(err, "'%s'", path);
        else
            rc = json_append(out, line, err);
        at = end + 1;
    }
    buf_fini(&text);
    return rc;
}

static int read_folder(struct json *out, const char *run_folder, struct err *err)
{
    char folder[FS_PATH_MAX], path[FS_PATH_MAX];
    struct dirent *entry;
    DIR *dir;
    int rc = fs_path(folder, err, "%s/phases", run_folder);

    dir = rc == 0 ? opendir(folder) : NULL;
    if (rc == 0 && !dir)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "no launch has left its phases in '%s': %s", run_folder,
                       strerror(errno));
    while (rc == 0 && (entry = readdir(dir)))
        if (strstr(entry->d_name, ".jsonl"))
            rc = fs_path(path, err, "%s/%s", folder, entry->d_name) < 0
                     ? -1
                     : read_lines(out, path, err);
    if (dir)
        closedir(dir);
    return rc;
}

struct line {
    struct json *json;
    size_t read_as; /* of one node, lines of the same millisecond keep their order */
};

static bool is_launcher(const struct json *line)
{
    return json_get_int(line, "node", 0) == PHASES_NODE_LAUNCHER;
}

static int compare_lines(const void *a, const void *b)
{
    const struct line *one = a, *other = b;
    int64_t x = json_get_int(one->json, "at_ms", 0);
    int64_t y = json_get_int(other->json, "at_ms", 0);

    if (x != y)
        return x < y ? -1 : 1;
    if (is_launcher(one->json) != is_launcher(other->json))
        return is_launcher(one->json) ? -1 : 1; /* it comes before its nodes */
    return one->read_as < other->read_as ? -1 : 1;
}

/* The lines of the newest launch in the order of their times, and the launcher's before
 * them: how long it was queued. Borrowed from all. */
static struct line *newest(const struct json *all, size_t *n)
{
    struct line *lines = calloc(json_count(all) + 1, sizeof(*lines));
    const char *launch;
    size_t kept = 0, n_queued = 0; /* of the kept ones: the launcher's */

    *n = json_count(all);
    if (!lines || !*n)
        return lines;
    for (size_t i = 0; i < *n; i++)
        lines[i] = (struct line){json_at(all, i), i};
    qsort(lines, *n, sizeof(*lines), compare_lines);
    launch = json_get_string(lines[*n - 1].json, "launch");
    for (size_t i = 0; i < *n; i++) {
        const char *other = json_get_string(lines[i].json, "launch");

        if (launch && other && strcmp(other, launch) == 0)
            lines[kept++] = lines[i];
        else if (kept > n_queued)
            continue; /* another start of the folder at the same time */
        else if ((n_queued = is_launcher(lines[i].json)))
            lines[(kept = 1) - 1] = lines[i];
        else
            kept = 0; /* the launcher queued an earlier start than the newest */
    }
    *n = kept;
    return lines;
}

static int add_int(struct json *row, const char *key, int64_t value, struct err *err)
{
    return json_set(row, key, json_new_int(value), err);
}

static int add_string(struct json *row, const char *key, const char *value,
                      struct err *err)
{
    return json_set(row, key, json_new_string(value ? value : ""), err);
}

/* The row of the phase that a line is about, made where it is the first. */
static struct json *row_of(struct json *rows, const struct json *line, struct err *err)
{
    const char *phase = json_get_string(line, "phase");
    struct json *row;

    for (size_t i = 0; i < json_count(rows); i++)
        if (phase && strcmp(json_get_string(json_at(rows, i), "phase"), phase) == 0)
            return json_at(rows, i);
    row = json_new(JSON_OBJECT);
    if (add_string(row, "phase", phase, err) < 0 ||
        add_int(row, "began_ms", json_get_int(line, "at_ms", 0), err) < 0 ||
        add_int(row, "took_ms", 0, err) < 0 || add_int(row, "n_ok", 0, err) < 0 ||
        add_int(row, "n_failed", 0, err) < 0 || add_string(row, "text", "", err) < 0 ||
        json_set(row, "failed", json_new(JSON_ARRAY), err) < 0 ||
        json_set(row, "running", json_new(JSON_ARRAY), err) < 0) {
        json_free(row);
        return NULL;
    }
    return json_append(rows, row, err) < 0 ? NULL : json_at(rows, json_count(rows) - 1);
}

static struct json *node_of(const struct json *line, const char *key, struct json *value,
                            struct err *err)
{
    struct json *node = json_new(JSON_OBJECT);

    if (add_int(node, "node", json_get_int(line, "node", 0), err) == 0 &&
        add_string(node, "host", json_get_string(line, "host"), err) == 0 &&
        json_set(node, key, value, err) == 0)
        return node;
    json_free(node);
    return NULL;
}

/* Whether the phase that lines[i] begins has an end among the lines after it. */
static bool has_ended(struct line *lines, size_t n, size_t i)
{
    int64_t node = json_get_int(lines[i].json, "node", 0);

    for (size_t j = i + 1; j < n; j++)
        if (json_get_int(lines[j].json, "node", 0) == node &&
            strcmp(json_get_string(lines[j].json, "phase"),
                   json_get_string(lines[i].json, "phase")) == 0)
            return true;
    return false;
}

static int add_end(struct json *row, const struct json *line, struct err *err)
{
    bool is_ok = json_bool(json_get(line, "is_ok"), false);
    const char *text = json_get_string(line, "text"),
               *count = is_ok ? "n_ok" : "n_failed";
    int64_t took_ms = json_get_int(line, "took_ms", 0);

    if (took_ms > json_get_int(row, "took_ms", 0) &&
        add_int(row, "took_ms", took_ms, err) < 0)
        return -1;
    if (add_int(row, count, json_get_int(row, count, 0) + 1, err) < 0)
        return -1;
    if (!is_ok)
        return json_append(json_get(row, "failed"),
                           node_of(line, "text", json_new_string(text ? text : ""), err),
                           err);
    return text && *text ? add_string(row, "text", text, err) : 0;
}

/* What the launcher has queued ends when the first node begins. */
static int end_queued(struct json *row, const struct json *queued,
                      const struct json *first, struct err *err)
{
    int64_t took_ms = json_get_int(first, "at_ms", 0) - json_get_int(queued, "at_ms", 0);

    if (add_int(row, "took_ms", took_ms > 0 ? took_ms : 0, err) < 0)
        return -1;
    return add_int(row, "n_ok", 1, err);
}

static int add_line(struct json *rows, struct line *lines, size_t n, size_t i,
                    struct err *err)
{
    const char *event = json_get_string(lines[i].json, "event");
    struct json *row;

    if (!event || !json_get_string(lines[i].json, "phase"))
        return err_set(err, ERR_FORMAT, "a line of the phases lacks 'event' or 'phase'");
    row = row_of(rows, lines[i].json, err);
    if (!row)
        return -1;
    if (strcmp(event, "end") == 0)
        return add_end(row, lines[i].json, err);
    if (is_launcher(lines[i].json) && i + 1 < n && !is_launcher(lines[i + 1].json))
        return end_queued(row, lines[i].json, lines[i + 1].json, err);
    if (has_ended(lines, n, i))
        return 0;
    return json_append(json_get(row, "running"),
                       node_of(lines[i].json, "since_ms",
                               json_new_int(json_get_int(lines[i].json, "at_ms", 0)),
                               err),
                       err);
}

static int build(struct json *launch, const struct json *all, const char *run_folder,
                 struct err *err)
{
    size_t n = 0;
    struct line *lines = newest(all, &n);
    int rc = 0;

    if (!lines)
        return err_set(err, ERR_NOMEM, "no memory for the phases of '%s'", run_folder);
    if (!n)
        rc = err_set(err, ERR_NOT_FOUND, "no launch has left its phases in '%s'",
                     run_folder);
    else if (add_string(launch, "launch", json_get_string(lines[n - 1].json, "launch"),
                        err) < 0 ||
             add_int(launch, "began_ms", json_get_int(lines[0].json, "at_ms", 0), err) <
                 0 ||
             json_set(launch, "phases", json_new(JSON_ARRAY), err) < 0)
        rc = -1;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = add_line(json_get(launch, "phases"), lines, n, i, err);
    free(lines);
    return rc;
}

int phases_read(struct json **out, const char *run_folder, struct err *err)
{
    struct json *all = json_new(JSON_ARRAY), *launch = json_new(JSON_OBJECT);
    int rc = read_folder(all, run_folder, err);

    if (rc == 0)
        rc = build(launch, all, run_folder, err);
    json_free(all);
    if (rc < 0)
        json_free(launch);
    else
        *out = launch;
    return rc;
}

/* ---- the table ---- */

static void add_name(struct buf *out, const struct json *node)
{
    const char *host = json_get_string(node, "host");
    int64_t number = json_get_int(node, "node", 0);

    if (number == PHASES_NODE_LAUNCHER)
        buf_printf(out, "the launcher on %s", host);
    else
        buf_printf(out, "node %lld (%s)", (long long)number, host);
}

static void add_running(struct buf *out, const struct json *running, int64_t now_ms)
{
    for (size_t i = 0; i < json_count(running) && i < SHOWN_MAX; i++) {
        const struct json *node = json_at(running, i);
        int64_t for_ms = now_ms - json_get_int(node, "since_ms", now_ms);

        buf_add_str(out, i ? ", " : "in it: ");
        add_name(out, node);
        buf_printf(out, " since %.1f s", (double)(for_ms > 0 ? for_ms : 0) / 1000);
    }
    if (json_count(running) > SHOWN_MAX)
        buf_printf(out, " and %zu more", json_count(running) - SHOWN_MAX);
}

static void add_failed(struct buf *out, const struct json *failed)
{
    for (size_t i = 0; i < json_count(failed) && i < SHOWN_MAX; i++) {
        buf_add_str(out, "\n                                ");
        add_name(out, json_at(failed, i));
        buf_printf(out, ": %s", json_get_string(json_at(failed, i), "text"));
    }
    if (json_count(failed) > SHOWN_MAX)
        buf_printf(out, " and %zu more", json_count(failed) - SHOWN_MAX);
}

static void print_row(FILE *out, const struct json *row, int64_t began_ms, int64_t now_ms)
{
    const struct json *running = json_get(row, "running");
    int64_t n_ok = json_get_int(row, "n_ok", 0);
    int64_t n_failed = json_get_int(row, "n_failed", 0);
    struct buf what = BUF_INIT;

    if (n_ok)
        buf_printf(&what, "%lld ok  ", (long long)n_ok);
    if (n_failed)
        buf_printf(&what, "%lld failed  ", (long long)n_failed);
    buf_add_str(&what, json_get_string(row, "text"));
    add_running(&what, running, now_ms);
    add_failed(&what, json_get(row, "failed"));
    fprintf(out, "%-14s %7.1f s", json_get_string(row, "phase"),
            (double)(json_get_int(row, "began_ms", 0) - began_ms) / 1000);
    if (n_ok || n_failed)
        fprintf(out, " %7.1f s", (double)json_get_int(row, "took_ms", 0) / 1000);
    else
        fprintf(out, " %9s", "-");
    fprintf(out, "  %s\n", buf_str(&what));
    buf_fini(&what);
}

void phases_print(FILE *out, const struct json *launch, int64_t now_ms)
{
    const struct json *rows = json_get(launch, "phases");
    int64_t began_ms = json_get_int(launch, "began_ms", 0);
    time_t began = (time_t)(began_ms / 1000);
    char text[32] = "";
    struct tm parts;

    if (localtime_r(&began, &parts))
        strftime(text, sizeof(text), "%F %T", &parts);
    fprintf(out, "launch %s, begun %s, %.1f s ago\n", json_get_string(launch, "launch"),
            text, (double)(now_ms - began_ms) / 1000);
    fprintf(out, "%-14s %9s %9s  nodes\n", "phase", "after", "took");
    for (size_t i = 0; i < json_count(rows); i++)
        print_row(out, json_at(rows, i), began_ms, now_ms);
}
