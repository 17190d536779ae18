#include "model/nn/block.h"

#include <math.h>

static int64_t qkv_width(const struct block_config *config)
{
    return (config->n_heads + 2 * config->n_kv_heads) * config->head_size;
}

static int64_t attn_width(const struct block_config *config)
{
    return config->n_heads * config->head_size;
}

static int64_t up_width(const struct block_config *config)
{
    return config->is_gated ? 2 * config->ffn_width : config->ffn_width;
}

/* ---- memory ---- */

static struct tensor lse_take(const struct block_config *config,
                              const struct block_rows *rows, struct arena *arena)
{
    return arena_take(arena, DTYPE_F32, 3,
                      (const int64_t[]){rows->batch, config->n_heads, rows->tokens});
}

void block_scratch_layout(struct block_scratch *scratch,
                          const struct block_config *config,
                          const struct block_rows *rows, enum dtype dtype,
                          bool has_backward, struct arena *arena)
{
    int64_t n = rows->batch * rows->tokens;
    size_t shared;

    scratch->normed = arena_take_2d(arena, dtype, n, config->width);
    scratch->hidden = arena_take_2d(arena, dtype, n, config->ffn_width);
    scratch->attn = arena_take_2d(arena, dtype, n, attn_width(config));
    scratch->lse = lse_take(config, rows, arena);
    scratch->part = arena_take_2d(arena, dtype, n, config->width);
    if (!has_backward)
        return;
    /* the gradients inside the two halves of the layer are never needed together */
    shared = arena->used;
    if (config->is_gated)
        scratch->d_hidden = arena_take_2d(arena, dtype, n, config->ffn_width);
    scratch->d_up = arena_take_2d(arena, dtype, n, up_width(config));
    size_t end = arena->used;
    arena_rewind(arena, shared);
    scratch->d_attn = arena_take_2d(arena, dtype, n, attn_width(config));
    scratch->d_qkv = arena_take_2d(arena, dtype, n, qkv_width(config));
    if (arena->used < end)
        arena_rewind(arena, end);
}

void block_acts_layout(struct block_acts *acts, const struct block_config *config,
                       const struct block_rows *rows, enum dtype dtype,
                       const struct block_scratch *scratch, struct arena *arena)
{
    int64_t n = rows->batch * rows->tokens, d = config->width;

    *acts = (struct block_acts){0};
    if (config->norm.kind != NN_NORM_RMS) {
        acts->mean1 = arena_take_1d(arena, DTYPE_F32, n);
        acts->mean2 = arena_take_1d(arena, DTYPE_F32, n);
    }
    acts->rstd1 = arena_take_1d(arena, DTYPE_F32, n);
    acts->rstd2 = arena_take_1d(arena, DTYPE_F32, n);
    acts->qkv = arena_take_2d(arena, dtype, n, qkv_width(config));
    acts->mid = arena_take_2d(arena, dtype, n, d);
    if (config->is_gated || config->has_backward)
        acts->up = arena_take_2d(arena, dtype, n, up_width(config));
    acts->attn = scratch->attn;
    acts->lse = scratch->lse;
    if (config->keeps_attention) {
        acts->attn = arena_take_2d(arena, dtype, n, attn_width(config));
        acts->lse = lse_take(config, rows, arena);
    }
    acts->normed1 = acts->normed2 = scratch->normed;
    acts->hidden = scratch->hidden;
    if (config->is_trained) {
        acts->normed1 = arena_take_2d(arena, dtype, n, d);
        acts->normed2 = arena_take_2d(arena, dtype, n, d);
        acts->hidden = arena_take_2d(arena, dtype, n, config->ffn_width);
    }
}

/* ---- pieces ---- */

/* Columns [first, first + width) of the joint product, as [B,T,width] rows of the joint
 * width: the stride goes into attention_args. */
static struct tensor columns(const struct tensor *joint, const struct block_rows *rows,
                             int64_t first, int64_t width)
{
    return tensor_of((char *)joint->data + (size_t)first * dtype_bytes(joint->dtype),
                     joint->dtype, 3,
                     (const int64_t[]){rows->batch, rows->tokens, width});
}

struct qkv {
    struct tensor q, k, v;
};

static struct qkv qkv_split(const struct block_config *config,
                            const struct block_rows *rows, const struct tensor *joint)
{
    int64_t q = attn_width(config), kv = config->n_kv_heads * config->head_size;

    return (struct qkv){columns(joint, rows, 0, q), columns(joint, rows, q, kv),
                        columns(joint, rows, q + kv, kv)};
}

static struct tensor batched(const struct tensor *x, const struct block_rows *rows)
{
    return tensor_of(x->data, x->dtype, 3,
                     (const int64_t[]){rows->batch, rows->tokens, x->dims[1]});
}

static struct attention_args attention_args(const struct block_config *config)
{
    return (struct attention_args){
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .causal = config->is_causal,
        .scale = 1.0F / sqrtf((float)config->head_size),
        .q_stride = qkv_width(config),
        .kv_stride = qkv_width(config),
    };
}

static int rotate(struct nn *nn, const struct block_config *config, struct tensor *joint,
                  const struct block_rows *rows, bool inverse, struct err *err)
{
    struct tensor heads = tensor_of(
        joint->data, joint->dtype, 3,
        (const int64_t[]){joint->dims[0], config->n_heads + 2 * config->n_kv_heads,
                          config->head_size});

    if (config->rope.rot_dims == 0)
        return 0;
    return nn->backend->ops->rope(nn->backend, &heads,
                                  config->n_heads + config->n_kv_heads, rows->positions,
                                  &config->rope, inverse, err);
}

/* ---- forward ---- */

static int attention_fwd(struct nn *nn, const struct block_config *config,
                         struct block_acts *acts, const struct block_rows *rows,
                         struct err *err)
{
    struct attention_args args = attention_args(config);
    struct qkv in = qkv_split(config, rows, &acts->qkv);
    struct tensor o = batched(&acts->attn, rows);

    return nn->backend->ops->attention_fwd(nn->backend, &o, &acts->lse, &in.q, &in.k,
                                           &in.v, &args, err);
}

/* q, k and v as three products behind each other in the place of the joint one: the cache
 * wants whole rows of k and v. */
static int qkv_apart(struct nn *nn, const struct block_config *config,
                     const struct block *block, struct qkv *out, struct block_acts *acts,
                     const struct block_rows *rows, struct err *err)
{
    const int64_t n = rows->batch * rows->tokens;
    const int64_t heads[] = {config->n_heads, config->n_kv_heads, config->n_kv_heads};
    struct tensor *parts[] = {&out->q, &out->k, &out->v};
    char *data = acts->qkv.data;

    for (int64_t i = 0, first = 0; i < 3; i++) {
        int64_t width = heads[i] * config->head_size;
        struct tensor y = tensor_of(data, nn->dtype, 2, (const int64_t[]){n, width});
        struct tensor w = tensor_rows(&block->w.qkv_w, first, width), bias = {0};
        struct tensor turned = tensor_of(
            data, nn->dtype, 3, (const int64_t[]){n, heads[i], config->head_size});

        if (block->w.qkv_b.data)
            bias = tensor_rows(&block->w.qkv_b, first, width);
        if (nn_linear_fwd(nn, &y, &acts->normed1, &w, &bias, err) < 0)
            return -1;
        if (i < 2 && config->rope.rot_dims > 0 &&
            nn->backend->ops->rope(nn->backend, &turned, heads[i], rows->positions,
                                   &config->rope, false, err) < 0)
            return -1;
        *parts[i] = batched(&y, rows);
        data += tensor_bytes(&y);
        first += width;
    }
    return 0;
}

/* Keys and values of the new rows go into the cache; attention over the cache, or over
 * the new rows alone in the first pass. */
static int attention_cached(struct nn *nn, const struct block_config *config,
                            const struct block *block, struct block_acts *acts,
                            const struct block_rows *rows,
                            const struct block_cache *cache, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;
    struct attention_args args = attention_args(config);
    struct tensor o = batched(&acts->attn, rows), k, v;
    struct tensor k_store = tensor_flat(&cache->k), v_store = tensor_flat(&cache->v);
    struct qkv in;

    if (qkv_apart(nn, config, block, &in, acts, rows, err) < 0)
        return -1;
    k = tensor_flat(&in.k);
    v = tensor_flat(&in.v);
    if (ops->scatter_rows(nn->backend, &k_store, &k, cache->rows, err) < 0 ||
        ops->scatter_rows(nn->backend, &v_store, &v, cache->rows, err) < 0)
        return -1;
    args.q_stride = args.kv_stride = 0;
    args.kv_lens = cache->kv_lens;
    args.one_off = true; /* as long as the prompts, as wide as the cache */
    return ops->attention_fwd(nn->backend, &o, &acts->lse, &in.q,
                              cache->kv_lens ? &cache->k : &in.k,
                              cache->kv_lens ? &cache->v : &in.v, &args, err);
}

/* mid = x + out(attn), normed2 = norm2(mid): the sum over ranks and the residual go into the
 * norm's pass, a product that is whole takes the residual itself. */
static int attention_out_fwd(struct nn *nn, const struct block_config *config,
                             const struct block *block, const struct tensor *x,
                             struct block_acts *acts, struct block_scratch *scratch,
                             struct err *err)
{
    const struct block_weights *w = &block->w;
    struct tensor sum;

    if (nn_is_split(nn)) {
        if (nn_linear_row_sum(nn, &sum, &scratch->part, &acts->attn, &w->out_w, &w->out_b,
                              err) < 0)
            return -1;
        return nn_norm_add_fwd(nn, &config->norm, &acts->normed2, &acts->mean2,
                               &acts->rstd2, &acts->mid, x, &sum, &w->norm2_w,
                               &w->norm2_b, err);
    }
    if (nn_linear_row_fwd(nn, &acts->mid, &acts->attn, &w->out_w, &w->out_b, x, err) < 0)
        return -1;
    return nn_norm_fwd(nn, &config->norm, &acts->normed2, &acts->mean2, &acts->rstd2,
                       &acts->mid, &w->norm2_w, &w->norm2_b, err);
}

/* mid, and its norm */
static int attention_half_fwd(struct nn *nn, const struct block_config *config,
                              const struct block *block, const struct tensor *x,
                              struct block_acts *acts, struct block_scratch *scratch,
                              const struct block_rows *rows,
                              const struct block_cache *cache, struct err *err)
{
    const struct block_weights *w = &block->w;

    if (nn_norm_fwd(nn, &config->norm, &acts->normed1, &acts->mean1, &acts->rstd1, x,
                    &w->norm1_w, &w->norm1_b, err) < 0)
        return -1;
    if (cache) {
        if (attention_cached(nn, config, block, acts, rows, cache, err) < 0)
            return -1;
    } else if (nn_linear_fwd(nn, &acts->qkv, &acts->normed1, &w->qkv_w, &w->qkv_b, err) <
                   0 ||
               rotate(nn, config, &acts->qkv, rows, false, err) < 0 ||
               attention_fwd(nn, config, acts, rows, err) < 0) {
        return -1;
    }
    return attention_out_fwd(nn, config, block, x, acts, scratch, err);
}

/* y = mid + down(...); NULL: not wanted */
static int mlp_half_fwd(struct nn *nn, const struct block_config *config,
                        const struct block *block, struct tensor *y,
                        struct block_acts *acts, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;
    const struct block_weights *w = &block->w;

    if (config->is_gated) {
        if (nn_linear_fwd(nn, &acts->up, &acts->normed2, &w->up_w, &w->up_b, err) < 0 ||
            ((y || config->is_trained) &&
             ops->swiglu_fwd(nn->backend, &acts->hidden, &acts->up, err) < 0))
            return -1;
        /* else the same product whatever is wanted of it: its bits may depend on that */
    } else if (nn_linear_act_fwd(nn, &acts->hidden, acts->up.n_dims ? &acts->up : NULL,
                                 &acts->normed2, &w->up_w, &w->up_b, config->act,
                                 err) < 0) {
        return -1;
    }
    if (!y)
        return 0;
    return nn_linear_row_fwd(nn, y, &acts->hidden, &w->down_w, &w->down_b, &acts->mid,
                             err);
}

int block_fwd(struct nn *nn, const struct block_config *config, const struct block *block,
              struct tensor *y, const struct tensor *x, struct block_acts *acts,
              struct block_scratch *scratch, const struct block_rows *rows,
              const struct block_cache *cache, struct err *err)
{
    if (attention_half_fwd(nn, config, block, x, acts, scratch, rows, cache, err) < 0)
        return -1;
    return mlp_half_fwd(nn, config, block, y, acts, err);
}

/* ---- backward ---- */

/* The gradient of up's output, through down and the activation. */
static int act_bwd(struct nn *nn, const struct block_config *config,
                   const struct block_weights *w, const struct tensor *d,
                   const struct block_acts *acts, struct block_scratch *scratch,
                   struct err *err)
{
    if (!config->is_gated)
        return nn_linear_act_bwd_x(nn, &scratch->d_up, d, &w->down_w, &acts->up,
                                   config->act, err);
    if (nn_linear_bwd_x(nn, &scratch->d_hidden, d, &w->down_w, err) < 0)
        return -1;
    return nn->backend->ops->swiglu_bwd(nn->backend, &scratch->d_up, &scratch->d_hidden,
                                        &acts->up, err);
}

static int mlp_half_bwd(struct nn *nn, const struct block_config *config,
                        struct block *block, struct tensor *d, struct block_acts *acts,
                        struct block_scratch *scratch, struct err *err)
{
    const struct block_weights *w = &block->w;
    struct block_weights *dw = &block->dw;

    if (act_bwd(nn, config, w, d, acts, scratch, err) < 0)
        return -1;
    if (config->is_trained &&
        (nn_linear_bwd_w(nn, &dw->down_w, &dw->down_b, d, &acts->hidden, err) < 0 ||
         nn_linear_bwd_w(nn, &dw->up_w, &dw->up_b, &scratch->d_up, &acts->normed2, err) <
             0))
        return -1;
    if (nn_linear_column_bwd_x(nn, &scratch->part, &scratch->d_up, &w->up_w, err) < 0)
        return -1;
    return nn_norm_bwd(nn, &config->norm, d, &dw->norm2_w, &dw->norm2_b, &scratch->part,
                       d, &acts->mid, &w->norm2_w, &acts->mean2, &acts->rstd2, err);
}

static int attention_core_bwd(struct nn *nn, const struct block_config *config,
                              struct block_acts *acts, struct block_scratch *scratch,
                              const struct block_rows *rows, struct err *err)
{
    struct attention_args args = attention_args(config);
    struct qkv in = qkv_split(config, rows, &acts->qkv);
    struct qkv d = qkv_split(config, rows, &scratch->d_qkv);
    struct tensor o = batched(&acts->attn, rows);
    struct tensor d_o = batched(&scratch->d_attn, rows);

    if (nn->backend->ops->attention_bwd(nn->backend, &d.q, &d.k, &d.v, &d_o, &in.q, &in.k,
                                        &in.v, &o, &acts->lse, &args, err) < 0)
        return -1;
    return rotate(nn, config, &scratch->d_qkv, rows, true, err);
}

static int attention_half_bwd(struct nn *nn, const struct block_config *config,
                              struct block *block, struct tensor *d,
                              const struct tensor *x, struct block_acts *acts,
                              struct block_scratch *scratch,
                              const struct block_rows *rows, struct err *err)
{
    const struct block_weights *w = &block->w;
    struct block_weights *dw = &block->dw;

    if (nn_linear_bwd_x(nn, &scratch->d_attn, d, &w->out_w, err) < 0 ||
        attention_core_bwd(nn, config, acts, scratch, rows, err) < 0)
        return -1;
    if (config->is_trained &&
        (nn_linear_bwd_w(nn, &dw->out_w, &dw->out_b, d, &acts->attn, err) < 0 ||
         nn_linear_bwd_w(nn, &dw->qkv_w, &dw->qkv_b, &scratch->d_qkv, &acts->normed1,
                         err) < 0))
        return -1;
    if (nn_linear_column_bwd_x(nn, &scratch->part, &scratch->d_qkv, &w->qkv_w, err) < 0)
        return -1;
    return nn_norm_bwd(nn, &config->norm, d, &dw->norm1_w, &dw->norm1_b, &scratch->part,
                       d, x, &w->norm1_w, &acts->mean1, &acts->rstd1, err);
}

int block_bwd(struct nn *nn, const struct block_config *config, struct block *block,
              struct tensor *d, const struct tensor *x, struct block_acts *acts,
              struct block_scratch *scratch, const struct block_rows *rows,
              struct err *err)
{
    if (mlp_half_bwd(nn, config, block, d, acts, scratch, err) < 0)
        return -1;
    if (!config->keeps_attention && attention_fwd(nn, config, acts, rows, err) < 0)
        return -1;
    return attention_half_bwd(nn, config, block, d, x, acts, scratch, rows, err);
}
