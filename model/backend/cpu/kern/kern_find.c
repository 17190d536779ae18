#include "model/backend/cpu/kern/kern_level.h"

#include <stddef.h>
#include <string.h>

#ifdef VNEVA_KERN_X86
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

static bool has_base(void)
{
    return true;
}

const struct kern *kern_find(const char *name)
{
    static const struct {
        const struct kern *kern;
        bool (*is_here)(void);
    } levels[] = {
    /* the best first */
#ifdef VNEVA_KERN_X86
        {&kern_level_avx512, has_avx512},
        {&kern_level_avx2, has_avx2},
#endif
        {&kern_level_base, has_base},
    };

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
        if ((!name || strcmp(name, levels[i].kern->name) == 0) && levels[i].is_here())
            return levels[i].kern;
    return NULL;
}
