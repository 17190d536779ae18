/* clock.h - the two clocks, in one place so that pure code can be given the time
 *
 * Units: ms and ns as the names say.
 */
#ifndef VNEVA_COMMON_BASE_CLOCK_H
#define VNEVA_COMMON_BASE_CLOCK_H

#include <stdint.h>

/* Milliseconds since 1970 (UTC): for records. */
int64_t clock_wall_ms(void);

/* Monotonic, for durations and deadlines. */
int64_t clock_mono_ms(void);
int64_t clock_mono_ns(void);

#endif
