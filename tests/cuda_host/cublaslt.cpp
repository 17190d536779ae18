/* cublaslt.cpp - cuBLASLt's stand-in: column-major products in plain loops
 *
 * Refuses what cuBLASLt refuses: layouts that do not fit each other, leading dimensions
 * below the rows, types that do not go together, epilogues without their vector or
 * auxiliary matrix, or with one whose leading dimension is no multiple of 8, pointers less
 * aligned than the algorithm was chosen for (those of vector and auxiliary matrix are looked
 * at in the choice), an algorithm under another description, results over what is read,
 * memory that is not the device's, a workspace off its 256 bytes.
 * Environment: CUDA_HOST_LT_EPILOGUES (none, bias): there are no others. All others.
 * Its algorithms give the same bits. In the order of the choice they take 3, 1 and 2 seconds
 * of the device's time; the choice says of one before them that it failed, and the last one
 * does not run.
 * Source: "cuBLAS Library", sections on cublasLtMatmul, its attributes and types.
 */
#include "cublasLt.h"
#include "cuda_host.h"

extern "C" {
#include "model/backend/half.h"
}

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

struct cuda_host_lt {
    int unused;
};

struct cuda_host_matmul {
    cublasOperation_t op_a, op_b;
    cublasLtEpilogue_t epilogue;
    void *bias, *aux;
    int64_t aux_ld;
    bool is_tf32;
};

struct cuda_host_layout {
    cudaDataType_t type;
    int64_t rows, columns, ld;
};

struct cuda_host_preference {
    uint64_t workspace;
    uint32_t reduction, align[4]; /* of A, B, C, D */
};

namespace
{

#define ALGO_MAGIC 0x564e45564132ULL
#define ALIGN_MAX 256
#define WORKSPACE_ALIGN 256
#define VECTOR_ALIGN 16 /* of bias and auxiliary matrix */
#define AUX_LD_UNIT 8
#define N_ALGOS 4
#define ALGO_THAT_FAILS (N_ALGOS - 1)
#define SQRT_2_PI 0.79788456080286535588 /* sqrt(2/pi) */

/* Seconds of the device that an algorithm takes. */
const double algo_seconds[N_ALGOS] = {3, 1, 2, 0};

/* The words of an algorithm. */
enum { ALGO_NAME, ALGO_ALIGN, ALGO_WORKSPACE, ALGO_NUMBER, ALGO_EPILOGUE, ALGO_VECTORS };

size_t item_bytes(cudaDataType_t type)
{
    return type == CUDA_R_32F ? sizeof(float) : sizeof(uint16_t);
}

float get(cudaDataType_t type, const void *data, int64_t i)
{
    if (type == CUDA_R_32F)
        return ((const float *)data)[i];
    if (type == CUDA_R_16BF)
        return bf16_to_float(((const uint16_t *)data)[i]);
    return f16_to_float(((const uint16_t *)data)[i]);
}

/* To 10 bits of mantissa, to nearest, ties to even; infinity and NaN stay. */
float round_tf32(float x)
{
    uint32_t bits;

    if (!std::isfinite(x))
        return x;
    memcpy(&bits, &x, sizeof(bits));
    bits += 0xfffU + (bits >> 13 & 1);
    bits &= ~0x1fffU;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* A factor, as the units read it. */
float factor(const cuda_host_matmul &desc, cudaDataType_t type, const void *data,
             int64_t i)
{
    float x = get(type, data, i);

    return desc.is_tf32 ? round_tf32(x) : x;
}

void put(cudaDataType_t type, void *data, int64_t i, float value)
{
    if (type == CUDA_R_32F)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] =
            type == CUDA_R_16BF ? bf16_of_float(value) : f16_of_float(value);
}

bool has_aux(cublasLtEpilogue_t e)
{
    return (e & 128) != 0;
}

bool has_gelu(cublasLtEpilogue_t e)
{
    return (e & CUBLASLT_EPILOGUE_GELU) != 0;
}

bool has_bias(cublasLtEpilogue_t e)
{
    return (e & CUBLASLT_EPILOGUE_BIAS) != 0;
}

double gelu(double x)
{
    return 0.5 * x * (1 + tanh(SQRT_2_PI * (x + 0.044715 * x * x * x)));
}

double gelu_slope(double x)
{
    double t = tanh(SQRT_2_PI * (x + 0.044715 * x * x * x));

    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SQRT_2_PI * (1 + 3 * 0.044715 * x * x);
}

uint64_t alignment(const void *data)
{
    uint64_t at = (uint64_t)(uintptr_t)data;

    return at % ALIGN_MAX == 0 ? ALIGN_MAX : at & (~at + 1);
}

bool is_known(cublasLtEpilogue_t e)
{
    const char *only = getenv("CUDA_HOST_LT_EPILOGUES");

    if (only && strcmp(only, "none") == 0)
        return e == CUBLASLT_EPILOGUE_DEFAULT;
    if (only && strcmp(only, "bias") == 0)
        return e == CUBLASLT_EPILOGUE_DEFAULT || e == CUBLASLT_EPILOGUE_BIAS;
    return true;
}

size_t layout_bytes(const cuda_host_layout &l)
{
    return (size_t)((l.columns - 1) * l.ld + l.rows) * item_bytes(l.type);
}

bool is_layout(const cuda_host_layout &l)
{
    return l.rows > 0 && l.columns > 0 && l.ld >= l.rows;
}

int64_t rows_of(const cuda_host_layout &l, cublasOperation_t op)
{
    return op == CUBLAS_OP_N ? l.rows : l.columns;
}

int64_t columns_of(const cuda_host_layout &l, cublasOperation_t op)
{
    return op == CUBLAS_OP_N ? l.columns : l.rows;
}

/* One product, by value: the handles may be gone when it is computed. */
struct product {
    cuda_host_matmul desc;
    cuda_host_layout a, b, c, d;
    const void *at_a, *at_b, *at_c;
    void *at_d;
    float alpha, beta;
    double seconds; /* of the device's time */
};

bool does_fit(const product &p)
{
    int64_t k = columns_of(p.a, p.desc.op_a);

    return is_layout(p.a) && is_layout(p.b) && is_layout(p.c) && is_layout(p.d) &&
           rows_of(p.b, p.desc.op_b) == k && rows_of(p.a, p.desc.op_a) == p.d.rows &&
           columns_of(p.b, p.desc.op_b) == p.d.columns && p.c.rows == p.d.rows &&
           p.c.columns == p.d.columns && p.a.type == p.b.type && p.c.type == p.d.type &&
           (p.d.type == p.a.type || p.d.type == CUDA_R_32F) &&
           (!p.desc.is_tf32 || p.a.type == CUDA_R_32F);
}

int64_t vector_length(const product &p)
{
    cublasLtEpilogue_t e = p.desc.epilogue;

    return e == CUBLASLT_EPILOGUE_BGRADB ? p.d.columns : has_bias(e) ? p.d.rows : 0;
}

/* Vector and auxiliary matrix are there, and lie as they must. */
bool has_vectors(const product &p)
{
    const cuda_host_matmul &desc = p.desc;
    size_t n_bytes = (size_t)vector_length(p) * item_bytes(p.d.type);
    cuda_host_layout aux = {p.d.type, p.d.rows, p.d.columns, desc.aux_ld};

    if (n_bytes && (!desc.bias || alignment(desc.bias) < VECTOR_ALIGN ||
                    !cuda_host_is_device(desc.bias, n_bytes)))
        return false;
    return !has_aux(desc.epilogue) || (desc.aux && alignment(desc.aux) >= VECTOR_ALIGN &&
                                       is_layout(aux) && desc.aux_ld % AUX_LD_UNIT == 0 &&
                                       cuda_host_is_device(desc.aux, layout_bytes(aux)));
}

bool is_apart(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    return (const char *)a + a_bytes <= (const char *)b ||
           (const char *)b + b_bytes <= (const char *)a;
}

/* What is written, D, vector and auxiliary matrix, lies over nothing but itself, and D may
 * be C. */
bool is_disjoint(const product &p)
{
    size_t d_bytes = layout_bytes(p.d);
    size_t aux_bytes = has_aux(p.desc.epilogue) ? d_bytes : 0;
    size_t vector_bytes = (size_t)vector_length(p) * item_bytes(p.d.type);

    return is_apart(p.at_d, d_bytes, p.at_a, layout_bytes(p.a)) &&
           is_apart(p.at_d, d_bytes, p.at_b, layout_bytes(p.b)) &&
           (p.at_d == p.at_c || is_apart(p.at_d, d_bytes, p.at_c, layout_bytes(p.c))) &&
           (!aux_bytes || is_apart(p.at_d, d_bytes, p.desc.aux, aux_bytes)) &&
           (!vector_bytes || is_apart(p.at_d, d_bytes, p.desc.bias, vector_bytes));
}

/* What D's element gets, in row i of column j, from the sum of products and C. */
double through_epilogue(const product &p, int64_t i, int64_t j, double value)
{
    const cuda_host_matmul &desc = p.desc;

    if (has_bias(desc.epilogue))
        value += get(p.d.type, desc.bias, i);
    if (desc.epilogue == CUBLASLT_EPILOGUE_DGELU)
        return value * gelu_slope(get(p.d.type, desc.aux, j * desc.aux_ld + i));
    if (!has_gelu(desc.epilogue))
        return value;
    if (has_aux(desc.epilogue))
        put(p.d.type, desc.aux, j * desc.aux_ld + i, (float)value);
    return gelu(value);
}

cudaError_t compute(const product &p)
{
    int64_t m = p.d.rows, n = p.d.columns, k = columns_of(p.a, p.desc.op_a);
    std::vector<float> a((size_t)(m * k));
    std::vector<double> sum((size_t)m);

    for (int64_t i = 0; i < m; i++)
        for (int64_t l = 0; l < k; l++)
            a[(size_t)(l * m + i)] =
                factor(p.desc, p.a.type, p.at_a,
                       p.desc.op_a == CUBLAS_OP_N ? l * p.a.ld + i : i * p.a.ld + l);
    for (int64_t j = 0; j < n; j++) {
        double b_sum = 0;

        std::fill(sum.begin(), sum.end(), 0.0);
        for (int64_t l = 0; l < k; l++) {
            int64_t at = p.desc.op_b == CUBLAS_OP_N ? j * p.b.ld + l : l * p.b.ld + j;
            double b = factor(p.desc, p.b.type, p.at_b, at);

            b_sum += b;
            for (int64_t i = 0; i < m; i++)
                sum[(size_t)i] += (double)a[(size_t)(l * m + i)] * b;
        }
        if (p.desc.epilogue == CUBLASLT_EPILOGUE_BGRADB)
            put(p.d.type, p.desc.bias, j, (float)b_sum);
        for (int64_t i = 0; i < m; i++) {
            double value = p.alpha * sum[(size_t)i];

            if (p.beta != 0)
                value += (double)p.beta * get(p.c.type, p.at_c, j * p.c.ld + i);
            value = through_epilogue(p, i, j, value);
            put(p.d.type, p.at_d, j * p.d.ld + i, (float)value);
        }
    }
    cuda_host_pass(p.seconds);
    return cudaSuccess;
}

} /* namespace */

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_INVALID_VALUE   ? "CUBLAS_STATUS_INVALID_VALUE"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                                   : "CUBLAS_STATUS_EXECUTION_FAILED";
}

size_t cublasLtGetVersion(void)
{
    return 130000;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out)
{
    *out = new cuda_host_lt{0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lt)
{
    delete lt;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out,
                                        cublasComputeType_t compute,
                                        cudaDataType_t scale_type)
{
    bool is_tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32;

    if ((compute != CUBLAS_COMPUTE_32F && !is_tf32) || scale_type != CUDA_R_32F)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = new cuda_host_matmul{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT,
                                nullptr,     nullptr,     0,
                                is_tf32};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> static cublasStatus_t take(T *to, const void *value, size_t n_bytes)
{
    if (n_bytes != sizeof(*to))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, n_bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t what,
                                              const void *value, size_t n_bytes)
{
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&desc->op_a, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&desc->op_b, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&desc->epilogue, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&desc->bias, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return take(&desc->aux, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return take(&desc->aux_ld, value, n_bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out,
                                          cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t ld)
{
    *out = new cuda_host_layout{type, (int64_t)rows, (int64_t)columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = new cuda_host_preference{0, 0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                     cublasLtMatmulPreferenceAttributes_t what,
                                     const void *value, size_t n_bytes)
{
    switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&preference->workspace, value, n_bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return take(&preference->reduction, value, n_bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&preference->align[what - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                    value, n_bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

static product product_of(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                          cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                          cublasLtMatrixLayout_t d)
{
    return {*desc, *a, *b, *c, *d, nullptr, nullptr, nullptr, nullptr, 1, 0, 0};
}

/* Alignments of vector and auxiliary matrix, as one word. */
static uint64_t vectors_of(const cuda_host_matmul &desc)
{
    return alignment(desc.bias) | alignment(desc.aux) << 16;
}

/* An algorithm remembers what it was chosen for: alignments, room and epilogue. */
cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc,
                               cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                               cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                               cublasLtMatmulPreference_t preference, int n_wanted,
                               cublasLtMatmulHeuristicResult_t *results, int *n_found)
{
    product p = product_of(desc, a, b, c, d);
    uint64_t align = 0;

    *n_found = 0;
    if (!lt || n_wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!does_fit(p) || !is_known(desc->epilogue) || !has_vectors(p))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++)
        align |= (uint64_t)preference->align[i] << 16 * i;
    if (n_wanted > 1) /* one that failed, and says nothing else */
        results[(*n_found)++] = {{}, 0, CUBLAS_STATUS_NOT_SUPPORTED};
    for (uint64_t i = 0; i < N_ALGOS && *n_found < n_wanted; i++)
        results[(*n_found)++] = {{{ALGO_MAGIC, align, preference->workspace, i,
                                   (uint64_t)desc->epilogue, vectors_of(*desc)}},
                                 preference->workspace,
                                 CUBLAS_STATUS_SUCCESS};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    if (!lt || algo->data[ALGO_NAME] != ALGO_MAGIC ||
        algo->data[ALGO_NUMBER] >= N_ALGOS ||
        algo->data[ALGO_EPILOGUE] != (uint64_t)desc->epilogue)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!does_fit(product_of(desc, a, b, c, d)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    result->workspaceSize = algo->data[ALGO_WORKSPACE];
    result->state = CUBLAS_STATUS_SUCCESS;
    return CUBLAS_STATUS_SUCCESS;
}

/* Pointers are aligned as the algorithm was told. */
static bool is_aligned(const product &p, const cublasLtMatmulAlgo_t *algo)
{
    const void *all[] = {p.at_a, p.at_b, p.at_c, p.at_d};
    uint64_t vectors = algo->data[ALGO_VECTORS];

    for (int i = 0; i < 4; i++)
        if (alignment(all[i]) < (algo->data[ALGO_ALIGN] >> 16 * i & 0xffff))
            return false;
    return (!vector_length(p) || alignment(p.desc.bias) >= (vectors & 0xffff)) &&
           (!has_aux(p.desc.epilogue) || alignment(p.desc.aux) >= vectors >> 16);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc,
                              const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    product p = product_of(desc, a_layout, b_layout, c_layout, d_layout);
    cublasLtMatmulHeuristicResult_t result = {};

    p.at_a = a;
    p.at_b = b;
    p.at_c = c;
    p.at_d = d;
    memcpy(&p.alpha, alpha, sizeof(p.alpha));
    memcpy(&p.beta, beta, sizeof(p.beta));
    if (!algo || cublasLtMatmulAlgoCheck(lt, desc, a_layout, b_layout, c_layout, d_layout,
                                         algo, &result) != CUBLAS_STATUS_SUCCESS)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (algo->data[ALGO_NUMBER] == ALGO_THAT_FAILS || !is_aligned(p, algo))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (workspace_bytes < result.workspaceSize ||
        alignment(workspace) < WORKSPACE_ALIGN ||
        !cuda_host_is_device(workspace, workspace_bytes) || !has_vectors(p) ||
        !is_disjoint(p) || !cuda_host_is_device(a, layout_bytes(p.a)) ||
        !cuda_host_is_device(b, layout_bytes(p.b)) ||
        !cuda_host_is_device(c, layout_bytes(p.c)) ||
        !cuda_host_is_device(d, layout_bytes(p.d)))
        return CUBLAS_STATUS_INVALID_VALUE;
    p.seconds = algo_seconds[algo->data[ALGO_NUMBER]];
    cuda_host_count_product(desc->epilogue != CUBLASLT_EPILOGUE_DEFAULT);
    return cuda_host_ask(stream, [p] { return compute(p); }) == cudaSuccess
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}
