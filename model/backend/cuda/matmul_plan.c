/* matmul_plan.c - how a kind of product is done, asked for once and remembered
 *
 * cuBLASLt is asked for everything that is wanted; where it has no algorithm for that (which
 * epilogues go with which types is the library's to say), for the bias alone, then for the
 * bare product. Which algorithm: matmul_tune.c.
 * Source: "cuBLAS Library", sections on cublasLtMatmul and cublasLtMatmulDescAttributes_t.
 */
#include "model/backend/cuda/matmul.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLANS_MAX 2048   /* slots; all are dropped when three quarters are in use */
#define CANDIDATES_MAX 8 /* algorithms that are timed */

int matmul_check(cublasStatus_t status, const char *what, struct err *err)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return 0;
    return err_set(err, status == CUBLAS_STATUS_ALLOC_FAILED ? ERR_NOMEM : ERR_IO,
                   "%s of cuBLASLt: %s", what, cublasLtGetStatusString(status));
}

/* ---- life ---- */

int cuda_matmul_init(struct cuda *cuda, struct err *err)
{
    cuda->matmul = calloc(1, sizeof(*cuda->matmul));
    if (cuda->matmul)
        cuda->matmul->slots = calloc(PLANS_MAX, sizeof(*cuda->matmul->slots));
    if (!cuda->matmul || !cuda->matmul->slots)
        return err_set(err, ERR_NOMEM, "cannot allocate plans of products");
    if (matmul_check(cublasLtCreate(&cuda->matmul->lt), "opening", err) < 0 ||
        matmul_choices_open(&cuda->matmul->choices, cuda, err) < 0)
        return -1;
    return cuda_alloc(&cuda->base, &cuda->matmul->workspace, MATMUL_WORKSPACE_BYTES, err);
}

void cuda_matmul_about(char *out, size_t n_bytes)
{
    size_t version = cublasLtGetVersion(); /* 130100 is 13.1.0 */

    snprintf(out, n_bytes, "cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100,
             version % 100);
}

static void plan_fini(struct matmul_plan *plan)
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
    for (int i = 0; i < PLANS_MAX && plans->slots; i++)
        plan_fini(&plans->slots[i]);
    plans->n_used = 0;
}

void cuda_matmul_fini(struct cuda *cuda)
{
    struct matmul_plans *plans = cuda->matmul;

    if (!plans)
        return;
    plans_clear(plans);
    matmul_choices_close(plans->choices);
    cuda_free(&cuda->base, plans->workspace);
    if (plans->lt)
        cublasLtDestroy(plans->lt);
    free(plans->slots);
    free(plans);
    cuda->matmul = NULL;
}

/* ---- what cuBLASLt is asked for ---- */

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
    return matmul_check(cublasLtMatrixLayoutCreate(out, type_of(dtype), (uint64_t)columns,
                                                   (uint64_t)rows, columns),
                        "layout", err);
}

static int set(struct matmul_plan *plan, cublasLtMatmulDescAttributes_t what,
               const void *value, size_t n_bytes, struct err *err)
{
    return matmul_check(cublasLtMatmulDescSetAttribute(plan->desc, what, value, n_bytes),
                        "description", err);
}

static cublasLtEpilogue_t epilogue_of(int32_t fused)
{
    bool has_bias = fused & FUSED_BIAS;

    if (fused & FUSED_BIAS_GRAD)
        return CUBLASLT_EPILOGUE_BGRADB;
    if (fused & FUSED_SLOPE)
        return CUBLASLT_EPILOGUE_DGELU;
    if (fused & FUSED_PRE_ACT)
        return has_bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    if (fused & FUSED_ACT)
        return has_bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    return has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

/* Vectors and auxiliary matrix of this call: of their addresses cuBLASLt looks at the
 * alignment when it chooses, too. */
static int set_pointers(struct matmul_plan *plan, const struct matmul_call *call,
                        struct err *err)
{
    if ((plan->fused & (FUSED_BIAS | FUSED_BIAS_GRAD)) &&
        set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &call->bias, sizeof(call->bias),
            err) < 0)
        return -1;
    if (!(plan->fused & (FUSED_PRE_ACT | FUSED_SLOPE)))
        return 0;
    return set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &call->aux,
               sizeof(call->aux), err);
}

static int set_epilogue(struct matmul_plan *plan, const struct matmul_call *call,
                        struct err *err)
{
    cublasLtEpilogue_t epilogue = epilogue_of(plan->fused);

    if (set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue), err) < 0 ||
        ((plan->fused & (FUSED_PRE_ACT | FUSED_SLOPE)) &&
         set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &plan->key.n,
             sizeof(plan->key.n), err) < 0))
        return -1;
    return set_pointers(plan, call, err);
}

static int describe(struct matmul_plan *plan, struct err *err)
{
    const struct matmul_key *key = &plan->key;
    cublasOperation_t op_a = key->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t op_b = key->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasComputeType_t compute =
        key->is_tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;

    if (matmul_check(cublasLtMatmulDescCreate(&plan->desc, compute, CUDA_R_32F),
                     "description", err) < 0 ||
        set(plan, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof(op_a), err) < 0 ||
        set(plan, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof(op_b), err) < 0)
        return -1;
    if (layout(&plan->a, key->type, key->trans_b ? key->n : key->k,
               key->trans_b ? key->k : key->n, err) < 0 ||
        layout(&plan->b, key->type, key->trans_a ? key->k : key->m,
               key->trans_a ? key->m : key->k, err) < 0)
        return -1;
    return layout(&plan->c, key->c_type, key->m, key->n, err);
}

static int prefer(cublasLtMatmulPreference_t preference, const struct matmul_key *key,
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
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)key->align_d},
    };
    uint64_t workspace = MATMUL_WORKSPACE_BYTES;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (matmul_check(cublasLtMatmulPreferenceSetAttribute(preference, all[i].what,
                                                              &all[i].value,
                                                              sizeof(all[i].value)),
                         "preference", err) < 0)
            return -1;
    return matmul_check(cublasLtMatmulPreferenceSetAttribute(
                            preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                            &workspace, sizeof(workspace)),
                        "preference", err);
}

/* ---- the choice ---- */

/* *n of cuBLASLt's algorithms for the plan as it is described, best guess first; 0 where it
 * has none. */
static int candidates(const struct matmul_plans *plans, const struct matmul_plan *plan,
                      cublasLtMatmulAlgo_t algos[CANDIDATES_MAX], int n_most, int *n,
                      struct err *err)
{
    cublasLtMatmulHeuristicResult_t results[CANDIDATES_MAX];
    cublasLtMatmulPreference_t preference;
    cublasStatus_t status;
    int n_found = 0, rc;

    *n = 0;
    if (matmul_check(cublasLtMatmulPreferenceCreate(&preference), "preference", err) < 0)
        return -1;
    rc = prefer(preference, &plan->key, err);
    if (rc == 0) {
        status = cublasLtMatmulAlgoGetHeuristic(plans->lt, plan->desc, plan->a, plan->b,
                                                plan->c, plan->c, preference, n_most,
                                                results, &n_found);
        if (status != CUBLAS_STATUS_SUCCESS && plan->fused)
            n_found = 0; /* whatever it is: with less there may be one */
        else
            rc = matmul_check(status, "choice of an algorithm", err);
    }
    cublasLtMatmulPreferenceDestroy(preference);
    for (int i = 0; rc == 0 && i < n_found; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS)
            algos[(*n)++] = results[i].algo;
    return rc;
}

/* Sets plan->fused, as much as can be, and plan->algo. */
static int choose(struct cuda *cuda, struct matmul_plan *plan,
                  const struct matmul_call *call, struct err *err)
{
    const int32_t wanted = plan->key.wanted;
    const int32_t attempts[] = {wanted, wanted & FUSED_BIAS, 0};
    bool is_tuned = matmul_is_tuned(cuda, &plan->key);
    cublasLtMatmulAlgo_t algos[CANDIDATES_MAX];
    int n = 0;

    for (size_t i = 0; n == 0 && i < sizeof(attempts) / sizeof(attempts[0]); i++) {
        if (i > 0 && attempts[i] == attempts[i - 1])
            continue;
        plan->fused = attempts[i];
        if (set_epilogue(plan, call, err) < 0 ||
            candidates(cuda->matmul, plan, algos, is_tuned ? CANDIDATES_MAX : 1, &n,
                       err) < 0)
            return -1;
    }
    if (n == 0)
        return err_set(err, ERR_UNSUPPORTED, "cuBLASLt has no algorithm");
    plan->algo = algos[0];
    return n > 1 ? matmul_tune(cuda, plan, call, algos, n, err) : 0;
}

/* ---- what is remembered ---- */

/* FNV-1a, 64 bits. */
static uint64_t hash(const struct matmul_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t h = 14695981039346656037U;

    for (size_t i = 0; i < sizeof(*key); i++)
        h = (h ^ bytes[i]) * 1099511628211U;
    return h;
}

static struct matmul_plan *plan_find(struct matmul_plans *plans,
                                     const struct matmul_key *key)
{
    uint64_t at = hash(key);

    while (plans->slots[at % PLANS_MAX].is_used &&
           memcmp(&plans->slots[at % PLANS_MAX].key, key, sizeof(*key)) != 0)
        at++;
    return &plans->slots[at % PLANS_MAX];
}

struct matmul_plan *matmul_plan_get(struct cuda *cuda, const struct matmul_key *key,
                                    const struct matmul_call *call, struct err *err)
{
    struct matmul_plans *plans = cuda->matmul;
    struct matmul_plan *plan = plan_find(plans, key);

    if (plan->is_used)
        return set_pointers(plan, call, err) < 0 ? NULL : plan;
    if (plans->n_used >= PLANS_MAX / 4 * 3) {
        plans_clear(plans);
        plan = plan_find(plans, key);
    }
    plan->key = *key;
    if (describe(plan, err) < 0 || choose(cuda, plan, call, err) < 0) {
        plan_fini(plan);
        err_wrap(err, "product of %lld x %lld x %lld", (long long)key->m,
                 (long long)key->n, (long long)key->k);
        return NULL;
    }
    plan->is_used = true;
    plans->n_used++;
    return plan;
}

cublasStatus_t matmul_run(struct cuda *cuda, struct matmul_plan *plan,
                          const struct matmul_call *call,
                          const cublasLtMatmulAlgo_t *algo)
{
    const float alpha = 1;

    return cublasLtMatmul(cuda->matmul->lt, plan->desc, &alpha, call->b, plan->a, call->a,
                          plan->b, &call->beta, call->c, plan->c, call->d, plan->c,
                          algo ? algo : &plan->algo, cuda->matmul->workspace,
                          MATMUL_WORKSPACE_BYTES, cuda->stream);
}
