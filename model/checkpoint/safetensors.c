#include "model/checkpoint/safetensors.h"

#include "common/base/fault.h"
#include "common/base/hash.h"
#include "common/base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH_BYTES 8 /* of the header's length in front of it */

/* ---- writing ---- */

static int write_all(int fd, const char *path, const void *bytes, size_t n_bytes,
                     struct err *err)
{
    const char *at = bytes;

    while (n_bytes > 0) {
        ssize_t n = write(fd, at, n_bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, ERR_IO, "cannot write '%s': %s", path, strerror(errno));
        at += n;
        n_bytes -= (size_t)n;
    }
    return 0;
}

static struct json *shape_json(const struct tensor *tensor, struct err *err)
{
    struct json *shape = json_new(JSON_ARRAY);

    for (int i = 0; i < tensor->n_dims && shape; i++)
        if (json_append(shape, json_new_int(tensor->dims[i]), err) < 0) {
            json_free(shape);
            return NULL;
        }
    return shape;
}

static struct json *entry_json(const struct tensor *tensor, size_t first, struct err *err)
{
    struct json *entry = json_new(JSON_OBJECT), *place = json_new(JSON_ARRAY);
    int64_t end = (int64_t)(first + tensor_bytes(tensor));

    if (json_append(place, json_new_int((int64_t)first), err) < 0 ||
        json_append(place, json_new_int(end), err) < 0) {
        json_free(place);
        json_free(entry);
        return NULL;
    }
    if (json_set(entry, "dtype", json_new_string(dtype_name(tensor->dtype)), err) < 0 ||
        json_set(entry, "shape", shape_json(tensor, err), err) < 0) {
        json_free(place);
        json_free(entry);
        return NULL;
    }
    if (json_set(entry, "data_offsets", place, err) < 0) {
        json_free(entry);
        return NULL;
    }
    return entry;
}

/* What "__metadata__" holds: the notes, or the format alone. */
static struct json *metadata_json(const struct safetensor *tensors, int n_tensors,
                                  const char *format, struct err *err)
{
    struct json *json = json_new(JSON_OBJECT);
    int rc = format ? json_set(json, "format", json_new_string(format), err) : 0;

    for (int i = 0; i < n_tensors && !format && rc == 0; i++)
        if (tensors[i].note[0])
            rc = json_set(json, tensors[i].name, json_new_string(tensors[i].note), err);
    if (rc == 0)
        return json;
    json_free(json);
    return NULL;
}

/* The header with its length in front, padded so that the data is aligned. format NULL:
 * with the notes. */
static int header_text(struct buf *out, const struct safetensor *tensors, int n_tensors,
                       const char *format, struct err *err)
{
    struct json *header = json_new(JSON_OBJECT);
    uint64_t length = 0;
    size_t first = 0;
    int rc = -1;

    if (json_set(header, "__metadata__", metadata_json(tensors, n_tensors, format, err),
                 err) < 0)
        goto out;
    for (int i = 0; i < n_tensors; i++) {
        if (json_set(header, tensors[i].name, entry_json(&tensors[i].tensor, first, err),
                     err) < 0)
            goto out;
        first += tensor_bytes(&tensors[i].tensor);
    }
    buf_add(out, &length, LENGTH_BYTES);
    json_write(out, header, 0);
    while (out->n_bytes % LENGTH_BYTES)
        buf_add_char(out, ' ');
    if (buf_check(out, err) < 0)
        goto out;
    length = out->n_bytes - LENGTH_BYTES;
    memcpy(out->data, &length, LENGTH_BYTES);
    rc = 0;
out:
    json_free(header);
    return rc;
}

static int hash_tensors(struct safetensor *tensors, int n_tensors,
                        const struct safetensors_source *source, void *room,
                        struct err *err)
{
    for (int i = 0; i < n_tensors; i++) {
        size_t used = strlen(tensors[i].note);

        if (source->fill(source->state, i, room, err) < 0)
            return -1;
        snprintf(tensors[i].note + used, sizeof(tensors[i].note) - used,
                 "%sxxh64=%016" PRIx64, used ? " " : "",
                 hash64(room, tensor_bytes(&tensors[i].tensor), 0));
    }
    return 0;
}

static int write_file(int fd, const char *path, const struct buf *header,
                      const struct safetensor *tensors, int n_tensors,
                      const struct safetensors_source *source, void *room,
                      struct err *err)
{
    if (write_all(fd, path, header->data, header->n_bytes, err) < 0)
        return -1;
    for (int i = 0; i < n_tensors; i++) {
        if (fault_hit("checkpoint.tensors"))
            return err_set(err, ERR_IO, "fault point checkpoint.tensors");
        if (source->fill(source->state, i, room, err) < 0 ||
            write_all(fd, path, room, tensor_bytes(&tensors[i].tensor), err) < 0)
            return -1;
    }
    if (fsync(fd) < 0)
        return err_set(err, ERR_IO, "cannot sync '%s': %s", path, strerror(errno));
    return 0;
}

/* Makes the file; room holds the largest tensor. */
static int write_path(const char *path, const struct buf *header,
                      const struct safetensor *tensors, int n_tensors,
                      const struct safetensors_source *source, void *room,
                      struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), rc;

    if (fd < 0)
        return err_set(err, ERR_IO, "cannot create '%s': %s", path, strerror(errno));
    rc = write_file(fd, path, header, tensors, n_tensors, source, room, err);
    if (close(fd) < 0 && rc == 0)
        rc = err_set(err, ERR_IO, "cannot close '%s': %s", path, strerror(errno));
    return rc;
}

/* Memory for the largest tensor; *n_total bytes are those of all. */
static void *make_room(const char *path, const struct safetensor *tensors, int n_tensors,
                       size_t *n_total, struct err *err)
{
    size_t most = 1;
    void *room;

    *n_total = 0;
    for (int i = 0; i < n_tensors; i++) {
        size_t each = tensor_bytes(&tensors[i].tensor);

        most = each > most ? each : most;
        *n_total += each;
    }
    room = malloc(most);
    if (!room)
        err_set(err, ERR_NOMEM, "cannot allocate %zu bytes to write '%s'", most, path);
    return room;
}

int safetensors_write(const char *path, struct safetensor *tensors, int n_tensors,
                      const struct safetensors_source *source, uint64_t *header_hash,
                      uint64_t *n_bytes, struct err *err)
{
    struct buf header = BUF_INIT;
    size_t n_total;
    void *room = make_room(path, tensors, n_tensors, &n_total, err);
    int rc = -1;

    if (room && hash_tensors(tensors, n_tensors, source, room, err) == 0 &&
        header_text(&header, tensors, n_tensors, NULL, err) == 0) {
        rc = write_path(path, &header, tensors, n_tensors, source, room, err);
        *header_hash = hash64(header.data, header.n_bytes, 0);
        *n_bytes = header.n_bytes + n_total;
    }
    buf_fini(&header);
    free(room);
    return rc;
}

int safetensors_write_plain(const char *path, const struct safetensor *tensors,
                            int n_tensors, const struct safetensors_source *source,
                            const char *format, struct err *err)
{
    struct buf header = BUF_INIT;
    size_t n_total;
    void *room = make_room(path, tensors, n_tensors, &n_total, err);
    int rc = -1;

    if (room && header_text(&header, tensors, n_tensors, format, err) == 0)
        rc = write_path(path, &header, tensors, n_tensors, source, room, err);
    buf_fini(&header);
    free(room);
    return rc;
}

/* ---- reading ---- */

static int bad(struct err *err, const char *path, const char *name, const char *what)
{
    return err_set(err, ERR_FORMAT, "'%s': tensor '%.*s' %s", path, SAFETENSORS_NAME_MAX,
                   name, what);
}

/* Types of the format; `known` of those that enum dtype has. */
static const struct {
    const char *name;
    bool is_known;
    enum dtype dtype;
    uint64_t n_bytes;
} types[] = {
    {"F32", true, DTYPE_F32, 4},     {"BF16", true, DTYPE_BF16, 2},
    {"F16", true, DTYPE_F16, 2},     {"I32", true, DTYPE_I32, 4},
    {"U8", true, DTYPE_U8, 1},       {"F64", false, DTYPE_U8, 8},
    {"I64", false, DTYPE_U8, 8},     {"U64", false, DTYPE_U8, 8},
    {"U32", false, DTYPE_U8, 4},     {"I16", false, DTYPE_U8, 2},
    {"U16", false, DTYPE_U8, 2},     {"I8", false, DTYPE_U8, 1},
    {"BOOL", false, DTYPE_U8, 1},    {"F8_E4M3", false, DTYPE_U8, 1},
    {"F8_E5M2", false, DTYPE_U8, 1},
};

static int type_of(const char *name)
{
    for (int i = 0; name && i < (int)(sizeof(types) / sizeof(types[0])); i++)
        if (strcmp(types[i].name, name) == 0)
            return i;
    return -1;
}

/* Shape and dtype; -1 when they are not what they should be. *n_bytes: what they take. */
static int read_shape(struct safetensor *to, const struct json *entry, uint64_t *n_bytes)
{
    const struct json *shape = json_get(entry, "shape");
    int type = type_of(json_get_string(entry, "dtype"));
    struct tensor *out = &to->tensor;

    if (json_type(shape) != JSON_ARRAY || json_count(shape) > TENSOR_DIMS_MAX || type < 0)
        return -1;
    *n_bytes = types[type].n_bytes;
    *out = (struct tensor){.dtype = types[type].dtype, .n_dims = (int)json_count(shape)};
    for (int i = 0; i < out->n_dims; i++) {
        out->dims[i] = json_int(json_at(shape, (size_t)i), -1);
        if (out->dims[i] < 0 ||
            __builtin_mul_overflow(*n_bytes, (uint64_t)out->dims[i], n_bytes))
            return -1;
    }
    if (!types[type].is_known) {
        if (*n_bytes > INT64_MAX)
            return -1;
        snprintf(to->foreign, sizeof(to->foreign), "%s", types[type].name);
        *out = tensor_of(NULL, DTYPE_U8, 1, (const int64_t[]){(int64_t)*n_bytes});
    }
    return 0;
}

static int read_entry(struct safetensor *out, const char *path, const char *name,
                      const struct json *entry, const struct json *notes, char *data,
                      uint64_t data_bytes, struct err *err)
{
    const struct json *place = json_get(entry, "data_offsets");
    int64_t first = json_int(json_at(place, 0), -1),
            end = json_int(json_at(place, 1), -1);
    const char *note = json_get_string(notes, name);
    uint64_t n_bytes;

    if (strlen(name) >= sizeof(out->name))
        return bad(err, path, name, "has too long a name");
    if (read_shape(out, entry, &n_bytes) < 0)
        return bad(err, path, name, "has a shape or dtype that cannot be");
    if (json_count(place) != 2 || first < 0 || end < first ||
        (uint64_t)end > data_bytes || (uint64_t)(end - first) != n_bytes)
        return bad(err, path, name,
                   "lies outside the file or has not the size of its "
                   "shape");
    if (note && strlen(note) >= sizeof(out->note))
        return bad(err, path, name, "has too long a note");
    snprintf(out->name, sizeof(out->name), "%s", name);
    snprintf(out->note, sizeof(out->note), "%s", note ? note : "");
    out->tensor.data = data + first;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;
    const char *p = x->tensor.data, *q = y->tensor.data;

    return p == q ? (tensor_bytes(&x->tensor) > tensor_bytes(&y->tensor)) -
                        (tensor_bytes(&x->tensor) < tensor_bytes(&y->tensor))
                  : (p > q) - (p < q);
}

/* Tensors must follow each other from the data's beginning to its end. */
static int check_places(const struct safetensors *file, const char *path,
                        const char *data, uint64_t data_bytes, struct err *err)
{
    const char *at = data;

    for (int i = 0; i < file->n_tensors; i++) {
        const struct safetensor *t = &file->tensors[i];

        if ((const char *)t->tensor.data != at)
            return bad(err, path, t->name, "overlaps another or leaves a gap");
        at += tensor_bytes(&t->tensor);
    }
    if (at != data + data_bytes)
        return err_set(err, ERR_FORMAT, "'%s' has bytes behind its last tensor", path);
    return 0;
}

static int read_header(struct safetensors *out, const char *path,
                       const struct json *header, char *data, uint64_t data_bytes,
                       struct err *err)
{
    const struct json *notes = json_get(header, "__metadata__");

    if (json_type(header) != JSON_OBJECT)
        return err_set(err, ERR_FORMAT, "'%s': the header is no JSON object", path);
    out->tensors = calloc(json_count(header) + 1, sizeof(*out->tensors));
    if (!out->tensors)
        return err_set(err, ERR_NOMEM, "cannot allocate the table of '%s'", path);
    for (size_t i = 0; i < json_count(header); i++) {
        const char *name = json_key_at(header, i);

        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (read_entry(&out->tensors[out->n_tensors], path, name, json_at(header, i),
                       notes, data, data_bytes, err) < 0)
            return -1;
        out->n_tensors++;
    }
    qsort(out->tensors, (size_t)out->n_tensors, sizeof(*out->tensors), by_place);
    return check_places(out, path, data, data_bytes, err);
}

int safetensors_map(struct safetensors *out, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot open '%s': %s", path, strerror(errno));
    if (fstat(fd, &st) < 0 || st.st_size < LENGTH_BYTES) {
        close(fd);
        return err_set(err, ERR_FORMAT, "'%s' is too short for a file of tensors", path);
    }
    out->n_bytes = (uint64_t)st.st_size;
    out->map = mmap(NULL, out->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (out->map == MAP_FAILED) {
        err_set(err, ERR_IO, "cannot map '%s': %s", path, strerror(errno));
        out->map = NULL;
        return -1;
    }
    return 0;
}

static int parse(struct safetensors *out, const char *path, struct err *err)
{
    char *bytes = out->map;
    struct json *header = NULL;
    uint64_t length;
    int rc;

    memcpy(&length, bytes, LENGTH_BYTES);
    if (length > SAFETENSORS_HEADER_MAX || length > out->n_bytes - LENGTH_BYTES)
        return err_set(err, ERR_FORMAT,
                       "'%s': header of %" PRIu64 " bytes in a file of %" PRIu64, path,
                       length, out->n_bytes);
    out->header_hash = hash64(bytes, LENGTH_BYTES + length, 0);
    if (json_parse(&header, bytes + LENGTH_BYTES, length, err) < 0)
        return err_wrap(err, "header of '%s'", path);
    rc = read_header(out, path, header, bytes + LENGTH_BYTES + length,
                     out->n_bytes - LENGTH_BYTES - length, err);
    json_free(header);
    return rc;
}

int safetensors_open(struct safetensors *out, const char *path, struct err *err)
{
    *out = (struct safetensors){0};
    if (safetensors_map(out, path, err) < 0)
        return -1;
    if (parse(out, path, err) < 0) {
        safetensors_close(out);
        return -1;
    }
    return 0;
}

void safetensors_close(struct safetensors *file)
{
    free(file->tensors);
    if (file->map)
        munmap(file->map, file->n_bytes);
    *file = (struct safetensors){0};
}
