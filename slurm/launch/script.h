/* script.h - slurm/vneva.sbatch with its choices filled in
 *
 * The template is the committed file, built into the program. Choices are the lines above
 * its last marker: `#SBATCH --name=value`, which may be off (`##SBATCH`), and `NAME=value`.
 * Only these change; everything else is the same in every script.
 * Owns: the texts it was given, quoted.
 * Errors: kept until script_write, so that a sequence of choices is checked once. A text
 * with a line break or another control character is ERR_INVALID. A name that the template
 * does not have is ERR_NOT_FOUND: a fault of the caller.
 */
#ifndef VNEVA_SLURM_LAUNCH_SCRIPT_H
#define VNEVA_SLURM_LAUNCH_SCRIPT_H

#include "common/base/buf.h"

#define SCRIPT_CHOICES_MAX 64

struct script;

/* NULL only when out of memory. */
struct script *script_create(void);
void script_destroy(struct script *script); /* NULL is fine */

/* `#SBATCH --name=value`; NULL leaves the template's line as it is. */
void script_set_option(struct script *script, const char *name, const char *value);
/* The same, for a path that may hold no pattern of sbatch's: folder/file, %j in file. */
void script_set_output(struct script *script, const char *name, const char *folder,
                       const char *file);
/* `NAME=value`; NULL leaves the template's line as it is. */
void script_set_variable(struct script *script, const char *name, const char *value);
/* `NAME=(word ...)`. */
void script_set_list(struct script *script, const char *name, const char *const *words,
                     int n);
/* Options of sbatch as typed, each with its value on a line of its own, where the template
 * says they go. ERR_INVALID for one that would break the script (see script.c). */
int script_add_options(struct script *script, const char *const *words, int n,
                       struct err *err);

/* Appended to out. */
int script_write(struct buf *out, const struct script *script, struct err *err);

/* The file as it is committed. */
const char *script_template(void);

#endif
