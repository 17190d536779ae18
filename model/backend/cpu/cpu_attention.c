/* cpu_attention.c - exact attention, block of queries by block of queries
 *
 * A task is one head (forward) or one key-value head with its group of heads (backward,
 * where they add to the same dk and dv). It transposes the keys, then, for QUERIES queries at a time, computes their scores against all
 * keys the last of them sees (so the masked half of causal attention costs nothing), the
 * softmax by rows, and the products. The formulas are those of ref_attention.c.
 * The backward pass computes the scores again and takes the softmax from the lse that
 * was kept (Dao et al. 2022, "FlashAttention").
 *
 * fp32 whose K is whole vectors is read and written where it is, the rest through
 * buffers. Kp and Tp are K and Tk rounded up to whole vectors, padding is 0:
 *   q, d_o, out [QUERIES,Kp]   kt, vt [K,Tp] (transposed)   k, v, dk, dv [Tp,Kp]
 *   s, ds [QUERIES,Tp]
 * A masked key has weight 0 but is multiplied when a query of the same block sees it:
 * infinity or NaN there spread within the block.
 */
#include "model/backend/attention_mask.h"
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"

#include <math.h>
#include <string.h>

#define QUERIES 32
/* With so few queries (generation), keys are read once: transposing them would cost more
 * than the products, and so would a copy in fp32 of those in bf16. */
#define QUERIES_FEW 4

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
    bool is_few; /* queries */
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
        .is_few = q->dims[1] <= QUERIES_FEW,
    };
}

/* ---- rows of K elements, `stride` apart in a tensor from element `at` on ---- */

struct rows {
    float *data;
    int64_t ld;
};

static bool is_in_place(const struct attention *a, const struct tensor *x)
{
    return x->dtype == DTYPE_F32 && a->head == a->kp;
}

/* n rows of x, to be read only: in place, or copied into buf [n,Kp]. */
static struct rows read_rows(const struct attention *a, const struct tensor *x,
                             int64_t at, int64_t stride, int64_t n, float *buf)
{
    struct rows rows = {buf, a->kp};

    if (is_in_place(a, x))
        return (struct rows){(float *)x->data + at, stride};
    for (int64_t t = 0; t < n; t++) {
        float *row = buf + t * a->kp;
        const float *from = cpu_read(a->cpu, x, at + t * stride, a->head, row);

        if (from != row) /* fp32; other types were converted into place */
            memcpy(row, from, (size_t)a->head * sizeof(float));
        for (int64_t i = a->head; i < a->kp; i++)
            row[i] = 0;
    }
    return rows;
}

/* Where to compute rows of y: in place, or in buf; write_rows then stores them. */
static struct rows target_rows(const struct attention *a, const struct tensor *y,
                               int64_t at, int64_t stride, float *buf)
{
    if (is_in_place(a, y))
        return (struct rows){(float *)y->data + at, stride};
    return (struct rows){buf, a->kp};
}

static void write_rows(const struct attention *a, const struct tensor *y, int64_t at,
                       int64_t stride, int64_t n, const struct rows *rows)
{
    for (int64_t t = 0; t < n; t++)
        cpu_write(a->cpu, y, at + t * stride, a->head, rows->data + t * rows->ld);
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
    float *q, *out, *k, *v, *kt, *s;
};

/* Floats of all buffers; *at (unless NULL) gets where they are from base on. */
static int64_t fwd_floats(const struct attention *a, struct fwd_buffers *at, float *base)
{
    int64_t block = QUERIES * a->kp, keys = a->tp * a->kp;
    float *at_keys = base + 2 * block;

    if (at)
        *at = (struct fwd_buffers){.q = base,
                                   .out = base + block,
                                   .k = at_keys,
                                   .v = at_keys + keys,
                                   .kt = at_keys + 2 * keys,
                                   .s = at_keys + 3 * keys};
    return 2 * block + 3 * keys + QUERIES * a->tp;
}

/* Keys and values of one head: fp32, or, for few queries, bf16 as it lies. */
struct head_rows {
    struct rows k, v;
    const uint16_t *k_bf16, *v_bf16; /* NULL: fp32 */
};

static struct head_rows read_head(const struct attention *a, const struct fwd_buffers *at,
                                  int64_t b, int64_t g)
{
    int64_t len = attention_len(a->args, b, a->tk), from = kv_at(a, b, 0, g);
    struct head_rows head = {.k_bf16 = NULL};

    if (a->is_few && a->k->dtype == DTYPE_BF16) {
        head.k_bf16 = (const uint16_t *)a->k->data + from;
        head.v_bf16 = (const uint16_t *)a->v->data + from;
        return head;
    }
    head.k = read_rows(a, a->k, from, a->kv_stride, len, at->k);
    head.v = read_rows(a, a->v, from, a->kv_stride, len, at->v);
    if (!a->is_few)
        a->kern->transpose(at->kt, a->tp, head.k.data, head.k.ld, len, a->head,
                           a->args->scale);
    return head;
}

/* s [n,Tp] = scores of n queries against the first n_keys keys */
static void fwd_scores(const struct attention *a, const struct fwd_buffers *at,
                       const struct rows *q, const struct head_rows *head, int64_t n,
                       int64_t n_keys)
{
    int64_t n_pad = round_up(n_keys, a->kern->width);

    if (!a->is_few) {
        a->kern->gemm(at->s, a->tp, q->data, q->ld, 1, at->kt, a->tp, n, n_pad, a->head,
                      false);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float *s = at->s + i * a->tp;
        const float *row = q->data + i * q->ld;

        if (head->k_bf16)
            a->kern->scores_bf16(s, row, head->k_bf16, a->kv_stride, n_keys, a->head,
                                 a->args->scale);
        else
            a->kern->scores(s, row, head->k.data, head->k.ld, n_keys, a->head,
                            a->args->scale);
    }
}

/* o [n,K] = s [n,Tp] times the first n_keys values */
static void fwd_weigh(const struct attention *a, const struct fwd_buffers *at,
                      const struct rows *o, const struct head_rows *head, int64_t n,
                      int64_t n_keys)
{
    if (!head->v_bf16) {
        a->kern->gemm(o->data, o->ld, at->s, a->tp, 1, head->v.data, head->v.ld, n, a->kp,
                      n_keys, false);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        a->kern->weigh_bf16(o->data + i * o->ld, at->s + i * a->tp, head->v_bf16,
                            a->kv_stride, n_keys, a->head);
}

/* Queries [t, t+n) of head h in row b. */
static void fwd_block(const struct attention *a, const struct fwd_buffers *at,
                      const struct head_rows *head, int64_t b, int64_t h, int64_t t,
                      int64_t n)
{
    int64_t len = attention_len(a->args, b, a->tk), place = o_at(a, b, t, h);
    int64_t n_keys = attention_visible(a->args, len, a->tq, t + n - 1);
    int64_t n_pad = round_up(n_keys, a->kern->width);
    struct rows q = read_rows(a, a->q, q_at(a, b, t, h), a->q_stride, n, at->q);
    struct rows o = target_rows(a, a->o, place, a->o_stride, at->out);
    float *lse = (float *)a->lse->data + (b * a->n_h + h) * a->tq + t;
    float factors[QUERIES];

    fwd_scores(a, at, &q, head, n, n_keys);
    for (int64_t i = 0; i < n; i++) {
        int64_t n_seen = attention_visible(a->args, len, a->tq, t + i);
        float max, sum = a->kern->softmax(at->s + i * a->tp, &max, n_seen, n_pad);

        lse[i] = max + logf(sum);
        factors[i] = n_seen ? 1.0F / sum : 0;
    }
    fwd_weigh(a, at, &o, head, n, n_keys);
    a->kern->scale_rows(o.data, o.ld, factors, n, a->head);
    write_rows(a, a->o, place, a->o_stride, n, &o);
}

static void fwd_heads(void *context, int64_t first, int64_t last, int thread)
{
    const struct attention *a = context;
    struct fwd_buffers at;

    fwd_floats(a, &at, a->scratch.each + thread * a->scratch.stride);
    for (int64_t i = first; i < last; i++) {
        int64_t b = i / a->n_h, h = i % a->n_h;
        struct head_rows head = read_head(a, &at, b, h / (a->n_h / a->n_g));

        for (int64_t t = 0; t < a->tq; t += QUERIES)
            fwd_block(a, &at, &head, b, h, t, a->tq - t < QUERIES ? a->tq - t : QUERIES);
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
static void bwd_block(const struct attention *a, const struct bwd_buffers *at,
                      const struct rows *k, int64_t b, int64_t h, int64_t t, int64_t n)
{
    int64_t len = attention_len(a->args, b, a->tk), place = q_at(a, b, t, h);
    int64_t n_keys = attention_visible(a->args, len, a->tq, t + n - 1);
    int64_t n_pad = round_up(n_keys, a->kern->width);
    struct rows q = read_rows(a, a->q, place, a->q_stride, n, at->q);
    struct rows d_o = read_rows(a, a->d_o, o_at(a, b, t, h), a->o_stride, n, at->d_o);
    struct rows dq = target_rows(a, a->dq, place, a->q_stride, at->out);
    const float *lse = (const float *)a->lse->data + (b * a->n_h + h) * a->tq + t;

    a->kern->gemm(at->s, a->tp, q.data, q.ld, 1, at->kt, a->tp, n, n_pad, a->head, false);
    a->kern->gemm(at->ds, a->tp, d_o.data, d_o.ld, 1, at->vt, a->tp, n, n_pad, a->head,
                  false);
    for (int64_t i = 0; i < n; i++) {
        int64_t n_seen = attention_visible(a->args, len, a->tq, t + i);
        float *s = at->s + i * a->tp;

        a->kern->softmax_again(s, lse[i], n_seen, n_pad);
        a->kern->softmax_bwd(at->ds + i * a->tp, s, a->args->scale, n_pad);
    }
    a->kern->gemm(at->dv, a->kp, at->s, 1, a->tp, d_o.data, d_o.ld, n_keys, a->kp, n,
                  true);
    a->kern->gemm(at->dk, a->kp, at->ds, 1, a->tp, q.data, q.ld, n_keys, a->kp, n, true);
    a->kern->gemm(dq.data, dq.ld, at->ds, a->tp, 1, k->data, k->ld, n, a->kp, n_keys,
                  false);
    write_rows(a, a->dq, place, a->q_stride, n, &dq);
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
        struct rows v = read_rows(a, a->v, from, a->kv_stride, len, at.k), k;

        a->kern->transpose(at.vt, a->tp, v.data, v.ld, len, a->head, 1);
        k = read_rows(a, a->k, from, a->kv_stride, len,
                      at.k); /* v is not needed any more */
        a->kern->transpose(at.kt, a->tp, k.data, k.ld, len, a->head, a->args->scale);
        memset(at.dk, 0, keys_bytes);
        memset(at.dv, 0, keys_bytes);
        for (int64_t h = g * n_group; h < (g + 1) * n_group; h++)
            for (int64_t t = 0; t < a->tq; t += QUERIES)
                bwd_block(a, &at, &k, b, h, t, a->tq - t < QUERIES ? a->tq - t : QUERIES);
        /* all Tk rows: those past len are 0 */
        write_rows(a, a->dk, from, a->kv_stride, a->tk, &(struct rows){at.dk, a->kp});
        write_rows(a, a->dv, from, a->kv_stride, a->tk, &(struct rows){at.dv, a->kp});
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
