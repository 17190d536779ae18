#include "jobs/client/args.h"

#include "common/base/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int find_name(const struct args_option *known, const char *name, size_t n)
{
    for (int i = 0; known && known[i].name; i++)
        if (strncmp(known[i].name, name, n) == 0 && known[i].name[n] == '\0')
            return i;
    return -1;
}

static int find_letter(const struct args_option *known, char letter)
{
    for (int i = 0; known && known[i].name; i++)
        if (known[i].letter && known[i].letter == letter)
            return i;
    return -1;
}

static int fail_unknown(const struct args_option *known, const char *word,
                        struct err *err)
{
    const char *name = word + strspn(word, "-"), *near = NULL;
    size_t best = SIZE_MAX;

    for (int i = 0; known && known[i].name; i++) {
        size_t distance = suggest_distance(name, known[i].name);

        if (distance < best && suggest_is_near(distance, strlen(known[i].name))) {
            best = distance;
            near = known[i].name;
        }
    }
    if (near)
        return err_set(err, ERR_INVALID, "no option '%s'; did you mean '--%s'?", word,
                       near);
    return err_set(err, ERR_INVALID, "no option '%s'; --help lists those there are",
                   word);
}

static int take_key(struct args *out, const char *attached, const char *next,
                    struct err *err)
{
    out->key = attached ? attached : next;
    if (!out->key)
        return err_set(err, ERR_INVALID, "option '--key' needs a value: FILE");
    return attached ? 1 : 2;
}

/* An option at argv[i]; the number of words it took, or -1. */
static int take_option(struct args *out, int argc, char *const *argv, int i,
                       struct err *err)
{
    const char *word = argv[i];
    bool is_long = word[1] == '-';
    size_t n = is_long ? strcspn(word + 2, "=") : 1;
    const char *attached = is_long && word[2 + n] == '=' ? word + 3 + n : NULL;
    int which;

    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        out->wants_help = true;
        return 1;
    }
    which = is_long ? find_name(out->known, word + 2, n)
                    : find_letter(out->known, word[2] ? '\0' : word[1]);
    if (which < 0 && n == strlen("key") && strncmp(word, "--key", n + 2) == 0)
        return take_key(out, attached, i + 1 < argc ? argv[i + 1] : NULL, err);
    if (which < 0)
        return fail_unknown(out->known, word, err);
    if (!out->known[which].value) {
        if (attached)
            return err_set(err, ERR_INVALID, "option '--%s' takes no value",
                           out->known[which].name);
        out->values[which] = "";
        return 1;
    }
    if (!attached && i + 1 >= argc)
        return err_set(err, ERR_INVALID, "option '--%s' needs a value: %s",
                       out->known[which].name, out->known[which].value);
    out->values[which] = attached ? attached : argv[i + 1];
    return attached ? 1 : 2;
}

int args_parse(struct args *out, const struct args_option *known, int argc,
               char *const *argv, struct err *err)
{
    bool only_words = false;

    memset(out, 0, sizeof(*out));
    out->known = known;
    for (int i = 0; i < argc;) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
            i++;
        } else if (!only_words && argv[i][0] == '-' && argv[i][1]) {
            int taken = take_option(out, argc, argv, i, err);

            if (taken < 0)
                return -1;
            i += taken;
        } else if (out->n_words == ARGS_WORDS_MAX) {
            return err_set(err, ERR_LIMIT, "more than %d words", ARGS_WORDS_MAX);
        } else {
            out->words[out->n_words++] = argv[i++];
        }
    }
    return 0;
}

const char *args_value(const struct args *args, const char *name)
{
    int which = find_name(args->known, name, strlen(name));

    return which < 0 ? NULL : args->values[which];
}

bool args_has(const struct args *args, const char *name)
{
    return args_value(args, name) != NULL;
}

static int read_whole(const char *text, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno || end == text || *end ? -1 : 0;
}

int args_int(const struct args *args, const char *name, int64_t min, int64_t max,
             int64_t otherwise, int64_t *out, struct err *err)
{
    const char *text = args_value(args, name);

    *out = otherwise;
    if (!text)
        return 0;
    if (read_whole(text, out) < 0 || *out < min || *out > max)
        return err_set(err, ERR_INVALID,
                       "option '--%s': expected a whole number from %lld to %lld, got "
                       "'%s'",
                       name, (long long)min, (long long)max, text);
    return 0;
}

int args_job(const char *word, int64_t *out, struct err *err)
{
    if (read_whole(word, out) < 0 || *out < 1)
        return err_set(
            err, ERR_INVALID,
            "expected the number of a job, got '%s'; `vneva status` lists them", word);
    return 0;
}
