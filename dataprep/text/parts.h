/* parts.h - the normalizers, pre-tokenizers and decoders of a tokenizer.json, as lists
 *
 * Each is an object with a "type", or null, or a Sequence of them, which may nest.
 */
#ifndef VNEVA_DATAPREP_TEXT_PARTS_H
#define VNEVA_DATAPREP_TEXT_PARTS_H

#include "common/base/json.h"

#define PARTS_MAX 64

/* Calls `read` for every part in order. what: "normalizer", for errors; list: the key of
 * a Sequence's members. */
int parts_each(const struct json *json, const char *what, const char *list, void *state,
               int (*read)(void *state, const char *type, const struct json *part,
                           struct err *err),
               struct err *err);
/* For `read`: this type is not had; known: those that are. */
int parts_refuse(const char *known, struct err *err);
/* A text of exactly one character, its bytes; -1: it is none. */
int parts_letter(const struct json *part, const char *key, const char **out, size_t *n,
                 struct err *err);

#endif
