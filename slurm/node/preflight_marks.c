/* Whether what a job makes is made where all nodes see it: node 0 leaves a mark there. */
#include "common/base/fs.h"
#include "slurm/node/preflight_facts.h"
#include "slurm/node/probe.h"

#define MARK_MS 10000 /* for a small file */
#define MARK_PREFIX ".vneva-preflight-"

static int append_mark(struct json *paths, const char *key, const char *path,
                       struct err *err)
{
    struct json *mark = json_new(JSON_OBJECT);

    if (facts_string(mark, "key", key, err) < 0 ||
        facts_string(mark, "path", path, err) < 0 ||
        json_set(mark, "is_mark", json_new_bool(true), err) < 0) {
        json_free(mark);
        return -1;
    }
    return json_append(paths, mark, err);
}

static int leave_mark(struct json *paths, struct json *made, const char *nonce,
                      struct err *err)
{
    char file[FS_PATH_MAX];
    struct probe folder = {.kind = PROBE_MAKE,
                           .path = (char *)json_get_text(made, "path")};
    struct probe mark = {.kind = PROBE_WRITE, .path = file, .text = (char *)nonce};

    if (probe_all(&folder, 1, MARK_MS, err) < 0)
        return -1;
    if (*folder.why)
        return 0; /* this node's facts will have it */
    if (fs_path(file, err, "%.*s/" MARK_PREFIX "%s", (int)folder.n_bytes, folder.path,
                nonce) < 0 ||
        probe_all(&mark, 1, MARK_MS, err) < 0)
        return -1;
    if (*mark.why)
        return facts_string(made, "unwritten", mark.why, err);
    return append_mark(paths, json_get_text(made, "key"), file, err);
}

int marks_leave(struct json *paths, const char *nonce, struct err *err)
{
    size_t n = json_count(paths);

    for (size_t i = 0; i < n; i++)
        if (json_bool(json_get(json_at(paths, i), "is_made"), false) &&
            leave_mark(paths, json_at(paths, i), nonce, err) < 0)
            return -1;
    return 0;
}

void marks_remove(const struct json *paths)
{
    for (size_t i = 0; i < json_count(paths); i++)
        if (json_bool(json_get(json_at(paths, i), "is_mark"), false))
            fs_remove_tree(json_get_text(json_at(paths, i), "path"), NULL);
}
