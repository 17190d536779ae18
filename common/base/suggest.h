/* suggest.h - the nearest of some known words, for messages about unknown ones */
#ifndef VNEVA_COMMON_BASE_SUGGEST_H
#define VNEVA_COMMON_BASE_SUGGEST_H

#include <stddef.h>

/* Least number of letters put in, left out, changed or swapped with their neighbour
 * (optimal string alignment), letter case aside. */
size_t suggest_distance(const char *a, const char *b);

/* Whether a word of n letters may be meant at that distance: a third of it, at least 1. */
int suggest_is_near(size_t distance, size_t n_letters);

/* The nearest so far of the words offered, where one is near or begins with the word. Borrows
 * both. */
struct suggest {
    const char *word; /* that is not known: set it, and nothing else */
    const char *near; /* NULL: none of them */
    size_t distance;
};
void suggest_offer(struct suggest *suggest, const char *known);

#endif
