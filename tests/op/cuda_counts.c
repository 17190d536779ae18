#define _GNU_SOURCE /* dladdr */
#include "tests/op/cuda_counts.h"

#include <dlfcn.h>
#include <string.h>

typedef uint64_t counted_fn(int what);

/* The plugin is the library in which the backend's functions lie. */
static counted_fn *find_counted(const struct backend *b)
{
    counted_fn *counted = NULL;
    void *library, *symbol, *place;
    Dl_info info;

    memcpy(&place, &b->ops->destroy, sizeof(place)); /* ISO C has no such cast */
    if (dladdr(place, &info) == 0)
        return NULL;
    library = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    symbol = library ? dlsym(library, "cuda_host_counted") : NULL;
    if (symbol)
        memcpy(&counted, &symbol, sizeof(counted));
    if (library)
        dlclose(library); /* the backend holds it */
    return counted;
}

struct cuda_counts cuda_counts_of(const struct backend *b)
{
    counted_fn *counted = find_counted(b);

    if (!counted)
        return (struct cuda_counts){0};
    return (struct cuda_counts){counted(0), counted(1), counted(2)};
}

struct cuda_counts cuda_counts_since(const struct backend *b,
                                     const struct cuda_counts *before)
{
    struct cuda_counts now = cuda_counts_of(b);

    return (struct cuda_counts){now.kernels - before->kernels,
                                now.products - before->products,
                                now.fused - before->fused};
}
