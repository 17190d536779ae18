/* fake_nvml.c - NVML's five calls that an agent makes: FAKE_NVML_DEVICES GPUs, the first of
 * 80 GiB, each with one more than the one before */
#include <stdlib.h>

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long memory[3]);

static unsigned numbers[64];

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *n)
{
    const char *text = getenv("FAKE_NVML_DEVICES");

    *n = text ? (unsigned)strtoul(text, NULL, 10) : 0;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device)
{
    numbers[i % 64] = i;
    *device = &numbers[i % 64];
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long memory[3])
{
    memory[0] = (80ULL + *(unsigned *)device) << 30;
    memory[1] = memory[2] = 0;
    return 0;
}
