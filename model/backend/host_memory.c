#define _DEFAULT_SOURCE /* madvise, sysconf's names of memory */
#include "model/backend/host_memory.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HOST_ALIGN 64
#define HOST_HUGE ((size_t)2 << 20) /* a large page of x86-64 and most arm64 */

/* Where the length that was asked for is written: the last bytes of a piece, which is at
 * least as long as it must be, and of large pages often longer. */
static char *length_at(void *data)
{
    return (char *)data + malloc_usable_size(data) - sizeof(size_t);
}

static void count(struct backend *b, void *data, size_t n_bytes)
{
    memcpy(length_at(data), &n_bytes, sizeof(n_bytes));
    b->memory.n_allocs++;
    b->memory.used += n_bytes;
    if (b->memory.used > b->memory.peak)
        b->memory.peak = b->memory.used;
}

int host_alloc(struct backend *b, void **out, size_t n_bytes, struct err *err)
{
    size_t align = n_bytes < HOST_HUGE ? HOST_ALIGN : HOST_HUGE;

    *out = NULL;
    if (n_bytes > SIZE_MAX - 2 * HOST_HUGE ||
        posix_memalign(out, align, n_bytes + sizeof(size_t)) != 0)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes of host memory",
                       n_bytes);
#ifdef MADV_HUGEPAGE /* fewer faults and misses; what is not to be had is no error */
    if (align == HOST_HUGE)
        madvise(*out, n_bytes / HOST_HUGE * HOST_HUGE, MADV_HUGEPAGE);
#endif
    count(b, *out, n_bytes);
    return 0;
}

void host_free(struct backend *b, void *data)
{
    size_t n_bytes;

    if (!data)
        return;
    memcpy(&n_bytes, length_at(data), sizeof(n_bytes));
    b->memory.used -= n_bytes;
    free(data);
}

void host_memory(struct backend *b, struct backend_memory *out)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    *out = b->memory;
    out->free = page * (uint64_t)sysconf(_SC_AVPHYS_PAGES);
    out->total = page * (uint64_t)sysconf(_SC_PHYS_PAGES);
}

int host_copy(struct backend *b, void *dst, const void *src, size_t n_bytes,
              struct err *err)
{
    (void)b;
    (void)err;
    if (n_bytes)
        memmove(dst, src, n_bytes);
    return 0;
}

int host_download_end(struct backend *b, struct err *err)
{
    (void)b;
    (void)err;
    return 0;
}

int host_zero(struct backend *b, void *dst, size_t n_bytes, struct err *err)
{
    (void)b;
    (void)err;
    if (n_bytes)
        memset(dst, 0, n_bytes);
    return 0;
}

int host_sync(struct backend *b, struct err *err)
{
    (void)b;
    (void)err;
    return 0;
}
