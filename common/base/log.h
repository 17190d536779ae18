/* log.h - one line per event on standard error
 *
 *     2026-03-01T12:00:00.123Z info rank[2]: step 10 loss 2.31
 *
 * Only the edges log (a main, an event loop); libraries return errors.
 * Threads: any; a line is written with one write(2), so lines never mix.
 */
#ifndef VNEVA_COMMON_BASE_LOG_H
#define VNEVA_COMMON_BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Set once, early in main: who speaks, and the least level that is printed.
 * The environment variable VNEVA_LOG (debug, info, warn, error) wins over `least`. */
void log_init(const char *who, enum log_level least);

void log_write(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif
