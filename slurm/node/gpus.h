/* gpus.h - the NVIDIA GPUs of this node, as far as they may be used here, and who uses them
 *
 * Source: `nvidia-smi --help-query-gpu`, `--help-query-compute-apps`; the CUDA C++
 * Programming Guide, "Environment Variables", for CUDA_VISIBLE_DEVICES.
 * Owns: nothing. Threads: one.
 */
#ifndef VNEVA_SLURM_NODE_GPUS_H
#define VNEVA_SLURM_NODE_GPUS_H

#include "common/base/json.h"

/* {"why", "visible", "busy": [{"gpu", "pid", "mb"}]}. why: what keeps us from seeing any
 * ("" when they were seen). Pure: devices and apps are nvidia-smi's CSV without header and
 * units, "index, uuid" and "gpu_uuid, pid, used_memory"; visible: CUDA_VISIBLE_DEVICES or
 * NULL. */
int gpus_parse(struct json **out, const char *devices, const char *apps,
               const char *visible, struct err *err);
/* Asks nvidia-smi, which may take timeout_ms. */
int gpus_look(struct json **out, int64_t timeout_ms, struct err *err);

#endif
