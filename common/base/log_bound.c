#include "common/base/log_bound.h"

#include "common/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void log_bound_turn(struct log_bound *bound, int64_t now_ms)
{
    if (now_ms - bound->since_ms < LOG_BOUND_MS)
        return;
    if (bound->n_unsaid)
        log_warn("%d more like these in the last %d s", bound->n_unsaid,
                 LOG_BOUND_MS / 1000);
    bound->since_ms = now_ms;
    bound->n_lines = bound->n_unsaid = 0;
}

void log_bound_warn(struct log_bound *bound, int64_t now_ms, const char *format, ...)
{
    char line[LOG_BOUND_LINE_MAX];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    log_bound_turn(bound, now_ms);
    for (int i = 0; i < bound->n_lines; i++)
        if (strcmp(bound->said[i], line) == 0) {
            bound->n_unsaid++;
            return;
        }
    if (bound->n_lines == LOG_BOUND_LINES) {
        bound->n_unsaid++;
        return;
    }
    memcpy(bound->said[bound->n_lines++], line, sizeof(line));
    log_warn("%s", line);
}
