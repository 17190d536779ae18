/* cublaslt.cpp - cuBLASLt's stand-in: column-major products in plain loops
 *
 * Refuses what cuBLASLt refuses: layouts that do not fit each other, leading dimensions
 * below the rows, types that do not go together, a bias of no address, pointers less
 * aligned than the algorithm was chosen for, memory that is not the device's.
 * Source: "cuBLAS Library", sections on cublasLtMatmul, its attributes and types.
 */
#include "cublasLt.h"
#include "cuda_host.h"

extern "C" {
#include "model/backend/half.h"
}

#include <cmath>
#include <cstring>
#include <vector>

struct cuda_host_lt {
    int unused;
};

struct cuda_host_matmul {
    cublasOperation_t op_a, op_b;
    cublasLtEpilogue_t epilogue;
    const void *bias;
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

#define ALGO_MAGIC 0x564e45564131ULL

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
        std::fill(sum.begin(), sum.end(), 0.0);
        for (int64_t l = 0; l < k; l++) {
            int64_t at = p.desc.op_b == CUBLAS_OP_N ? j * p.b.ld + l : l * p.b.ld + j;
            double b = factor(p.desc, p.b.type, p.at_b, at);

            for (int64_t i = 0; i < m; i++)
                sum[(size_t)i] += (double)a[(size_t)(l * m + i)] * b;
        }
        for (int64_t i = 0; i < m; i++) {
            double value = p.alpha * sum[(size_t)i];

            if (p.beta != 0)
                value += (double)p.beta * get(p.c.type, p.at_c, j * p.c.ld + i);
            if (p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS)
                value += get(p.d.type, p.desc.bias, i);
            put(p.d.type, p.at_d, j * p.d.ld + i, (float)value);
        }
    }
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
                                nullptr, is_tf32};
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

/* An algorithm remembers what it was chosen for: alignments and room. */
cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc,
                               cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                               cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                               cublasLtMatmulPreference_t preference, int n_wanted,
                               cublasLtMatmulHeuristicResult_t *results, int *n_found)
{
    product p = {*desc, *a, *b, *c, *d, nullptr, nullptr, nullptr, nullptr, 1, 0};

    *n_found = 0;
    if (!lt || n_wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!does_fit(p))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *results = {};
    results->algo.data[0] = ALGO_MAGIC;
    for (int i = 0; i < 4; i++)
        results->algo.data[1 + i] = preference->align[i];
    results->algo.data[5] = results->workspaceSize = preference->workspace;
    *n_found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static bool is_aligned(const void *data, uint64_t align)
{
    return (uintptr_t)data % align == 0;
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
    product p = {*desc, *a_layout, *b_layout, *c_layout, *d_layout, a, b, c, d, 0, 0};

    memcpy(&p.alpha, alpha, sizeof(p.alpha));
    memcpy(&p.beta, beta, sizeof(p.beta));
    if (!lt || !algo || algo->data[0] != ALGO_MAGIC || workspace_bytes < algo->data[5] ||
        !cuda_host_is_device(workspace, workspace_bytes) || !does_fit(p))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!is_aligned(a, algo->data[1]) || !is_aligned(b, algo->data[2]) ||
        !is_aligned(c, algo->data[3]) || !is_aligned(d, algo->data[4]))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!cuda_host_is_device(a, layout_bytes(p.a)) ||
        !cuda_host_is_device(b, layout_bytes(p.b)) ||
        !cuda_host_is_device(d, layout_bytes(p.d)) ||
        (desc->epilogue == CUBLASLT_EPILOGUE_BIAS && !is_aligned(desc->bias, 16)) ||
        (desc->epilogue == CUBLASLT_EPILOGUE_BIAS &&
         !cuda_host_is_device(desc->bias, (size_t)p.d.rows * item_bytes(p.d.type))))
        return CUBLAS_STATUS_INVALID_VALUE;
    return cuda_host_ask(stream, [p] { return compute(p); }) == cudaSuccess
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}
