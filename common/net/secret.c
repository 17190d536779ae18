#include "common/net/secret.h"
#include "common/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_private(int fd, const char *path, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set(err, ERR_IO, "cannot look at '%s': %s", path, strerror(errno));
    if (st.st_uid != geteuid() || st.st_mode & (S_IRWXG | S_IRWXO))
        return err_set(err, ERR_DENIED,
                       "the key in '%s' can be read by others; make it private with "
                       "chmod 600",
                       path);
    if (st.st_size != NET_SECRET_BYTES)
        return err_set(
            err, ERR_FORMAT,
            "'%s' is no key of %d bytes; remove it while no job runs and a new "
            "one is made",
            path, NET_SECRET_BYTES);
    return 0;
}

static int read_key(struct net_secret *out, int fd, const char *path, struct err *err)
{
    if (check_private(fd, path, err) < 0)
        return -1;
    if (read(fd, out->bytes, sizeof(out->bytes)) != (ssize_t)sizeof(out->bytes))
        return err_set(err, ERR_IO, "cannot read '%s'", path);
    return 0;
}

/* Whoever owns the home has its lock, so nobody makes one beside us. */
static int make_key(struct net_secret *out, const char *path, struct err *err)
{
    mode_t others = umask(S_IRWXG | S_IRWXO);
    int rc;

    randombytes_buf(out->bytes, sizeof(out->bytes));
    rc = fs_write_file_atomic(path, out->bytes, sizeof(out->bytes), err);
    umask(others);
    return rc;
}

int net_secret_open(struct net_secret *out, const char *path, struct err *err)
{
    int fd, rc;

    if (sodium_init() < 0)
        return err_set(err, ERR_IO, "cannot start libsodium: no random numbers");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return make_key(out, path, err);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    rc = read_key(out, fd, path, err);
    close(fd);
    return rc;
}

void net_secret_derive(struct net_secret *out, const struct net_secret *key, int64_t job,
                       int64_t attempt)
{
    struct {
        char what[16];
        int64_t job, attempt;
    } name = {"vneva attempt", job, attempt};

    _Static_assert(NET_SECRET_BYTES == crypto_auth_KEYBYTES, "the key is one of HMAC");
    _Static_assert(NET_SECRET_BYTES == crypto_auth_BYTES, "a secret is a whole MAC");
    crypto_auth(out->bytes, (const unsigned char *)&name, sizeof(name), key->bytes);
}

int net_secret_take(struct net_secret *out, const struct wire_bytes *bytes,
                    struct err *err)
{
    if (bytes->n_bytes != sizeof(out->bytes))
        return err_set(err, ERR_PEER,
                       "the coordinator sent a secret of %zu bytes, not %d",
                       bytes->n_bytes, NET_SECRET_BYTES);
    memcpy(out->bytes, bytes->data, sizeof(out->bytes));
    return 0;
}

void net_secret_forget(struct net_secret *secret)
{
    sodium_memzero(secret, sizeof(*secret));
}
