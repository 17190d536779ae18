/* block.h - one pre-norm transformer layer, of the vision encoder and of the decoder
 *
 *     mid = x   + out(attention(qkv(norm1(x))))
 *     y   = mid + down(act(up(norm2(mid))))
 *
 * CLIP's layer: layernorm, biases, QuickGELU, no rotation. LLaMA's: rmsnorm, rotary
 * embedding, grouped queries, up and gate as one product and SwiGLU. Nemotron's:
 * layernorm1p, part of each head rotated, squared ReLU. q, k and v are one product as
 * well. When nn is split over ranks, qkv and up are column-parallel, out and
 * down row-parallel (Megatron): sizes here are this rank's.
 * Letters as in backend.h; S = (H + 2G) K, F inner width, U = F or 2F (gated).
 */
#ifndef VNEVA_MODEL_NN_BLOCK_H
#define VNEVA_MODEL_NN_BLOCK_H

#include "model/nn/arena.h"
#include "model/nn/nn.h"

struct block_config {
    int64_t width;                          /* D */
    int64_t n_heads, n_kv_heads, head_size; /* H/R, G/R, K */
    int64_t ffn_width;                      /* F/R */
    struct nn_norm norm;
    bool is_gated; /* up is [gate; up] and SwiGLU; else up and act */
    bool is_causal;
    bool is_trained;      /* weights get gradients */
    bool has_backward;    /* what a backward pass reads is kept */
    bool keeps_attention; /* o is stored for the backward pass, else computed again */
    enum activation act;
    struct rope_args rope; /* rot_dims 0: no rotation */
};

/* Weights T, or their gradients F32. Tensors without data do not exist. */
struct block_weights {
    struct tensor norm1_w, norm1_b; /* [D] */
    struct tensor qkv_w, qkv_b;     /* [S,D], [S] */
    struct tensor out_w, out_b;     /* [D,H*K], [D] */
    struct tensor norm2_w, norm2_b; /* [D] */
    struct tensor up_w, up_b;       /* [U,D], [U] */
    struct tensor down_w, down_b;   /* [D,F], [D] */
};

struct block {
    struct block_weights w, dw;
};

/* The rows at work. positions I32 [B*T], only read with rotation. */
struct block_rows {
    int64_t batch, tokens; /* B, T; N = B*T */
    const struct tensor *positions;
};

/* What the backward pass reads again, [N, ...] T and [N] F32. Those marked * are scratch
 * when the weights are not trained, those marked + when attention is computed again. */
struct block_acts {
    struct tensor mean1, rstd1, normed1; /* normed1 [N,D] * */
    struct tensor qkv;                   /* [N,S], rotated */
    struct tensor attn, lse;             /* [N,H*K] +, [B,H,T] + */
    struct tensor mid;                   /* [N,D] */
    struct tensor mean2, rstd2, normed2; /* normed2 [N,D] * */
    struct tensor up, hidden;            /* [N,U], hidden [N,F] *; without gate and
                                            backward pass there is no up */
};

/* Shared by all layers; contents do not outlive one layer's pass. */
struct block_scratch {
    struct tensor normed, hidden, attn, lse;
    struct tensor part; /* [N,D]: a sum over ranks, or a gradient in front of a norm */
    struct tensor d_hidden, d_up, d_attn, d_qkv; /* backward only; d_hidden with a gate */
};

/* Key-value cache of one layer, for generation: k, v [B, capacity, G*K] T. */
struct block_cache {
    struct tensor k, v;
    const struct tensor *rows; /* I32 [N]: row of [B*capacity] where each new key goes */
    const struct tensor *kv_lens; /* I32 [B]: keys in use; NULL in the first pass, in
                                     which the new rows are all there is */
};

void block_scratch_layout(struct block_scratch *scratch,
                          const struct block_config *config,
                          const struct block_rows *rows, enum dtype dtype,
                          bool has_backward, struct arena *arena);
void block_acts_layout(struct block_acts *acts, const struct block_config *config,
                       const struct block_rows *rows, enum dtype dtype,
                       const struct block_scratch *scratch, struct arena *arena);

/* y [N,D] = layer(x); acts = what block_bwd needs. y NULL: only the acts are wanted, the
 * last product is left out. cache NULL: no generation. COLLECTIVE when split */
int block_fwd(struct nn *nn, const struct block_config *config, const struct block *block,
              struct tensor *y, const struct tensor *x, struct block_acts *acts,
              struct block_scratch *scratch, const struct block_rows *rows,
              const struct block_cache *cache, struct err *err);

/* d [N,D] T, in place: gradient of y becomes gradient of x; block->dw += when trained.
 * COLLECTIVE when split */
int block_bwd(struct nn *nn, const struct block_config *config, struct block *block,
              struct tensor *d, const struct tensor *x, struct block_acts *acts,
              struct block_scratch *scratch, const struct block_rows *rows,
              struct err *err);

#endif
