#include "dataprep/text/parts.h"

#include "dataprep/text/unicode.h"

#include <string.h>

struct walk {
    const char *what, *list;
    void *state;
    int (*read)(void *state, const char *type, const struct json *part, struct err *err);
    int n;
};

static int visit(struct walk *walk, const struct json *json, struct err *err)
{
    const char *type = json_get_string(json, "type");
    const struct json *members;

    if (json_type(json) == JSON_NULL)
        return 0;
    if (!type)
        return err_set(err, ERR_FORMAT, "a %s has no \"type\"", walk->what);
    if (strcmp(type, "Sequence") != 0) {
        if (++walk->n > PARTS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d %ss", PARTS_MAX, walk->what);
        return walk->read(walk->state, type, json, err) < 0
                   ? err_wrap(err, "%s %s", walk->what, type)
                   : 0;
    }
    members = json_get(json, walk->list);
    if (json_type(members) != JSON_ARRAY)
        return err_set(err, ERR_FORMAT, "a Sequence of %ss has no \"%s\"", walk->what,
                       walk->list);
    for (size_t i = 0; i < json_count(members); i++)
        if (visit(walk, json_at(members, i), err) < 0)
            return -1;
    return 0;
}

int parts_each(const struct json *json, const char *what, const char *list, void *state,
               int (*read)(void *state, const char *type, const struct json *part,
                           struct err *err),
               struct err *err)
{
    struct walk walk = {what, list, state, read, 0};

    return visit(&walk, json, err);
}

int parts_refuse(const char *known, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "it is not supported; supported are: %s", known);
}

int parts_letter(const struct json *part, const char *key, const char **out, size_t *n,
                 struct err *err)
{
    uint32_t c;

    *out = json_get_string(part, key);
    *n = json_string_bytes(json_get(part, key));
    if (!*out || !*n || unicode_decode(*out, &c) != *n)
        return err_set(err, ERR_FORMAT, "its \"%s\" is not one character", key);
    return 0;
}
