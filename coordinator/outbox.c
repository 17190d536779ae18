#include "coordinator/outbox.h"

#include <stdlib.h>
#include <string.h>

static void clear(struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->count; i++)
        wire_fini(&outbox->items[i].message);
    outbox->count = 0;
    err_clear(&outbox->failure);
}

void outbox_fini(struct outbox *outbox)
{
    clear(outbox);
    free(outbox->items);
    memset(outbox, 0, sizeof(*outbox));
}

void outbox_add(struct outbox *outbox, const struct net_peer *to,
                const struct wire *message)
{
    struct err err;

    if (outbox->count == outbox->capacity) {
        size_t capacity = outbox->capacity ? 2 * outbox->capacity : 64;
        struct outbox_item *items = realloc(outbox->items, capacity * sizeof(*items));

        if (!items) {
            err_set(&outbox->failure, ERR_NOMEM, "no memory for answers");
            return;
        }
        outbox->items = items;
        outbox->capacity = capacity;
    }
    outbox->items[outbox->count].to = *to;
    if (wire_clone(&outbox->items[outbox->count].message, message, &err) == 0)
        outbox->count++;
    else if (!outbox->failure.code)
        outbox->failure = err;
}

int outbox_check(const struct outbox *outbox, struct err *err)
{
    if (!outbox->failure.code)
        return 0;
    *err = outbox->failure;
    return -1;
}

int outbox_send(struct outbox *outbox, struct net_server *server, struct err *err)
{
    int rc = 0;

    for (size_t i = 0; i < outbox->count; i++)
        if (net_server_send(server, &outbox->items[i].to, &outbox->items[i].message,
                            err) < 0)
            rc = -1;
    clear(outbox);
    return rc;
}

void outbox_refuse(struct outbox *outbox, struct net_server *server,
                   const struct err *why)
{
    for (size_t i = 0; i < outbox->count; i++) {
        const struct wire *message = &outbox->items[i].message;
        struct wire answer = {.type = MSG_ERROR, .reply_to = message->reply_to};

        if (!message->reply_to || message->type == MSG_ACK)
            continue; /* an agent that gets no ACK sends again */
        answer.error.code = err_code_name(why->code);
        answer.error.text = why->text;
        net_server_send(server, &outbox->items[i].to, &answer, NULL);
    }
    clear(outbox);
}
