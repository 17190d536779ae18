/* Frames that come to the device while an earlier micro batch is at work. They wait in memory
 * of their own, for those of the pass at hand share the scratch of all stages, and move from
 * there on the device. */
#include "model/neva/internal.h"

static size_t pixel_bytes(const struct neva *model, int64_t n_frames)
{
    int64_t first, count, side = model->config.vision.image_size;

    neva_frame_range(model, n_frames, &first, &count);
    return (size_t)(count * side * side * 3);
}

int neva_ahead_reserve(struct neva *model, int64_t n_frames, struct err *err)
{
    struct backend *b = model->backend;
    size_t n_bytes = pixel_bytes(model, n_frames);
    struct arena *room = &model->ahead.room;

    if (!b->ops->ahead_upload || n_bytes <= room->n_bytes)
        return 0;
    if (b->ops->ahead_upload(b, NULL, NULL, 0, err) < 0 ||
        b->ops->ahead_take(b, err) < 0 || arena_reserve(room, b, n_bytes, err) < 0 ||
        b->ops->ahead_used(b, err) < 0) /* it may have been other calls' memory */
        return err_wrap(err, "frames of the next micro batch");
    return 0;
}

int neva_prefetch(struct neva *model, const struct neva_batch *next, struct err *err)
{
    struct backend *b = model->backend;
    size_t n_bytes = pixel_bytes(model, next->n_frames);

    neva_ahead_forget(model);
    if (!b->ops->ahead_upload || n_bytes == 0)
        return 0;
    if (neva_ahead_reserve(model, next->n_frames, err) < 0)
        return -1;
    if (b->ops->ahead_upload(b, model->ahead.room.base, next->pixels, n_bytes, err) < 0)
        return err_wrap(err, "frames of the next micro batch");
    model->ahead.pixels = next->pixels;
    model->ahead.n_bytes = n_bytes;
    return 0;
}

void neva_ahead_forget(struct neva *model)
{
    model->ahead.pixels = NULL;
}

int neva_bring_pixels(struct neva *model, const struct tensor *out, const uint8_t *pixels,
                      struct err *err)
{
    struct backend *b = model->backend;
    size_t n_bytes = tensor_bytes(out);
    bool is_there = model->ahead.pixels == pixels && model->ahead.n_bytes == n_bytes;

    neva_ahead_forget(model);
    if (!is_there)
        return b->ops->upload(b, out->data, pixels, n_bytes, err);
    if (b->ops->ahead_take(b, err) < 0 ||
        b->ops->copy(b, out->data, model->ahead.room.base, n_bytes, err) < 0)
        return -1;
    return b->ops->ahead_used(b, err);
}
