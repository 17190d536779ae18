/* log_bound.h - log lines that strangers can cause as often as they like
 *
 * At most LOG_BOUND_LINES different lines in LOG_BOUND_MS; of the others, and of those said
 * already, the number is told when that time is over.
 * Owns: nothing outside the struct, which is zero at first. Threads: one at a time.
 * Units: ms of the monotonic clock.
 */
#ifndef VNEVA_COMMON_BASE_LOG_BOUND_H
#define VNEVA_COMMON_BASE_LOG_BOUND_H

#include <stdint.h>

#define LOG_BOUND_LINES 20
#define LOG_BOUND_MS 60000
#define LOG_BOUND_LINE_MAX 256

struct log_bound {
    int64_t since_ms;
    int n_lines, n_unsaid;
    char said[LOG_BOUND_LINES][LOG_BOUND_LINE_MAX];
};

/* A warning, if it may be. */
void log_bound_warn(struct log_bound *bound, int64_t now_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Now and then, so that the number is told though no line follows. */
void log_bound_turn(struct log_bound *bound, int64_t now_ms);

#endif
