#include "common/base/err.h"
#include "common/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, enum err_code code, const char *format, ...)
{
    if (err) {
        va_list args;

        err->code = code;
        va_start(args, format);
        vsnprintf(err->text, sizeof(err->text), format, args);
        va_end(args);
        utf8_mend(err->text);
    }
    return -1;
}

int err_wrap(struct err *err, const char *format, ...)
{
    if (err) {
        char inner[ERR_TEXT_MAX];
        va_list args;
        size_t used;

        memcpy(inner, err->text, sizeof(inner));
        va_start(args, format);
        vsnprintf(err->text, sizeof(err->text), format, args);
        va_end(args);
        used = strlen(err->text);
        snprintf(err->text + used, sizeof(err->text) - used, ": %s", inner);
        utf8_mend(err->text);
    }
    return -1;
}

void err_clear(struct err *err)
{
    if (err) {
        err->code = ERR_NONE;
        err->text[0] = '\0';
    }
}

const char *err_code_name(enum err_code code)
{
    static const char *const names[] = {
        [ERR_NONE] = "none",       [ERR_NOMEM] = "no-memory",
        [ERR_IO] = "io",           [ERR_FORMAT] = "format",
        [ERR_INVALID] = "invalid", [ERR_NOT_FOUND] = "not-found",
        [ERR_EXISTS] = "exists",   [ERR_STATE] = "state",
        [ERR_STALE] = "stale",     [ERR_TIMEOUT] = "timeout",
        [ERR_PEER] = "peer",       [ERR_LIMIT] = "limit",
        [ERR_DENIED] = "denied",   [ERR_UNSUPPORTED] = "unsupported",
    };

    return (unsigned)code < sizeof(names) / sizeof(names[0]) ? names[code] : "unknown";
}

int err_exit_status(const struct err *err)
{
    switch (err->code) {
    case ERR_STATE:
    case ERR_PEER:
    case ERR_TIMEOUT:
        return 1;
    case ERR_INVALID:
    case ERR_NOT_FOUND:
    case ERR_FORMAT:
    case ERR_EXISTS:
    case ERR_LIMIT:
    case ERR_UNSUPPORTED:
    case ERR_DENIED:
        return 2;
    default:
        return 5;
    }
}

int err_asking_status(const struct err *err)
{
    switch (err->code) {
    case ERR_TIMEOUT:
        return 3;
    case ERR_STATE:
    case ERR_DENIED:
    case ERR_STALE:
        return 4;
    case ERR_PEER:
        return 5;
    default:
        return err_exit_status(err);
    }
}
