/* cuda.c - libcuda.so.1's stand-in: what FFmpeg's hwcontext_cuda asks of the driver, with
 * the host's memory as the device's
 *
 * FFmpeg looks up every name of ffnvcodec's list when it loads the library, and calls few
 * of them; the rest is here by name and says "not supported".
 * Environment: NVDEC_HOST_FAULT (see nvcuvid.c) "device": there is none. "copy:K": the
 * K-th copy fails. NVDEC_HOST_DEVICES: how many there are (1).
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MAP_NORESERVE */
#include "fault.h"

#include <ffnvcodec/dynlink_cuda.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* as the header has them: a wrong signature does not compile */
tcuInit cuInit;
tcuDeviceGetCount cuDeviceGetCount;
tcuDeviceGet cuDeviceGet;
tcuDeviceGetAttribute cuDeviceGetAttribute;
tcuDeviceGetName cuDeviceGetName;
tcuDeviceComputeCapability cuDeviceComputeCapability;
tcuCtxPushCurrent_v2 cuCtxPushCurrent_v2;
tcuCtxPopCurrent_v2 cuCtxPopCurrent_v2;
tcuCtxCreate_v2 cuCtxCreate_v2;
tcuCtxDestroy_v2 cuCtxDestroy_v2;
tcuCtxGetDevice cuCtxGetDevice;
tcuMemAlloc_v2 cuMemAlloc_v2;
tcuMemFree_v2 cuMemFree_v2;
tcuMemcpy2D_v2 cuMemcpy2D_v2;
tcuMemcpy2DAsync_v2 cuMemcpy2DAsync_v2;
tcuStreamSynchronize cuStreamSynchronize;
tcuGetErrorName cuGetErrorName;
tcuGetErrorString cuGetErrorString;

#define NO_DEVICE ((CUresult)100)
#define OUT_OF_MEMORY ((CUresult)2)
#define INVALID_CONTEXT ((CUresult)201)
#define STACK_MAX 8
#define ALIGNMENT 512
#define RESERVED_BYTES ((size_t)64 << 30)

struct CUctx_st {
    int device;
};

static _Thread_local CUcontext stack[STACK_MAX];
static _Thread_local int n_stack;

static int n_devices(void)
{
    const char *text = getenv("NVDEC_HOST_DEVICES");

    return host_fault("device") ? 0 : text ? (int)strtol(text, NULL, 10) : 1;
}

/* As the driver: addresses for everything that any device may ever hold, never touched. */
static void *reserved = MAP_FAILED;

CUresult cuInit(unsigned flags)
{
    (void)flags;
    if (n_devices() == 0)
        return NO_DEVICE;
    if (reserved == MAP_FAILED)
        reserved = mmap(NULL, RESERVED_BYTES, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return reserved == MAP_FAILED ? OUT_OF_MEMORY : CUDA_SUCCESS;
}

static void __attribute__((destructor)) give_back(void)
{
    if (reserved != MAP_FAILED)
        munmap(reserved, RESERVED_BYTES);
}

CUresult cuDeviceGetCount(int *count)
{
    *count = n_devices();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return ordinal >= 0 && ordinal < n_devices() ? CUDA_SUCCESS : (CUresult)101;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    (void)device;
    *value = attribute == CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT ? ALIGNMENT : 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int n_bytes, CUdevice device)
{
    (void)device;
    strncpy(name, "host", (size_t)n_bytes);
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    (void)device;
    *major = 9;
    *minor = 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    if (!context || n_stack == STACK_MAX)
        return INVALID_CONTEXT;
    stack[n_stack++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    if (n_stack == 0)
        return INVALID_CONTEXT;
    *context = stack[--n_stack];
    return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device)
{
    (void)flags;
    *context = malloc(sizeof(**context));
    if (!*context)
        return OUT_OF_MEMORY;
    (*context)->device = device;
    return cuCtxPushCurrent_v2(*context);
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    free(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    if (n_stack == 0)
        return INVALID_CONTEXT;
    *device = stack[n_stack - 1]->device;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t n_bytes)
{
    if (n_stack == 0)
        return INVALID_CONTEXT;
    *at = (CUdeviceptr)aligned_alloc(ALIGNMENT,
                                     (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    return *at ? CUDA_SUCCESS : OUT_OF_MEMORY;
}

CUresult cuMemFree_v2(CUdeviceptr at)
{
    free((void *)at);
    return CUDA_SUCCESS;
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *copy)
{
    const uint8_t *from = copy->srcMemoryType == CU_MEMORYTYPE_HOST
                              ? copy->srcHost
                              : (const uint8_t *)copy->srcDevice;
    uint8_t *to = copy->dstMemoryType == CU_MEMORYTYPE_HOST ? copy->dstHost
                                                            : (uint8_t *)copy->dstDevice;

    if (n_stack == 0)
        return INVALID_CONTEXT;
    if (host_fault_counts("copy"))
        return CUDA_ERROR_LAUNCH_TIMEOUT;
    for (size_t y = 0; y < copy->Height; y++)
        memcpy(to + (copy->dstY + y) * copy->dstPitch + copy->dstXInBytes,
               from + (copy->srcY + y) * copy->srcPitch + copy->srcXInBytes,
               copy->WidthInBytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    (void)stream;
    return cuMemcpy2D_v2(copy);
}

CUresult cuStreamSynchronize(CUstream stream)
{
    (void)stream;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult code, const char **text)
{
    *text = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : code == NO_DEVICE   ? "CUDA_ERROR_NO_DEVICE"
                                  : "CUDA_ERROR";
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult code, const char **text)
{
    (void)code;
    *text = "the stand-in fails as it was told to";
    return CUDA_SUCCESS;
}

/* looked up, never called by a decoder */
ABSENT(cuCtxSetLimit)
ABSENT(cuMemAllocPitch_v2)
ABSENT(cuMemAllocManaged)
ABSENT(cuMemsetD8Async)
ABSENT(cuMemcpy)
ABSENT(cuMemcpyAsync)
ABSENT(cuMemcpyHtoD_v2)
ABSENT(cuMemcpyHtoDAsync_v2)
ABSENT(cuMemcpyDtoH_v2)
ABSENT(cuMemcpyDtoHAsync_v2)
ABSENT(cuMemcpyDtoD_v2)
ABSENT(cuMemcpyDtoDAsync_v2)
ABSENT(cuDevicePrimaryCtxRetain)
ABSENT(cuDevicePrimaryCtxRelease)
ABSENT(cuDevicePrimaryCtxSetFlags)
ABSENT(cuDevicePrimaryCtxGetState)
ABSENT(cuDevicePrimaryCtxReset)
ABSENT(cuStreamCreate)
ABSENT(cuStreamQuery)
ABSENT(cuStreamDestroy_v2)
ABSENT(cuStreamAddCallback)
ABSENT(cuEventCreate)
ABSENT(cuEventDestroy_v2)
ABSENT(cuEventSynchronize)
ABSENT(cuEventQuery)
ABSENT(cuEventRecord)
ABSENT(cuLaunchKernel)
ABSENT(cuLinkCreate)
ABSENT(cuLinkAddData)
ABSENT(cuLinkComplete)
ABSENT(cuLinkDestroy)
ABSENT(cuModuleLoadData)
ABSENT(cuModuleUnload)
ABSENT(cuModuleGetFunction)
ABSENT(cuModuleGetGlobal)
ABSENT(cuTexObjectCreate)
ABSENT(cuTexObjectDestroy)
ABSENT(cuGLGetDevices_v2)
ABSENT(cuGraphicsGLRegisterImage)
ABSENT(cuGraphicsUnregisterResource)
ABSENT(cuGraphicsMapResources)
ABSENT(cuGraphicsUnmapResources)
ABSENT(cuGraphicsSubResourceGetMappedArray)
ABSENT(cuGraphicsResourceGetMappedPointer_v2)
ABSENT(cuArray3DCreate_v2)
ABSENT(cuArrayDestroy)
