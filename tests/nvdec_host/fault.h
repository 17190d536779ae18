/* fault.h - what the stand-ins of driver and decoder are told to do wrong
 *
 * NVDEC_HOST_FAULT="name" or "name:K": from its K-th passage on (1 without a number) the
 * named thing happens. Each library counts for itself.
 */
#ifndef VNEVA_TESTS_NVDEC_HOST_FAULT_H
#define VNEVA_TESTS_NVDEC_HOST_FAULT_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NOT_SUPPORTED ((CUresult)801)

/* A function that is looked up and, by these tests, never called. */
#define ABSENT(name)                                                                     \
    CUresult name(void);                                                                 \
    CUresult name(void)                                                                  \
    {                                                                                    \
        return NOT_SUPPORTED;                                                            \
    }

/* The K of a fault that is set, 0: it is not. */
static inline long host_fault(const char *name)
{
    const char *text = getenv("NVDEC_HOST_FAULT");
    size_t n = strlen(name);

    if (!text || strncmp(text, name, n) != 0 || (text[n] && text[n] != ':'))
        return 0;
    return text[n] ? strtol(text + n + 1, NULL, 10) : 1;
}

/* Counts a passage of a fault that is set; whether it happens now. */
static inline bool host_fault_counts(const char *name)
{
    static long n_passages;
    long first = host_fault(name);

    return first && ++n_passages >= first;
}

#endif
