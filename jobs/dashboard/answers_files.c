/* What an evaluation left in its folder: a table, examples and their frames. The folder is
 * read here, so it must be there on this machine. It is the job's, who may put into it
 * what they like: names are checked, links are not followed, sizes are bounded, and of
 * pictures only PNG is given out. */
#define _XOPEN_SOURCE 700 /* O_NOFOLLOW */
#include "common/base/json_file.h"
#include "jobs/dashboard/answers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FRAMES "frames/"

static const char png_magic[8] = {'\x89', 'P', 'N', 'G', '\r', '\n', '\x1a', '\n'};

/* The job's folder; ERR_NOT_FOUND without a job, or a folder that is to be seen here. */
static int find_folder(struct answers *answers, int64_t job, char *out, struct err *err)
{
    struct json *all = json_new(JSON_OBJECT);
    const char *folder;
    int rc = answers_put_rows(answers, all, "rows", err,
                              "SELECT folder FROM jobs WHERE id = %" PRId64, job);

    folder = json_get_string(json_at(json_get(all, "rows"), 0), "folder");
    if (rc == 0 && !json_count(json_get(all, "rows")))
        rc = err_set(err, ERR_NOT_FOUND, "no job %" PRId64, job);
    else if (rc == 0 && (!folder || !*folder || !fs_is_dir(folder)))
        rc = err_set(err, ERR_NOT_FOUND,
                     "the folder of job %" PRId64 " is not to be seen on this machine",
                     job);
    else if (rc == 0)
        rc = fs_path(out, err, "%s", folder);
    json_free(all);
    return rc;
}

/* A folder or file that is not the one asked for but a link to it is not read. */
static int open_plain(int folder, const char *name, int flags, struct err *err)
{
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags);

    if (fd < 0)
        err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open '%s': %s",
                name, strerror(errno));
    return fd;
}

/* A whole file of at most n_most bytes. */
static int read_plain(struct buf *out, int folder, const char *name, size_t n_most,
                      struct err *err)
{
    int fd = open_plain(folder, name, 0, err), rc = -1;
    char block[16384];
    struct stat st;
    ssize_t n = 0;

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size > n_most) {
        err_set(err, ERR_UNSUPPORTED, "'%s' is no file of at most %zu bytes", name,
                n_most);
    } else {
        while (out->n_bytes <= n_most && (n = read(fd, block, sizeof(block))) > 0)
            buf_add(out, block, (size_t)n);
        rc = n < 0 || out->n_bytes > n_most
                 ? err_set(err, ERR_IO, "cannot read '%s' as a whole", name)
                 : buf_check(out, err);
    }
    close(fd);
    return rc;
}

/* null where there is no such file. */
static int put_file(struct json *all, const char *key, int folder, const char *name,
                    struct err *err)
{
    struct buf text = BUF_INIT;
    struct json *json = NULL;
    struct err why;
    int rc = folder < 0 ? err_set(&why, ERR_NOT_FOUND, "no folder")
                        : read_plain(&text, folder, name, ANSWERS_EXAMPLES_MAX, &why);

    if (rc == 0)
        rc = json_parse(&json, text.data ? text.data : "", text.n_bytes, err);
    else if (why.code == ERR_NOT_FOUND)
        rc = (json = json_new(JSON_NULL)) ? 0 : err_set(err, ERR_NOMEM, "no memory");
    else
        err_set(err, why.code, "%s", why.text);
    buf_fini(&text);
    return rc < 0 ? -1 : json_set(all, key, json, err);
}

static int answer_examples(int folder, int examples, struct ask_text *out,
                           struct err *err)
{
    struct json *all = json_new(JSON_OBJECT);

    if (put_file(all, "table", folder, "table.json", err) < 0 ||
        put_file(all, "examples", examples, "examples.json", err) < 0) {
        json_free(all);
        return -1;
    }
    return answers_take_json(out, all, err);
}

static bool is_picture_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                            "0123456789_-");

    return n > 0 && n < 64 && strcmp(name + n, ".png") == 0;
}

static int answer_picture(int examples, const char *name, struct ask_text *out,
                          struct err *err)
{
    struct buf bytes = BUF_INIT;

    if (!is_picture_name(name) || examples < 0)
        return err_set(err, ERR_NOT_FOUND, "there is no picture '%s'", name);
    if (read_plain(&bytes, examples, name, ANSWERS_PICTURE_MAX, err) < 0 ||
        bytes.n_bytes < sizeof(png_magic) ||
        memcmp(bytes.data, png_magic, sizeof(png_magic)) != 0) {
        buf_fini(&bytes);
        return err_set(err, ERR_NOT_FOUND, "there is no picture '%s'", name);
    }
    out->type = "image/png";
    out->may_be_kept = 1;
    return answers_take_buf(out, &bytes, err);
}

int answers_files(struct answers *answers, int64_t job, const char *rest,
                  struct ask_text *out, struct err *err)
{
    bool is_picture = strncmp(rest, FRAMES, strlen(FRAMES)) == 0;
    char path[FS_PATH_MAX];
    int folder, examples, rc;

    if (!is_picture && strcmp(rest, "examples") != 0)
        return err_set(err, ERR_NOT_FOUND, "there is nothing at '%s' of a job", rest);
    if (find_folder(answers, job, path, err) < 0)
        return -1;
    folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    examples = open_plain(folder, "examples", O_DIRECTORY, NULL);
    rc = is_picture ? answer_picture(examples, rest + strlen(FRAMES), out, err)
                    : answer_examples(folder, examples, out, err);
    if (examples >= 0)
        close(examples);
    close(folder);
    return rc;
}
