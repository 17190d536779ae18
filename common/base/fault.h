/* fault.h - named points where a test makes the program fail or die
 *
 * VNEVA_FAULT="store.commit:kill@3,checkpoint.rename:fail" in the environment makes the
 * third passage of store.commit send SIGKILL to the process and every passage of
 * checkpoint.rename report failure. Actions: fail, kill, hang. Without the variable a
 * point costs one load and one compare.
 *
 *     if (fault_hit("checkpoint.rename"))
 *         return err_set(err, ERR_IO, "fault point checkpoint.rename");
 *
 * Threads: any.
 */
#ifndef VNEVA_COMMON_BASE_FAULT_H
#define VNEVA_COMMON_BASE_FAULT_H

#include <stdbool.h>

/* Counts a passage; true when the point is set to fail now. kill and hang do not return. */
bool fault_hit(const char *point);

#endif
