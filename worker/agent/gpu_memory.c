#include "worker/agent/gpu_memory.h"

#include <dlfcn.h>
#include <stddef.h>

/* NVML's, as https://docs.nvidia.com/deploy/nvml-api says: 0 is success. */
#define NVML "libnvidia-ml.so.1"

struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml {
    int (*init)(void);
    int (*shutdown)(void);
    int (*get_count)(unsigned *n);
    int (*get_device)(unsigned i, void **device);
    int (*get_memory)(void *device, struct nvml_memory *memory);
};

static int find_calls(struct nvml *nvml, void *library)
{
    const struct {
        const char *name;
        void *at;
    } calls[] = {{"nvmlInit_v2", &nvml->init},
                 {"nvmlShutdown", &nvml->shutdown},
                 {"nvmlDeviceGetCount_v2", &nvml->get_count},
                 {"nvmlDeviceGetHandleByIndex_v2", &nvml->get_device},
                 {"nvmlDeviceGetMemoryInfo", &nvml->get_memory}};

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        void **at = calls[i].at;

        *at = dlsym(library, calls[i].name);
        if (!*at)
            return -1;
    }
    return 0;
}

/* Of the smallest GPU, times as many as are used; 0: not known. */
static int64_t ask(const struct nvml *nvml, int64_t n_devices)
{
    struct nvml_memory memory;
    unsigned n = 0;
    int64_t least = 0;
    void *device;

    if (nvml->get_count(&n) != 0)
        return 0;
    for (unsigned i = 0; i < n; i++) {
        if (nvml->get_device(i, &device) != 0 || nvml->get_memory(device, &memory) != 0)
            return 0;
        if (i == 0 || (int64_t)memory.total < least)
            least = (int64_t)memory.total;
    }
    return least * (n_devices < (int64_t)n ? n_devices : (int64_t)n);
}

int64_t gpu_memory_bytes(int64_t n_devices)
{
    void *library = dlopen(NVML, RTLD_NOW | RTLD_LOCAL);
    struct nvml nvml;
    int64_t n_bytes = 0;

    if (!library)
        return 0;
    if (find_calls(&nvml, library) == 0 && nvml.init() == 0) {
        n_bytes = ask(&nvml, n_devices);
        nvml.shutdown();
    }
    dlclose(library);
    return n_bytes;
}
