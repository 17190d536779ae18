/* Where the activations of a micro batch lie. First what lives from the forward to the
 * backward pass, then one piece of scratch that the stages use in turn:
 *
 *     | kept: encoder, projector, decoder | scratch: encoder forward
 *                                         |   or text embedding
 *                                         |   or decoder, loss
 *                                         |   or projector and encoder backward |
 */
#include "model/neva/internal.h"

#include <stdlib.h>
#include <string.h>

static struct stack_policy policy_of(const struct neva_config *config, bool is_training)
{
    return (struct stack_policy){
        .is_training = is_training,
        .is_full = config->recompute == NEVA_RECOMPUTE_FULL,
        .is_block = config->recompute_method == NEVA_RECOMPUTE_BLOCK,
        .is_selective = config->recompute == NEVA_RECOMPUTE_SELECTIVE,
        .n_layers = config->recompute_layers,
    };
}

/* What the encoder's backward pass reads; scratch when there is none. */
static void vision_layout(struct neva *model, int64_t n_frames, bool has_backward,
                          struct arena *arena)
{
    const struct neva_config *config = &model->config;
    struct vision_acts *acts = &model->vision_acts;
    struct stack_policy policy = policy_of(config, has_backward);
    int64_t side = config->vision.patch, n_rows = n_frames * neva_vision_tokens(config);
    int64_t n_patches = n_frames * neva_patches(config), d = config->vision.width;

    acts->patches = arena_take_2d(arena, config->dtype, n_patches, 3 * side * side);
    if (config->vision.encoder == NEVA_ENCODER_CLIP) {
        acts->embedded = arena_take_2d(arena, config->dtype, n_rows, d);
        acts->mean = arena_take_1d(arena, DTYPE_F32, n_rows);
        acts->rstd = arena_take_1d(arena, DTYPE_F32, n_rows);
    }
    if (has_backward)
        acts->d = arena_take_2d(arena, config->dtype, n_rows, d);
    stack_layout(&model->vision, &policy, &model->vision_rows, config->dtype, arena);
    if (config->vision.encoder == NEVA_ENCODER_SIGLIP)
        acts->embedded = model->vision.x[0]; /* no norm lies between */
}

static void vision_scratch_layout(struct neva *model, int64_t n_frames,
                                  struct arena *arena)
{
    const struct neva_config *config = &model->config;
    struct vision_acts *acts = &model->vision_acts;
    int64_t side = config->vision.image_size, d = config->vision.width;

    acts->pixels =
        arena_take(arena, DTYPE_U8, 4, (const int64_t[]){n_frames, side, side, 3});
    acts->rows = arena_take_2d(arena, config->dtype, n_frames * neva_patches(config), d);
    acts->classes = arena_take_2d(arena, config->dtype, n_frames, d);
    stack_scratch_layout(&model->vision, &model->vision_rows, config->dtype, arena);
}

static int64_t projector_width(const struct neva_config *config)
{
    return config->vision.width * neva_feature_rows(config);
}

static void projector_layout(struct neva *model, int64_t n_frames, int64_t n_most,
                             int rank, int n_ranks, struct arena *arena)
{
    const struct neva_config *config = &model->config;
    struct projector_acts *acts = &model->projector_acts;
    int64_t n = n_frames * neva_features(config), most = n_most * neva_features(config);
    int64_t d = config->llm.width, width = projector_width(config);
    struct tensor mine;

    model->vision_acts.features = arena_take_2d(arena, config->dtype, n, width);
    if (config->projector == NEVA_PROJECTOR_MLP_DOWNSAMPLE) {
        acts->mean = arena_take_1d(arena, DTYPE_F32, n);
        acts->rstd = arena_take_1d(arena, DTYPE_F32, n);
        acts->normed = arena_take_2d(arena, config->dtype, n, width);
    }
    if (config->projector != NEVA_PROJECTOR_LINEAR) {
        acts->up = arena_take_2d(arena, config->dtype, n, d);
        acts->hidden = arena_take_2d(arena, config->dtype, n, d);
    }
    acts->gathered = arena_take_2d(arena, config->dtype, n_ranks * most, d);
    mine = tensor_rows(&acts->gathered, rank * most, n);
    acts->out = mine;
}

static void projector_scratch_layout(struct neva *model, int64_t n_frames,
                                     struct arena *arena)
{
    const struct neva_config *config = &model->config;
    struct projector_acts *acts = &model->projector_acts;
    int64_t n = n_frames * neva_features(config), d = config->llm.width;
    int64_t width = projector_width(config);

    acts->d_out = arena_take_2d(arena, config->dtype, n, d);
    acts->d_features = arena_take_2d(arena, config->dtype, n, width);
    if (config->projector == NEVA_PROJECTOR_MLP_DOWNSAMPLE)
        acts->d_normed = arena_take_2d(arena, config->dtype, n, width);
    if (config->projector != NEVA_PROJECTOR_LINEAR)
        acts->d_up = arena_take_2d(arena, config->dtype, n, d);
}

static void text_layout(struct neva *model, const struct neva_shape *shape, int n_ranks,
                        struct arena *arena)
{
    const struct neva_config *config = &model->config;
    struct text_acts *acts = &model->text_acts;
    struct stack_policy policy = policy_of(config, shape->is_training);
    int64_t n = shape->n_samples * shape->n_tokens, d = config->llm.width;

    model->llm_nn.wide = NULL;
    if (n_ranks > 1 && config->dtype != DTYPE_F32) {
        acts->wide = arena_take_2d(arena, DTYPE_F32, n, d);
        model->llm_nn.wide = &acts->wide;
    }
    if (shape->is_training)
        acts->d = arena_take_2d(arena, config->dtype, n, d);
    stack_layout(&model->llm, &policy, &model->llm_rows, config->dtype, arena);
}

/* ---- tables ---- */

/* Places every table, here and there, and returns how many numbers they hold. Those of the
 * batch come first. */
static int64_t index_place(struct neva *model, const struct neva_shape *shape,
                           int32_t *host, int32_t *there)
{
    const struct neva_config *config = &model->config;
    struct neva_index *index = &model->index;
    int64_t frames = model->vision_rows.batch, n = shape->n_samples * shape->n_tokens;
    int64_t n_vision = frames * neva_vision_tokens(config), at = 0;
    const struct {
        struct neva_table *table;
        int64_t n;
    } all[] = {
        {&index->ids, n},
        {&index->grad_ids, n},
        {&index->media_rows, n},
        {&index->label_rows, n},
        {&index->labels, n},
        {&index->positions, n},
        {&index->patch_rows, frames * neva_patches(config)},
        {&index->class_rows, frames},
        {&index->zeros, frames},
        {&index->row_features, n_vision},
        {&index->feature_rows,
         frames * neva_features(config) * neva_feature_rows(config)},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); at += all[i++].n) {
        all[i].table->host = host ? host + at : NULL;
        all[i].table->there =
            tensor_of(there ? there + at : NULL, DTYPE_I32, 1, &all[i].n);
    }
    return at;
}

static void index_layout(struct neva *model, const struct neva_shape *shape,
                         struct arena *arena)
{
    struct neva_index *index = &model->index;
    int64_t n = index_place(model, shape, NULL, NULL);

    index->block = arena_take_1d(arena, DTYPE_I32, n);
    if (index->memory)
        index_place(model, shape, (int32_t *)(index->head + (size_t)HEAD_ROWS_MAX * 3),
                    index->block.data);
}

/* The plan alone: places the tensors of every stage in `arena`. */
static void acts_layout(struct neva *model, const struct neva_shape *shape, int rank,
                        int n_ranks, struct arena *arena)
{
    const struct neva_config *config = &model->config;
    bool trains_vision = shape->is_training && !config->vision.freeze;
    int64_t n = shape->n_samples * shape->n_tokens;
    int64_t first = 0, count = 0, most = 0;
    size_t scratch;

    neva_frame_share(shape->n_frames, 0, n_ranks, &first, &most);
    neva_frame_share(shape->n_frames, rank, n_ranks, &first, &count);
    model->vision_rows = (struct block_rows){count, neva_vision_tokens(config), NULL};
    model->llm_rows = (struct block_rows){shape->n_samples, shape->n_tokens,
                                          &model->index.positions.there};
    index_layout(model, shape, arena);
    if (trains_vision)
        vision_layout(model, count, true, arena);
    projector_layout(model, count, most, rank, n_ranks, arena);
    text_layout(model, shape, n_ranks, arena);

    scratch = arena->used;
    if (!trains_vision)
        vision_layout(model, count, false, arena);
    vision_scratch_layout(model, count, arena);
    if (shape->is_training)
        projector_scratch_layout(model, count, arena);
    arena_rewind(arena, scratch);
    stack_scratch_layout(&model->llm, &model->llm_rows, config->dtype, arena);
    head_scratch_layout(&model->head_scratch, &model->head, n, config->dtype,
                        model->index.head, arena);
    arena_rewind(arena, scratch);
}

/* ---- what is on the host ---- */

static int index_reserve(struct neva_index *index, struct err *err)
{
    size_t n_bytes =
        (size_t)HEAD_ROWS_MAX * 3 * sizeof(float) + tensor_bytes(&index->block);

    if (n_bytes > index->n_bytes) {
        free(index->memory);
        index->n_bytes = 0;
        index->memory = malloc(n_bytes);
        if (!index->memory)
            return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes of row numbers",
                           n_bytes);
        index->n_bytes = n_bytes;
    }
    index->head = index->memory;
    return 0;
}

int neva_index_upload(struct neva *model, bool is_whole, struct err *err)
{
    struct neva_index *index = &model->index;
    const int32_t *first = index->ids.host;
    size_t n =
        is_whole ? (size_t)index->block.dims[0] : (size_t)(index->positions.host - first);

    return model->backend->ops->upload(model->backend, index->block.data, first,
                                       n * sizeof(*first), err);
}

/* Patch of a frame that is row j of feature i; -1: behind the edge of an odd grid.
 * mlp_downsample goes through a grid column by column, of each 2 x 2 patches row by row,
 * as NeMo's DownSampleBlock (parallel_adapters.py) and VILA 1.5's do. */
static int64_t feature_patch(const struct neva_config *config, int64_t i, int64_t j)
{
    int64_t grid = neva_grid(config), half = (grid + 1) / 2;
    int64_t row = 2 * (i % half) + j / 2, column = 2 * (i / half) + j % 2;

    if (config->projector != NEVA_PROJECTOR_MLP_DOWNSAMPLE)
        return i;
    return row < grid && column < grid ? row * grid + column : -1;
}

/* Which rows of the encoder become features, and back. */
static void index_features(struct neva *model)
{
    const struct neva_config *config = &model->config;
    struct neva_index *index = &model->index;
    int64_t n_rows = neva_vision_tokens(config), n_join = neva_feature_rows(config);
    int64_t n_all = model->vision_rows.batch * n_rows, n_seen = 0;
    /* row of a frame that comes first */
    int64_t first = config->vision.select_feature == NEVA_SELECT_CLS_PATCH
                        ? 0
                        : config->vision.class_token_length;

    for (int64_t i = 0; i < n_all; i++)
        index->row_features.host[i] = -1;
    for (int64_t frame = 0; frame < model->vision_rows.batch; frame++)
        for (int64_t i = 0; i < neva_features(config) * n_join; i++, n_seen++) {
            int64_t patch = feature_patch(config, i / n_join, i % n_join);
            int64_t row = frame * n_rows + first + patch;

            index->feature_rows.host[n_seen] = patch < 0 ? -1 : (int32_t)row;
            if (patch >= 0)
                index->row_features.host[row] = (int32_t)n_seen;
        }
}

/* The tables that depend on the shape alone. */
static void index_shape(struct neva *model, const struct neva_shape *shape)
{
    struct neva_index *index = &model->index;
    int64_t n_class = model->config.vision.class_token_length;
    int64_t n_patches = neva_patches(&model->config), n_tokens = shape->n_tokens;
    int64_t n_seen = 0;

    for (int64_t i = 0; i < shape->n_samples * n_tokens; i++)
        index->positions.host[i] = (int32_t)(i % n_tokens);
    for (int64_t frame = 0; frame < model->vision_rows.batch; frame++) {
        int64_t row = frame * (n_patches + n_class);

        index->class_rows.host[frame] = (int32_t)row;
        index->zeros.host[frame] = 0;
        for (int64_t i = 0; i < n_patches; i++)
            index->patch_rows.host[n_seen++] = (int32_t)(row + n_class + i);
    }
    index_features(model);
}

int neva_prepare(struct neva *model, const struct neva_shape *shape, struct err *err)
{
    int rank = comm_rank(model->group), n_ranks = comm_size(model->group);
    struct arena plan = {0};

    if (model->acts.base && model->shape.n_samples == shape->n_samples &&
        model->shape.n_tokens == shape->n_tokens &&
        model->shape.n_frames == shape->n_frames &&
        model->shape.is_training == shape->is_training)
        return 0;
    model->shape = (struct neva_shape){0}; /* not laid out until all has succeeded */
    acts_layout(model, shape, rank, n_ranks, &plan);
    if (index_reserve(&model->index, err) < 0)
        return -1;
    if (arena_reserve(&model->acts, model->backend, plan.peak, err) < 0)
        return err_wrap(err, "activations of %lld rows of %lld tokens and %lld frames",
                        (long long)shape->n_samples, (long long)shape->n_tokens,
                        (long long)shape->n_frames);
    acts_layout(model, shape, rank, n_ranks, &model->acts);
    index_shape(model, shape);
    if (neva_index_upload(model, true, err) < 0)
        return -1;
    model->shape = *shape;
    return 0;
}

uint64_t neva_plan_bytes(const struct neva_config *config, int tensor_parallel,
                         int64_t micro_batch, int64_t n_tokens, int64_t n_frames,
                         bool is_training)
{
    const struct neva_shape shape = {micro_batch, n_tokens, n_frames, is_training};
    struct arena values = {0}, masters = {0}, grads = {0}, moments = {0}, acts = {0};
    struct neva model;
    uint64_t total = 0;

    if (neva_init_plan(&model, config, 0, tensor_parallel, NULL) < 0)
        return 0;
    param_table_layout(&model.params, PARAM_VALUE, config->dtype, &values);
    param_table_layout(&model.params, PARAM_MASTER, config->dtype, &masters);
    if (is_training) {
        param_table_layout(&model.params, PARAM_GRAD, DTYPE_F32, &grads);
        param_table_layout(&model.params, PARAM_MOMENTS, DTYPE_F32, &moments);
    }
    acts_layout(&model, &shape, 0, tensor_parallel, &acts);
    total = values.peak + masters.peak + grads.peak + moments.peak + acts.peak;
    if (is_training) /* the next micro batch's frames */
        total += tensor_bytes(&model.vision_acts.pixels);
    neva_fini_plan(&model);
    return total;
}
