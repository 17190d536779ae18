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

/* What NCCL is told by its environment, unless somebody has told it already; it reads it when
 * communicators open, and later.
 * Order: kernels of two communicators that are on one device at once must begin in the same
 * order on every rank. Ours are asked for in one order, and from 2.26 on NCCL keeps to the
 * order of asking (user guide, "Using multiple NCCL communicators concurrently"). With drivers
 * before 12.9 recorded ones even wait for the end of those asked for before (src/enqueue.cc,
 * getImplicitOrder).
 * Buffers: NCCL would register those of recorded collectives, and of registered ones the kernels
 * take other numbers of channels (src/register/coll_reg.cc). Ranks of a node meet for it inside
 * the call (src/transport/nvls.cc, ncclShmemAllgather): one that cannot record what the others do
 * would hold them. And sums that go another way may have other bits: a run that goes on again,
 * with nothing recorded yet, shall end with those of one that was never stopped.
 * 2.22 lets them meet likewise in each call, recorded or not, to look for buffers that were
 * registered by hand, of which there are none. */
static void set_environment(void)
{
    setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
    setenv("NCCL_GRAPH_REGISTER", "0", 0);
    setenv("NCCL_LOCAL_REGISTER", "0", 0);
}

int nccl_load(struct nccl_api *api, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    void *library, *symbols[N_FUNCTIONS];
    int version = 0;

    pthread_once(&once, set_environment);
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
