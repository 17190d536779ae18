#include "dataprep/annotations/annotations.h"

#include "common/base/fs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct scanner {
    FILE *file;
    const char *path;
    int64_t line, column, offset; /* of the next byte */
    struct buf text;              /* of the record that is being read */
    struct annotation record;
    int (*each)(void *state, const struct annotation *annotation, struct err *err);
    void *state;
};

/* c: the byte that was just read and is wrong, or EOF. */
static int fail(const struct scanner *s, int c, struct err *err, const char *what)
{
    return err_set(err, ERR_FORMAT, "'%s' line %lld, column %lld: %s", s->path,
                   (long long)s->line, (long long)s->column - (c != EOF), what);
}

static int next(struct scanner *s)
{
    int c = getc_unlocked(s->file);

    if (c == EOF)
        return EOF;
    s->offset++;
    s->column++;
    if (c == '\n') {
        s->line++;
        s->column = 1;
    }
    return c;
}

static bool is_space(int c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The record begins with the byte that was just read. */
static void begin(struct scanner *s, int c)
{
    s->record = (struct annotation){
        .line = s->line, .column = s->column - 1, .offset = s->offset - 1};
    buf_reset(&s->text);
    buf_add_char(&s->text, (char)c);
}

static int add(struct scanner *s, int c, struct err *err)
{
    if (s->text.n_bytes >= ANNOTATION_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "'%s' line %lld: a record of more than %d bytes",
                       s->path, (long long)s->record.line, ANNOTATION_MAX_BYTES);
    buf_add_char(&s->text, (char)c);
    return 0;
}

/* The record is complete; spaces at its end are cut off. */
static int finish(struct scanner *s, struct err *err)
{
    if (buf_check(&s->text, err) < 0)
        return -1;
    while (s->text.n_bytes && is_space(s->text.data[s->text.n_bytes - 1]))
        s->text.data[--s->text.n_bytes] = '\0';
    s->record.n_bytes = (int64_t)s->text.n_bytes;
    s->record.text = buf_str(&s->text);
    return s->each(s->state, &s->record, err);
}

static int skip_spaces(struct scanner *s)
{
    int c = next(s);

    while (is_space(c))
        c = next(s);
    return c;
}

static int scan_lines(struct scanner *s, int c, struct err *err)
{
    while (c != EOF) {
        if (is_space(c)) {
            c = next(s);
            continue;
        }
        begin(s, c);
        while ((c = next(s)) != EOF && c != '\n')
            if (add(s, c, err) < 0)
                return -1;
        if (finish(s, err) < 0)
            return -1;
    }
    return 0;
}

/* Reads one element, whose first byte is c, up to the ',' or ']' behind it, which goes
 * to *end. Only brackets and strings are looked at. */
static int scan_element(struct scanner *s, int c, int *end, struct err *err)
{
    bool in_string = c == '"', is_escaped = false;
    int64_t depth = c == '{' || c == '[';

    begin(s, c);
    for (;;) {
        c = next(s);
        if (c == EOF)
            return fail(s, c, err, "the file ends inside of a record; is it cut off?");
        if (!in_string && depth <= 0 && (c == ',' || c == ']'))
            break;
        if (add(s, c, err) < 0)
            return -1;
        if (in_string) {
            in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
        } else {
            in_string = c == '"';
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        }
    }
    *end = c;
    return finish(s, err);
}

static int scan_array(struct scanner *s, int c, struct err *err)
{
    while (is_space(c))
        c = next(s);
    if (c != '[')
        return fail(s, c, err,
                    "'[' expected: a .json file is one array of records; name it .jsonl "
                    "when it has one record a line");
    c = skip_spaces(s);
    if (c == ']')
        goto closed;
    for (;;) {
        int end = 0;

        if (c == EOF)
            return fail(s, c, err, "the file ends before ']'; is it cut off?");
        if (c == ',' || c == ']')
            return fail(s, c, err, "record expected");
        if (scan_element(s, c, &end, err) < 0)
            return -1;
        if (end == ']')
            break;
        c = skip_spaces(s);
    }
closed:
    c = skip_spaces(s);
    if (c != EOF)
        return fail(s, c, err, "more text after the array");
    return 0;
}

/* The first byte, after a byte order mark when there is one. */
static int skip_mark(struct scanner *s)
{
    int c = next(s);

    if (c != 0xEF)
        return c;
    next(s);
    next(s);
    s->column = 1;
    return next(s);
}

static bool is_lines(const char *path)
{
    size_t n = strlen(path);

    return n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

int annotations_scan(const char *path,
                     int (*each)(void *state, const struct annotation *annotation,
                                 struct err *err),
                     void *state, struct err *err)
{
    struct scanner s = {.path = path,
                        .line = 1,
                        .column = 1,
                        .text = BUF_INIT,
                        .each = each,
                        .state = state};
    int c, rc;

    s.file = fopen(path, "rbe");
    if (!s.file)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot open annotations '%s': %s", path, strerror(errno));
    c = skip_mark(&s);
    if (c == 0xFF || c == 0xFE) /* no byte of UTF-8, but UTF-16's mark */
        rc = fail(&s, c, err, "the file is not UTF-8 but UTF-16: save it as UTF-8");
    else
        rc = is_lines(path) ? scan_lines(&s, c, err) : scan_array(&s, c, err);
    if (ferror(s.file))
        rc = fs_is_dir(path) ? err_set(err, ERR_INVALID,
                                       "'%s' is a folder: name annotation files", path)
                             : err_set(err, ERR_IO, "cannot read annotations '%s'", path);
    fclose(s.file);
    buf_fini(&s.text);
    return rc;
}

int annotations_read(struct buf *out, int fd, const char *path, int64_t offset,
                     int64_t n_bytes, struct err *err)
{
    char *bytes;
    int64_t done = 0;

    if (n_bytes < 0 || n_bytes > ANNOTATION_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "a record of %lld bytes in '%s'",
                       (long long)n_bytes, path);
    bytes = malloc((size_t)n_bytes + 1);
    if (!bytes)
        return err_set(err, ERR_NOMEM, "cannot allocate a record of '%s'", path);
    while (done < n_bytes) {
        ssize_t n = pread(fd, bytes + done, (size_t)(n_bytes - done), offset + done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += n;
    }
    if (done == n_bytes)
        buf_add(out, bytes, (size_t)n_bytes);
    free(bytes);
    if (done < n_bytes)
        return err_set(err, ERR_IO, "'%s' is shorter than when it was planned", path);
    return buf_check(out, err);
}
