#include "worker/agent/spool.h"

#include <stdlib.h>
#include <string.h>

#define SPOOL_NEVER INT64_MIN

struct spool_entry {
    struct wire message;
    int64_t sent_ms; /* SPOOL_NEVER: not since the last registration */
};

struct spool {
    int count;
    struct spool_entry entries[SPOOL_MAX + SPOOL_RESERVED];
};

int spool_create(struct spool **out, struct err *err)
{
    struct spool *spool = calloc(1, sizeof(*spool));

    if (!spool)
        return err_set(err, ERR_NOMEM, "cannot allocate the queue of durable messages");
    *out = spool;
    return 0;
}

void spool_destroy(struct spool *spool)
{
    if (!spool)
        return;
    for (int i = 0; i < spool->count; i++)
        wire_fini(&spool->entries[i].message);
    free(spool);
}

int spool_put(struct spool *spool, struct wire *message, struct err *err)
{
    if (spool->count == SPOOL_MAX + SPOOL_RESERVED) {
        wire_fini(message);
        return err_set(err, ERR_LIMIT, "%d durable messages wait already", spool->count);
    }
    spool->entries[spool->count++] = (struct spool_entry){*message, SPOOL_NEVER};
    *message = (struct wire){.type = MSG_NONE};
    return 0;
}

bool spool_is_full(const struct spool *spool)
{
    return spool->count >= SPOOL_MAX;
}

int spool_count(const struct spool *spool)
{
    return spool->count;
}

const struct wire *spool_at(const struct spool *spool, int i)
{
    return &spool->entries[i].message;
}

struct wire *spool_next_unsent(struct spool *spool, int64_t sent_before_ms)
{
    for (int i = 0; i < spool->count; i++)
        if (spool->entries[i].sent_ms < sent_before_ms)
            return &spool->entries[i].message;
    return NULL;
}

void spool_mark_sent(struct spool *spool, const struct wire *message, int64_t now_ms)
{
    for (int i = 0; i < spool->count; i++)
        if (&spool->entries[i].message == message)
            spool->entries[i].sent_ms = now_ms;
}

void spool_mark_all_unsent(struct spool *spool)
{
    for (int i = 0; i < spool->count; i++)
        spool->entries[i].sent_ms = SPOOL_NEVER;
}

enum msg_type spool_remove(struct spool *spool, uint64_t sequence)
{
    for (int i = 0; i < spool->count; i++) {
        struct spool_entry *entry = &spool->entries[i];
        enum msg_type type = entry->message.type;

        if (entry->sent_ms == SPOOL_NEVER || entry->message.sequence != sequence)
            continue;
        wire_fini(&entry->message);
        spool->count--;
        memmove(entry, entry + 1, (size_t)(spool->count - i) * sizeof(*entry));
        return type;
    }
    return MSG_NONE;
}
