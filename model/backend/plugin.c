/* plugin.c - loads the CUDA backend, which is a library of its own so that a machine
 * without CUDA runs everything else. */
#include "model/backend/create.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN_NAME "libvneva_cuda.so"
#define PLUGIN_VARIABLE "VNEVA_CUDA_PLUGIN" /* its path, where it lies elsewhere */
#define PLUGIN_SYMBOL "vneva_backend_cuda_create"

typedef int plugin_create_fn(struct backend **out, int device, struct err *err);

/* "<folder of the executable>/libvneva_cuda.so", or -1 where that cannot be told. */
static int path_beside_executable(char *path, size_t size)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    char *slash;
    int n_written;

    if (n <= 0)
        return -1;
    exe[n] = '\0';
    slash = strrchr(exe, '/');
    if (!slash)
        return -1;
    *slash = '\0';
    n_written = snprintf(path, size, "%s/%s", exe, PLUGIN_NAME);
    return n_written > 0 && (size_t)n_written < size ? 0 : -1;
}

static void *plugin_open(struct err *err)
{
    const char *chosen = getenv(PLUGIN_VARIABLE);
    char path[PATH_MAX];
    void *library;

    if (chosen)
        library = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
    /* a library that is there but does not load says why; only its absence goes on */
    else if (path_beside_executable(path, sizeof(path)) == 0 && access(path, F_OK) == 0)
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    else
        library = dlopen(PLUGIN_NAME, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        err_set(err, ERR_UNSUPPORTED,
                "backend 'cuda' is not there: cannot open its plugin (%s); build it with "
                "CUDA, or use 'cpu'",
                dlerror());
    return library;
}

int backend_cuda_create(struct backend **out, int device, struct err *err)
{
    void *library = plugin_open(err);
    void *symbol;
    plugin_create_fn *create;

    if (!library)
        return -1;
    symbol = dlsym(library, PLUGIN_SYMBOL);
    if (!symbol) {
        err_set(err, ERR_UNSUPPORTED, "%s has no function %s: it is not of this version",
                PLUGIN_NAME, PLUGIN_SYMBOL);
        dlclose(library);
        return -1;
    }
    memcpy(&create, &symbol,
           sizeof(create)); /* ISO C has no cast to a function pointer */
    if (create(out, device, err) < 0)
        return err_wrap(err, "cannot create backend 'cuda' on device %d", device);
    return 0;
}
