/* driver.c - libcuda.so.1 for a machine without a driver: there is no device, and kernels
 * that are "loaded" go nowhere
 *
 * With it the real cuDNN makes plans for a device that is only described to it: it compiles
 * the kernels and hands them to the driver, and that is all it wants of one. Every function
 * that it looks up must be there; those that it should not need say that there is no device.
 */
#include <stddef.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };

#define EXPORT __attribute__((visibility("default")))

static char something; /* what handles point to */

EXPORT int cuLibraryLoadData(void **library, const void *code, int *options,
                             void **values, unsigned n_options, int *library_options,
                             void **library_values, unsigned n_library_options);
EXPORT int cuLibraryGetKernel(void **kernel, void *library, const char *name);
EXPORT int cuLibraryUnload(void *library);

int cuLibraryLoadData(void **library, const void *code, int *options, void **values,
                      unsigned n_options, int *library_options, void **library_values,
                      unsigned n_library_options)
{
    (void)options;
    (void)values;
    (void)n_options;
    (void)library_options;
    (void)library_values;
    (void)n_library_options;
    *library = &something;
    return code ? SUCCESS : NO_DEVICE;
}

int cuLibraryGetKernel(void **kernel, void *library, const char *name)
{
    *kernel = &something;
    return library == &something && name ? SUCCESS : NO_DEVICE;
}

int cuLibraryUnload(void *library)
{
    return library == &something ? SUCCESS : NO_DEVICE;
}

#define ABSENT(name)                                                                     \
    EXPORT int name(void);                                                               \
    int name(void)                                                                       \
    {                                                                                    \
        return NO_DEVICE;                                                                \
    }

ABSENT(cuCtxGetCurrent)
ABSENT(cuCtxGetDevice)
ABSENT(cuCtxGetLimit)
ABSENT(cuCtxPopCurrent)
ABSENT(cuCtxPushCurrent)
ABSENT(cuDeviceGet)
ABSENT(cuDeviceGetAttribute)
ABSENT(cuDeviceGetCount)
ABSENT(cuDevicePrimaryCtxRelease)
ABSENT(cuDevicePrimaryCtxReset)
ABSENT(cuDevicePrimaryCtxRetain)
ABSENT(cuDriverGetVersion)
ABSENT(cuFuncGetAttribute)
ABSENT(cuFuncSetAttribute)
ABSENT(cuGetErrorName)
ABSENT(cuGetErrorString)
ABSENT(cuInit)
ABSENT(cuKernelGetAttribute)
ABSENT(cuKernelGetFunction)
ABSENT(cuKernelSetAttribute)
ABSENT(cuLaunchCooperativeKernel)
ABSENT(cuLaunchKernel)
ABSENT(cuLaunchKernelEx)
ABSENT(cuLibraryLoadFromFile)
ABSENT(cuLinkAddData)
ABSENT(cuLinkAddData_v2)
ABSENT(cuLinkAddFile_v2)
ABSENT(cuLinkComplete)
ABSENT(cuLinkCreate)
ABSENT(cuLinkCreate_v2)
ABSENT(cuLinkDestroy)
ABSENT(cuMemcpyDtoH_v2)
ABSENT(cuModuleGetFunction)
ABSENT(cuModuleGetGlobal_v2)
ABSENT(cuModuleLoadData)
ABSENT(cuModuleLoadDataEx)
ABSENT(cuModuleLoadFatBinary)
ABSENT(cuModuleUnload)
ABSENT(cuOccupancyMaxActiveBlocksPerMultiprocessor)
ABSENT(cuOccupancyMaxPotentialClusterSize)
ABSENT(cuStreamGetCtx)
ABSENT(cuStreamGetGreenCtx)
ABSENT(cuStreamSynchronize)
ABSENT(cuTensorMapEncodeTiled)
