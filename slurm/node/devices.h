/* devices.h - how many ranks the agent of this node program may run, and on what
 *
 * Where several node programs share a host they share its GPUs, in order of their place
 * there. Sources: the CUDA C++ Programming Guide, "Environment Variables", for
 * CUDA_VISIBLE_DEVICES; the driver's device files /dev/nvidiaN.
 * Owns: nothing. Threads: one.
 */
#ifndef VNEVA_SLURM_NODE_DEVICES_H
#define VNEVA_SLURM_NODE_DEVICES_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define DEVICES_VISIBLE_MAX 4096

struct devices_facts {
    int64_t asked;       /* --devices; 0: not said */
    const char *visible; /* CUDA_VISIBLE_DEVICES; NULL: not set */
    int64_t n_said;      /* GPUs by the launcher's word; 0: it says nothing */
    int64_t n_files;     /* device files of the driver */
    int64_t n_spec;      /* trainer.devices; 0: no job */
    int local, n_local;  /* this node program among those of its host */
};

struct devices {
    int64_t n;
    bool are_gpus;
    char visible
        [DEVICES_VISIBLE_MAX]; /* CUDA_VISIBLE_DEVICES of the agent; "": as it is */
};

/* Pure. ERR_LIMIT for a list of GPUs that is too long. */
int devices_decide(struct devices *out, const struct devices_facts *facts,
                   struct err *err);
int64_t devices_count_files(void);

#endif
