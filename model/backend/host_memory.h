/* host_memory.h - the memory slots of the table for backends that compute on the CPU
 *
 * Memory is aligned to 64 bytes, a cache line and the widest vector. Copies are done when
 * the call returns; sync has nothing to wait for.
 */
#ifndef VNEVA_MODEL_BACKEND_HOST_MEMORY_H
#define VNEVA_MODEL_BACKEND_HOST_MEMORY_H

#include "model/backend/backend.h"

int host_alloc(struct backend *b, void **out, size_t n_bytes, struct err *err);
void host_free(struct backend *b, void *data);
void host_memory(struct backend *b, struct backend_memory *out);
/* copy, upload and download are the same thing here */
int host_copy(struct backend *b, void *dst, const void *src, size_t n_bytes,
              struct err *err);
/* nothing is on its way: all is done by the first part */
int host_download_end(struct backend *b, struct err *err);
int host_zero(struct backend *b, void *dst, size_t n_bytes, struct err *err);
int host_sync(struct backend *b, struct err *err);

#endif
