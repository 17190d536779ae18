/* environment.h - what a launcher's environment variables say about this node's place
 *
 * Open MPI's mpirun, Slurm's srun and Base Command Platform each tell a process which of
 * how many it is; this reads whichever is there, the innermost first, for one vneva-node
 * on every node. Sources: man srun "OUTPUT ENVIRONMENT VARIABLES"; Open MPI's FAQ
 * "environment variables"; Base Command Platform's user guide, "multi-node jobs".
 * Pure: reads the variables it is given. Owns: nothing. Threads: any.
 * Errors: ERR_INVALID names the variable that is no number, missing or out of range;
 * ERR_STATE a batch script of several nodes that starts the program without srun.
 */
#ifndef VNEVA_SLURM_NODE_ENVIRONMENT_H
#define VNEVA_SLURM_NODE_ENVIRONMENT_H

#include "common/base/err.h"

#define ENVIRONMENT_HOST_MAX 256 /* with the NUL: a host's name (RFC 1035) */
#define ENVIRONMENT_TOKEN_MAX 128
#define ENVIRONMENT_DEVICES_MAX 1024

enum environment_launcher {
    LAUNCHER_NONE,    /* one node alone */
    LAUNCHER_SLURM,   /* a step of srun */
    LAUNCHER_NGC,     /* a replica of a Base Command Platform job */
    LAUNCHER_OPENMPI, /* mpirun, also the one that bcprun runs, or one within Slurm */
};

struct environment {
    enum environment_launcher launcher;
    int node, n_nodes; /* this one, of all; 0 of 1 without a launcher */
    int n_devices;     /* GPUs of this node; 0: not said */
    /* Host of node 0 as the others reach it; "": not said. */
    char master[ENVIRONMENT_HOST_MAX];
    /* For exchange_open_files: the same on all nodes, a plain file name. Fresh for every
     * start under Slurm and mpirun; a replica that Base Command Platform starts again has
     * the token it had. "": one node alone. */
    char token[ENVIRONMENT_TOKEN_MAX];
};

/* variables: "NAME=value" texts, ended by NULL, as in environ. */
int environment_read(struct environment *out, const char *const *variables,
                     struct err *err);

#endif
