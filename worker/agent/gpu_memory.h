/* gpu_memory.h - how much memory the GPUs of this machine have */
#ifndef VNEVA_WORKER_AGENT_GPU_MEMORY_H
#define VNEVA_WORKER_AGENT_GPU_MEMORY_H

#include <stdint.h>

/* Bytes that n_devices ranks have together, each on a GPU like the smallest, as many as
 * there are; asked of the driver's library (NVML), which takes no memory of them. 0: it is
 * not there, or does not say. */
int64_t gpu_memory_bytes(int64_t n_devices);

#endif
