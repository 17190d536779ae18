/* args.h - the words and options of a command line
 *
 * Options are --name, --name VALUE, --name=VALUE, or a letter (-f); some may be given
 * several times. "--" ends them.
 * Borrows: everything; argv and the lists must outlive the struct.
 */
#ifndef VNEVA_COMMON_BASE_ARGS_H
#define VNEVA_COMMON_BASE_ARGS_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define ARGS_WORDS_MAX 4096 /* of a command line */
#define ARGS_DURATION_MAX_MS (INT64_C(7) * 86400000)

struct args_option {
    const char *name;    /* "devices"; NULL ends a list */
    char letter;         /* 'f', or 0 */
    const char *value;   /* what it takes, as help shows it ("N"); NULL: a switch */
    const char *meaning; /* for help; NULL where that is written by hand */
};

/* What a command takes. */
struct args_known {
    const struct args_option *options, *more; /* lists; NULL: none */
    const char *hint; /* of an option that is like none of them: ARGS_HINT, or better */
};
#define ARGS_HINT "--help lists those there are"

struct args {
    const char *names[ARGS_WORDS_MAX], *values[ARGS_WORDS_MAX]; /* of options, as given */
    const char *words[ARGS_WORDS_MAX]; /* first those before "--", then those behind it */
    int n_given, n_words, n_rest;      /* n_words: before it; n_rest: behind it */
    bool has_rest;                     /* there was a "--" */
    bool wants_help;                   /* --help or -h */
};

/* Unknown options are ERR_INVALID, with the nearest known one or the hint. */
int args_parse(struct args *out, const struct args_known *known, int argc,
               char *const *argv, struct err *err);

bool args_has(const struct args *args, const char *name);
/* The last one given, "" for a switch; NULL: none. */
const char *args_value(const struct args *args, const char *name);
/* All that were given of a name, in order; returns how many. out[ARGS_WORDS_MAX] */
int args_values(const struct args *args, const char *name, const char **out);
/* The option as a whole number in [min, max]; `otherwise` when it is not given. */
int args_int(const struct args *args, const char *name, int64_t min, int64_t max,
             int64_t otherwise, int64_t *out, struct err *err);

/* The same for a number that need not be whole. */
int args_number(const struct args *args, const char *name, double min, double max,
                double otherwise, double *out, struct err *err);
/* The same for a time from 1 s to ARGS_DURATION_MAX_MS: a number of seconds, or 90s, 5m,
 * 2h, 1d. In ms. */
int args_duration(const struct args *args, const char *name, int64_t otherwise,
                  int64_t *out, struct err *err);

#endif
