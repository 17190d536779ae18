#include "model/backend/cuda/cuda.h"

#include <stdio.h>

#define NAME_BYTES 48 /* of one library, with its version */
#define WHY_BYTES 256 /* and what it refused */

void cuda_about(const struct backend *b, struct backend_about *out)
{
    const struct cuda *cuda = (const struct cuda *)b;
    char matmul[NAME_BYTES], attention[NAME_BYTES + WHY_BYTES];
    struct cudaDeviceProp properties;
    int runtime = 0, driver = 0, major = 0, minor = 0;

    *out = (struct backend_about){.attention = cuda->attention};
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, cuda->device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, cuda->device);
    if (cudaGetDeviceProperties(&properties, cuda->device) == cudaSuccess)
        snprintf(out->device, sizeof(out->device), "%.64s, compute capability %d.%d",
                 properties.name, major, minor);
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(
        &driver); /* the newest CUDA that the driver does: 13010 is 13.1 */
    cuda_matmul_about(matmul, sizeof(matmul));
    cuda_attention_about(cuda, attention, sizeof(attention));
    snprintf(out->libraries, sizeof(out->libraries),
             "CUDA %d.%d (driver up to %d.%d), %s, %s", runtime / 1000,
             runtime % 1000 / 10, driver / 1000, driver % 1000 / 10, matmul, attention);
    cudaGetLastError(); /* what could not be asked is no error of the next call */
}
