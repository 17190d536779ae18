/* Forward and backward pass, in stretches of operations that are fixed by the shape of the
 * micro batch: a backend may record them once and replay them (backend_replay). Between them
 * lies what changes: frames and tables are uploaded before, the head in the middle works on
 * as many rows as there are labels, and sums over ranks may begin after each part of the
 * backward pass. */
#include "model/neva/internal.h"

#include "common/base/stage.h"
#include "model/comm/device.h"

static int agree(void *group, int64_t mine, int64_t *least, int64_t *greatest,
                 struct err *err)
{
    return comm_range(group, mine, least, greatest, err);
}

/* Not where the host takes part in what ranks exchange inside the model. */
static bool can_replay(const struct neva *model)
{
    return comm_size(model->group) == 1 || comm_has_device(model->group);
}

int neva_replay(struct neva *model, const char *name, uint64_t part, const void *memory,
                int (*run)(void *context, struct err *err), void *context,
                struct err *err)
{
    const struct neva_shape *shape = &model->shape;
    struct backend_stretch stretch = {
        .name = name,
        .fixed = {(uint64_t)shape->n_samples, (uint64_t)shape->n_tokens,
                  (uint64_t)shape->n_frames, shape->is_training, part,
                  (uint64_t)(uintptr_t)memory, (uint64_t)(uintptr_t)model->acts.base,
                  (uint64_t)(uintptr_t)model->values.base,
                  (uint64_t)(uintptr_t)model->grads.base},
    };

    if (!can_replay(model))
        return run(context, err);
    if (comm_size(model->group) > 1) {
        stretch.agree = agree;
        stretch.peers = model->group;
    }
    return backend_replay(model->backend, &stretch, run, context, err);
}

/* ---- forward ---- */

static int embed(void *context, struct err *err)
{
    struct neva *model = context;

    return text_fwd(model, err) < 0 ? -1 : vision_fwd(model, err);
}

static int decode(void *context, struct err *err)
{
    struct neva *model = context;

    return stack_fwd(&model->llm_nn, &model->llm, &model->llm_rows, NULL, err);
}

static int forward(struct neva *model, const struct neva_batch *batch,
                   const struct block_cache *caches, struct err *err)
{
    if (vision_upload(model, batch->pixels, err) < 0)
        return -1;
    if (caches)
        return embed(model, err) < 0 ? -1
                                     : stack_fwd(&model->llm_nn, &model->llm,
                                                 &model->llm_rows, caches, err);
    if (neva_replay(model, "embedding and encoder", 0, NULL, embed, model, err) < 0)
        return -1;
    return neva_replay(model, "decoder", 0, NULL, decode, model, err);
}

int neva_forward(struct neva *model, const struct neva_batch *batch,
                 const struct block_cache *caches, struct err *err)
{
    if (forward(model, batch, caches, err) < 0)
        return err_wrap(err, "forward pass");
    return 0;
}

/* ---- backward ---- */

struct part {
    struct neva *model;
    int64_t first, end; /* layers of the decoder */
};

static int decode_bwd(void *context, struct err *err)
{
    const struct part *part = context;
    struct neva *model = part->model;

    return stack_bwd_part(&model->llm_nn, &model->llm, &model->text_acts.d, part->first,
                          part->end, &model->llm_rows, err);
}

static int words_bwd(void *context, struct err *err)
{
    return text_bwd(context, err);
}

static int projector_bwd(void *context, struct err *err)
{
    return vision_projector_bwd(context, err);
}

static int encode_bwd(void *context, struct err *err)
{
    const struct part *part = context;

    return vision_encoder_bwd(part->model, part->first, part->end, err);
}

static int decoder_backward(struct neva *model, struct err *err)
{
    struct part part = {.model = model};

    for (part.end = model->llm.n_layers; part.end > 0; part.end = part.first) {
        part.first = stack_part_first(&model->llm, part.end);
        stage_touch();
        if (neva_replay(model, "decoder backward", (uint64_t)part.end, NULL, decode_bwd,
                        &part, err) < 0 ||
            neva_reduce_llm(model, part.first, err) < 0)
            return -1;
    }
    return 0;
}

static int encoder_backward(struct neva *model, struct err *err)
{
    struct part part = {.model = model, .end = model->vision.n_layers};

    if (model->config.vision.freeze)
        return 0;
    do { /* even without layers there is what is in front of them */
        part.first = stack_part_first(&model->vision, part.end);
        stage_touch();
        if (neva_replay(model, "encoder backward", (uint64_t)part.end, NULL, encode_bwd,
                        &part, err) < 0 ||
            (part.end > 0 && neva_reduce_vision(model, part.first, err) < 0))
            return -1;
        part.end = part.first;
    } while (part.end > 0);
    return 0;
}

static int backward(struct neva *model, struct err *err)
{
    if (decoder_backward(model, err) < 0 ||
        neva_replay(model, "embedding backward", 0, NULL, words_bwd, model, err) < 0 ||
        neva_reduce_words(model, err) < 0 ||
        neva_replay(model, "projector backward", 0, NULL, projector_bwd, model, err) <
            0 ||
        neva_reduce_projector(model, err) < 0)
        return -1;
    return encoder_backward(model, err);
}

int neva_backward(struct neva *model, const struct neva_batch *batch, struct err *err)
{
    struct stage_mark before;
    int rc;

    if (model->config.llm.freeze && batch->n_frames == 0)
        return 0; /* nothing trained has a part in it */
    before = stage_begin("backward", NULL, STAGE_LIMITED);
    rc = backward(model, err);
    stage_end(before);
    if (rc < 0)
        return err_wrap(err, "backward pass");
    model->n_frames_seen += batch->n_frames;
    return 0;
}
