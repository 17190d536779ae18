/* page.h - the files of page/, made part of the program when it is built (embed.cmake) */
#ifndef VNEVA_JOBS_DASHBOARD_PAGE_H
#define VNEVA_JOBS_DASHBOARD_PAGE_H

#include <stddef.h>

struct page_file {
    const char *name; /* "page.css" */
    const unsigned char *bytes;
    size_t n_bytes;
};

extern const struct page_file page_files[]; /* ends with a NULL name */

#endif
