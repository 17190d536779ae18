#include "jobs/spec/spec_schema.h"

#include "common/base/suggest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_below(const char *path, const char *group)
{
    size_t n = strlen(group);

    return strncmp(path, group, n) == 0 && path[n] == '.';
}

const struct spec_key *spec_schema_find(const char *path)
{
    for (size_t i = 0; i < spec_n_keys; i++)
        if (strcmp(spec_keys[i].path, path) == 0 ||
            (spec_keys[i].type == SPEC_GROUP && is_below(path, spec_keys[i].path)))
            return &spec_keys[i];
    return NULL;
}

bool spec_schema_is_group(const char *path)
{
    for (size_t i = 0; i < spec_n_keys; i++)
        if (is_below(spec_keys[i].path, path))
            return true;
    return false;
}

static const char *last_part(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot ? dot + 1 : path;
}

/* A path that is nearer than the best so far takes its place. */
static void consider(char near[SPEC_PATH_MAX], size_t *best, const char *path,
                     const char *known)
{
    const char *last = last_part(path);
    size_t by_last = suggest_distance(last, last_part(known));
    size_t by_whole = suggest_distance(path, known);

    if (by_last + by_whole >= *best || (!suggest_is_near(by_last, strlen(last)) &&
                                        !suggest_is_near(by_whole, strlen(path))))
        return;
    *best = by_last + by_whole;
    snprintf(near, SPEC_PATH_MAX, "%s", known);
}

void spec_schema_suggest(char near[SPEC_PATH_MAX], const char *path)
{
    size_t best = SIZE_MAX;
    char group[SPEC_PATH_MAX];

    for (size_t i = 0; i < spec_n_keys; i++) {
        const char *known = spec_keys[i].path;

        consider(near, &best, path, known);
        for (const char *dot = strchr(known, '.'); dot; dot = strchr(dot + 1, '.')) {
            snprintf(group, sizeof(group), "%.*s", (int)(dot - known), known);
            consider(near, &best, path, group);
        }
    }
}

static bool is_value(const struct json *value, const char *choice)
{
    struct json *wanted = spec_scalar_yaml(choice);
    bool result = false;

    if (json_type(wanted) == JSON_INT || json_type(wanted) == JSON_DOUBLE)
        result = (json_type(value) == JSON_INT || json_type(value) == JSON_DOUBLE) &&
                 json_double(value, 0) == json_double(wanted, 0);
    else if (json_type(wanted) == JSON_BOOL)
        result = json_type(value) == JSON_BOOL &&
                 json_bool(value, false) == json_bool(wanted, false);
    else if (json_type(wanted) == JSON_NULL)
        result = json_type(value) == JSON_NULL;
    json_free(wanted);
    return result || (json_string(value) && strcmp(json_string(value), choice) == 0);
}

bool spec_value_is_one_of(const struct json *value, const char *choices)
{
    while (*choices) {
        size_t n = strcspn(choices, "|");
        char choice[64];

        snprintf(choice, sizeof(choice), "%.*s", (int)n, choices);
        if (is_value(value, choice))
            return true;
        choices += n + (choices[n] == '|');
    }
    return false;
}

const char *spec_type_name(enum spec_type type)
{
    static const char *const names[] = {
        [SPEC_INT] = "a whole number",
        [SPEC_NUMBER] = "a number",
        [SPEC_BOOL] = "true or false",
        [SPEC_STRING] = "a string",
        [SPEC_PATH] = "a path",
        [SPEC_MAYBE_PATH] = "a path or a name",
        [SPEC_PATHS] = "a path or a list of paths",
        [SPEC_STRINGS] = "a string or a list of strings",
        [SPEC_SIDE] = "a whole number or a pair of equal ones, [S, S]",
        [SPEC_PAIR] = "a list of two numbers",
        [SPEC_SHARE] = "a whole number or a part, 0.0 to 1.0",
        [SPEC_PRECISION] = "a precision",
        [SPEC_ANY] = "a value",
        [SPEC_GROUP] = "a group of keys",
    };

    return names[type];
}
