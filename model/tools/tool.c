#include "model/tools/tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int tool_fail(const struct tool_command *command, const struct err *err)
{
    fprintf(stderr, "vneva %s: %s\n", command->said, err->text);
    switch (err->code) {
    case ERR_INVALID:
    case ERR_NOT_FOUND:
    case ERR_FORMAT:
    case ERR_EXISTS:
    case ERR_LIMIT:
    case ERR_UNSUPPORTED:
    case ERR_DENIED:
        return TOOL_USAGE;
    case ERR_STATE:
        return TOOL_FAILED;
    default:
        return TOOL_SYSTEM;
    }
}

int tool_int(int64_t *out, const char *text, int64_t least, int64_t most,
             const char *option, struct err *err)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    if (end == text || *end || errno || *out < least || *out > most)
        return err_set(err, ERR_INVALID,
                       "%s must be a whole number from %lld to %lld, not '%s'", option,
                       (long long)least, (long long)most, text);
    return 0;
}

int tool_words(int argc, char **argv, int n, const char *what, struct err *err)
{
    if (argc - optind == n)
        return 0;
    if (argc - optind > n)
        return err_set(err, ERR_INVALID, "'%s' is one word too many: %s is expected",
                       argv[optind + n], what);
    return err_set(err, ERR_INVALID, "%s is expected", what);
}

const char *tool_size(char out[32], double n_bytes)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    int unit = 0;

    while (n_bytes >= 1000 && unit < 4) {
        n_bytes /= 1000;
        unit++;
    }
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", n_bytes, units[unit]);
    return out;
}
