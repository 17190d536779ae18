/* find.h - which folder of weights a path means
 *
 * A folder of weights itself, or the folder of a run: its newest checkpoint.
 */
#ifndef VNEVA_MODEL_TOOLS_FIND_H
#define VNEVA_MODEL_TOOLS_FIND_H

#include "common/base/fs.h"

/* out[FS_PATH_MAX] */
int find_weights(char *out, const char *path, struct err *err);

#endif
