#include "model/weights/torch_file.h"

#include "common/base/hash.h"
#include "model/weights/pickle.h"
#include "model/weights/zip_map.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct torch_file {
    struct safetensors *out;
    struct zip_map zip;
    struct pickle pickle;
    const char *path;
};

/* dtype: of ours, or U8 with `foreign`. */
static const struct {
    enum pickle_global global;
    enum dtype dtype;
    int n_bytes;
    const char *foreign;
} types[] = {
    {PICKLE_FLOAT, DTYPE_F32, 4, ""},  {PICKLE_BFLOAT16, DTYPE_BF16, 2, ""},
    {PICKLE_HALF, DTYPE_F16, 2, ""},   {PICKLE_INT32, DTYPE_I32, 4, ""},
    {PICKLE_BYTE, DTYPE_U8, 1, ""},    {PICKLE_DOUBLE, DTYPE_U8, 8, "F64"},
    {PICKLE_LONG, DTYPE_U8, 8, "I64"}, {PICKLE_SHORT, DTYPE_U8, 2, "I16"},
    {PICKLE_CHAR, DTYPE_U8, 1, "I8"},  {PICKLE_BOOL, DTYPE_U8, 1, "BOOL"},
};

static const struct pickle_value *item(const struct torch_file *f,
                                       const struct pickle_value *list, size_t i)
{
    return &f->pickle.values[list->items[i]];
}

static int bad(const struct torch_file *f, const struct safetensor *tensor,
               const char *what, struct err *err)
{
    return err_set(err, ERR_FORMAT, "'%s': tensor '%s' %s", f->path, tensor->name, what);
}

/* The bytes of a storage: the entry "data/KEY". */
static const struct zip_entry *find_storage(const struct torch_file *f,
                                            const struct pickle_value *storage)
{
    const struct pickle_value *key = item(f, storage, 1);
    char name[64];

    if (key->n_text > 32)
        return NULL;
    snprintf(name, sizeof(name), "data/%.*s", (int)key->n_text, key->text);
    return zip_map_find(&f->zip, name);
}

/* Sizes and strides of rows one behind another; *count: elements. */
static int read_shape(const struct torch_file *f, const struct pickle_value *tensor,
                      struct safetensor *out, int64_t *count, struct err *err)
{
    const struct pickle_value *sizes = item(f, tensor, 2), *strides = item(f, tensor, 3);
    struct tensor *to = &out->tensor;

    if (sizes->n_items > TENSOR_DIMS_MAX || strides->n_items != sizes->n_items)
        return bad(f, out, "has a shape that cannot be", err);
    to->n_dims = (int)sizes->n_items;
    *count = 1;
    for (size_t i = 0; i < sizes->n_items; i++) {
        to->dims[i] = item(f, sizes, i)->whole;
        if (item(f, sizes, i)->kind != PICKLE_INT || to->dims[i] < 0 ||
            item(f, strides, i)->kind != PICKLE_INT)
            return bad(f, out, "has a shape that cannot be", err);
    }
    for (size_t i = sizes->n_items; i-- > 0;) {
        if (to->dims[i] != 1 && item(f, strides, i)->whole != *count)
            return bad(f, out,
                       "is not contiguous: save it again after .contiguous(), or as "
                       "safetensors",
                       err);
        if (__builtin_mul_overflow(*count, to->dims[i], count))
            return bad(f, out, "has a shape that cannot be", err);
    }
    return 0;
}

static int read_tensor(const struct torch_file *f, const struct pickle_value *tensor,
                       struct safetensor *out, struct err *err)
{
    const struct pickle_value *storage = item(f, tensor, 0);
    int64_t offset = item(f, tensor, 1)->whole, n_storage = item(f, storage, 2)->whole;
    const struct zip_entry *entry = find_storage(f, storage);
    int64_t count = 0, n_bytes, type = 0;

    while (types[type].global != (enum pickle_global)item(f, storage, 0)->whole)
        type++; /* pickle_read let no other type of storage through */
    if (read_shape(f, tensor, out, &count, err) < 0)
        return -1;
    if (!entry)
        return bad(f, out, "has a storage that is not in the file", err);
    if (n_storage < 0 ||
        __builtin_mul_overflow(n_storage, (int64_t)types[type].n_bytes, &n_bytes) ||
        (uint64_t)n_bytes != entry->n_bytes)
        return bad(f, out, "has a storage of another size than the pickle says", err);
    if (offset < 0 || offset > n_storage || count > n_storage - offset)
        return bad(f, out, "lies outside its storage", err);
    out->tensor.dtype = types[type].dtype;
    if (types[type].foreign[0]) {
        snprintf(out->foreign, sizeof(out->foreign), "%s", types[type].foreign);
        out->tensor =
            tensor_of(NULL, DTYPE_U8, 1, (const int64_t[]){count * types[type].n_bytes});
    }
    out->tensor.data = entry->data + offset * types[type].n_bytes;
    return 0;
}

static int read_name(const struct torch_file *f, const struct pickle_value *name,
                     struct safetensor *out, struct err *err)
{
    if (name->kind != PICKLE_TEXT || name->n_text >= sizeof(out->name) ||
        memchr(name->text, '\0', name->n_text))
        return err_set(err, ERR_FORMAT, "'%s': the pickle has a key that is no name",
                       f->path);
    memcpy(out->name, name->text, name->n_text);
    return 0;
}

static int read_dict(struct torch_file *f, struct err *err)
{
    const struct pickle_value *root = &f->pickle.values[f->pickle.root];

    if (root->kind != PICKLE_DICT)
        return err_set(err, ERR_FORMAT, "'%s' holds no dict of tensors", f->path);
    f->out->tensors = calloc(root->n_items / 2 + 1, sizeof(*f->out->tensors));
    if (!f->out->tensors)
        return err_set(err, ERR_NOMEM, "cannot allocate the table of '%s'", f->path);
    for (size_t i = 0; i < root->n_items; i += 2) {
        struct safetensor *to = &f->out->tensors[f->out->n_tensors];
        const struct pickle_value *value = item(f, root, i + 1);

        if (read_name(f, item(f, root, i), to, err) < 0)
            return -1;
        if (value->kind != PICKLE_TENSOR)
            return bad(f, to, "is no tensor: the file must be a state dict", err);
        if (read_tensor(f, value, to, err) < 0)
            return -1;
        f->out->n_tensors++;
    }
    return 0;
}

/* Before torch 1.6 a file was pickles one behind another; the first is this number. */
static bool is_legacy(const char *bytes, uint64_t n_bytes)
{
    static const unsigned char magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                          0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

    return n_bytes >= sizeof(magic) && memcmp(bytes, magic, sizeof(magic)) == 0;
}

static int check_byte_order(const struct torch_file *f, struct err *err)
{
    const struct zip_entry *order = zip_map_find(&f->zip, "byteorder");

    if (order && (order->n_bytes != 6 || memcmp(order->data, "little", 6) != 0))
        return err_set(err, ERR_UNSUPPORTED, "'%s' has another byte order than little",
                       f->path);
    return 0;
}

static int read_file(struct torch_file *f, struct err *err)
{
    const struct zip_entry *pickle;

    if (is_legacy(f->out->map, f->out->n_bytes))
        return err_set(
            err, ERR_UNSUPPORTED,
            "'%s' was written by torch before 1.6: write it again with a newer "
            "one, python3 -c 'import torch; torch.save(torch.load(\"FILE\", "
            "map_location=\"cpu\"), \"FILE\")'",
            f->path);
    if (zip_map_open(&f->zip, f->out->map, f->out->n_bytes, err) < 0)
        return err_wrap(err, "'%s' is no file of torch.save", f->path);
    pickle = zip_map_find(&f->zip, "data.pkl");
    if (!pickle)
        return err_set(err, ERR_FORMAT,
                       "'%s' is no file of torch.save: it has no "
                       "data.pkl",
                       f->path);
    f->out->header_hash = hash64(pickle->data, pickle->n_bytes,
                                 hash64(f->zip.directory, f->zip.n_directory, 0));
    if (check_byte_order(f, err) < 0)
        return -1;
    if (pickle_read(&f->pickle, pickle->data, pickle->n_bytes, err) < 0)
        return err_wrap(err, "'%s'", f->path);
    return read_dict(f, err);
}

int torch_file_open(struct safetensors *out, const char *path, struct err *err)
{
    struct torch_file f = {.out = out, .path = path};
    int rc;

    *out = (struct safetensors){0};
    if (safetensors_map(out, path, err) < 0)
        return -1;
    rc = read_file(&f, err);
    zip_map_close(&f.zip);
    pickle_free(&f.pickle);
    if (rc < 0)
        safetensors_close(out);
    return rc;
}
