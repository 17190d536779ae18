/* tar.h - where the members of a .tar stand, so that they are read in place
 *
 * Reads ustar, the GNU format's long names and large sizes, and pax headers' path and
 * size. Source: POSIX.1-2017, "pax", Interchange Format; GNU tar manual, "Basic Tar
 * Format". Folders, links and devices are passed over.
 * Threads: one caller. Units: bytes.
 */
#ifndef VNEVA_DATAPREP_ANNOTATIONS_TAR_H
#define VNEVA_DATAPREP_ANNOTATIONS_TAR_H

#include "common/base/err.h"

#include <stdint.h>

#define TAR_NAME_MAX 4096

/* Calls `each` for every regular file; "./" before a name is cut off. ERR_FORMAT: the
 * tar is damaged or cut off, at which byte. */
int tar_scan(const char *path,
             int (*each)(void *state, const char *name, uint64_t offset, uint64_t n_bytes,
                         struct err *err),
             void *state, struct err *err);

#endif
