#include "dataprep/vneva_data.h"

#include "common/base/fs.h"
#include "common/base/json.h"
#include "dataprep/dataset/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: vneva data rejects FOLDER [--json]\n"
    "\n"
    "Lists every record that the prepared dataset in FOLDER refused: where it stands, "
    "its\n"
    "id, the kind of reason and the reason; then how many of each kind. Also of a "
    "dataset\n"
    "that failed because of its rejects.\n"
    "\n"
    "  --json   one JSON object a line: file, line, id, kind, reason\n"
    "\n"
    "Exit status: 0 done (also when there are rejects), 2 wrong usage or no such "
    "dataset,\n"
    "5 an error of the system.\n"
    "\n"
    "Example:\n"
    "  vneva data rejects datasets/train\n";

/* For a terminal: one line, whatever bytes a name has. */
static void print_text(const char *before, const char *text)
{
    fputs(before, stdout);
    for (; *text; text++)
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

static int print_reject(struct json *counts, const char *line, size_t n_bytes,
                        struct err *err)
{
    struct json *reject = NULL;
    const char *kind;
    int rc = -1;

    if (json_parse(&reject, line, n_bytes, err) < 0)
        return -1;
    kind = json_get_string(reject, "kind");
    if (!kind || !json_get_string(reject, "file") || !json_get_string(reject, "id") ||
        !json_get_string(reject, "reason")) {
        err_set(err, ERR_FORMAT, "a line lacks file, id, kind or reason");
    } else {
        print_text("", json_get_string(reject, "file"));
        printf(":%lld", (long long)json_get_int(reject, "line", 0));
        print_text(": ", json_get_string(reject, "id"));
        print_text(": ", kind);
        print_text(": ", json_get_string(reject, "reason"));
        putchar('\n');
        rc = json_set(counts, kind, json_new_int(json_get_int(counts, kind, 0) + 1), err);
    }
    json_free(reject);
    return rc;
}

static int print_list(const char *path, bool as_json, struct err *err)
{
    FILE *file = fopen(path, "re");
    struct json *counts = json_new(JSON_OBJECT);
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    int rc = 0;

    if (!file) {
        json_free(counts);
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot open '%s': %s (is it a prepared dataset?)", path,
                       strerror(errno));
    }
    while (rc == 0 && (n = getline(&line, &capacity, file)) > 0) {
        if (as_json)
            fputs(line, stdout);
        else
            rc = print_reject(counts, line, (size_t)n, err);
    }
    for (size_t i = 0; rc == 0 && i < json_count(counts); i++)
        printf("%s%s: %lld\n", i ? "" : "\n", json_key_at(counts, i),
               (long long)json_int(json_at(counts, i), 0));
    if (rc == 0 && !as_json && !json_count(counts))
        puts("no rejects");
    free(line);
    json_free(counts);
    fclose(file);
    return rc < 0 ? err_wrap(err, "'%s'", path) : 0;
}

static int run(const struct args *args, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/%s", args->words[0], MANIFEST_REJECTS) < 0 ||
        print_list(path, args_has(args, "json"), err) < 0)
        return -1;
    return DATA_DONE;
}

static const struct args_option options[] = {{.name = "json"}, {0}};

const struct program_command data_rejects = {
    "rejects", "vneva data rejects", help, options, "one FOLDER", 1, 1, run};
