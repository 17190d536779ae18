/* args.h - the words and options of one command
 *
 * Options are --name, --name VALUE, --name=VALUE, or a letter (-f); "--" ends them.
 * Borrows: everything; argv must outlive the struct.
 */
#ifndef VNEVA_JOBS_CLIENT_ARGS_H
#define VNEVA_JOBS_CLIENT_ARGS_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define ARGS_OPTIONS_MAX 12
#define ARGS_WORDS_MAX 512

struct args_option {
    const char *name;    /* "devices"; NULL ends a list */
    char letter;         /* 'f', or 0 */
    const char *value;   /* what it takes, as help shows it ("N"); NULL: a switch */
    const char *meaning; /* for help */
};

struct args {
    const struct args_option *known;
    const char *values[ARGS_OPTIONS_MAX]; /* by place in known; "" for a switch given */
    const char *words[ARGS_WORDS_MAX];
    int n_words;
    const char *key; /* --key FILE, which every command takes; NULL: not given */
    bool wants_help;
};

/* Unknown options are ERR_INVALID, with the nearest known one. */
int args_parse(struct args *out, const struct args_option *known, int argc,
               char *const *argv, struct err *err);

bool args_has(const struct args *args, const char *name);
const char *args_value(const struct args *args, const char *name); /* NULL: not given */
/* The option as a whole number in [min, max]; `otherwise` when it is not given. */
int args_int(const struct args *args, const char *name, int64_t min, int64_t max,
             int64_t otherwise, int64_t *out, struct err *err);
/* A word as the number of a job. */
int args_job(const char *word, int64_t *out, struct err *err);

#endif
