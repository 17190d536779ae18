#include "dataprep/text/vocab.h"

#include "common/base/hash.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN 1024

void vocab_fini(struct vocab *vocab)
{
    buf_fini(&vocab->texts);
    buf_fini(&vocab->entries);
    free(vocab->slots);
    free(vocab->by_id);
    *vocab = (struct vocab)VOCAB_INIT;
}

static const struct vocab_entry *entry_of(const struct vocab *vocab, uint32_t i)
{
    return (const struct vocab_entry *)(const void *)vocab->entries.data + i;
}

size_t vocab_count(const struct vocab *vocab)
{
    return vocab->entries.n_bytes / sizeof(struct vocab_entry);
}

/* The slot of this text, or the free one where it would go. */
static size_t find_slot(const struct vocab *vocab, const char *text, size_t n_bytes)
{
    size_t mask = vocab->n_slots - 1, at = (size_t)hash64(text, n_bytes, 0) & mask;

    while (vocab->slots[at]) {
        const struct vocab_entry *entry = entry_of(vocab, vocab->slots[at] - 1);

        if (entry->n_bytes == n_bytes &&
            memcmp(vocab->texts.data + entry->at, text, n_bytes) == 0)
            break;
        at = (at + 1) & mask;
    }
    return at;
}

static int grow(struct vocab *vocab, struct err *err)
{
    size_t n = vocab->n_slots ? vocab->n_slots * 2 : SLOTS_MIN;
    uint32_t *slots = calloc(n, sizeof(*slots));

    if (!slots)
        return err_set(err, ERR_NOMEM, "cannot allocate a vocabulary");
    free(vocab->slots);
    vocab->slots = slots;
    vocab->n_slots = n;
    for (uint32_t i = 0; i < vocab_count(vocab); i++) {
        const struct vocab_entry *entry = entry_of(vocab, i);

        slots[find_slot(vocab, vocab->texts.data + entry->at, entry->n_bytes)] = i + 1;
    }
    return 0;
}

int vocab_add(struct vocab *vocab, const char *text, size_t n_bytes, int64_t id,
              struct err *err)
{
    struct vocab_entry entry = {(uint32_t)vocab->texts.n_bytes, (uint32_t)n_bytes,
                                (int32_t)id};
    size_t slot;

    if (id < 0 || id > VOCAB_ID_MAX)
        return err_set(err, ERR_LIMIT, "token '%.80s' has the number %lld, not 0 to %d",
                       text, (long long)id, VOCAB_ID_MAX);
    if (n_bytes > VOCAB_BYTES_MAX || vocab->texts.n_bytes + n_bytes > VOCAB_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "its texts have more than %u bytes",
                       VOCAB_BYTES_MAX);
    if (2 * (vocab_count(vocab) + 1) > vocab->n_slots && grow(vocab, err) < 0)
        return -1;
    slot = find_slot(vocab, text, n_bytes);
    if (vocab->slots[slot])
        return err_set(err, ERR_FORMAT, "token '%.80s' stands twice", text);
    buf_add(&vocab->texts, text, n_bytes);
    buf_add(&vocab->entries, &entry, sizeof(entry));
    if (buf_check(&vocab->texts, err) < 0 || buf_check(&vocab->entries, err) < 0)
        return -1;
    vocab->slots[slot] = (uint32_t)vocab_count(vocab);
    if (id >= vocab->n_ids)
        vocab->n_ids = id + 1;
    return 0;
}

int vocab_index(struct vocab *vocab, struct err *err)
{
    free(vocab->by_id);
    vocab->by_id = malloc((size_t)(vocab->n_ids + 1) * sizeof(*vocab->by_id));
    if (!vocab->by_id)
        return err_set(err, ERR_NOMEM, "cannot allocate a vocabulary");
    for (int64_t i = 0; i < vocab->n_ids; i++)
        vocab->by_id[i] = -1;
    for (uint32_t i = 0; i < vocab_count(vocab); i++) {
        const struct vocab_entry *entry = entry_of(vocab, i);

        if (vocab->by_id[entry->id] >= 0)
            return err_set(err, ERR_FORMAT, "two tokens have the number %d, '%.*s' too",
                           entry->id, (int)entry->n_bytes, vocab->texts.data + entry->at);
        vocab->by_id[entry->id] = (int32_t)i;
    }
    return 0;
}

int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n_bytes)
{
    size_t slot;

    if (!vocab->n_slots)
        return -1;
    slot = find_slot(vocab, text, n_bytes);
    return vocab->slots[slot] ? entry_of(vocab, vocab->slots[slot] - 1)->id : -1;
}

const char *vocab_text(const struct vocab *vocab, int32_t id, size_t *n_bytes)
{
    const struct vocab_entry *entry;

    if (!vocab->by_id || id < 0 || id >= vocab->n_ids || vocab->by_id[id] < 0)
        return NULL;
    entry = entry_of(vocab, (uint32_t)vocab->by_id[id]);
    *n_bytes = entry->n_bytes;
    return vocab->texts.data + entry->at;
}
