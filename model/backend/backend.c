#include "model/backend/backend.h"
#include "model/backend/create.h"

#include "common/base/log.h"

#include <string.h>

static int create_cpu(struct backend **out, int n_threads, struct err *err)
{
#ifdef VNEVA_HAVE_ONEDNN
    return backend_cpu_create(out, n_threads, err);
#else
    (void)out;
    (void)n_threads;
    return err_set(err, ERR_UNSUPPORTED,
                   "backend 'cpu' was not built because oneDNN was not found: install "
                   "libdnnl-dev and build again, or use 'ref' (slow)");
#endif
}

/* The first of cuda, cpu, ref that is to be had. Only "not here" leads to the next one:
 * a GPU that is there but broken is an error to be seen. */
int backend_create_auto(struct backend **out, int device, int n_threads, struct err *why,
                        struct err *err)
{
    struct err no_cpu = {0};

    *why = (struct err){0};
    if (backend_cuda_create(out, device, why) == 0)
        return 0;
    if (why->code != ERR_UNSUPPORTED) {
        if (err)
            *err = *why;
        return -1;
    }
    if (create_cpu(out, n_threads, &no_cpu) == 0)
        return 0;
    if (no_cpu.code == ERR_UNSUPPORTED)
        return backend_ref_create(out, err);
    if (err)
        *err = no_cpu;
    return -1;
}

int backend_create(struct backend **out, const char *name, int device, int n_threads,
                   struct err *err)
{
    struct err why;

    *out = NULL;
    if (n_threads < 0)
        return err_set(err, ERR_INVALID, "number of threads is %d, must not be negative",
                       n_threads);
    if (strcmp(name, "ref") == 0)
        return backend_ref_create(out, err);
    if (strcmp(name, "cpu") == 0)
        return create_cpu(out, n_threads, err);
    if (strcmp(name, "cuda") == 0)
        return backend_cuda_create(out, device, err);
    if (strcmp(name, "auto") == 0)
        return backend_create_auto(out, device, n_threads, &why, err);
    return err_set(err, ERR_INVALID,
                   "unknown backend '%s': use 'auto', 'cuda', 'cpu' or 'ref'", name);
}

void backend_destroy(struct backend *b)
{
    if (b)
        b->ops->destroy(b);
}

bool backend_is_fast(const struct backend *b, enum dtype dtype)
{
    return b->ops->is_fast(b, dtype);
}

void backend_allow_tf32(struct backend *b, bool is_allowed)
{
    if (b->ops->allow_tf32)
        b->ops->allow_tf32(b, is_allowed);
}

int backend_replay(struct backend *b, const struct backend_stretch *stretch,
                   int (*run)(void *context, struct err *err), void *context,
                   struct err *err)
{
    uint64_t n_before = b->replay.n_refused;
    int rc;

    if (!b->ops->replay)
        return run(context, err);
    rc = b->ops->replay(b, stretch, run, context, err);
    if (n_before == 0 && b->replay.n_refused > 0)
        log_warn("backend '%s' asks for some operations one by one each time: %s",
                 b->ops->name, b->replay.refusal.text);
    return rc;
}

/* Bytes of a tensor of these dimensions, or -1 when they overflow or are negative. */
static int tensor_size(enum dtype dtype, int n_dims, const int64_t *dims, size_t *n_bytes)
{
    size_t size = dtype_bytes(dtype);

    for (int i = 0; i < n_dims; i++) {
        if (dims[i] < 0 || (dims[i] && size > (size_t)INT64_MAX / (size_t)dims[i]))
            return -1;
        size *= (size_t)dims[i];
    }
    *n_bytes = size;
    return 0;
}

int backend_tensor(struct backend *b, struct tensor *out, enum dtype dtype, int n_dims,
                   const int64_t *dims, struct err *err)
{
    void *data;
    size_t n_bytes;

    if (n_dims < 0 || n_dims > TENSOR_DIMS_MAX)
        return err_set(err, ERR_INVALID,
                       "tensor has %d dimensions, at most %d are possible", n_dims,
                       TENSOR_DIMS_MAX);
    if (tensor_size(dtype, n_dims, dims, &n_bytes) < 0)
        return err_set(err, ERR_INVALID, "size of tensor overflows or is negative");
    if (b->ops->alloc(b, &data, n_bytes, err) < 0)
        return -1;
    if (b->ops->zero(b, data, n_bytes, err) < 0) {
        b->ops->free(b, data);
        return -1;
    }
    *out = tensor_of(data, dtype, n_dims, dims);
    return 0;
}
