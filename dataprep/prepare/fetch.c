#include "dataprep/prepare/fetch.h"

#include "common/base/hash.h"

#include <stdlib.h>
#include <string.h>

enum item_state {
    ITEM_NEW,    /* not asked for */
    ITEM_FLYING, /* `ticket` is out */
    ITEM_GOOD,   /* info, and frames when wanted */
    ITEM_BAD,    /* reason */
};

struct item {
    struct media_ref ref;
    enum item_state state;
    int64_t n_uses; /* still to come */
    int64_t ticket;
    struct media_info info;
    uint8_t *frames;
    size_t n_frame_bytes;
    struct err *reason;     /* owned */
    int64_t next_of_bucket; /* item with the same hash bucket; -1: none */
};

struct fetch {
    struct frame_service service;
    struct frame_request shape;
    bool wants_frames;
    struct item *items; /* in the order of first use */
    int64_t n_items, capacity;
    int64_t *buckets; /* first item of each; -1: none */
    int64_t n_buckets;
    int64_t next;  /* item to be asked for next when running ahead */
    int64_t first; /* no item before it is flying */
    int64_t n_flying;
    size_t kept_bytes;
};

int fetch_create(struct fetch **out, const struct frame_service *service,
                 const struct frame_request *shape, bool wants_frames, struct err *err)
{
    struct fetch *fetch = calloc(1, sizeof(*fetch));

    if (!fetch)
        return err_set(err, ERR_NOMEM, "cannot allocate media requests");
    fetch->service = *service;
    fetch->shape = *shape;
    fetch->wants_frames = wants_frames;
    *out = fetch;
    return 0;
}

static void drop_frames(struct fetch *fetch, struct item *item)
{
    fetch->kept_bytes -= item->n_frame_bytes;
    free(item->frames);
    item->frames = NULL;
    item->n_frame_bytes = 0;
}

void fetch_destroy(struct fetch *fetch)
{
    if (!fetch)
        return;
    for (int64_t i = 0; i < fetch->n_items; i++) {
        struct item *item = &fetch->items[i];

        if (item->state == ITEM_FLYING)
            fetch->service.release(fetch->service.state, item->ticket);
        drop_frames(fetch, item);
        free(item->reason);
    }
    free(fetch->items);
    free(fetch->buckets);
    free(fetch);
}

/* ---- finding what was asked for already ---- */

static uint64_t hash_ref(const struct media_ref *ref)
{
    uint64_t hash = hash64(ref->path, strlen(ref->path), ref->offset);

    hash = hash64(&ref->start_s, sizeof(ref->start_s), hash);
    return hash64(&ref->end_s, sizeof(ref->end_s), hash);
}

static bool is_same(const struct media_ref *a, const struct media_ref *b)
{
    return a->kind == b->kind && a->offset == b->offset && a->n_bytes == b->n_bytes &&
           a->start_s == b->start_s && a->end_s == b->end_s &&
           strcmp(a->path, b->path) == 0;
}

static void link_item(struct fetch *fetch, int64_t i)
{
    uint64_t bucket = hash_ref(&fetch->items[i].ref) % (uint64_t)fetch->n_buckets;

    fetch->items[i].next_of_bucket = fetch->buckets[bucket];
    fetch->buckets[bucket] = i;
}

/* Twice the room for items, and as many buckets. */
static int grow(struct fetch *fetch, struct err *err)
{
    int64_t capacity = fetch->capacity ? fetch->capacity * 2 : 64;
    struct item *items = realloc(fetch->items, (size_t)capacity * sizeof(*fetch->items));
    int64_t *buckets;

    if (items)
        fetch->items = items;
    buckets = realloc(fetch->buckets, (size_t)capacity * sizeof(*fetch->buckets));
    if (buckets)
        fetch->buckets = buckets;
    if (!items || !buckets)
        return err_set(err, ERR_NOMEM, "cannot allocate media requests");
    fetch->capacity = fetch->n_buckets = capacity;
    for (int64_t i = 0; i < capacity; i++)
        buckets[i] = -1;
    for (int64_t i = 0; i < fetch->n_items; i++)
        link_item(fetch, i);
    return 0;
}

int fetch_add(struct fetch *fetch, const struct media_ref *ref, int64_t *item,
              struct err *err)
{
    if (fetch->n_items == fetch->capacity && grow(fetch, err) < 0)
        return -1;
    *item = fetch->buckets[hash_ref(ref) % (uint64_t)fetch->n_buckets];
    while (*item >= 0 && !is_same(&fetch->items[*item].ref, ref))
        *item = fetch->items[*item].next_of_bucket;
    if (*item < 0) {
        *item = fetch->n_items++;
        fetch->items[*item] = (struct item){.ref = *ref};
        link_item(fetch, *item);
    }
    fetch->items[*item].n_uses++;
    return 0;
}

/* ---- asking and waiting ---- */

static int submit(struct fetch *fetch, struct item *item, struct err *err)
{
    struct frame_request request = fetch->shape;

    request.media = item->ref;
    if (fetch->service.submit(fetch->service.state, &request, !fetch->wants_frames,
                              &item->ticket, err) < 0)
        return -1;
    item->state = ITEM_FLYING;
    fetch->n_flying++;
    return 0;
}

static int keep_frames(struct fetch *fetch, struct item *item, const uint8_t *frames,
                       struct err *err)
{
    size_t size = (size_t)fetch->shape.image_size;
    size_t n_bytes = (size_t)item->info.n_frames * size * size * 3;

    item->frames = malloc(n_bytes ? n_bytes : 1);
    if (!item->frames)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes of frames", n_bytes);
    memcpy(item->frames, frames, n_bytes);
    item->n_frame_bytes = n_bytes;
    fetch->kept_bytes += n_bytes;
    return 0;
}

/* Waits for a flying item. -1: not the media's fault. */
static int land(struct fetch *fetch, struct item *item, struct err *err)
{
    const uint8_t *frames = NULL;
    struct err reason = {0};
    int rc = fetch->service.wait(fetch->service.state, item->ticket, &frames, &item->info,
                                 &reason);

    fetch->n_flying--;
    if (rc == 0) {
        item->state = ITEM_GOOD;
        if (fetch->wants_frames)
            rc = keep_frames(fetch, item, frames, err);
    } else if (reason.code == ERR_NOMEM || reason.code == ERR_STATE) {
        item->state = ITEM_BAD;
        err_set(err, reason.code, "%s", reason.text);
    } else {
        item->state = ITEM_BAD;
        item->reason = malloc(sizeof(reason));
        if (item->reason)
            *item->reason = reason;
        rc = item->reason ? 0 : err_set(err, ERR_NOMEM, "cannot keep a reason");
    }
    fetch->service.release(fetch->service.state, item->ticket);
    return rc;
}

/* Waits for the oldest flying item, to have its place in the service's queue. */
static int land_oldest(struct fetch *fetch, struct err *err)
{
    while (fetch->first < fetch->n_items &&
           fetch->items[fetch->first].state != ITEM_FLYING)
        fetch->first++;
    if (fetch->first == fetch->n_items)
        return err_set(err, ERR_LIMIT, "the decoders take no request");
    return land(fetch, &fetch->items[fetch->first], err);
}

static int run_ahead(struct fetch *fetch, struct err *err)
{
    while (fetch->next < fetch->n_items && fetch->n_flying < FETCH_IN_FLIGHT_MAX) {
        struct item *item = &fetch->items[fetch->next];
        struct err refusal = {0};

        if (item->state == ITEM_NEW && item->n_uses &&
            submit(fetch, item, &refusal) < 0) {
            if (refusal.code == ERR_LIMIT)
                return 0;
            return err_set(err, refusal.code, "%s", refusal.text);
        }
        fetch->next++;
    }
    return 0;
}

/* Asks for one item, making room in the service's queue if need be. */
static int submit_now(struct fetch *fetch, struct item *item, struct err *err)
{
    struct err refusal = {0};

    fetch->first = 0; /* it may lie before those that are flying */
    while (submit(fetch, item, &refusal) < 0) {
        if (refusal.code != ERR_LIMIT)
            return err_set(err, refusal.code, "%s", refusal.text);
        if (land_oldest(fetch, err) < 0)
            return -1;
    }
    fetch->first = 0;
    return 0;
}

enum fetch_answer fetch_get(struct fetch *fetch, int64_t i, struct media_info *info,
                            const uint8_t **frames, struct err *err)
{
    struct item *item = &fetch->items[i];

    if (item->state == ITEM_NEW && run_ahead(fetch, err) < 0)
        return FETCH_FAILED;
    if (item->state == ITEM_NEW && submit_now(fetch, item, err) < 0)
        return FETCH_FAILED;
    if (item->state == ITEM_FLYING) {
        if (run_ahead(fetch, err) < 0 || land(fetch, item, err) < 0)
            return FETCH_FAILED;
    }
    if (item->state == ITEM_BAD) {
        err_set(err, item->reason ? item->reason->code : ERR_NOMEM, "%s",
                item->reason ? item->reason->text : "out of memory");
        return FETCH_BAD_MEDIA;
    }
    *info = item->info;
    *frames = item->frames;
    return FETCH_GOOD;
}

void fetch_done(struct fetch *fetch, int64_t i)
{
    struct item *item = &fetch->items[i];

    item->n_uses--;
    if (!item->frames)
        return;
    if (item->n_uses == 0) {
        drop_frames(fetch, item);
    } else if (fetch->kept_bytes > FETCH_KEEP_BYTES) {
        drop_frames(fetch, item); /* asked for again when it is needed */
        item->state = ITEM_NEW;
    }
}
