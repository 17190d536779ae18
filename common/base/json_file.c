#include "common/base/json_file.h"

#include "common/base/fs.h"

static int read_path(struct json **out, const char *path, size_t n_most, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = fs_read_file(&text, path, n_most, err);

    if (rc == 0 && json_parse(out, buf_str(&text), text.n_bytes, err) < 0)
        rc = err_wrap(err, "'%s'", path);
    buf_fini(&text);
    return rc;
}

int json_file_read(struct json **out, const char *folder, const char *name, size_t n_most,
                   struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/%s", folder, name) < 0)
        return -1;
    return read_path(out, path, n_most, err);
}

int json_file_find(struct json **out, const char *folder, const char *name, size_t n_most,
                   struct err *err)
{
    char path[FS_PATH_MAX];

    *out = NULL;
    if (fs_path(path, err, "%s/%s", folder, name) < 0)
        return -1;
    return fs_exists(path) ? read_path(out, path, n_most, err) : 0;
}

int json_file_write(const char *folder, const char *name, const struct json *json,
                    struct err *err)
{
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    int rc = fs_path(path, err, "%s/%s", folder, name);

    json_write(&text, json, 2);
    buf_add_char(&text, '\n');
    if (rc == 0)
        rc = buf_check(&text, err);
    if (rc == 0)
        rc = fs_write_file_atomic(path, text.data, text.n_bytes, err);
    buf_fini(&text);
    return rc;
}
