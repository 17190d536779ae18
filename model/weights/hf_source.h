/* hf_source.h - values of a JSON object by key; the first error stays
 *
 * A key that is absent or null has the default; one of the wrong type is an error that
 * names it. After an error the functions go on with values that do no harm, so that a
 * sequence of reads is checked once, at its end, by has_failed.
 */
#ifndef VNEVA_MODEL_WEIGHTS_HF_SOURCE_H
#define VNEVA_MODEL_WEIGHTS_HF_SOURCE_H

#include "common/base/json.h"

struct source {
    const struct json *json; /* NULL: nothing said, all defaults */
    const char *where;       /* "text_config." or "" */
    struct err *err;
    bool has_failed;
};

/* "WHERE.KEY what", unless there is an error already. */
void source_fail(struct source *s, const char *key, enum err_code code,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* NULL for an absent key and for null. */
const struct json *source_value(const struct source *s, const char *key);
bool source_is_null(const struct source *s, const char *key); /* there, and null */

int64_t source_whole(struct source *s, const char *key, int64_t otherwise);
int64_t source_size(struct source *s, const char *key,
                    int64_t otherwise); /* 1 to INT32_MAX */
double source_number(struct source *s, const char *key, double otherwise);
bool source_flag(struct source *s, const char *key, bool otherwise);
const char *source_word(struct source *s, const char *key, const char *otherwise);

/* A switch of which we have one position only. */
void source_only_flag(struct source *s, const char *key, bool otherwise, bool have);

/* The object under a key, "text_config" or the like; its has_failed goes back by hand. */
struct source source_part(struct source *s, const char *key, const char *where);

#endif
