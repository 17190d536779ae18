/* kern_level.h - the levels there may be; which were built, the build says */
#ifndef VNEVA_MODEL_BACKEND_CPU_KERN_KERN_LEVEL_H
#define VNEVA_MODEL_BACKEND_CPU_KERN_KERN_LEVEL_H

#include "model/backend/cpu/kern/kern.h"

extern const struct kern kern_level_base;
extern const struct kern kern_level_avx2;
extern const struct kern kern_level_avx512;

#endif
