#include "common/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 2048

/* The one process-wide setting: written once in main, before any thread starts. */
static struct {
    char who[64];
    enum log_level least;
} log_setting = {"vneva", LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_init(const char *who, enum log_level least)
{
    const char *env = getenv("VNEVA_LOG");

    snprintf(log_setting.who, sizeof(log_setting.who), "%s", who);
    log_setting.least = least;
    for (int level = LOG_DEBUG; env && level <= LOG_ERROR; level++)
        if (strcmp(env, level_names[level]) == 0)
            log_setting.least = (enum log_level)level;
}

void log_write(enum log_level level, const char *format, ...)
{
    char line[LOG_LINE_MAX];
    struct timespec now;
    struct tm utc;
    size_t used;
    va_list args;

    if (level < log_setting.least)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof(line) - used,
                             ".%03ldZ %s %s: ", now.tv_nsec / 1000000, level_names[level],
                             log_setting.who);
    va_start(args, format);
    vsnprintf(line + used, sizeof(line) - used - 1, format, args);
    va_end(args);
    used = strlen(line);
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0)
        return; /* nowhere left to say so */
}
