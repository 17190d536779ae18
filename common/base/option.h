/* option.h - the word of a command line that getopt_long did not take
 *
 * Threads: reads getopt's own variables; one caller.
 */
#ifndef VNEVA_COMMON_BASE_OPTION_H
#define VNEVA_COMMON_BASE_OPTION_H

#include "common/base/err.h"

/* After getopt_long gave '?' (with opterr 0): ERR_INVALID that names the word and says
 * whether there is no such option or its value is missing. command: "vneva export". */
int option_refuse(char *const *argv, const char *command, struct err *err);

#endif
