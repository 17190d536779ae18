/* bcp.h - the command that runs a job on NVIDIA Base Command Platform
 *
 * `ngc base-command job run` takes a command line for the job; that one calls `bcprun`,
 * which starts vneva-node once on each of the job's nodes. So a text goes through three
 * readers: the user's shell (printed only), the job's shell, and bcprun's shell.
 * Sources: `ngc base-command job run --help` (NGC CLI 3); `bcprun --help` 1.2; the
 * launcher scripts of NeMo and BioNeMo for this platform.
 * Pure: nothing is run here.
 */
#ifndef VNEVA_SLURM_LAUNCH_BCP_H
#define VNEVA_SLURM_LAUNCH_BCP_H

#include "common/base/args.h"

#include "common/base/buf.h"

#define BCP_SPEC_MAX (64u << 10) /* bytes of a specification that goes along */

extern const struct args_option bcp_options[];

struct bcp {
    const struct args *options;
    const char *name;
    int64_t n_replicas, n_devices; /* n_devices 0: as many ranks as a replica has GPUs */
    const char *spec_path;         /* as the job sees it; NULL: spec_text goes along */
    const struct buf *spec_text;
    const char *const *overrides;
    int n_overrides;
    const char *stamp; /* for the name of a run folder */
};

struct bcp_command {
    const char *words[2 * ARGS_WORDS_MAX]; /* argv, ended by NULL */
    int n_words;
    struct buf run_dir, command_line, replicas;
    struct buf variables[ARGS_WORDS_MAX]; /* "NAME:VALUE" */
    int n_variables;
};

/* ERR_INVALID names the option that is missing or not in its form. */
int bcp_check_options(const struct args *options, struct err *err);

/* Of checked options. ERR_INVALID: replicas without a folder that all of them write. */
int bcp_make(struct bcp_command *out, const struct bcp *bcp, struct err *err);
void bcp_command_fini(struct bcp_command *command);

/* Whether a path of the job lies in something that is mounted. */
bool bcp_is_mounted(const struct args *options, const char *path);

/* GPUs of an instance by its name, "dgxa100.80g.8.norm"; 0: the name does not say. */
int64_t bcp_instance_gpus(const char *instance);

#endif
