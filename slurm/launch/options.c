#include "slurm/launch/options.h"

#include "common/base/suggest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 28

static const struct option_known *find(const struct option_known *const *known,
                                       int n_lists, const char *name, size_t n)
{
    for (int l = 0; l < n_lists; l++)
        for (const struct option_known *o = known[l]; o->name; o++)
            if (strncmp(o->name, name, n) == 0 && o->name[n] == '\0')
                return o;
    return NULL;
}

static int fail_unknown(const struct option_known *const *known, int n_lists,
                        const char *word, struct err *err)
{
    const char *name = word + strspn(word, "-"), *near = NULL;
    size_t best = SIZE_MAX;

    for (int l = 0; l < n_lists; l++)
        for (const struct option_known *o = known[l]; o->name; o++) {
            size_t distance = suggest_distance(name, o->name);

            if (distance < best && suggest_is_near(distance, strlen(o->name))) {
                best = distance;
                near = o->name;
            }
        }
    if (near)
        return err_set(err, ERR_INVALID, "no option '%s'; did you mean '--%s'?", word,
                       near);
    return err_set(err, ERR_INVALID,
                   "no option '%s'; --help lists them, and what follows `--` is passed "
                   "on to the cluster's own program",
                   word);
}

static int check_printable(const char *word, struct err *err)
{
    for (const unsigned char *c = (const unsigned char *)word; *c; c++)
        if (*c < ' ' || *c == 0x7f)
            return err_set(err, ERR_INVALID,
                           "a line break or control character in '%.*s...': a batch "
                           "script cannot hold it",
                           (int)((const char *)c - word), word);
    return 0;
}

/* How many words it took, or -1. */
static int take_option(struct options *out, const struct option_known *const *known,
                       int n_lists, int argc, char *const *argv, struct err *err)
{
    const char *word = argv[0], *attached;
    size_t n = strcspn(word, "=");
    const struct option_known *option;

    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        out->wants_help = true;
        return 1;
    }
    attached = word[n] == '=' ? word + n + 1 : NULL;
    option = strncmp(word, "--", 2) == 0 ? find(known, n_lists, word + 2, n - 2) : NULL;
    if (!option)
        return fail_unknown(known, n_lists, word, err);
    if (attached && !option->value)
        return err_set(err, ERR_INVALID, "option '--%s' takes no value", option->name);
    if (option->value && !attached && argc < 2)
        return err_set(err, ERR_INVALID, "option '--%s' needs a value: %s", option->name,
                       option->value);
    out->names[out->n_given] = option->name;
    out->values[out->n_given++] = !option->value ? "" : attached ? attached : argv[1];
    return option->value && !attached ? 2 : 1;
}

int options_parse(struct options *out, const struct option_known *const *known,
                  int n_lists, int argc, char *const *argv, struct err *err)
{
    memset(out, 0, sizeof(*out));
    if (argc > OPTIONS_WORDS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d words", OPTIONS_WORDS_MAX);
    for (int i = 0; i < argc; i++)
        if (check_printable(argv[i], err) < 0)
            return -1;
    for (int i = 0; i < argc;) {
        int taken = 1;

        if (out->has_rest)
            out->rest[out->n_rest++] = argv[i];
        else if (strcmp(argv[i], "--") == 0)
            out->has_rest = true;
        else if (argv[i][0] != '-' || !argv[i][1])
            out->words[out->n_words++] = argv[i];
        else
            taken = take_option(out, known, n_lists, argc - i, argv + i, err);
        if (taken < 0)
            return -1;
        i += taken;
    }
    return 0;
}

const char *options_value(const struct options *options, const char *name)
{
    for (int i = options->n_given - 1; i >= 0; i--)
        if (strcmp(options->names[i], name) == 0)
            return options->values[i];
    return NULL;
}

bool options_has(const struct options *options, const char *name)
{
    return options_value(options, name) != NULL;
}

int options_values(const struct options *options, const char *name, const char **out)
{
    int n = 0;

    for (int i = 0; i < options->n_given; i++)
        if (strcmp(options->names[i], name) == 0)
            out[n++] = options->values[i];
    return n;
}

int options_int(const struct options *options, const char *name, int64_t min, int64_t max,
                int64_t otherwise, int64_t *out, struct err *err)
{
    const char *text = options_value(options, name);
    char *end;

    *out = otherwise;
    if (!text)
        return 0;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (errno || end == text || *end || *out < min || *out > max)
        return err_set(err, ERR_INVALID,
                       "option '--%s': expected a whole number from %lld to %lld, got "
                       "'%s'",
                       name, (long long)min, (long long)max, text);
    return 0;
}

void options_print(FILE *out, const struct option_known *known)
{
    for (; known->name; known++) {
        char name[64];

        snprintf(name, sizeof(name), "--%s%s%s", known->name, known->value ? " " : "",
                 known->value ? known->value : "");
        fprintf(out, "  %-*s %s\n", HELP_COLUMN, name, known->meaning);
    }
}
