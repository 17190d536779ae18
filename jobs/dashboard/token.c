#include "jobs/dashboard/token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char token_letters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=";

/* text: what the file holds; its last newline is not part of the token. */
static int take_text(struct token *out, char *text, const char *path, struct err *err)
{
    size_t n = strcspn(text, "\r\n");

    if (text[n + strspn(text + n, "\r\n")] != '\0')
        return err_set(err, ERR_INVALID, "'%s' has more than one line", path);
    text[n] = '\0';
    if (n < TOKEN_MIN || n > TOKEN_MAX || strspn(text, token_letters) != n)
        return err_set(err, ERR_INVALID,
                       "'%s' holds no token: one line of %d to %d letters, digits and "
                       "-._~+/=",
                       path, TOKEN_MIN, TOKEN_MAX);
    memcpy(out->text, text, n + 1);
    return 0;
}

static int check_private(int fd, const char *path, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set(err, ERR_IO, "cannot look at '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is no file", path);
    if (st.st_mode & 077)
        return err_set(err, ERR_DENIED,
                       "others than its owner may read or write '%s'; `chmod 600` it",
                       path);
    return 0;
}

int token_load(struct token *out, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char text[TOKEN_MAX + 8];
    ssize_t n;
    int rc;

    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot open token file '%s': %s", path, strerror(errno));
    rc = check_private(fd, path, err);
    if (rc == 0) {
        n = read(fd, text, sizeof(text) - 1);
        text[n > 0 ? n : 0] = '\0';
        rc = n < 0 ? err_set(err, ERR_IO, "cannot read '%s': %s", path, strerror(errno))
                   : take_text(out, text, path, err);
    }
    close(fd);
    return rc;
}

static int make_text(struct token *out, struct err *err)
{
    uint8_t random[TOKEN_MADE_BYTES];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_set(err, ERR_IO, "no random numbers to be had: %s", strerror(errno));
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(out->text + 2 * i, 3, "%02x", random[i]);
    return 0;
}

static int make(struct token *out, const char *path, struct err *err)
{
    int fd, rc;

    if (make_text(out, err) < 0)
        return -1;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot make '%s': %s", path, strerror(errno));
    rc = dprintf(fd, "%s\n", out->text) < 0 || fsync(fd) < 0
             ? err_set(err, ERR_IO, "cannot write '%s': %s", path, strerror(errno))
             : 0;
    close(fd);
    if (rc < 0)
        unlink(path);
    return rc;
}

int token_load_or_make(struct token *out, const char *path, bool *is_new, struct err *err)
{
    struct err why;

    *is_new = false;
    if (token_load(out, path, &why) == 0)
        return 0;
    if (why.code != ERR_NOT_FOUND)
        return err_set(err, why.code, "%s", why.text);
    *is_new = true;
    return make(out, path, err);
}

bool token_is(const struct token *token, const char *given, size_t n_bytes)
{
    size_t n = strlen(token->text);
    volatile unsigned char differs = n != n_bytes || n == 0;

    for (size_t i = 0; i < TOKEN_MAX; i++) {
        unsigned char mine = (unsigned char)token->text[i];
        unsigned char theirs = n_bytes ? (unsigned char)given[i % n_bytes] : 0;

        if (i < n) /* the length is no secret: it is the documented one */
            differs = differs | (unsigned char)(mine ^ theirs);
    }
    return differs == 0;
}
