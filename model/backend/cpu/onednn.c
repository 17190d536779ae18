/* onednn.c - see onednn.h
 *
 * Written for oneDNN 2 (Debian 12) and 3 (Debian 13): they differ in how memory
 * descriptors are held and in the making of a primitive, nothing else.
 * Source: oneapi-src.github.io/oneDNN, "Matrix Multiplication", "Primitive Attributes:
 * Post-ops" (sum is beta), "Memory Format Propagation" (strides).
 */
#include "model/backend/cpu/onednn.h"

#include "model/backend/half.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

/* The cache: sets of a few places; a full set gives up the one unused for longest. */
#define CACHE_SETS 256
#define CACHE_WAYS 4
#define SCRATCH_ALIGN 64

/* All that a primitive depends on. Compared bytewise: cleared before it is filled. */
struct key {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t trans_a, trans_b, has_bias, has_residual;
    int32_t ab_type, c_type;
    uint32_t beta_bits, unused; /* 0: there are no holes */
};

enum { ARG_A, ARG_B, ARG_C, ARG_SCRATCH, ARG_BIAS, ARG_RESIDUAL, ARG_COUNT };

struct entry {
    struct key key;
    uint64_t last_use;
    dnnl_primitive_t primitive; /* NULL: free */
    dnnl_memory_t memory[ARG_COUNT];
    size_t scratch_bytes;
};

struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int n_threads;
    uint64_t n_uses;
    void *scratch;
    size_t scratch_bytes;
    struct entry cache[CACHE_SETS][CACHE_WAYS];
};

static int failed(struct err *err, const char *what, dnnl_status_t status)
{
    enum err_code code = status == dnnl_out_of_memory   ? ERR_NOMEM
                         : status == dnnl_unimplemented ? ERR_UNSUPPORTED
                                                        : ERR_STATE;

    return err_set(err, code, "oneDNN cannot %s (status %d)", what, (int)status);
}

/* ---- what differs between versions 2 and 3 ---- */

#if DNNL_VERSION_MAJOR >= 3
struct desc {
    dnnl_memory_desc_t md;
};
#define DESC_MD(desc) ((desc)->md)

static dnnl_status_t desc_init(struct desc *desc, const dnnl_dims_t dims,
                               const dnnl_dims_t strides, dnnl_data_type_t type)
{
    return dnnl_memory_desc_create_with_strides(&desc->md, 2, dims, type, strides);
}

static void desc_fini(struct desc *desc)
{
    if (desc->md)
        dnnl_memory_desc_destroy(desc->md);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops, float scale)
{
    return dnnl_post_ops_append_sum(ops, scale, 0, dnnl_data_type_undef);
}

static dnnl_status_t matmul_create(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                   const struct desc *a, const struct desc *b,
                                   const struct desc *bias, const struct desc *c,
                                   dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(out, engine, a->md, b->md,
                                             bias ? bias->md : NULL, c->md, attr);
}
#else
struct desc {
    dnnl_memory_desc_t md;
};
#define DESC_MD(desc) (&(desc)->md)

static dnnl_status_t desc_init(struct desc *desc, const dnnl_dims_t dims,
                               const dnnl_dims_t strides, dnnl_data_type_t type)
{
    return dnnl_memory_desc_init_by_strides(&desc->md, 2, dims, type, strides);
}

static void desc_fini(struct desc *desc)
{
    (void)desc; /* held by value */
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops, float scale)
{
    return dnnl_post_ops_append_sum(ops, scale);
}

static dnnl_status_t matmul_create(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                   const struct desc *a, const struct desc *b,
                                   const struct desc *bias, const struct desc *c,
                                   dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t matmul;
    dnnl_status_t status =
        dnnl_matmul_desc_init(&matmul, &a->md, &b->md, bias ? &bias->md : NULL, &c->md);

    if (status != dnnl_success)
        return status;
    return dnnl_primitive_desc_create(out, &matmul, attr, engine, NULL);
}
#endif

/* ---- making a primitive ---- */

static dnnl_data_type_t type_of(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* rows x cols in memory with `ld`, or the transpose of what is there */
static dnnl_status_t matrix_desc(struct desc *desc, int64_t rows, int64_t cols,
                                 int64_t ld, bool trans, enum dtype dtype)
{
    dnnl_dims_t dims = {rows, cols};
    dnnl_dims_t strides = {trans ? 1 : ld, trans ? ld : 1};

    return desc_init(desc, dims, strides, type_of(dtype));
}

static dnnl_status_t descs_init(struct desc descs[ARG_COUNT], const struct key *key)
{
    enum dtype ab = (enum dtype)key->ab_type, c = (enum dtype)key->c_type;
    dnnl_status_t status =
        matrix_desc(&descs[ARG_A], key->m, key->k, key->lda, key->trans_a, ab);

    if (status == dnnl_success)
        status = matrix_desc(&descs[ARG_B], key->k, key->n, key->ldb, key->trans_b, ab);
    if (status == dnnl_success)
        status = matrix_desc(&descs[ARG_C], key->m, key->n, key->ldc, false, c);
    if (status == dnnl_success && key->has_bias)
        status = matrix_desc(&descs[ARG_BIAS], 1, key->n, key->n, false, ab);
    if (status == dnnl_success && key->has_residual)
        status = matrix_desc(&descs[ARG_RESIDUAL], key->m, key->n, key->ldc, false, c);
    return status;
}

/* Scratch memory is ours, one for all primitives, and beta is a sum after the product, or a
 * residual is. */
static dnnl_status_t attr_create(dnnl_primitive_attr_t *attr, float beta,
                                 const struct desc *residual)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(attr);

    if (status == dnnl_success)
        status =
            dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && (beta != 0 || residual)) {
        status = dnnl_post_ops_create(&ops);
        if (status == dnnl_success && beta != 0)
            status = append_sum(ops, beta);
        if (status == dnnl_success && residual)
            status = dnnl_post_ops_append_binary(ops, dnnl_binary_add, DESC_MD(residual));
        if (status == dnnl_success)
            status = dnnl_primitive_attr_set_post_ops(*attr, ops);
        dnnl_post_ops_destroy(ops);
    }
    return status;
}

static void entry_fini(struct entry *entry)
{
    for (int i = 0; i < ARG_COUNT; i++)
        if (entry->memory[i])
            dnnl_memory_destroy(entry->memory[i]);
    if (entry->primitive)
        dnnl_primitive_destroy(entry->primitive);
    memset(entry, 0, sizeof(*entry));
}

static bool is_used(const struct key *key, int arg)
{
    return (arg != ARG_BIAS || key->has_bias) &&
           (arg != ARG_RESIDUAL || key->has_residual);
}

static dnnl_status_t memories_create(struct entry *entry, struct onednn *onednn,
                                     const struct desc descs[ARG_COUNT],
                                     const_dnnl_primitive_desc_t pd)
{
    dnnl_status_t status = dnnl_success;

    for (int i = 0; i < ARG_COUNT && status == dnnl_success; i++) {
        if (i == ARG_SCRATCH)
            status = dnnl_memory_create(
                &entry->memory[i],
                dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0),
                onednn->engine, DNNL_MEMORY_NONE);
        else if (is_used(&entry->key, i))
            status = dnnl_memory_create(&entry->memory[i], DESC_MD(&descs[i]),
                                        onednn->engine, DNNL_MEMORY_NONE);
    }
    entry->scratch_bytes = dnnl_memory_desc_get_size(
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
    return status;
}

static int entry_init(struct entry *entry, struct onednn *onednn, const struct key *key,
                      struct err *err)
{
    struct desc descs[ARG_COUNT];
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status;

    memset(descs, 0, sizeof(descs));
    entry->key = *key;
    status = descs_init(descs, key);
    if (status == dnnl_success)
        status = attr_create(&attr, float_of_bits(key->beta_bits),
                             key->has_residual ? &descs[ARG_RESIDUAL] : NULL);
    if (status == dnnl_success)
        status =
            matmul_create(&pd, onednn->engine, &descs[ARG_A], &descs[ARG_B],
                          key->has_bias ? &descs[ARG_BIAS] : NULL, &descs[ARG_C], attr);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&entry->primitive, pd);
    if (status == dnnl_success)
        status = memories_create(entry, onednn, descs, pd);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    for (int i = 0; i < ARG_COUNT; i++)
        if (i != ARG_SCRATCH)
            desc_fini(&descs[i]);
    if (status == dnnl_success)
        return 0;
    entry_fini(entry);
    return failed(err, "make a matrix product", status);
}

/* ---- the cache ---- */

static uint64_t key_hash(const struct key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = 0xcbf29ce484222325U; /* FNV-1a 64 */

    for (size_t i = 0; i < sizeof(*key); i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3U;
    return hash ^ hash >> 32;
}

static struct entry *entry_get(struct onednn *onednn, const struct key *key,
                               struct err *err)
{
    struct entry *set = onednn->cache[key_hash(key) % CACHE_SETS];
    struct entry *oldest = set;

    for (int i = 0; i < CACHE_WAYS; i++) {
        if (set[i].primitive && memcmp(&set[i].key, key, sizeof(*key)) == 0)
            return &set[i];
        if (set[i].last_use < oldest->last_use)
            oldest = &set[i];
    }
    entry_fini(oldest);
    return entry_init(oldest, onednn, key, err) < 0 ? NULL : oldest;
}

static int scratch_reserve(struct onednn *onednn, size_t n_bytes, struct err *err)
{
    void *grown;

    if (n_bytes <= onednn->scratch_bytes)
        return 0;
    if (posix_memalign(&grown, SCRATCH_ALIGN, n_bytes) != 0)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes of scratch for oneDNN",
                       n_bytes);
    free(onednn->scratch);
    onednn->scratch = grown;
    onednn->scratch_bytes = n_bytes;
    return 0;
}

static int entry_run(struct onednn *onednn, struct entry *entry,
                     const struct onednn_gemm *gemm, struct err *err)
{
    static const int names[ARG_COUNT] = {
        [ARG_A] = DNNL_ARG_SRC,
        [ARG_B] = DNNL_ARG_WEIGHTS,
        [ARG_C] = DNNL_ARG_DST,
        [ARG_SCRATCH] = DNNL_ARG_SCRATCHPAD,
        [ARG_BIAS] = DNNL_ARG_BIAS,
        [ARG_RESIDUAL] = DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
    };
    /* oneDNN takes all handles as writable; a, b, bias and residual it only reads */
    void *handles[ARG_COUNT] = {
        (void *)gemm->a, (void *)gemm->b,    gemm->c,
        onednn->scratch, (void *)gemm->bias, (void *)gemm->residual};
    dnnl_exec_arg_t args[ARG_COUNT];
    dnnl_status_t status = dnnl_success;
    int n_args = 0;

    for (int i = 0; i < ARG_COUNT && status == dnnl_success; i++) {
        if (!is_used(&entry->key, i))
            continue;
        args[n_args++] = (dnnl_exec_arg_t){names[i], entry->memory[i]};
        status = dnnl_memory_set_data_handle(entry->memory[i], handles[i]);
    }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(entry->primitive, onednn->stream, n_args, args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(onednn->stream);
    return status == dnnl_success ? 0 : failed(err, "run a matrix product", status);
}

static struct key key_of(const struct onednn_gemm *gemm)
{
    struct key key;

    memset(&key, 0, sizeof(key));
    key.m = gemm->m;
    key.n = gemm->n;
    key.k = gemm->k;
    key.lda = gemm->lda;
    key.ldb = gemm->ldb;
    key.ldc = gemm->ldc;
    key.trans_a = gemm->trans_a;
    key.trans_b = gemm->trans_b;
    key.has_bias = gemm->bias != NULL;
    key.has_residual = gemm->residual != NULL;
    key.ab_type = gemm->ab_type;
    key.c_type = gemm->c_type;
    key.beta_bits = float_bits(gemm->beta);
    return key;
}

int onednn_gemm(struct onednn *onednn, const struct onednn_gemm *gemm, struct err *err)
{
    struct key key = key_of(gemm);
    /* a primitive keeps the number of threads it was made under; the number belongs to
     * the calling thread, which gets its own back */
    int n_threads = omp_get_max_threads();
    struct entry *entry;
    int rc = -1;

    omp_set_num_threads(onednn->n_threads);
    entry = entry_get(onednn, &key, err);
    if (entry && scratch_reserve(onednn, entry->scratch_bytes, err) == 0) {
        entry->last_use = ++onednn->n_uses;
        rc = entry_run(onednn, entry, gemm, err);
    }
    omp_set_num_threads(n_threads);
    if (rc < 0)
        err_wrap(err, "matmul of %lld x %lld x %lld", (long long)gemm->m,
                 (long long)gemm->n, (long long)gemm->k);
    return rc;
}

bool onednn_has_bf16(const struct onednn *onednn)
{
    const unsigned wanted = (unsigned)dnnl_cpu_isa_avx512_core_bf16;

    (void)onednn;
    return ((unsigned)dnnl_get_effective_cpu_isa() & wanted) == wanted;
}

int onednn_create(struct onednn **out, int n_threads, struct err *err)
{
    struct onednn *onednn = calloc(1, sizeof(*onednn));
    dnnl_status_t status;

    if (!onednn)
        return err_set(err, ERR_NOMEM, "cannot allocate the state of oneDNN");
    onednn->n_threads = n_threads;
    status = dnnl_engine_create(&onednn->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&onednn->stream, onednn->engine,
                                    dnnl_stream_default_flags);
    if (status != dnnl_success) {
        onednn_destroy(onednn);
        return failed(err, "open the processor", status);
    }
    *out = onednn;
    return 0;
}

void onednn_destroy(struct onednn *onednn)
{
    if (!onednn)
        return;
    for (int s = 0; s < CACHE_SETS; s++)
        for (int w = 0; w < CACHE_WAYS; w++)
            entry_fini(&onednn->cache[s][w]);
    if (onednn->stream)
        dnnl_stream_destroy(onednn->stream);
    if (onednn->engine)
        dnnl_engine_destroy(onednn->engine);
    free(onednn->scratch);
    free(onednn);
}
