/* vocab.h - texts and their numbers: a hash table both ways
 *
 * Owns: copies of the texts; vocab_fini frees them. Texts may hold any bytes.
 * Threads: reading from several at once is fine.
 */
#ifndef VNEVA_DATAPREP_TEXT_VOCAB_H
#define VNEVA_DATAPREP_TEXT_VOCAB_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define VOCAB_ID_MAX ((1 << 24) - 1) /* numbers of tokens are below 16.8 million */
#define VOCAB_BYTES_MAX (1u << 30)   /* of all texts together */

struct vocab {
    struct buf texts;   /* one after the other */
    struct buf entries; /* struct vocab_entry, as added */
    uint32_t *slots;    /* entry + 1; 0: free */
    size_t n_slots;     /* a power of two, at least twice the entries */
    int32_t *by_id;     /* entry of a number; -1: none. Made by vocab_index */
    int64_t n_ids;      /* the largest number + 1 */
};

struct vocab_entry {
    uint32_t at, n_bytes; /* in texts */
    int32_t id;
};

#define VOCAB_INIT                                                                       \
    {                                                                                    \
        BUF_INIT, BUF_INIT, NULL, 0, NULL, 0                                             \
    }

void vocab_fini(struct vocab *vocab);
/* ERR_FORMAT: the text is there already. ERR_LIMIT: the number is out of range. */
int vocab_add(struct vocab *vocab, const char *text, size_t n_bytes, int64_t id,
              struct err *err);
/* After the last text: makes vocab_text work. ERR_FORMAT: two texts have one number. */
int vocab_index(struct vocab *vocab, struct err *err);

size_t vocab_count(const struct vocab *vocab);
int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n_bytes); /* -1 */
/* Borrowed, not NUL terminated; NULL: no text has this number. */
const char *vocab_text(const struct vocab *vocab, int32_t id, size_t *n_bytes);

#endif
