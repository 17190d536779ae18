#include "slurm/node/exchange_texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int texts_put(struct exchange_texts *texts, int node, const char *key, const char *value,
              struct err *err)
{
    size_t n_bytes = strlen(value) + 1;
    struct exchange_text *text = malloc(sizeof(*text) + n_bytes);

    if (!text)
        return err_set(err, ERR_NOMEM, "no memory for a text of the exchange");
    text->node = node;
    snprintf(text->key, sizeof(text->key), "%s", key);
    memcpy(text->value, value, n_bytes);
    text->next = texts->newest;
    texts->newest = text;
    return 0;
}

const char *texts_find(const struct exchange_texts *texts, int node, const char *key)
{
    for (const struct exchange_text *text = texts->newest; text; text = text->next)
        if (text->node == node && strcmp(text->key, key) == 0)
            return text->value;
    return NULL;
}

void texts_fini(struct exchange_texts *texts)
{
    while (texts->newest) {
        struct exchange_text *text = texts->newest;

        texts->newest = text->next;
        free(text);
    }
}
