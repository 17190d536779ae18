/* Cases of rotary embedding and attention. */
#include "tests/op/op_cases.h"

/* ---- rope: n = N, heads in all, heads turned, K, rot_dims, first position ---- */

void run_rope(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor x = op_input(r, "x", r->dtype, 1, 0, D(n[0], n[1], n[3]));
    struct tensor back = op_input(r, "back", r->dtype, 1, 0, D(n[0], n[1], n[3]));
    int32_t numbers[IDS_MAX];
    struct tensor positions;
    struct rope_args args = {.rot_dims = n[4],
                             .theta = 1e4F,
                             .factor = 8,
                             .low_freq_factor = 1,
                             .high_freq_factor = 4,
                             .original_positions = 128};

    if (r->op->flags & (LINEAR | LLAMA3))
        args.scaling = r->op->flags & LINEAR ? ROPE_LINEAR : ROPE_LLAMA3;
    for (int64_t i = 0; i < n[0]; i++)
        numbers[i] = (int32_t)(n[5] + i * 3);
    positions = op_table(r, numbers, n[0]);
    op_check(r, r->b->ops->rope(r->b, &x, n[2], &positions, &args, false, &r->err));
    op_check(r, r->b->ops->rope(r->b, &back, n[2], &positions, &args, true, &r->err));
    op_keep(r, "x", &x);
    op_keep(r, "back", &back);
}

/* ---- attention: n = B, Tq, Tk, H, G, K ---- */

#define ROWS_MAX 40

/* Rows are given between all and few of their keys, never fewer than Tq. */
static void make_lens(const struct op_run *r, int32_t *lens)
{
    const int64_t *n = r->op->n;

    for (int64_t i = 0; i < n[0]; i++)
        lens[i] = (int32_t)(n[2] - i * (n[2] - n[1]) / n[0]);
    if (n[0] > 1 && !(r->op->flags & CAUSAL))
        lens[n[0] - 1] = 1;
}

struct attention_case {
    struct tensor joint, q, k, v;
    struct attention_args args;
    int32_t lens[ROWS_MAX];
    struct tensor kv_lens;
};

static void view_joint(struct attention_case *a, const struct tensor *joint,
                       const int64_t *n)
{
    struct tensor at = *joint;
    size_t element = dtype_bytes(joint->dtype), head = (size_t)n[5] * element;

    a->q = tensor_of(at.data, at.dtype, 3, D(n[0], n[1], n[3] * n[5]));
    a->k = tensor_of((char *)at.data + (size_t)n[3] * head, at.dtype, 3,
                     D(n[0], n[2], n[4] * n[5]));
    a->v = tensor_of((char *)a->k.data + (size_t)n[4] * head, at.dtype, 3,
                     D(n[0], n[2], n[4] * n[5]));
}

static void make_attention(struct op_run *r, struct attention_case *a)
{
    const int64_t *n = r->op->n;
    int64_t width = (n[3] + 2 * n[4]) * n[5];

    a->args = (struct attention_args){.n_heads = n[3],
                                      .n_kv_heads = n[4],
                                      .causal = r->op->flags & CAUSAL,
                                      .scale = 1 / sqrtf((float)n[5])};
    if (r->op->flags & JOINT) {
        a->joint = op_input(r, "joint", r->dtype, 1, 0, D(n[0], n[1], width));
        a->args.q_stride = a->args.kv_stride = width;
        view_joint(a, &a->joint, n);
        return;
    }
    a->q = op_input(r, "q", r->dtype, 1, 0, D(n[0], n[1], n[3] * n[5]));
    a->k = op_input(r, "k", r->dtype, 1, 0, D(n[0], n[2], n[4] * n[5]));
    a->v = op_input(r, "v", r->dtype, 1, 0, D(n[0], n[2], n[4] * n[5]));
    if (!(r->op->flags & LENS))
        return;
    make_lens(r, a->lens);
    a->kv_lens = op_table(r, a->lens, n[0]);
    a->args.kv_lens = &a->kv_lens;
    for (int64_t i = 0; i < n[0]; i++) {
        op_poison_rows(r, &a->k, i * n[2] + a->lens[i], (i + 1) * n[2]);
        op_poison_rows(r, &a->v, i * n[2] + a->lens[i], (i + 1) * n[2]);
    }
}

void run_attention(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct attention_case in = {0}, out = {0};
    struct tensor o = op_output(r, r->dtype, D(n[0], n[1], n[3] * n[5]));
    struct tensor lse = op_output(r, DTYPE_F32, D(n[0], n[3], n[1]));
    struct tensor d_o = op_input(r, "d_o", r->dtype, 1, 0, D(n[0], n[1], n[3] * n[5]));

    make_attention(r, &in);
    if (r->op->flags & JOINT) {
        out.joint = op_output(r, r->dtype, D(n[0], n[1], in.args.q_stride));
        view_joint(&out, &out.joint, n);
    } else {
        out.q = op_output(r, r->dtype, D(n[0], n[1], n[3] * n[5]));
        out.k = op_output(r, r->dtype, D(n[0], n[2], n[4] * n[5]));
        out.v = op_output(r, r->dtype, D(n[0], n[2], n[4] * n[5]));
    }
    if (r->has_failed)
        return;
    op_check(r, r->b->ops->attention_fwd(r->b, &o, &lse, &in.q, &in.k, &in.v, &in.args,
                                         &r->err));
    op_check(r, r->b->ops->attention_bwd(r->b, &out.q, &out.k, &out.v, &d_o, &in.q, &in.k,
                                         &in.v, &o, &lse, &in.args, &r->err));
    op_keep(r, "o", &o);
    op_keep(r, "lse", &lse);
    if (r->op->flags & JOINT) {
        op_keep(r, "dqkv", &out.joint);
    } else {
        op_keep(r, "dq", &out.q);
        op_keep(r, "dk", &out.k);
        op_keep(r, "dv", &out.v);
    }
}
