#include "common/base/args.h"

#include "common/base/clock.h"
#include "common/base/suggest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An option by its letter (not 0), or else by the n bytes of its name. */
static const struct args_option *find(const struct args_known *known, char letter,
                                      const char *name, size_t n)
{
    const struct args_option *const lists[] = {known->options, known->more};

    for (size_t l = 0; l < sizeof(lists) / sizeof(lists[0]); l++)
        for (const struct args_option *o = lists[l]; o && o->name; o++)
            if (letter ? o->letter == letter
                       : strncmp(o->name, name, n) == 0 && o->name[n] == '\0')
                return o;
    return NULL;
}

static int fail_unknown(const struct args_known *known, const char *word, struct err *err)
{
    struct suggest names = {.word = word + strspn(word, "-")};

    for (const struct args_option *o = known->options; o && o->name; o++)
        suggest_offer(&names, o->name);
    for (const struct args_option *o = known->more; o && o->name; o++)
        suggest_offer(&names, o->name);
    if (names.near)
        return err_set(err, ERR_INVALID, "no option '%s'; did you mean '--%s'?", word,
                       names.near);
    return err_set(err, ERR_INVALID, "no option '%s'; %s", word, known->hint);
}

/* The option at argv[0]; the number of words it took, or -1. */
static int take_option(struct args *out, const struct args_known *known, int argc,
                       char *const *argv, struct err *err)
{
    const char *word = argv[0];
    bool is_long = word[1] == '-';
    size_t n = is_long ? strcspn(word + 2, "=") : 1;
    const char *attached = is_long && word[2 + n] == '=' ? word + 3 + n : NULL;
    const struct args_option *option = NULL;

    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        out->wants_help = true;
        return 1;
    }
    if (is_long || !word[2])
        option = find(known, is_long ? '\0' : word[1], word + 2, n);
    if (!option)
        return fail_unknown(known, word, err);
    if (attached && !option->value)
        return err_set(err, ERR_INVALID, "option '--%s' takes no value", option->name);
    if (option->value && !attached && argc < 2)
        return err_set(err, ERR_INVALID, "option '--%s' needs a value: %s", option->name,
                       option->value);
    out->names[out->n_given] = option->name;
    out->values[out->n_given++] = !option->value ? "" : attached ? attached : argv[1];
    return option->value && !attached ? 2 : 1;
}

int args_parse(struct args *out, const struct args_known *known, int argc,
               char *const *argv, struct err *err)
{
    memset(out, 0, sizeof(*out));
    if (argc > ARGS_WORDS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d words", ARGS_WORDS_MAX);
    for (int i = 0; i < argc;) {
        int taken = 1;

        if (out->has_rest)
            out->words[out->n_words + out->n_rest++] = argv[i];
        else if (strcmp(argv[i], "--") == 0)
            out->has_rest = true;
        else if (argv[i][0] != '-' || !argv[i][1])
            out->words[out->n_words++] = argv[i];
        else
            taken = take_option(out, known, argc - i, argv + i, err);
        if (taken < 0)
            return -1;
        i += taken;
    }
    return 0;
}

const char *args_value(const struct args *args, const char *name)
{
    for (int i = args->n_given - 1; i >= 0; i--)
        if (strcmp(args->names[i], name) == 0)
            return args->values[i];
    return NULL;
}

bool args_has(const struct args *args, const char *name)
{
    return args_value(args, name) != NULL;
}

int args_values(const struct args *args, const char *name, const char **out)
{
    int n = 0;

    for (int i = 0; i < args->n_given; i++)
        if (strcmp(args->names[i], name) == 0)
            out[n++] = args->values[i];
    return n;
}

int args_int(const struct args *args, const char *name, int64_t min, int64_t max,
             int64_t otherwise, int64_t *out, struct err *err)
{
    const char *text = args_value(args, name);
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

int args_number(const struct args *args, const char *name, double min, double max,
                double otherwise, double *out, struct err *err)
{
    const char *text = args_value(args, name);
    char *end;

    *out = otherwise;
    if (!text)
        return 0;
    errno = 0;
    *out = strtod(text, &end);
    if (errno || end == text || *end || !(*out >= min && *out <= max))
        return err_set(err, ERR_INVALID,
                       "option '--%s': expected a number from %g to %g, got '%s'", name,
                       min, max, text);
    return 0;
}

int args_duration(const struct args *args, const char *name, int64_t otherwise,
                  int64_t *out, struct err *err)
{
    const char *text = args_value(args, name);

    *out = otherwise;
    if (text && (!clock_read_duration(out, text, 1000) || *out > ARGS_DURATION_MAX_MS))
        return err_set(err, ERR_INVALID,
                       "option '--%s': expected 1 s to 7 d, as a number of seconds, 90s, "
                       "5m or 2h, got '%s'",
                       name, text);
    return 0;
}
