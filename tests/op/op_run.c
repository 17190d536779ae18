#include "tests/op/op_run.h"

#include "common/base/rng.h"
#include "model/backend/half.h"

#include <stdlib.h>
#include <string.h>

void op_check(struct op_run *run, int rc)
{
    if (rc < 0)
        run->has_failed = true;
}

static struct tensor new_tensor(struct op_run *run, enum dtype dtype,
                                const int64_t dims[4])
{
    struct tensor x = {0};
    int n_dims = 0;

    while (n_dims < 4 && dims[n_dims] > 0)
        n_dims++;
    op_check(run, backend_tensor(run->b, &x, dtype, n_dims, dims, &run->err));
    if (!run->has_failed)
        run->memory[run->n_memory++] = x.data;
    return x;
}

static void encode(void *to, enum dtype dtype, int64_t i, float value)
{
    if (dtype == DTYPE_F32)
        ((float *)to)[i] = value;
    else if (dtype == DTYPE_BF16)
        ((uint16_t *)to)[i] = bf16_of_float(value);
    else if (dtype == DTYPE_F16)
        ((uint16_t *)to)[i] = f16_of_float(value);
    else
        ((uint8_t *)to)[i] = (uint8_t)value;
}

static float decode(const void *from, enum dtype dtype, int64_t i)
{
    switch (dtype) {
    case DTYPE_F32:
        return ((const float *)from)[i];
    case DTYPE_BF16:
        return bf16_to_float(((const uint16_t *)from)[i]);
    case DTYPE_F16:
        return f16_to_float(((const uint16_t *)from)[i]);
    case DTYPE_I32:
        return (float)((const int32_t *)from)[i];
    case DTYPE_U8:
        return (float)((const uint8_t *)from)[i];
    }
    return 0;
}

struct tensor op_input(struct op_run *run, const char *name, enum dtype dtype,
                       double spread, double mean, const int64_t dims[4])
{
    struct tensor x = new_tensor(run, dtype, dims);
    struct rng_key key = {rng_stream(run->op->name), rng_stream(name)};
    int64_t n = tensor_count(&x);
    void *host = malloc(tensor_bytes(&x) + 1);

    for (int64_t i = 0; host && i < n; i++) {
        double value = dtype == DTYPE_U8 ? (double)rng_below(key, (uint64_t)i, 256)
                                         : mean + spread * rng_normal(key, (uint64_t)i);

        encode(host, dtype, i, (float)value);
    }
    if (host && x.data)
        op_check(run,
                 run->b->ops->upload(run->b, x.data, host, tensor_bytes(&x), &run->err));
    free(host);
    return x;
}

struct tensor op_table(struct op_run *run, const int32_t *host, int64_t n)
{
    struct tensor x = new_tensor(run, DTYPE_I32, OP_DIMS(n));

    if (x.data)
        op_check(run,
                 run->b->ops->upload(run->b, x.data, host, tensor_bytes(&x), &run->err));
    return x;
}

/* All bits set is a NaN in every floating-point type, and -1 in I32. */
static void poison(struct op_run *run, void *data, size_t n_bytes)
{
    void *host = malloc(n_bytes + 1);

    if (host && data) {
        memset(host, 0xff, n_bytes);
        op_check(run, run->b->ops->upload(run->b, data, host, n_bytes, &run->err));
    }
    free(host);
}

struct tensor op_output(struct op_run *run, enum dtype dtype, const int64_t dims[4])
{
    struct tensor x = new_tensor(run, dtype, dims);

    poison(run, x.data, tensor_bytes(&x));
    return x;
}

void op_poison_rows(struct op_run *run, struct tensor *x, int64_t first, int64_t last)
{
    struct tensor flat = tensor_flat(x);
    struct tensor rows = tensor_rows(&flat, first, last - first);

    poison(run, rows.data, tensor_bytes(&rows));
}

void op_keep(struct op_run *run, const char *name, const struct tensor *x)
{
    int64_t n = tensor_count(x);
    void *host = malloc(tensor_bytes(x) + 1);
    float *values = malloc((size_t)(n + 1) * sizeof(*values));

    if (host && values && !run->has_failed) {
        op_check(run, run->b->ops->download(run->b, host, x->data, tensor_bytes(x),
                                            &run->err));
        for (int64_t i = 0; i < n; i++)
            values[i] = decode(host, x->dtype, i);
        run->kept[run->n_kept++] = (struct op_kept){name, values, n, x->dtype};
        values = NULL;
    }
    free(values);
    free(host);
}

void op_keep_doubles(struct op_run *run, const char *name, const double *x, int64_t n)
{
    double *host = calloc((size_t)n + 1, sizeof(*host));
    float *values = calloc((size_t)n + 1, sizeof(*values));

    if (host && values && !run->has_failed) {
        op_check(run, run->b->ops->download(run->b, host, x, (size_t)n * sizeof(*host),
                                            &run->err));
        for (int64_t i = 0; i < n; i++)
            values[i] = (float)host[i];
        run->kept[run->n_kept++] = (struct op_kept){name, values, n, DTYPE_F32};
        values = NULL;
    }
    free(values);
    free(host);
}

void op_run(struct op_run *run, struct backend *b, const struct op_case *op,
            enum dtype dtype)
{
    memset(run, 0, sizeof(*run));
    run->b = b;
    run->op = op;
    run->dtype = dtype;
    op->run(run);
    for (int i = 0; i < run->n_memory; i++)
        b->ops->free(b, run->memory[i]);
}

void op_run_free(struct op_run *run)
{
    for (int i = 0; i < run->n_kept; i++)
        free(run->kept[i].values);
    run->n_kept = 0;
}
