/* bpe.h - byte pair encoding: letters joined pair by pair, the earliest rule first
 *
 * The model "BPE" of tokenizer.json files. A word is cut into letters (of the text, or
 * its bytes), and the pair whose rule stands first in the list is joined until none is
 * left; equal rules go from left to right. With a heap: n log n for a word of n letters.
 * Source: Sennrich et al. 2016, and tokenizers/src/models/bpe of Hugging Face.
 * Owns: all its parts; bpe_fini frees them. Threads: a struct bpe may be read by several
 * at once, a struct bpe_work belongs to one.
 */
#ifndef VNEVA_DATAPREP_TEXT_BPE_H
#define VNEVA_DATAPREP_TEXT_BPE_H

#include "common/base/json.h"
#include "dataprep/text/vocab.h"

#include <stdbool.h>

#define BPE_MERGES_MAX (1 << 24)

struct bpe_merge {    /* of a pair of tokens */
    uint64_t pair;    /* left << 32 | right */
    int32_t rank, id; /* rank: place in the list, -1: free; id: the two joined */
};

struct bpe {
    struct vocab vocab;
    struct vocab words;       /* bytes of whole tokens, when ignore_merges and is_bytes */
    struct bpe_merge *merges; /* hash table */
    size_t n_merges;          /* its places, a power of two */
    int32_t bytes[256];       /* token of a byte: its letter, or <0xHH>; -1: none */
    int32_t unknown;          /* -1: none */
    bool is_bytes;            /* words are bytes, not letters */
    bool byte_fallback, fuse_unknown, ignore_merges;
};

struct bpe_token { /* bytes of the word; of a letter's bytes only the last has any */
    int32_t id;
    uint32_t begin, end;
};

struct bpe_work {
    struct buf symbols, heap;
};

/* json: the "model" of a tokenizer.json. is_bytes: the words come as bytes (ByteLevel).
 * ERR_UNSUPPORTED names a setting that is not had; ERR_FORMAT what does not fit. */
int bpe_read(struct bpe *out, const struct json *json, bool is_bytes, struct err *err);
void bpe_fini(struct bpe *bpe);
void bpe_work_fini(struct bpe_work *work);

/* Appends struct bpe_token. word: letters or bytes, not empty. */
int bpe_encode(const struct bpe *bpe, struct bpe_work *work, struct buf *out,
               const char *word, size_t n_bytes, struct err *err);

#endif
