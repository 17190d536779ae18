/* head.h - the two ends of the decoder that are split by vocabulary: embedding, and the
 * output projection with its loss
 *
 * Rank r holds the rows [first, first + n_real) of the vocabulary; padding behind them
 * stays zero and takes no part. Only rows with a label pass through final norm and head,
 * HEAD_ROWS_MAX at a time, so that logits never take more than that many rows.
 * Source: Shoeybi et al., "Megatron-LM", 2019, section 3 (vocabulary-parallel loss).
 */
#ifndef VNEVA_MODEL_NN_HEAD_H
#define VNEVA_MODEL_NN_HEAD_H

#include "model/backend/sample.h"
#include "model/nn/arena.h"
#include "model/nn/nn.h"

#define HEAD_ROWS_MAX 1024
#define HEAD_VOCAB_MAX (1 << 24) /* token numbers travel between ranks as floats */

struct head {
    struct nn_norm norm;
    struct tensor norm_w, norm_b, w;      /* [D], [D] (not RMS), [V/R,D] T */
    struct tensor d_norm_w, d_norm_b, dw; /* F32; without data: not trained */
    int64_t n_real;
    int32_t first;
    double loss_scale; /* of what goes backward: fp16 would lose small gradients */
};

struct head_scratch {
    int64_t n_rows_max;
    struct tensor x, d_x, normed, rstd, mean; /* [n,D] x 3, [n], [n] (not RMS) */
    struct tensor logits;                     /* [n,V/R] F32 */
    struct tensor d_logits;                   /* T; the logits' memory when that is F32 */
    struct tensor max, sums; /* [n], [2,n]: sum of exponentials, label's logit */
    float *host;             /* [3,n], borrowed: for head_greedy */
};

/* host: HEAD_ROWS_MAX * 3 floats. */
void head_scratch_layout(struct head_scratch *scratch, const struct head *head,
                         int64_t n_rows, enum dtype dtype, float *host,
                         struct arena *arena);

/* *sum (in the backend's memory) += -log p(labels[i]) over x's rows[i], i < n. d NULL: no
 * more. Else d[rows[i]] = gradient of loss_scale times that sum, and d_norm_w, dw +=. rows
 * and labels I32 [n], the labels all >= 0. Does not wait for the device. COLLECTIVE when
 * split */
int head_loss(struct nn *nn, struct head *head, struct head_scratch *scratch,
              const struct tensor *x, const struct tensor *rows,
              const struct tensor *labels, struct tensor *d, double *sum,
              struct err *err);

/* The most probable token after each of x's rows[i], of equals the lowest, in two halves. What
 * the backend does, without waiting for it: value F32 [n] and index I32 [n] = this rank's best
 * logit and its number, counted from head->first. rows I32 [n]. */
int head_greedy_ask(struct nn *nn, struct head *head, struct head_scratch *scratch,
                    const struct tensor *x, const struct tensor *rows,
                    struct tensor *value, struct tensor *index, struct err *err);
/* And what the host does with copies of both: tokens [n], this rank's index, becomes all
 * ranks'. value [n] is overwritten. COLLECTIVE when split */
int head_greedy_join(struct nn *nn, struct head *head, struct head_scratch *scratch,
                     int64_t n, float *value, int32_t *tokens, struct err *err);

/* How tokens are drawn; all tensors have a row for each of n. */
struct head_draw {
    struct sample_args args;      /* of the whole vocabulary */
    struct tensor seen;           /* I32 [n, sample_words(V)], or without data */
    struct tensor streams, steps; /* I32 [n] */
    struct tensor gathered,
        whole; /* F32 [R,n,V/R], [n,V]; only where the head is split */
};

/* Takes gathered and whole where they are needed. */
void head_draw_layout(struct head_draw *draw, const struct nn *nn,
                      const struct head *head, int64_t n, struct arena *arena);
/* One token after each of x's rows[i], drawn as ops->sample says and the same on all ranks, in
 * tokens I32 [n]; value F32 [n]: the largest logit that counted. Does not wait for the device.
 * COLLECTIVE when split */
int head_draw_ask(struct nn *nn, struct head *head, struct head_scratch *scratch,
                  const struct tensor *x, const struct tensor *rows,
                  struct head_draw *draw, struct tensor *value, struct tensor *tokens,
                  struct err *err);
/* And what the host does with a copy of value: the tokens are all ranks' already. */
int head_draw_join(int64_t n, const float *value, struct err *err);

#endif
