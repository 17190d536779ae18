#include "worker/rank/trained_on.h"

#include "common/base/log.h"
#include "dataprep/dataset/manifest.h"

#include <string.h>

/* The first text that both lists hold, or NULL. */
static const char *find_shared(const struct json *a, const struct json *b)
{
    for (size_t i = 0; i < json_count(a); i++)
        for (size_t j = 0; j < json_count(b); j++) {
            const char *x = json_string(json_at(a, i)), *y = json_string(json_at(b, j));

            if (x && y && strcmp(x, y) == 0)
                return x;
        }
    return NULL;
}

static const struct json *files_of(const struct manifest *manifest)
{
    return json_get(json_get(manifest->tree, "settings"), "data_paths");
}

/* The file that both datasets were made of goes to *file, "" for none. */
static int find_file(struct buf *file, const struct manifest *prompts, const char *folder,
                     struct err *err)
{
    struct manifest learnt;
    struct err none;
    const char *shared;

    if (manifest_load(&learnt, folder, &none) < 0)
        return 0;
    shared = find_shared(files_of(prompts), files_of(&learnt));
    buf_add_str(file, shared ? shared : "");
    manifest_fini(&learnt);
    return buf_check(file, err);
}

int trained_on_note(struct json *table, const char *prompts,
                    const struct spec_list *trained, struct err *err)
{
    struct buf file = BUF_INIT;
    struct manifest asked;
    int64_t i = 0;
    int rc = 0;

    if (manifest_load(&asked, prompts, err) < 0)
        return -1;
    for (; rc == 0 && i < trained->count && !file.n_bytes; i++)
        rc = find_file(&file, &asked, trained->items[i], err);
    if (rc == 0 && file.n_bytes) {
        log_warn("the model was trained on '%s', which is of '%s' as prompt_file '%s' "
                 "is: answers say what it remembers",
                 trained->items[i - 1], buf_str(&file), prompts);
        rc = json_set(table, "trained_on", json_new_string(buf_str(&file)), err);
    }
    manifest_fini(&asked);
    buf_fini(&file);
    return rc;
}
