#include "common/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define DURATION_MAX_MS (INT64_C(36525) * 86400000)

static int64_t clock_ns(clockid_t which)
{
    struct timespec now;

    clock_gettime(which, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_wall_ms(void)
{
    return clock_ns(CLOCK_REALTIME) / 1000000;
}

int64_t clock_mono_ms(void)
{
    return clock_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_mono_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

bool clock_read_duration(int64_t *ms, const char *text, int64_t bare_ms)
{
    static const struct {
        char letter;
        int64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
    int64_t unit_ms = 0;
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    if (end == text || errno || n < 1)
        return false;
    if (!*end)
        unit_ms = bare_ms;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (*end == units[i].letter && !end[1])
            unit_ms = units[i].ms;
    if (unit_ms == 0 || n > DURATION_MAX_MS / unit_ms)
        return false;
    *ms = n * unit_ms;
    return true;
}
