#include "model/weights/hf_source.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

void source_fail(struct source *s, const char *key, enum err_code code,
                 const char *format, ...)
{
    char what[ERR_TEXT_MAX / 2];
    va_list args;

    if (s->has_failed)
        return;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    err_set(s->err, code, "%s%s %s", s->where, key, what);
    s->has_failed = true;
}

/* NULL for an absent key and for null. */
const struct json *source_value(const struct source *s, const char *key)
{
    const struct json *found = json_get(s->json, key);

    return json_type(found) == JSON_NULL ? NULL : found;
}

bool source_is_null(const struct source *s, const char *key)
{
    const struct json *found = json_get(s->json, key);

    return found && json_type(found) == JSON_NULL;
}

int64_t source_whole(struct source *s, const char *key, int64_t otherwise)
{
    const struct json *found = source_value(s, key);

    if (found && json_type(found) != JSON_INT)
        source_fail(s, key, ERR_INVALID, "is a %s, wanted a whole number",
                    json_type_name(json_type(found)));
    return json_int(found, otherwise);
}

/* A size: 1 to INT32_MAX. */
int64_t source_size(struct source *s, const char *key, int64_t otherwise)
{
    int64_t n = source_whole(s, key, otherwise);

    if (n < 1 || n > INT32_MAX)
        source_fail(s, key, ERR_INVALID, "is %lld, wanted 1 to %d", (long long)n,
                    INT32_MAX);
    return n < 1 ? 1 : n; /* so that nothing is divided by it while the error is told */
}

double source_number(struct source *s, const char *key, double otherwise)
{
    const struct json *found = source_value(s, key);

    if (found && json_type(found) != JSON_INT && json_type(found) != JSON_DOUBLE)
        source_fail(s, key, ERR_INVALID, "is a %s, wanted a number",
                    json_type_name(json_type(found)));
    return json_double(found, otherwise);
}

bool source_flag(struct source *s, const char *key, bool otherwise)
{
    const struct json *found = source_value(s, key);

    if (found && json_type(found) != JSON_BOOL)
        source_fail(s, key, ERR_INVALID, "is a %s, wanted true or false",
                    json_type_name(json_type(found)));
    return json_bool(found, otherwise);
}

const char *source_word(struct source *s, const char *key, const char *otherwise)
{
    const struct json *found = source_value(s, key);

    if (found && json_type(found) != JSON_STRING)
        source_fail(s, key, ERR_INVALID, "is a %s, wanted a string",
                    json_type_name(json_type(found)));
    return json_string(found) ? json_string(found) : otherwise;
}

/* A switch of the class that we do not have: only `have` will do. */
void source_only_flag(struct source *s, const char *key, bool otherwise, bool have)
{
    if (source_flag(s, key, otherwise) != have)
        source_fail(s, key, ERR_UNSUPPORTED, "is %s: only %s can be read",
                    have ? "false" : "true", have ? "true" : "false");
}

/* A part of the whole configuration, "text_config" or "vision_config". */
struct source source_part(struct source *s, const char *key, const char *where)
{
    const struct json *part = source_value(s, key);

    if (part && json_type(part) != JSON_OBJECT)
        source_fail(s, key, ERR_INVALID, "is a %s, wanted an object",
                    json_type_name(json_type(part)));
    return (struct source){part, where, s->err, s->has_failed};
}
