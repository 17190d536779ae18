#include "dataprep/text/bpe.h"

#include "dataprep/text/unicode.h"

#include <string.h>

#define NOBODY UINT32_MAX /* no neighbour */

/* A token of the word, in a list; joined ones have no bytes of their own any more. */
struct symbol {
    int32_t id;
    uint32_t begin, end;
    uint32_t before, after;
    bool is_gone;
};

/* A pair that may be joined. It may be out of date when its turn comes: it counts if the
 * pair that stands there then still makes `id`. */
struct candidate {
    uint64_t order; /* rank << 32 | place: the least goes first */
    int32_t id;
};

void bpe_work_fini(struct bpe_work *work)
{
    buf_fini(&work->symbols);
    buf_fini(&work->heap);
}

static const struct bpe_merge *find_merge(const struct bpe *bpe, int32_t left,
                                          int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t mask = bpe->n_merges - 1;
    size_t at = (size_t)((pair * 0x9E3779B97F4A7C15u) >> 32) & mask;

    while (bpe->merges[at].rank >= 0) {
        if (bpe->merges[at].pair == pair)
            return &bpe->merges[at];
        at = (at + 1) & mask;
    }
    return NULL;
}

/* ---- heap ---- */

static size_t heap_count(const struct bpe_work *work)
{
    return work->heap.n_bytes / sizeof(struct candidate);
}

static void heap_push(struct bpe_work *work, struct candidate candidate)
{
    struct candidate *heap;
    size_t at = heap_count(work);

    buf_add(&work->heap, &candidate, sizeof(candidate));
    if (work->heap.failed)
        return;
    heap = (struct candidate *)(void *)work->heap.data;
    while (at > 0 && candidate.order < heap[(at - 1) / 2].order) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = candidate;
}

/* The least; the heap is not empty. */
static struct candidate heap_pop(struct bpe_work *work)
{
    struct candidate *heap = (struct candidate *)(void *)work->heap.data;
    struct candidate top = heap[0], last = heap[heap_count(work) - 1];
    size_t n, at = 0;

    work->heap.n_bytes -= sizeof(last);
    n = heap_count(work);
    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < n && heap[child + 1].order < heap[child].order)
            child++;
        if (child >= n || last.order <= heap[child].order)
            break;
        heap[at] = heap[child];
        at = child;
    }
    if (n)
        heap[at] = last;
    return top;
}

/* ---- joining ---- */

static struct symbol *symbols_of(const struct bpe_work *work)
{
    return (struct symbol *)(void *)work->symbols.data;
}

static void offer(const struct bpe *bpe, struct bpe_work *work, uint32_t left,
                  uint32_t right)
{
    const struct symbol *symbols = symbols_of(work);
    const struct bpe_merge *merge = find_merge(bpe, symbols[left].id, symbols[right].id);
    struct candidate candidate;

    if (!merge)
        return;
    candidate.order = (uint64_t)(uint32_t)merge->rank << 32 | left;
    candidate.id = merge->id;
    heap_push(work, candidate);
}

static void join(const struct bpe *bpe, struct bpe_work *work, uint32_t place)
{
    struct symbol *symbols = symbols_of(work), *left = &symbols[place];
    struct symbol *right = &symbols[left->after];

    left->end = right->end;
    left->after = right->after;
    right->is_gone = true;
    if (left->after != NOBODY)
        symbols[left->after].before = place;
    if (left->before != NOBODY)
        offer(bpe, work, left->before, place);
    if (left->after != NOBODY)
        offer(bpe, work, place, left->after);
}

static int join_all(const struct bpe *bpe, struct bpe_work *work, struct err *err)
{
    struct symbol *symbols = symbols_of(work);
    size_t n = work->symbols.n_bytes / sizeof(*symbols);

    buf_reset(&work->heap);
    for (uint32_t i = 0; i + 1 < n; i++)
        offer(bpe, work, i, i + 1);
    while (heap_count(work) && !work->heap.failed) {
        struct candidate top = heap_pop(work);
        uint32_t place = (uint32_t)top.order;
        const struct bpe_merge *merge;

        if (symbols[place].is_gone || symbols[place].after == NOBODY)
            continue;
        merge = find_merge(bpe, symbols[place].id, symbols[symbols[place].after].id);
        if (!merge || merge->id != top.id)
            continue;
        symbols[place].id = top.id;
        join(bpe, work, place);
    }
    return buf_check(&work->heap, err);
}

/* ---- letters ---- */

static void add_symbol(struct bpe_work *work, int32_t id, size_t begin, size_t end)
{
    size_t n = work->symbols.n_bytes / sizeof(struct symbol);
    struct symbol symbol = {.id = id,
                            .begin = (uint32_t)begin,
                            .end = (uint32_t)end,
                            .before = n ? (uint32_t)n - 1 : NOBODY,
                            .after = NOBODY};

    if (n)
        symbols_of(work)[n - 1].after = (uint32_t)n;
    buf_add(&work->symbols, &symbol, sizeof(symbol));
}

/* The bytes of a letter, if all have tokens; the last stands for the letter. */
static bool add_fallback(const struct bpe *bpe, struct bpe_work *work, const char *word,
                         size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        if (bpe->bytes[(unsigned char)word[i]] < 0)
            return false;
    for (size_t i = begin; i < end; i++)
        add_symbol(work, bpe->bytes[(unsigned char)word[i]], begin,
                   i + 1 < end ? begin : end);
    return true;
}

/* Letters that have no token, up to `end`: unknown, kept until it is clear whether the
 * next is too. */
struct pending {
    bool is_there;
    size_t begin, end;
};

static void flush(const struct bpe *bpe, struct bpe_work *work, struct pending *pending)
{
    if (pending->is_there)
        add_symbol(work, bpe->unknown, pending->begin, pending->end);
    pending->is_there = false;
}

static void add_unknown(const struct bpe *bpe, struct bpe_work *work,
                        struct pending *pending, size_t begin, size_t end)
{
    if (bpe->unknown < 0)
        return; /* such letters are lost, as the file says it */
    if (!bpe->fuse_unknown)
        flush(bpe, work, pending);
    if (!pending->is_there)
        pending->begin = begin;
    pending->is_there = true;
    pending->end = end;
}

static int cut(const struct bpe *bpe, struct bpe_work *work, const char *word,
               size_t n_bytes, struct err *err)
{
    struct pending pending = {0};
    uint32_t c;

    buf_reset(&work->symbols);
    for (size_t at = 0, n; at < n_bytes; at += n) {
        int32_t id;

        n = bpe->is_bytes ? 1 : unicode_decode(word + at, &c);
        id = bpe->is_bytes ? bpe->bytes[(unsigned char)word[at]]
                           : vocab_find(&bpe->vocab, word + at, n);
        if (id >= 0) {
            flush(bpe, work, &pending);
            add_symbol(work, id, at, at + n);
        } else if (bpe->is_bytes || !bpe->byte_fallback ||
                   !add_fallback(bpe, work, word, at, at + n)) {
            add_unknown(bpe, work, &pending, at, at + n);
        }
    }
    flush(bpe, work, &pending);
    return buf_check(&work->symbols, err);
}

int bpe_encode(const struct bpe *bpe, struct bpe_work *work, struct buf *out,
               const char *word, size_t n_bytes, struct err *err)
{
    const struct symbol *symbols;
    size_t n;

    if (bpe->ignore_merges) {
        struct bpe_token whole = {
            vocab_find(bpe->is_bytes ? &bpe->words : &bpe->vocab, word, n_bytes), 0,
            (uint32_t)n_bytes};

        if (whole.id >= 0) {
            buf_add(out, &whole, sizeof(whole));
            return buf_check(out, err);
        }
    }
    if (cut(bpe, work, word, n_bytes, err) < 0 || join_all(bpe, work, err) < 0)
        return -1;
    symbols = symbols_of(work);
    n = work->symbols.n_bytes / sizeof(*symbols);
    for (size_t i = 0; i < n; i++) {
        struct bpe_token token = {symbols[i].id, symbols[i].begin, symbols[i].end};

        if (!symbols[i].is_gone)
            buf_add(out, &token, sizeof(token));
    }
    return buf_check(out, err);
}
