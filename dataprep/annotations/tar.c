#include "dataprep/annotations/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 512
#define EXTENSION_MAX_BYTES (1 << 20) /* of a long name or a pax header */

struct header { /* of POSIX ustar; 512 bytes */
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
    char linkname[100], magic[6], version[2], uname[32], gname[32], devmajor[8],
        devminor[8], prefix[155], padding[12];
};

struct tar {
    int fd;
    const char *path;
    uint64_t n_bytes;
    uint64_t at;             /* of the next header */
    char name[TAR_NAME_MAX]; /* from an extension, for the next member; or "" */
    int64_t size;            /* likewise; -1: none */
};

static int damaged(const struct tar *tar, struct err *err, const char *what)
{
    return err_set(err, ERR_FORMAT, "tar '%s' is damaged at byte %llu: %s", tar->path,
                   (unsigned long long)tar->at, what);
}

static int read_at(const struct tar *tar, void *out, size_t n_bytes, uint64_t offset,
                   struct err *err)
{
    size_t done = 0;

    while (done < n_bytes) {
        ssize_t n =
            pread(tar->fd, (char *)out + done, n_bytes - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ERR_IO, "cannot read tar '%s': %s", tar->path,
                           strerror(errno));
        if (n == 0)
            return damaged(tar, err, "it ends here; is it cut off?");
        done += (size_t)n;
    }
    return 0;
}

/* An octal field, or GNU's binary one (first bit set). -1: neither. */
static int64_t read_number(const char *field, size_t n)
{
    uint64_t value = 0;
    size_t i = 0;

    if ((unsigned char)field[0] == 0x80) {
        for (i = 1; i < n; i++) {
            if (value >> 55)
                return -1;
            value = value << 8 | (unsigned char)field[i];
        }
        return (int64_t)value;
    }
    while (i < n && field[i] == ' ')
        i++;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(field[i] - '0');
    return i == n || field[i] == '\0' || field[i] == ' ' ? (int64_t)value : -1;
}

/* The sum of the header's bytes, its own field taken as spaces. */
static bool has_checksum(const struct header *header)
{
    const unsigned char *bytes = (const unsigned char *)header;
    size_t field = offsetof(struct header, checksum);
    int64_t sum = 0;

    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= field && i < field + 8 ? ' ' : bytes[i];
    return sum == read_number(header->checksum, 8);
}

static bool is_zero(const struct header *header)
{
    static const struct header zero;

    return memcmp(header, &zero, BLOCK) == 0;
}

static int set_name(struct tar *tar, const char *name, size_t n, struct err *err)
{
    n = strnlen(name, n);
    if (n >= sizeof(tar->name))
        return damaged(tar, err, "a member's name is too long");
    memcpy(tar->name, name, n);
    tar->name[n] = '\0';
    return 0;
}

/* pax records: "LENGTH KEY=VALUE\n", LENGTH counting itself. */
static int read_pax(struct tar *tar, const char *text, size_t n_bytes, struct err *err)
{
    size_t at = 0;

    while (at < n_bytes && text[at]) {
        char *space, *end;
        size_t length = strtoul(text + at, &space, 10);
        const char *value;

        if (*space != ' ' || length < 5 || length > n_bytes - at ||
            text[at + length - 1] != '\n')
            return damaged(tar, err, "a pax header is not well formed");
        value = memchr(space, '=', length - (size_t)(space - text - (ptrdiff_t)at));
        if (!value)
            return damaged(tar, err, "a pax header is not well formed");
        value++;
        if (strncmp(space, " path=", 6) == 0 &&
            set_name(tar, value, (size_t)(text + at + length - 1 - value), err) < 0)
            return -1;
        if (strncmp(space, " size=", 6) == 0) {
            tar->size = strtoll(value, &end, 10);
            if (*end != '\n' || tar->size < 0)
                return damaged(tar, err, "a pax header has no valid size");
        }
        at += length;
    }
    return 0;
}

/* A header that describes the next one: GNU long name 'L', pax 'x'. */
static int read_extension(struct tar *tar, char type, uint64_t size, struct err *err)
{
    char *text;
    int rc;

    if (size > EXTENSION_MAX_BYTES)
        return damaged(tar, err, "a long name or pax header is too large");
    text = calloc(1, (size_t)size + 1);
    if (!text)
        return err_set(err, ERR_NOMEM, "cannot allocate a header of '%s'", tar->path);
    rc = read_at(tar, text, (size_t)size, tar->at + BLOCK, err);
    if (rc == 0)
        rc = type == 'L' ? set_name(tar, text, (size_t)size, err)
                         : read_pax(tar, text, (size_t)size, err);
    free(text);
    return rc;
}

/* The member's name: from an extension, or the header's prefix and name. */
static int find_name(struct tar *tar, const struct header *header, struct err *err)
{
    char name[sizeof(header->prefix) + sizeof(header->name) + 2];
    bool has_prefix = memcmp(header->magic, "ustar", 6) == 0 && header->prefix[0];

    if (tar->name[0])
        return 0;
    snprintf(name, sizeof(name), "%.*s%s%.*s",
             has_prefix ? (int)sizeof(header->prefix) : 0, header->prefix,
             has_prefix ? "/" : "", (int)sizeof(header->name), header->name);
    return set_name(tar, name, sizeof(name), err);
}

/* One header with what follows it. */
static int scan_member(struct tar *tar, const struct header *header,
                       int (*each)(void *state, const char *name, uint64_t offset,
                                   uint64_t n_bytes, struct err *err),
                       void *state, struct err *err)
{
    int64_t size = read_number(header->size, sizeof(header->size));
    bool is_extension = header->type == 'L' || header->type == 'x';
    bool is_file = header->type == '0' || header->type == '\0' || header->type == '7';

    if (!has_checksum(header))
        return damaged(tar, err, "a header's checksum does not fit");
    if (!is_extension && header->type != 'K' && header->type != 'g' && tar->size >= 0)
        size = tar->size;
    if (size < 0)
        return damaged(tar, err, "a member has no valid size");
    if ((uint64_t)size > tar->n_bytes - tar->at - BLOCK)
        return damaged(tar, err, "a member goes past the end; is it cut off?");
    if (is_extension && read_extension(tar, header->type, (uint64_t)size, err) < 0)
        return -1;
    if (is_file) {
        const char *name = tar->name;

        if (find_name(tar, header, err) < 0)
            return -1;
        while (strncmp(name, "./", 2) == 0)
            name += 2;
        if (each(state, name, tar->at + BLOCK, (uint64_t)size, err) < 0)
            return -1;
    }
    if (!is_extension && header->type != 'K' && header->type != 'g') {
        tar->name[0] = '\0';
        tar->size = -1;
    }
    tar->at += BLOCK + ((uint64_t)size + BLOCK - 1) / BLOCK * BLOCK;
    return 0;
}

int tar_scan(const char *path,
             int (*each)(void *state, const char *name, uint64_t offset, uint64_t n_bytes,
                         struct err *err),
             void *state, struct err *err)
{
    struct tar tar = {.path = path, .size = -1};
    struct stat st;
    int rc;

    tar.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (tar.fd < 0 || fstat(tar.fd, &st) < 0) {
        err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open tar '%s': %s",
                path, strerror(errno));
        if (tar.fd >= 0)
            close(tar.fd);
        return -1;
    }
    tar.n_bytes = (uint64_t)st.st_size;
    for (;;) {
        struct header header;

        rc = read_at(&tar, &header, BLOCK, tar.at, err);
        if (rc < 0 || is_zero(&header)) /* two zero blocks end a tar; one is enough */
            break;
        rc = scan_member(&tar, &header, each, state, err);
        if (rc < 0)
            break;
    }
    close(tar.fd);
    return rc;
}
