/* quote.h - texts of users in the languages of shells and of sbatch
 *
 * All append to out. For lines: text without line breaks (script.h checks).
 */
#ifndef VNEVA_SLURM_LAUNCH_QUOTE_H
#define VNEVA_SLURM_LAUNCH_QUOTE_H

#include "common/base/buf.h"

/* One word of a POSIX shell: as it is where nothing in it is special, else in single
 * quotes. */
void quote_shell(struct buf *out, const char *text);
/* Words with blanks between them: a command line. */
void quote_shell_words(struct buf *out, const char *const *words, int n);

/* One word of a `#SBATCH` line, which has quotes of its own: backslash and double quote
 * are escaped by a backslash, in single quotes as well, and '#' begins a comment (checked
 * against Slurm 22.05). The part before '=' of an option stays outside the quotes. */
void quote_sbatch(struct buf *out, const char *word);

/* A path for --output and --error of sbatch, in which % begins a pattern: %% is one. */
void quote_sbatch_path(struct buf *out, const char *path);

#endif
