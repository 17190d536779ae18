/* json.h - JSON trees (RFC 8259): specs, annotations, manifests, safetensors headers
 *
 * Written here and not taken from a library because model/ must build with nothing but
 * a C compiler, and one JSON in the project is better than two.
 * Strict: no comments, no trailing commas, valid UTF-8, unique keys, at most
 * JSON_DEPTH_MAX levels. Numbers keep whether they were whole.
 * Owns: a tree owns all below it; json_free(root) frees it. Adding moves ownership of
 * the child into the parent, also when adding fails.
 * Threads: a tree belongs to one thread; reading one from several is fine.
 */
#ifndef VNEVA_COMMON_BASE_JSON_H
#define VNEVA_COMMON_BASE_JSON_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 64

enum json_type {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,    /* whole, fits int64 */
    JSON_DOUBLE, /* any other number */
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};

struct json; /* opaque */

/* Reading. n_bytes is the length of text, no NUL needed. Errors name line and column. */
int json_parse(struct json **out, const char *text, size_t n_bytes, struct err *err);
/* The same for a piece of a file: its first byte stands at that line and column, from 1. */
int json_parse_at(struct json **out, const char *text, size_t n_bytes, int64_t line,
                  int64_t column, struct err *err);
void json_free(struct json *json); /* NULL is fine */

enum json_type json_type(const struct json *json); /* JSON_NULL for a NULL pointer */
const char *json_type_name(enum json_type type);   /* "string", "whole number"... */

/* Borrowed; NULL when json is not of that type. */
const char *json_string(const struct json *json);
size_t json_string_bytes(const struct json *json); /* may hold NUL bytes */

/* The value, or `otherwise` when json is NULL or of another type. A whole number also
 * answers json_double. */
int64_t json_int(const struct json *json, int64_t otherwise);
double json_double(const struct json *json, double otherwise);
bool json_bool(const struct json *json, bool otherwise);

/* Arrays and objects: number of members, the i-th, its key (objects). */
size_t json_count(const struct json *json);
struct json *json_at(const struct json *json, size_t i);
const char *json_key_at(const struct json *json, size_t i);

/* Member of an object by key; NULL when absent or json is no object. */
struct json *json_get(const struct json *json, const char *key);
const char *json_get_string(const struct json *json, const char *key); /* NULL: absent */
const char *json_get_text(const struct json *json, const char *key);   /* "": absent */
int64_t json_get_int(const struct json *json, const char *key, int64_t otherwise);
double json_get_double(const struct json *json, const char *key, double otherwise);

/* Building. Constructors return NULL only when out of memory; the adders accept NULL
 * children and then fail, so a chain is checked once. */
struct json *json_new(enum json_type type); /* null, false, 0, 0.0, "", [], {} */
struct json *json_new_bool(bool value);
struct json *json_new_int(int64_t value);
struct json *json_new_double(double value);
struct json *json_new_string(const char *text);
struct json *json_clone(const struct json *json);
int json_append(struct json *array, struct json *child, struct err *err);
int json_set(struct json *object, const char *key, struct json *child, struct err *err);
int json_remove(struct json *object, const char *key); /* -1 when it was not there */

/* Writing, appended to out. Keys in insertion order. indent 0: one line. Doubles are
 * written with the fewest digits that read back to the same bits. Not a number and
 * infinite become null. */
void json_write(struct buf *out, const struct json *json, int indent);

/* "text" with quotes and escapes, appended to out: for code that streams JSON. */
void json_write_string(struct buf *out, const char *text, size_t n_bytes);

#endif
