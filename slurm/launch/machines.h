/* machines.h - options of an allocation as choices of the batch script, and sbatch
 *
 * `launch slurm` and `agents slurm` share these options.
 */
#ifndef VNEVA_SLURM_LAUNCH_MACHINES_H
#define VNEVA_SLURM_LAUNCH_MACHINES_H

#include "common/base/args.h"
#include "common/base/fs.h"
#include "slurm/launch/script.h"

#define MACHINES_SIGNAL_S 180 /* notice before the time limit, unless said */

extern const struct args_option machines_options[];

struct machines {
    const struct args *options;
    const char *name;          /* of the Slurm job */
    int64_t n_nodes;           /* known by now */
    int64_t n_devices;         /* ranks at once on a node; 0: not settled here */
    char run_dir[FS_PATH_MAX]; /* absolute */
};

/* All choices that both verbs have; values the script could not hold are ERR_INVALID. */
int machines_fill(struct script *script, const struct machines *machines,
                  struct err *err);

/* Hands a script in: its job's number into id[MACHINES_ID_MAX]. What sbatch says against
 * it comes with what to do about it: ERR_STATE; ERR_UNSUPPORTED: there is no sbatch here;
 * ERR_TIMEOUT: no answer. */
#define MACHINES_ID_MAX 32
int machines_submit(char *id, const char *script_path, struct err *err);

/* What to do about a complaint of sbatch, NULL: nothing known. Pure. */
const char *machines_remedy(const char *complaint);

/* Seconds of a time limit as sbatch reads them ("90", "30:00", "4:00:00", "2-12"); -1:
 * not one of its forms, or without end. Pure. */
int64_t machines_time_s(const char *text);

#endif
