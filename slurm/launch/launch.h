/* launch.h - what the verbs of vneva-launch share: exit codes, and one function each
 *
 * A verb prints what it found to standard output and everything else to standard error,
 * and returns an exit code.
 */
#ifndef VNEVA_SLURM_LAUNCH_LAUNCH_H
#define VNEVA_SLURM_LAUNCH_LAUNCH_H

#include "common/base/args.h"
#include "common/base/spawn.h"

#define LAUNCH_CALL_MS 50000 /* for the manager's programs; a verb takes at most 60 s */
#define LAUNCH_NODES_MAX 4096
#define LAUNCH_DEVICES_MAX 1024
#define LAUNCH_NAME_MAX 129 /* of a job or a pool, with the NUL */

enum launch_exit {
    EXIT_DONE = 0,
    EXIT_JOB_FAILED = 1,
    EXIT_USAGE = 2,   /* wrong usage or bad input */
    EXIT_NOBODY = 3,  /* the cluster manager does not answer */
    EXIT_REFUSED = 4, /* it refuses */
    EXIT_SYSTEM = 5,
};

/* The words of a verb with its lists of options (NULL: none); what follows "--" is another
 * program's. A control character anywhere is ERR_INVALID: no script could hold it. */
int launch_parse(struct args *out, const struct args_option *options,
                 const struct args_option *more, int argc, char *const *argv,
                 struct err *err);
void launch_print_options(const struct args_option *options); /* for help */

/* Prints "vneva: text" and returns the exit code that fits. */
int launch_fail(const struct err *err);

/* Runs a program to its end, as spawn_run. Only where it returns 0, *out is for the caller
 * to end (spawn_said_fini). */
int launch_call(struct spawn_said *out, const char *const *argv, struct err *err);
/* One line of what it said on standard error, or else on standard output: the first with
 * the word error, or the first. For errors. Borrowed; cuts the text. */
const char *launch_complaint(struct spawn_said *said);

/* argv begins behind the verb's words ("slurm", "agents slurm"). */
int cmd_slurm(int argc, char *const *argv);
int cmd_bcp(int argc, char *const *argv);
int cmd_status(int argc, char *const *argv);
int cmd_agents(int argc, char *const *argv);
int cmd_list(int argc, char *const *argv);
int cmd_cancel(int argc, char *const *argv);

/* "20261127T180501Z": for the names of folders. out[LAUNCH_STAMP_MAX] */
#define LAUNCH_STAMP_MAX 32
void launch_stamp(char *out);
/* A name as part of a path: what is no letter, digit, '.', '_' or '-' becomes '-'.
 * out[LAUNCH_NAME_MAX], cut. */
void launch_plain_name(char *out, const char *name);
/* path itself where it is absolute, else behind the current folder. out[FS_PATH_MAX] */
int launch_absolute(char *out, const char *path, struct err *err);

#endif
