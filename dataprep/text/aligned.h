/* aligned.h - a text that was changed, and where each of its bytes came from
 *
 * Every byte has an origin, a byte of the input; origins never fall. What bytes [a, b) of
 * the text stand for is [origin(a), origin(b)) of the input: so tokens that follow each
 * other cover the input once and in order. Bytes that stand for something else than
 * themselves all have the origin of its first byte, so the last of them gets it all.
 * Owns: its buffers; aligned_fini frees them.
 */
#ifndef VNEVA_DATAPREP_TEXT_ALIGNED_H
#define VNEVA_DATAPREP_TEXT_ALIGNED_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct aligned {
    struct buf text;
    struct buf origins; /* uint32_t, one a byte */
    uint32_t end;       /* where the input that it came from ends */
};

#define ALIGNED_INIT                                                                     \
    {                                                                                    \
        BUF_INIT, BUF_INIT, 0                                                            \
    }

void aligned_fini(struct aligned *aligned);
void aligned_reset(struct aligned *aligned);
/* Appends bytes that stand in the input at `at`. */
void aligned_add_same(struct aligned *out, const char *bytes, size_t n_bytes,
                      uint32_t at);
/* Appends bytes that stand for what the input has at `at`, or for nothing there. */
void aligned_add_for(struct aligned *out, const char *bytes, size_t n_bytes, uint32_t at);
/* Appends bytes [begin, end) of another text. */
void aligned_add_part(struct aligned *out, const struct aligned *from, size_t begin,
                      size_t end);
/* at: up to the length, which has the origin `end`. */
uint32_t aligned_origin(const struct aligned *aligned, size_t at);
int aligned_check(const struct aligned *aligned, struct err *err);

#endif
