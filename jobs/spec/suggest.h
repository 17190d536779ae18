/* suggest.h - the nearest of some known words, for messages about unknown ones */
#ifndef VNEVA_JOBS_SPEC_SUGGEST_H
#define VNEVA_JOBS_SPEC_SUGGEST_H

#include <stddef.h>

/* Least number of letters put in, left out, changed or swapped with their neighbour
 * (optimal string alignment), letter case aside. */
size_t suggest_distance(const char *a, const char *b);

/* Whether a word of n letters may be meant at that distance: a third of it, at least 1. */
int suggest_is_near(size_t distance, size_t n_letters);

#endif
