#include "common/base/suggest.h"

#include <ctype.h>
#include <string.h>

#define WORD_MAX 128    /* letters compared; the rest of longer words is not looked at */
#define BEGINNING_MIN 3 /* letters that say which word is meant */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int is_same(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Three rows of the usual table: d[i][j] = distance of the first i and j letters. */
size_t suggest_distance(const char *a, const char *b)
{
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    size_t n_a = least(strlen(a), WORD_MAX), n_b = least(strlen(b), WORD_MAX);

    for (size_t j = 0; j <= n_b; j++)
        above[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t *spare = before;

        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            row[j] = least(above[j - 1] + !is_same(a[i - 1], b[j - 1]),
                           least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && is_same(a[i - 1], b[j - 2]) &&
                is_same(a[i - 2], b[j - 1]))
                row[j] = least(row[j], before[j - 2] + 1);
        }
        before = above;
        above = row;
        row = spare;
    }
    return above[n_b];
}

int suggest_is_near(size_t distance, size_t n_letters)
{
    size_t allowed = n_letters / 3;

    return distance <= (allowed ? allowed : 1);
}

void suggest_offer(struct suggest *suggest, const char *known)
{
    size_t distance = suggest_distance(suggest->word, known);
    size_t n = strlen(suggest->word);

    if (n >= BEGINNING_MIN && strncmp(known, suggest->word, n) == 0)
        distance = 1;
    if ((suggest->near && distance >= suggest->distance) ||
        !suggest_is_near(distance, strlen(known)))
        return;
    suggest->near = known;
    suggest->distance = distance;
}
