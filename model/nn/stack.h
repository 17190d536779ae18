/* stack.h - transformer layers one after the other, and what is kept of them
 *
 * Activation recomputation as Megatron has it. uniform: every group of n layers keeps
 * its input only and runs again before its backward pass; block: the first n layers do so
 * one by one, the others keep everything; selective: layers keep all but the attention's
 * output, which is computed again. The group that ran last is still there and is not run
 * again. All choices give the same bits.
 */
#ifndef VNEVA_MODEL_NN_STACK_H
#define VNEVA_MODEL_NN_STACK_H

#include "model/nn/block.h"

struct stack_policy {
    bool is_training;  /* false: nothing is kept but what one layer needs */
    bool is_full;      /* recompute whole layers */
    bool is_block;     /* the first n_layers, one by one; else groups of n_layers */
    bool is_selective; /* recompute attention only */
    int64_t n_layers;
};

struct stack {
    struct block_config config;
    struct block *blocks; /* owned */
    int64_t n_layers;     /* that are run */

    /* laid out per shape */
    struct stack_policy policy;
    struct tensor *x;        /* [n_layers + 1]: input of each layer, output of the last */
    struct block_acts *acts; /* [n_layers], several may share memory */
    struct block_scratch scratch;
};

int stack_init(struct stack *stack, const struct block_config *config, int64_t n_layers,
               struct err *err);
void stack_fini(struct stack *stack);

/* Places x and acts at the end of `arena`. */
void stack_layout(struct stack *stack, const struct stack_policy *policy,
                  const struct block_rows *rows, enum dtype dtype, struct arena *arena);
/* Places what no layer needs after its pass; may overlay other stages' scratch. */
void stack_scratch_layout(struct stack *stack, const struct block_rows *rows,
                          enum dtype dtype, struct arena *arena);

/* x[0] -> x[n_layers]. caches: one per layer or NULL. COLLECTIVE when nn is split */
int stack_fwd(struct nn *nn, struct stack *stack, const struct block_rows *rows,
              const struct block_cache *caches, struct err *err);

/* d [N,D] T, in place, from the last layers to the first: gradient of x[end] becomes that of
 * x[first]. COLLECTIVE when split. Parts begin where stack_part_first says: whole groups of layers that are computed
 * again together, and STACK_PART_LAYERS at least, unless no more are left. */
#define STACK_PART_LAYERS 4
int64_t stack_part_first(const struct stack *stack, int64_t end);
int stack_bwd_part(struct nn *nn, struct stack *stack, struct tensor *d, int64_t first,
                   int64_t end, const struct block_rows *rows, struct err *err);

#endif
