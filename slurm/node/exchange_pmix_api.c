#ifdef VNEVA_HAS_PMIX

#include "slurm/node/exchange_pmix_api.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define PMIX_LIBRARY "libpmix.so.2"

/* The number in "OpenPMIx 4.2.2, repo rev: ..."; "" where there is none. */
static void read_version(char *out, void *library)
{
    void *symbol = dlsym(library, "PMIx_Get_version");
    const char *(*call)(void), *text = "";

    if (symbol) {
        memcpy(&call, &symbol, sizeof(call));
        text = call();
    }
    text += strcspn(text, "0123456789");
    snprintf(out, EXCHANGE_VERSION_MAX, "%.*s", (int)strspn(text, "0123456789."), text);
}

int pmix_api_open(struct pmix_api *out, char *version, struct err *err)
{
    const struct {
        const char *name;
        void *slot; /* a pointer to a function: dlsym's void * is one by POSIX */
    } calls[] = {
        {"PMIx_Init", &out->init},
        {"PMIx_Finalize", &out->finalize},
        {"PMIx_Put", &out->put},
        {"PMIx_Commit", &out->commit},
        {"PMIx_Fence_nb", &out->fence_nb},
        {"PMIx_Get", &out->get},
        {"PMIx_Register_event_handler", &out->register_handler},
        {"PMIx_Error_string", &out->error_string},
    };
    /* global: the library's own plugins look its names up */
    void *library = dlopen(PMIX_LIBRARY, RTLD_NOW | RTLD_GLOBAL);

    if (!library)
        return err_set(err, ERR_UNSUPPORTED,
                       "there is no PMIx library: %s; install libpmix2, or start without "
                       "PMIx (--exchange files)",
                       dlerror());
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        void *call = dlsym(library, calls[i].name);

        if (!call)
            return err_set(err, ERR_UNSUPPORTED,
                           "%s has no '%s': it is not a PMIx of "
                           "version 3 or later",
                           PMIX_LIBRARY, calls[i].name);
        memcpy(calls[i].slot, &call, sizeof(call));
    }
    read_version(version, library);
    return 0;
}

#endif
