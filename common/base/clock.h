/* clock.h - the two clocks, in one place so that pure code can be given the time
 *
 * Units: ms and ns as the names say.
 */
#ifndef VNEVA_COMMON_BASE_CLOCK_H
#define VNEVA_COMMON_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Milliseconds since 1970 (UTC): for records. */
int64_t clock_wall_ms(void);

/* Monotonic, for durations and deadlines. */
int64_t clock_mono_ms(void);
int64_t clock_mono_ns(void);

/* "90s", "5m", "2h", "1d" (whole numbers, from 1) as ms. A number alone is so many times
 * bare_ms; 0: it needs a unit. False: it is no such text, or longer than 100 years. */
bool clock_read_duration(int64_t *ms, const char *text, int64_t bare_ms);

#endif
