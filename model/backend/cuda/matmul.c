/* matmul.c - products by cuBLASLt
 *
 * cuBLASLt's matrices are column-major; a row-major [r,c] is its [c,r]. So c = op(a) op(b)
 * is asked for as c^T = op(b)^T op(a)^T: its A is our b, its B our a, its rows our n.
 * Sums are fp32, with TF32 factors as well, also where a product is cut along k; the
 * algorithm is cuBLASLt's first choice, asked for once per shape, types and alignment, so
 * that equal calls give equal bits.
 */
#include "model/backend/cuda/cuda.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLANS_MAX 2048 /* slots; all are dropped when three quarters are in use */
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define ALIGN_MAX 256
#define BIAS_ALIGN 16

/* What an algorithm depends on. Without holes: it is hashed and compared as bytes. */
struct plan_key {
    int64_t m, n, k;
    int32_t type, c_type, is_tf32;
    int32_t trans_a, trans_b, has_beta, has_bias;
    int32_t align_a, align_b, align_c;
};

struct plan {
    bool is_used;
    struct plan_key key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

struct matmul_plans {
    cublasLtHandle_t lt;
    void *workspace;
    unsigned n_used;
    struct plan slots[PLANS_MAX];
};

static int check(cublasStatus_t status, const char *what, struct err *err)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return 0;
    return err_set(err, status == CUBLAS_STATUS_ALLOC_FAILED ? ERR_NOMEM : ERR_IO,
                   "%s of cuBLASLt: %s", what, cublasLtGetStatusString(status));
}

int cuda_matmul_init(struct cuda *cuda, struct err *err)
{
    cuda->matmul = calloc(1, sizeof(*cuda->matmul));
    if (!cuda->matmul)
        return err_set(err, ERR_NOMEM, "cannot allocate plans of products");
    if (check(cublasLtCreate(&cuda->matmul->lt), "opening", err) < 0)
        return -1;
    return cuda_alloc(&cuda->base, &cuda->matmul->workspace, WORKSPACE_BYTES, err);
}

void cuda_matmul_about(char *out, size_t n_bytes)
{
    size_t version = cublasLtGetVersion(); /* 130100 is 13.1.0 */

    snprintf(out, n_bytes, "cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100,
             version % 100);
}

static void plan_fini(struct plan *plan)
{
    if (plan->desc)
        cublasLtMatmulDescDestroy(plan->desc);
    if (plan->a)
        cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b)
        cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->c)
        cublasLtMatrixLayoutDestroy(plan->c);
    memset(plan, 0, sizeof(*plan));
}

static void plans_clear(struct matmul_plans *plans)
{
    for (int i = 0; i < PLANS_MAX; i++)
        plan_fini(&plans->slots[i]);
    plans->n_used = 0;
}

void cuda_matmul_fini(struct cuda *cuda)
{
    struct matmul_plans *plans = cuda->matmul;

    if (!plans)
        return;
    plans_clear(plans);
    cuda_free(&cuda->base, plans->workspace);
    if (plans->lt)
        cublasLtDestroy(plans->lt);
    free(plans);
    cuda->matmul = NULL;
}

/* ---- plans ---- */

static cudaDataType_t type_of(int32_t dtype)
{
    return dtype == DTYPE_BF16  ? CUDA_R_16BF
           : dtype == DTYPE_F16 ? CUDA_R_16F
                                : CUDA_R_32F;
}

/* A row-major matrix of rows x columns, as cuBLASLt sees it. */
static int layout(cublasLtMatrixLayout_t *out, int32_t dtype, int64_t rows,
                  int64_t columns, struct err *err)
{
    return check(cublasLtMatrixLayoutCreate(out, type_of(dtype), (uint64_t)columns,
                                            (uint64_t)rows, columns),
                 "layout", err);
}

static int set(struct plan *plan, cublasLtMatmulDescAttributes_t what, const void *value,
               size_t n_bytes, struct err *err)
{
    return check(cublasLtMatmulDescSetAttribute(plan->desc, what, value, n_bytes),
                 "description", err);
}

static int describe(struct plan *plan, struct err *err)
{
    const struct plan_key *key = &plan->key;
    cublasOperation_t op_a = key->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t op_b = key->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasComputeType_t compute =
        key->is_tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasLtEpilogue_t epilogue =
        key->has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;

    if (check(cublasLtMatmulDescCreate(&plan->desc, compute, CUDA_R_32F), "description",
              err) < 0 ||
        set(plan, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof(op_a), err) < 0 ||
        set(plan, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof(op_b), err) < 0 ||
        set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue), err) < 0)
        return -1;
    if (layout(&plan->a, key->type, key->trans_b ? key->n : key->k,
               key->trans_b ? key->k : key->n, err) < 0 ||
        layout(&plan->b, key->type, key->trans_a ? key->k : key->m,
               key->trans_a ? key->m : key->k, err) < 0)
        return -1;
    return layout(&plan->c, key->c_type, key->m, key->n, err);
}

static int prefer(cublasLtMatmulPreference_t preference, const struct plan_key *key,
                  struct err *err)
{
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        uint32_t value;
    } all[] = {
        /* parts along k are added in fp32, never rounded to the result's type before */
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)key->align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)key->align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)key->align_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)key->align_c},
    };
    uint64_t workspace = WORKSPACE_BYTES;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (check(cublasLtMatmulPreferenceSetAttribute(
                      preference, all[i].what, &all[i].value, sizeof(all[i].value)),
                  "preference", err) < 0)
            return -1;
    return check(cublasLtMatmulPreferenceSetAttribute(
                     preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                     sizeof(workspace)),
                 "preference", err);
}

static int choose(struct matmul_plans *plans, struct plan *plan, struct err *err)
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int n_found = 0, rc = -1;

    if (check(cublasLtMatmulPreferenceCreate(&preference), "preference", err) < 0)
        return -1;
    if (prefer(preference, &plan->key, err) == 0 &&
        check(cublasLtMatmulAlgoGetHeuristic(plans->lt, plan->desc, plan->a, plan->b,
                                             plan->c, plan->c, preference, 1, &result,
                                             &n_found),
              "choice of an algorithm", err) == 0)
        rc = n_found > 0 ? 0 : err_set(err, ERR_UNSUPPORTED, "cuBLASLt has no algorithm");
    cublasLtMatmulPreferenceDestroy(preference);
    if (rc == 0)
        plan->algo = result.algo;
    return rc;
}

/* FNV-1a, 64 bits. */
static uint64_t hash(const struct plan_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t h = 14695981039346656037U;

    for (size_t i = 0; i < sizeof(*key); i++)
        h = (h ^ bytes[i]) * 1099511628211U;
    return h;
}

static struct plan *plan_find(struct matmul_plans *plans, const struct plan_key *key)
{
    uint64_t at = hash(key);

    while (plans->slots[at % PLANS_MAX].is_used &&
           memcmp(&plans->slots[at % PLANS_MAX].key, key, sizeof(*key)) != 0)
        at++;
    return &plans->slots[at % PLANS_MAX];
}

static struct plan *plan_get(struct matmul_plans *plans, const struct plan_key *key,
                             struct err *err)
{
    struct plan *plan = plan_find(plans, key);

    if (plan->is_used)
        return plan;
    if (plans->n_used >= PLANS_MAX / 4 * 3) {
        plans_clear(plans);
        plan = plan_find(plans, key);
    }
    plan->key = *key;
    if (describe(plan, err) < 0 || choose(plans, plan, err) < 0) {
        plan_fini(plan);
        err_wrap(err, "product of %lld x %lld x %lld", (long long)key->m,
                 (long long)key->n, (long long)key->k);
        return NULL;
    }
    plan->is_used = true;
    plans->n_used++;
    return plan;
}

/* ---- the operation ---- */

static int32_t alignment(const void *data)
{
    uintptr_t at = (uintptr_t)data;

    return at % ALIGN_MAX == 0 ? ALIGN_MAX : (int32_t)(at & (~at + 1));
}

static struct plan_key key_of(const struct cuda *cuda, const struct tensor *c,
                              const struct tensor *a, const struct tensor *bb,
                              const struct matmul_args *args, bool has_bias)
{
    struct tensor c2 = tensor_flat(c), a2 = tensor_flat(a);
    struct plan_key key;

    memset(&key, 0, sizeof(key));
    key.m = c2.dims[0];
    key.n = c2.dims[1];
    key.k = args->trans_a ? a2.dims[0] : a2.dims[1];
    key.type = (int32_t)a->dtype;
    key.c_type = (int32_t)c->dtype;
    key.is_tf32 = cuda->is_tf32 && a->dtype == DTYPE_F32;
    key.trans_a = args->trans_a;
    key.trans_b = args->trans_b;
    key.has_beta = args->beta != 0;
    key.has_bias = has_bias;
    key.align_a = alignment(a->data);
    key.align_b = alignment(bb->data);
    key.align_c = alignment(c->data);
    return key;
}

/* k is 0: the product is nothing. */
static int without_product(struct cuda *cuda, struct tensor *c, float beta,
                           struct err *err)
{
    if (beta == 0)
        return cuda_zero(&cuda->base, c->data, tensor_bytes(c), err);
    return beta == 1 ? 0 : cuda_scale(&cuda->base, c, beta, err);
}

static int multiply(struct cuda *cuda, struct tensor *c, const struct tensor *a,
                    const struct tensor *bb, const struct matmul_args *args,
                    const struct plan_key *key, struct err *err)
{
    struct plan *plan = plan_get(cuda->matmul, key, err);
    float alpha = 1, beta = args->beta;

    if (!plan)
        return -1;
    if (key->has_bias && set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args->bias->data,
                             sizeof(args->bias->data), err) < 0)
        return -1;
    return check(cublasLtMatmul(cuda->matmul->lt, plan->desc, &alpha, bb->data, plan->a,
                                a->data, plan->b, &beta, c->data, plan->c, c->data,
                                plan->c, &plan->algo, cuda->matmul->workspace,
                                WORKSPACE_BYTES, cuda->stream),
                 "product", err);
}

int cuda_matmul(struct backend *b, struct tensor *c, const struct tensor *a,
                const struct tensor *bb, const struct matmul_args *args, struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    /* the epilogue's bias has the type of the result, and is read in vectors */
    bool is_fused = args->bias && args->bias->dtype == c->dtype &&
                    alignment(args->bias->data) >= BIAS_ALIGN;
    struct plan_key key = key_of(cuda, c, a, bb, args, is_fused);

    if (key.m == 0 || key.n == 0)
        return 0;
    if (key.k == 0)
        is_fused = false;
    if ((key.k == 0 ? without_product(cuda, c, args->beta, err)
                    : multiply(cuda, c, a, bb, args, &key, err)) < 0)
        return -1;
    return args->bias && !is_fused ? cuda_add_bias(cuda, c, args->bias, err) : 0;
}
