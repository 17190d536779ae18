#include "worker/rank/loader.h"

#include "common/base/clock.h"
#include "common/base/stage.h"

#include <stdlib.h>

struct loader {
    struct loader_config config;
    struct batch **ring; /* [n_ring]; micro batch k lies at k % n_ring */
    int64_t n_ring;
    int64_t next,
        n_planned;    /* of the micro batch to give out; one past the last planned */
    bool is_end;      /* there are none past n_planned */
    int64_t *numbers; /* [capacity] */
    int64_t wait_ns;
};

int loader_create(struct loader **out, const struct loader_config *config,
                  struct err *err)
{
    struct loader *loader = calloc(1, sizeof(*loader));

    if (!loader)
        return err_set(err, ERR_NOMEM, "cannot allocate the loader");
    loader->config = *config;
    loader->next = loader->n_planned = config->first;
    loader->n_ring = config->n_ahead + 1;
    loader->ring = calloc((size_t)loader->n_ring, sizeof(struct batch *));
    loader->numbers = calloc((size_t)config->capacity, sizeof(*loader->numbers));
    if (!loader->ring || !loader->numbers) {
        err_set(err, ERR_NOMEM, "cannot allocate the loader");
        goto fail;
    }
    for (int64_t i = 0; i < loader->n_ring; i++)
        if (batch_create(&loader->ring[i], &config->source, config->capacity, err) < 0)
            goto fail;
    *out = loader;
    return 0;
fail:
    loader_destroy(loader);
    return -1;
}

void loader_destroy(struct loader *loader)
{
    if (!loader)
        return;
    for (int64_t i = 0; loader->ring && i < loader->n_ring; i++)
        batch_destroy(loader->ring[i]);
    free(loader->ring);
    free(loader->numbers);
    free(loader);
}

static struct batch *loader_batch(struct loader *loader, int64_t k)
{
    return loader->ring[k % loader->n_ring];
}

/* Plans up to n_ahead past the next one, then asks for their frames, oldest first. */
static int loader_top_up(struct loader *loader, struct err *err)
{
    const struct loader_config *config = &loader->config;

    while (!loader->is_end && loader->n_planned < loader->next + loader->n_ring) {
        int64_t k = loader->n_planned;
        int64_t n = config->numbers(config->state, k, loader->numbers);

        if (n == 0) {
            loader->is_end = true;
            break;
        }
        if (batch_plan(loader_batch(loader, k), loader->numbers, n, err) < 0)
            return -1;
        loader->n_planned++;
    }
    for (int64_t k = loader->next; k < loader->n_planned; k++) {
        int rc = batch_submit(loader_batch(loader, k), err);

        if (rc < 0)
            return -1;
        if (rc == 0)
            break; /* the queue is full */
    }
    return 0;
}

int loader_next(struct loader *loader, const struct batch **batch, struct err *err)
{
    struct stage_mark before = stage_begin("decode", NULL, STAGE_LIMITED);
    int64_t start_ns = clock_mono_ns();
    int rc = loader_top_up(loader, err);

    if (rc == 0 && loader->next < loader->n_planned) {
        struct batch *it = loader_batch(loader, loader->next);

        rc = batch_finish(it, err) < 0 ? -1 : 1;
        *batch = it;
        loader->next++;
    }
    loader->wait_ns += clock_mono_ns() - start_ns;
    stage_end(before);
    return rc;
}

int loader_peek(struct loader *loader, const struct batch **batch)
{
    struct batch *it = loader_batch(loader, loader->next);
    struct err why = {0};

    if (loader_top_up(loader, &why) < 0 || loader->next >= loader->n_planned ||
        !batch_is_ready(it) || batch_finish(it, &why) < 0)
        return 0;
    *batch = it;
    return 1;
}

int64_t loader_take_wait_ns(struct loader *loader)
{
    int64_t wait_ns = loader->wait_ns;

    loader->wait_ns = 0;
    return wait_ns;
}
