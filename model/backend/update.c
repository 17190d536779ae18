#include "model/backend/update.h"

#include "model/backend/backend.h"

#include <stdlib.h>

static int copy_to_device(struct update_list *list, struct backend *b, struct err *err)
{
    size_t n_bytes = (size_t)list->n_items * sizeof(*list->items);

    if (b->ops->is_host || list->n_items == 0)
        return 0;
    if (b->ops->alloc(b, (void **)&list->device, n_bytes, err) < 0)
        return -1;
    return b->ops->upload(b, list->device, list->items, n_bytes, err);
}

int update_list_init(struct update_list *list, struct backend *b,
                     struct update_item *items, int n_items, enum dtype dtype,
                     struct err *err)
{
    *list = (struct update_list){.items = items, .n_items = n_items, .dtype = dtype};
    for (int i = 0; i < n_items; i++) {
        items[i].first_chunk = list->n_chunks;
        list->n_chunks += (items[i].n + UPDATE_CHUNK - 1) / UPDATE_CHUNK;
    }
    if (copy_to_device(list, b, err) == 0)
        return 0;
    update_list_fini(list, b);
    return err_wrap(err, "table of %d tensors to update", n_items);
}

void update_list_fini(struct update_list *list, struct backend *b)
{
    if (list->device)
        b->ops->free(b, list->device);
    free(list->items);
    *list = (struct update_list){0};
}
