#include "model/comm/nccl_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifndef NCCL_LIBRARY /* tests name their stand-in */
#define NCCL_LIBRARY "libnccl.so.2"
#endif
#define NCCL_VERSION_MIN 22200 /* before, aborts wait one by one, see nccl_abort_all */

#define NCCL_NAME(field, function) #function,
static const char *const function_names[] = {NCCL_FUNCTIONS(NCCL_NAME)};
#define N_FUNCTIONS (sizeof(function_names) / sizeof(function_names[0]))

/* Kernels of two communicators that are on one device at once must begin in the same order
 * on every rank: ours are asked for in one order, and from 2.26 on NCCL keeps to the order of
 * asking when it is told to (user guide, "Using multiple NCCL communicators concurrently",
 * and NCCL_LAUNCH_ORDER_IMPLICIT). It reads its environment at the first launch. */
static void keep_order(void)
{
    setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
}

int nccl_load(struct nccl_api *api, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    void *library, *symbols[N_FUNCTIONS];
    int version = 0;

    pthread_once(&once, keep_order);
    library = dlopen(NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        err_set(err, ERR_UNSUPPORTED, "cannot open NCCL (%s)", dlerror());
        return -1;
    }
    for (size_t i = 0; i < N_FUNCTIONS; i++) {
        symbols[i] = dlsym(library, function_names[i]);
        if (!symbols[i]) {
            err_set(err, ERR_UNSUPPORTED, "%s has no function %s: 2.22 is needed",
                    NCCL_LIBRARY, function_names[i]);
            return -1;
        }
    }
    memcpy(api, symbols, sizeof(*api)); /* ISO C has no cast to a function pointer */
    if (api->get_version(&version) != ncclSuccess || version < NCCL_VERSION_MIN) {
        err_set(err, ERR_UNSUPPORTED, "NCCL is of version %d, %d is needed", version,
                NCCL_VERSION_MIN);
        return -1;
    }
    return 0;
}
