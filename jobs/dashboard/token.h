/* token.h - the secret that a browser or a scraper shows
 *
 * A file of mode 0600 with one line of TOKEN_MIN to TOKEN_MAX letters, digits and "-._~+/="
 * (they go through headers, cookies and forms as they are).
 * Threads: any.
 */
#ifndef VNEVA_JOBS_DASHBOARD_TOKEN_H
#define VNEVA_JOBS_DASHBOARD_TOKEN_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define TOKEN_MIN 16
#define TOKEN_MAX 256
#define TOKEN_MADE_BYTES 32 /* random ones of a token made here, two digits each */

struct token {
    char text[TOKEN_MAX + 1]; /* "": none is asked for */
};

/* ERR_DENIED where others may read the file, ERR_INVALID where it holds no token. */
int token_load(struct token *out, const char *path, struct err *err);
/* The same; where there is no such file it is made, with a new token. */
int token_load_or_make(struct token *out, const char *path, bool *is_new,
                       struct err *err);

/* Takes as long whatever is given. false where no token is set. */
bool token_is(const struct token *token, const char *given, size_t n_bytes);

#endif
