#include "model/weights/manifest.h"

#include "common/base/fs.h"
#include "common/base/json_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int manifest_read(struct json **out, const char *folder, struct err *err)
{
    struct json *root = NULL;
    const char *format;
    int64_t version;

    if (json_file_read(&root, folder, "checkpoint.json", MANIFEST_JSON_MAX, err) < 0)
        return err_wrap(err, "'%s' is no complete checkpoint", folder);
    format = json_get_string(root, "format");
    version = json_get_int(root, "version", -1);
    if (!format || strcmp(format, MANIFEST_FORMAT) != 0) {
        err_set(err, ERR_FORMAT, "'%s/checkpoint.json' is not a vneva checkpoint's",
                folder);
    } else if (version < MANIFEST_VERSION || version > MANIFEST_VERSION_FOREIGN) {
        err_set(err, ERR_UNSUPPORTED,
                "'%s/checkpoint.json' has version %lld, this program reads 1 to %d",
                folder, (long long)version, MANIFEST_VERSION_FOREIGN);
    } else {
        *out = root;
        return 0;
    }
    json_free(root);
    return -1;
}

int manifest_file(char *path, const char *folder, const struct json *entry,
                  struct err *err)
{
    const char *name = json_get_string(entry, "name");
    int64_t n_bytes = json_get_int(entry, "bytes", -1);
    struct stat st;

    if (!name || strchr(name, '/') || n_bytes < 0)
        return err_set(err, ERR_FORMAT,
                       "'%s/checkpoint.json': a file without name or size", folder);
    if (fs_path(path, err, "%s/%s", folder, name) < 0)
        return -1;
    if (stat(path, &st) < 0)
        return err_set(err, ERR_NOT_FOUND, "'%s' is missing", path);
    if (st.st_size != n_bytes)
        return err_set(err, ERR_FORMAT, "'%s' has %lld bytes, not %lld", path,
                       (long long)st.st_size, (long long)n_bytes);
    return 0;
}
