/* cpu_attention.c - exact attention, block of queries by block of queries
 *
 * A task is one head (forward) or one key-value head with its group of heads (backward,
 * where they add to the same dk and dv). It packs keys and values as fp32, whatever their
 * type and stride; then, for QUERIES queries at a time, computes their scores against all
 * keys the last of them sees (so the masked half of causal attention costs nothing), the
 * softmax by rows, and the products. The formulas are those of ref_attention.c.
 * The backward pass computes the scores again and takes the softmax from the lse that
 * was kept (Dao et al. 2022, "FlashAttention").
 *
 * Buffers, Kp and Tp being K and Tk rounded up to whole vectors, padding 0:
 *   q, d_o, out [QUERIES,Kp]   kt, vt [K,Tp] (transposed)   k, v, dk, dv [Tp,Kp]
 *   s, ds [QUERIES,Tp]
 */
#include "model/backend/attention_mask.h"
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"

#include <math.h>
#include <string.h>

#define QUERIES 32

struct attention {
    const struct cpu *cpu;
    const struct kern_attention *kern;
    const struct attention_args *args;
    const struct tensor *q, *k, *v, *d_o;
    struct tensor *o, *lse, *dq, *dk, *dv;
    struct cpu_scratch scratch;
    int64_t n_b, tq, tk, n_h, n_g, head; /* B, Tq, Tk, H, G, K */
    int64_t q_stride, kv_stride, o_stride;
    int64_t kp, tp;
};

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static struct attention attention_of(struct backend *b, const struct tensor *q,
                                     const struct tensor *k, const struct tensor *v,
                                     const struct attention_args *args)
{
    struct cpu *cpu = cpu_of(b);
    int64_t width = cpu->kern->attention->width;
    int64_t head = q->dims[2] / args->n_heads;

    return (struct attention){
        .cpu = cpu,
        .kern = cpu->kern->attention,
        .args = args,
        .q = q,
        .k = k,
        .v = v,
        .n_b = q->dims[0],
        .tq = q->dims[1],
        .tk = k->dims[1],
        .n_h = args->n_heads,
        .n_g = args->n_kv_heads,
        .head = head,
        .q_stride = args->q_stride ? args->q_stride : q->dims[2],
        .kv_stride = args->kv_stride ? args->kv_stride : k->dims[2],
        .o_stride = q->dims[2],
        .kp = round_up(head, width),
        .tp = round_up(k->dims[1], width),
    };
}

/* ---- packing: n rows of K elements, `stride` apart in x from element `at` ---- */

/* to [n,Kp] = factor * rows */
static void pack(const struct attention *a, float *to, const struct tensor *x, int64_t at,
                 int64_t stride, int64_t n, float factor)
{
    for (int64_t t = 0; t < n; t++) {
        float *row = to + t * a->kp;
        const float *from = cpu_read(a->cpu, x, at + t * stride, a->head, row);

        a->cpu->kern->pointwise->scale(row, from, factor, a->head);
        for (int64_t i = a->head; i < a->kp; i++)
            row[i] = 0;
    }
}

/* to [K,Tp] = transpose of what pack made, padding 0 */
static void transpose(const struct attention *a, float *to, const float *rows, int64_t n)
{
    int64_t n_pad = round_up(n, a->kern->width);

    for (int64_t i = 0; i < a->head; i++) {
        for (int64_t t = 0; t < n; t++)
            to[i * a->tp + t] = rows[t * a->kp + i];
        for (int64_t t = n; t < n_pad; t++)
            to[i * a->tp + t] = 0;
    }
}

/* rows of y = factor * from [n,Kp]; from is used up */
static void unpack(const struct attention *a, struct tensor *y, int64_t at,
                   int64_t stride, float *from, int64_t n, float factor)
{
    for (int64_t t = 0; t < n; t++) {
        float *row = from + t * a->kp;

        a->cpu->kern->pointwise->scale(row, row, factor, a->head);
        cpu_write(a->cpu, y, at + t * stride, a->head, row);
    }
}

/* Where row t of one head of one batch row begins. */
static int64_t q_at(const struct attention *a, int64_t b, int64_t t, int64_t h)
{
    return (b * a->tq + t) * a->q_stride + h * a->head;
}

static int64_t o_at(const struct attention *a, int64_t b, int64_t t, int64_t h)
{
    return (b * a->tq + t) * a->o_stride + h * a->head;
}

static int64_t kv_at(const struct attention *a, int64_t b, int64_t t, int64_t g)
{
    return (b * a->tk + t) * a->kv_stride + g * a->head;
}

/* ---- forward ---- */

struct fwd_buffers {
    float *q, *out, *kt, *v, *s;
};

static int64_t fwd_floats(const struct attention *a, struct fwd_buffers *at, float *base)
{
    int64_t block = QUERIES * a->kp;

    if (at)
        *at = (struct fwd_buffers){.q = base,
                                   .out = base + block,
                                   .v = base + 2 * block,
                                   .kt = base + 2 * block + a->tp * a->kp,
                                   .s = base + 2 * block + 2 * a->tp * a->kp};
    return 2 * block + 2 * a->tp * a->kp + QUERIES * a->tp;
}

/* Queries [t, t+n) of head h in row b. */
static void fwd_block(const struct attention *a, const struct fwd_buffers *at, int64_t b,
                      int64_t h, int64_t t, int64_t n)
{
    int64_t len = attention_len(a->args, b, a->tk);
    int64_t n_keys = attention_visible(a->args, len, a->tq, t + n - 1);
    int64_t n_pad = round_up(n_keys, a->kern->width);
    float *lse = (float *)a->lse->data + (b * a->n_h + h) * a->tq + t;
    float sums[QUERIES];

    pack(a, at->q, a->q, q_at(a, b, t, h), a->q_stride, n, a->args->scale);
    a->kern->gemm(at->s, a->tp, at->q, a->kp, 1, at->kt, a->tp, n, n_pad, a->head, false);
    for (int64_t i = 0; i < n; i++) {
        float max;

        sums[i] = a->kern->softmax(at->s + i * a->tp, &max,
                                   attention_visible(a->args, len, a->tq, t + i), n_pad);
        lse[i] = max + logf(sums[i]);
    }
    a->kern->gemm(at->out, a->kp, at->s, a->tp, 1, at->v, a->kp, n, a->kp, n_keys, false);
    for (int64_t i = 0; i < n; i++)
        unpack(a, a->o, o_at(a, b, t + i, h), 0, at->out + i * a->kp, 1,
               sums[i] > 0 || sums[i] != sums[i] ? 1.0F / sums[i] : 0);
}

static void fwd_heads(void *context, int64_t first, int64_t last, int thread)
{
    const struct attention *a = context;
    struct fwd_buffers at;

    fwd_floats(a, &at, a->scratch.each + thread * a->scratch.stride);
    for (int64_t i = first; i < last; i++) {
        int64_t b = i / a->n_h, h = i % a->n_h, g = h / (a->n_h / a->n_g);
        int64_t len = attention_len(a->args, b, a->tk);

        pack(a, at.v, a->k, kv_at(a, b, 0, g), a->kv_stride, len, 1);
        transpose(a, at.kt, at.v, len);
        pack(a, at.v, a->v, kv_at(a, b, 0, g), a->kv_stride, len, 1);
        for (int64_t t = 0; t < a->tq; t += QUERIES)
            fwd_block(a, &at, b, h, t, a->tq - t < QUERIES ? a->tq - t : QUERIES);
    }
}

int cpu_attention_fwd(struct backend *b, struct tensor *o, struct tensor *lse,
                      const struct tensor *q, const struct tensor *k,
                      const struct tensor *v, const struct attention_args *args,
                      struct err *err)
{
    struct attention a = attention_of(b, q, k, v, args);

    a.o = o;
    a.lse = lse;
    if (cpu_scratch(cpu_of(b), 0, fwd_floats(&a, NULL, NULL), &a.scratch, err) < 0)
        return -1;
    cpu_parallel(a.cpu, a.n_b * a.n_h, 1, fwd_heads, &a);
    return 0;
}

/* ---- backward ---- */

struct bwd_buffers {
    float *q, *d_o, *out, *k, *dk, *dv, *kt, *vt, *s, *ds;
};

static int64_t bwd_floats(const struct attention *a, struct bwd_buffers *at, float *base)
{
    int64_t block = QUERIES * a->kp, keys = a->tp * a->kp, scores = QUERIES * a->tp;
    float *at_keys = base + 3 * block, *at_scores = at_keys + 5 * keys;

    if (at)
        *at = (struct bwd_buffers){.q = base,
                                   .d_o = base + block,
                                   .out = base + 2 * block,
                                   .k = at_keys,
                                   .dk = at_keys + keys,
                                   .dv = at_keys + 2 * keys,
                                   .kt = at_keys + 3 * keys,
                                   .vt = at_keys + 4 * keys,
                                   .s = at_scores,
                                   .ds = at_scores + scores};
    return 3 * block + 5 * keys + 2 * scores;
}

/* Queries [t, t+n) of head h in row b: dq =, dk and dv of the buffers +=. */
static void bwd_block(const struct attention *a, const struct bwd_buffers *at, int64_t b,
                      int64_t h, int64_t t, int64_t n)
{
    int64_t len = attention_len(a->args, b, a->tk);
    int64_t n_keys = attention_visible(a->args, len, a->tq, t + n - 1);
    int64_t n_pad = round_up(n_keys, a->kern->width);
    const float *lse = (const float *)a->lse->data + (b * a->n_h + h) * a->tq + t;

    pack(a, at->q, a->q, q_at(a, b, t, h), a->q_stride, n, a->args->scale);
    pack(a, at->d_o, a->d_o, o_at(a, b, t, h), a->o_stride, n, 1);
    a->kern->gemm(at->s, a->tp, at->q, a->kp, 1, at->kt, a->tp, n, n_pad, a->head, false);
    a->kern->gemm(at->ds, a->tp, at->d_o, a->kp, 1, at->vt, a->tp, n, n_pad, a->head,
                  false);
    for (int64_t i = 0; i < n; i++) {
        int64_t n_seen = attention_visible(a->args, len, a->tq, t + i);
        float *s = at->s + i * a->tp;

        a->kern->softmax_again(s, lse[i], n_seen, n_pad);
        a->kern->softmax_bwd(at->ds + i * a->tp, s, n_seen, n_pad);
    }
    /* the scale is in q for dk, and in unpack for dq */
    a->kern->gemm(at->dv, a->kp, at->s, 1, a->tp, at->d_o, a->kp, n_keys, a->kp, n, true);
    a->kern->gemm(at->dk, a->kp, at->ds, 1, a->tp, at->q, a->kp, n_keys, a->kp, n, true);
    a->kern->gemm(at->out, a->kp, at->ds, a->tp, 1, at->k, a->kp, n, a->kp, n_keys,
                  false);
    unpack(a, a->dq, q_at(a, b, t, h), a->q_stride, at->out, n, a->args->scale);
}

static void bwd_groups(void *context, int64_t first, int64_t last, int thread)
{
    const struct attention *a = context;
    int64_t n_group = a->n_h / a->n_g;
    size_t keys_bytes = (size_t)(a->tp * a->kp) * sizeof(float);
    struct bwd_buffers at;

    bwd_floats(a, &at, a->scratch.each + thread * a->scratch.stride);
    for (int64_t i = first; i < last; i++) {
        int64_t b = i / a->n_g, g = i % a->n_g;
        int64_t len = attention_len(a->args, b, a->tk), from = kv_at(a, b, 0, g);

        pack(a, at.k, a->v, from, a->kv_stride, len, 1);
        transpose(a, at.vt, at.k, len);
        pack(a, at.k, a->k, from, a->kv_stride, len, 1);
        transpose(a, at.kt, at.k, len);
        memset(at.dk, 0, keys_bytes);
        memset(at.dv, 0, keys_bytes);
        for (int64_t h = g * n_group; h < (g + 1) * n_group; h++)
            for (int64_t t = 0; t < a->tq; t += QUERIES)
                bwd_block(a, &at, b, h, t, a->tq - t < QUERIES ? a->tq - t : QUERIES);
        /* all Tk rows: those past len are 0 */
        unpack(a, a->dk, from, a->kv_stride, at.dk, a->tk, 1);
        unpack(a, a->dv, from, a->kv_stride, at.dv, a->tk, 1);
    }
}

int cpu_attention_bwd(struct backend *b, struct tensor *dq, struct tensor *dk,
                      struct tensor *dv, const struct tensor *d_o, const struct tensor *q,
                      const struct tensor *k, const struct tensor *v,
                      const struct tensor *o, const struct tensor *lse,
                      const struct attention_args *args, struct err *err)
{
    struct attention a = attention_of(b, q, k, v, args);
    struct tensor kept = *lse;

    (void)o; /* sum p dp is taken instead of d_o . o: the same, without o's rounding */
    a.d_o = d_o;
    a.dq = dq;
    a.dk = dk;
    a.dv = dv;
    a.lse = &kept;
    if (cpu_scratch(cpu_of(b), 0, bwd_floats(&a, NULL, NULL), &a.scratch, err) < 0)
        return -1;
    cpu_parallel(a.cpu, a.n_b * a.n_g, 1, bwd_groups, &a);
    return 0;
}
