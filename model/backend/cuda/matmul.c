/* matmul.c - products by cuBLASLt, and what comes behind them
 *
 * cuBLASLt's matrices are column-major; a row-major [r,c] is its [c,r]. So c = op(a) op(b)
 * is asked for as c^T = op(b)^T op(a)^T: its A is our b, its B our a, its rows our n. Its
 * bias, one number a row, is our [n]; its gradient of a bias from B (BGRADB, one number a
 * column, summed over k) is our column sums of a; its auxiliary matrix lies as c does.
 * Sums are fp32, with TF32 factors as well, also where a product is cut along k.
 *
 * What is fused where cuBLASLt does it: bias, residual (its C, where that is not D), GELU's
 * tanh form and its slope, the gradient of a bias beside that of weights in F32. DGELU_BGRAD
 * is not asked for: it would round the bias's gradient to the type of the activations.
 * Everything else is a kernel behind the product.
 */
#include "model/backend/cuda/matmul.h"

#include <string.h>

#define ALIGN_MAX 256
#define VECTOR_ALIGN 16 /* of bias and auxiliary matrix: they are read in vectors */
#define AUX_LD_UNIT 8   /* elements: CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD */

static int32_t alignment(const void *data)
{
    uintptr_t at = (uintptr_t)data;

    return at % ALIGN_MAX == 0 ? ALIGN_MAX : (int32_t)(at & (~at + 1));
}

static bool is_vector(const struct tensor *x)
{
    return alignment(x->data) >= VECTOR_ALIGN;
}

/* The part of the arguments that cuBLASLt may be asked for. */
static int32_t wanted_of(const struct tensor *c, int64_t n,
                         const struct matmul_args *args)
{
    const struct tensor *aux = args->slope_at ? args->slope_at : args->pre_act;
    bool has_bias = args->bias && args->bias->dtype == c->dtype && is_vector(args->bias);
    bool has_gelu =
        args->act == ACT_GELU_TANH && (!aux || (n % AUX_LD_UNIT == 0 && is_vector(aux)));
    int32_t wanted = has_bias ? FUSED_BIAS : 0;

    if (args->slope_at)
        wanted |= has_gelu ? FUSED_SLOPE : 0;
    else if (has_gelu && (has_bias || !args->bias)) /* the bias comes before it */
        wanted |= FUSED_ACT | (args->pre_act ? FUSED_PRE_ACT : 0);
    /* one place for both, and the sums have the type of c */
    if (args->bias_grad && !args->bias && c->dtype == DTYPE_F32)
        wanted |= FUSED_BIAS_GRAD;
    return wanted;
}

static struct matmul_key key_of(const struct cuda *cuda, const struct tensor *c,
                                const struct tensor *a, const struct tensor *bb,
                                const struct matmul_args *args)
{
    struct tensor c2 = tensor_flat(c), a2 = tensor_flat(a);
    const struct tensor *aux = args->slope_at ? args->slope_at : args->pre_act;
    const struct tensor *added = args->residual ? args->residual : c;
    struct matmul_key key;

    memset(&key, 0, sizeof(key));
    key.m = c2.dims[0];
    key.n = c2.dims[1];
    key.k = args->trans_a ? a2.dims[0] : a2.dims[1];
    key.type = (int32_t)a->dtype;
    key.c_type = (int32_t)c->dtype;
    key.is_tf32 = cuda->is_tf32 && a->dtype == DTYPE_F32;
    key.trans_a = args->trans_a;
    key.trans_b = args->trans_b;
    key.c_use = args->residual ? C_RESIDUAL : args->beta != 0 ? C_IN_PLACE : C_UNUSED;
    key.wanted = wanted_of(c, key.n, args);
    key.align_a = alignment(a->data);
    key.align_b = alignment(bb->data);
    key.align_c = alignment(added->data);
    key.align_d = alignment(c->data);
    key.align_aux = aux ? alignment(aux->data) : ALIGN_MAX;
    key.align_bias = args->bias ? alignment(args->bias->data) : ALIGN_MAX;
    if (args->pre_act && key.align_aux < key.align_d) /* the product may go to either */
        key.align_d = key.align_aux;
    return key;
}

/* ---- behind the product ---- */

/* bias_grad += sums, which the product left in scratch */
static int add_bias_grad(struct cuda *cuda, struct tensor *bias_grad, void *sums,
                         struct err *err)
{
    struct tensor x = tensor_of(sums, DTYPE_F32, bias_grad->n_dims, bias_grad->dims);

    return cuda_add(&cuda->base, bias_grad, bias_grad, &x, 1, err);
}

/* What is asked for and was not fused. sum: where the product lies. */
static int finish(struct cuda *cuda, struct tensor *c, struct tensor *sum,
                  const struct matmul_args *args, int32_t fused, struct err *err)
{
    if (args->bias && !(fused & FUSED_BIAS) &&
        cuda_add_bias(cuda, sum, args->bias, err) < 0)
        return -1;
    if (args->slope_at && !(fused & FUSED_SLOPE))
        return cuda_act_bwd(&cuda->base, c, sum, args->slope_at, args->act, err);
    if (args->slope_at || (fused & FUSED_ACT) || (args->act == ACT_NONE && sum == c))
        return 0;
    return cuda_act_fwd(&cuda->base, c, sum, args->act, err);
}

/* k is 0: the product is nothing. */
static int without_product(struct cuda *cuda, struct tensor *c, struct tensor *sum,
                           const struct matmul_args *args, struct err *err)
{
    int rc = 0;

    if (args->residual)
        rc = cuda_copy(&cuda->base, sum->data, args->residual->data, tensor_bytes(sum),
                       err);
    else if (args->beta == 0)
        rc = cuda_zero(&cuda->base, sum->data, tensor_bytes(sum), err);
    else if (args->beta != 1)
        rc = cuda_scale(&cuda->base, sum, args->beta, err);
    return rc < 0 ? -1 : finish(cuda, c, sum, args, 0, err);
}

/* ---- the operation ---- */

static int multiply(struct cuda *cuda, struct tensor *c, const struct tensor *a,
                    const struct tensor *bb, const struct matmul_args *args,
                    const struct matmul_key *key, struct err *err)
{
    const struct tensor *aux = args->slope_at ? args->slope_at : args->pre_act;
    struct matmul_call call = {.a = a->data,
                               .b = bb->data,
                               .c = args->residual ? args->residual->data : c->data,
                               .d = c->data,
                               .aux = aux ? aux->data : NULL,
                               .bias = args->bias ? args->bias->data : NULL,
                               .beta = args->residual ? 1 : args->beta};
    struct matmul_plan *plan;
    void *sums = NULL;
    struct tensor *sum;

    if (key->wanted & FUSED_BIAS_GRAD) {
        if (cuda_scratch(cuda, &sums, (size_t)key->m * sizeof(float), err) < 0)
            return -1;
        call.bias = sums;
    }
    plan = matmul_plan_get(cuda, key, &call, err);
    if (!plan)
        return -1;
    /* an activation behind the product reads what is to be kept */
    sum = args->pre_act && !(plan->fused & FUSED_PRE_ACT) ? args->pre_act : c;
    call.d = sum->data;
    if (matmul_check(matmul_run(cuda, plan, &call, NULL), "product", err) < 0 ||
        finish(cuda, c, sum, args, plan->fused, err) < 0)
        return -1;
    if (!args->bias_grad)
        return 0;
    return plan->fused & FUSED_BIAS_GRAD
               ? add_bias_grad(cuda, args->bias_grad, sums, err)
               : cuda_bias_bwd(&cuda->base, args->bias_grad, a, err);
}

int cuda_matmul(struct backend *b, struct tensor *c, const struct tensor *a,
                const struct tensor *bb, const struct matmul_args *args, struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    struct matmul_key key = key_of(cuda, c, a, bb, args);

    if (key.m == 0 || key.n == 0)
        return 0;
    if (key.k == 0) /* nor are there column sums of a */
        return without_product(cuda, c, args->pre_act ? args->pre_act : c, args, err);
    return multiply(cuda, c, a, bb, args, &key, err);
}
