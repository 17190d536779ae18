/* sizes.h - a job's specification beside the machines that are asked for
 *
 * Reads and checks the file as a submit does, and settles how many nodes and ranks of a
 * node there are: trainer.num_nodes and trainer.devices follow what was asked for where
 * the file is silent; where both speak they must agree.
 * Owns: the specification. Borrows: the overrides.
 */
#ifndef VNEVA_SLURM_LAUNCH_SIZES_H
#define VNEVA_SLURM_LAUNCH_SIZES_H

#include "common/base/args.h"
#include "jobs/spec/spec.h"

#define SIZES_TEXT_MAX 64
#define SIZES_FILE_MAX (1u << 20) /* bytes of a specification, as its reader has it */

struct sizes_asked {
    const char *nodes_option, *devices_option; /* their names, for errors */
    int64_t n_nodes, n_devices;                /* 0: not asked for */
    const char *kind;                          /* NULL: the file's */
};

struct sizes {
    struct spec *spec;
    /* The user's and what follows from the machines. */
    const char *overrides[ARGS_WORDS_MAX + 3];
    int n_overrides;
    int64_t n_nodes;
    int64_t n_devices; /* ranks at once on a node; 0: as many as it has GPUs */
    char texts[3][SIZES_TEXT_MAX];
};

/* What a submit would be refused for is ERR_INVALID here. */
int sizes_read(struct sizes *out, const char *path, const char *const *overrides,
               int n_overrides, const struct sizes_asked *asked, struct err *err);
void sizes_fini(struct sizes *sizes);

#endif
