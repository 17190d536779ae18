/* options.h - the words and options of one verb
 *
 * Options are --name VALUE, --name=VALUE or --name alone; some may be given several times.
 * "--" ends them: what follows is another program's (options->rest).
 * Borrows: everything; argv must outlive the struct.
 */
#ifndef VNEVA_SLURM_LAUNCH_OPTIONS_H
#define VNEVA_SLURM_LAUNCH_OPTIONS_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define OPTIONS_WORDS_MAX 512 /* of words, of options given and of the rest */

struct option_known {
    const char *name;    /* "nodes"; NULL ends a list */
    const char *value;   /* what it takes, as help shows it ("N"); NULL: a switch */
    const char *meaning; /* for help */
};

struct options {
    const char *names[OPTIONS_WORDS_MAX], *values[OPTIONS_WORDS_MAX]; /* as given */
    const char *words[OPTIONS_WORDS_MAX], *rest[OPTIONS_WORDS_MAX];
    int n_given, n_words, n_rest;
    bool has_rest; /* there was a "--" */
    bool wants_help;
};

/* known: lists of options, n_lists of them. Unknown options are ERR_INVALID, with the
 * nearest known one; so is a control character anywhere: no script could hold it. */
int options_parse(struct options *out, const struct option_known *const *known,
                  int n_lists, int argc, char *const *argv, struct err *err);

bool options_has(const struct options *options, const char *name);
/* The last one given; NULL: none. */
const char *options_value(const struct options *options, const char *name);
/* All that were given of a name, in order; returns how many. out[OPTIONS_WORDS_MAX] */
int options_values(const struct options *options, const char *name, const char **out);
/* As a whole number in [min, max]; `otherwise` when it is not given. */
int options_int(const struct options *options, const char *name, int64_t min, int64_t max,
                int64_t otherwise, int64_t *out, struct err *err);

void options_print(FILE *out, const struct option_known *known); /* for help */

#endif
