#include "model/nn/stack.h"

#include "common/base/stage.h"

#include <stdlib.h>

int stack_init(struct stack *stack, const struct block_config *config, int64_t n_layers,
               struct err *err)
{
    size_t n = (size_t)n_layers;

    *stack = (struct stack){.config = *config, .n_layers = n_layers};
    stack->blocks = calloc(n + 1, sizeof(*stack->blocks));
    stack->acts = calloc(n + 1, sizeof(*stack->acts));
    stack->x = calloc(n + 1, sizeof(*stack->x));
    if (stack->blocks && stack->acts && stack->x)
        return 0;
    stack_fini(stack);
    return err_set(err, ERR_NOMEM, "cannot allocate %lld layers", (long long)n_layers);
}

void stack_fini(struct stack *stack)
{
    free(stack->blocks);
    free(stack->acts);
    free(stack->x);
    *stack = (struct stack){0};
}

/* ---- groups of layers that are computed again together ---- */

static bool is_again(const struct stack *stack, int64_t layer)
{
    const struct stack_policy *policy = &stack->policy;

    if (!policy->is_training)
        return true;
    return policy->is_full && (!policy->is_block || layer < policy->n_layers);
}

static int64_t group_size(const struct stack *stack)
{
    const struct stack_policy *policy = &stack->policy;
    bool is_grouped = policy->is_training && policy->is_full && !policy->is_block;

    return is_grouped ? policy->n_layers : 1;
}

static int64_t group_first(const struct stack *stack, int64_t layer)
{
    return layer - layer % group_size(stack);
}

/* First layer of the group whose acts the forward pass leaves in the shared memory, or -1. */
static int64_t group_left(const struct stack *stack)
{
    for (int64_t i = stack->n_layers - 1; i >= 0; i--)
        if (is_again(stack, i))
            return group_first(stack, i);
    return -1;
}

/* ---- memory ---- */

/* Inputs: two that alternate when nothing is kept; else one for each layer that keeps its
 * own, and those inside a group shared by all groups. */
static void inputs_layout(struct stack *stack, int64_t n_rows, enum dtype dtype,
                          struct arena *arena)
{
    int64_t d = stack->config.width;

    for (int64_t i = 0; i <= stack->n_layers; i++) {
        int64_t inner = i < stack->n_layers ? i - group_first(stack, i) : 0;
        bool is_shared = stack->policy.is_training ? inner > 0 && i > inner : i > 1;

        if (!is_shared)
            stack->x[i] = arena_take_2d(arena, dtype, n_rows, d);
        else
            stack->x[i] = stack->x[stack->policy.is_training ? inner : i - 2];
    }
}

void stack_layout(struct stack *stack, const struct stack_policy *policy,
                  const struct block_rows *rows, enum dtype dtype, struct arena *arena)
{
    struct block_scratch none = {0};

    stack->policy = *policy;
    stack->config.has_backward = policy->is_training;
    stack->config.keeps_attention = policy->is_training && !policy->is_selective;
    inputs_layout(stack, rows->batch * rows->tokens, dtype, arena);
    for (int64_t i = 0; i < stack->n_layers; i++) {
        int64_t inner = i - group_first(stack, i);

        if (is_again(stack, i) && i > inner)
            stack->acts[i] = stack->acts[inner];
        else
            block_acts_layout(&stack->acts[i], &stack->config, rows, dtype, &none, arena);
    }
}

void stack_scratch_layout(struct stack *stack, const struct block_rows *rows,
                          enum dtype dtype, struct arena *arena)
{
    const struct block_config *config = &stack->config;

    block_scratch_layout(&stack->scratch, config, rows, dtype, stack->policy.is_training,
                         arena);
    for (int64_t i = 0; i < stack->n_layers; i++) {
        struct block_acts *acts = &stack->acts[i];

        if (!config->is_trained) {
            acts->normed1 = acts->normed2 = stack->scratch.normed;
            acts->hidden = stack->scratch.hidden;
        }
        if (!config->keeps_attention) {
            acts->attn = stack->scratch.attn;
            acts->lse = stack->scratch.lse;
        }
    }
}

/* ---- passes ---- */

int stack_fwd(struct nn *nn, struct stack *stack, const struct block_rows *rows,
              const struct block_cache *caches, struct err *err)
{
    for (int64_t i = 0; i < stack->n_layers; i++) {
        stage_touch();
        if (block_fwd(nn, &stack->config, &stack->blocks[i], &stack->x[i + 1],
                      &stack->x[i], &stack->acts[i], &stack->scratch, rows,
                      caches ? &caches[i] : NULL, err) < 0)
            return err_wrap(err, "layer %lld", (long long)i);
    }
    return 0;
}

/* Runs layers [first, end) again, but for the last product of the last one. */
static int run_again(struct nn *nn, struct stack *stack, int64_t first, int64_t end,
                     const struct block_rows *rows, struct err *err)
{
    if (!is_again(stack, first) || first == group_left(stack))
        return 0;
    for (int64_t i = first; i < end; i++) {
        struct tensor *y = i + 1 < end ? &stack->x[i + 1] : NULL;

        stage_touch();
        if (block_fwd(nn, &stack->config, &stack->blocks[i], y, &stack->x[i],
                      &stack->acts[i], &stack->scratch, rows, NULL, err) < 0)
            return err_wrap(err, "layer %lld, again", (long long)i);
    }
    return 0;
}

static int group_bwd(struct nn *nn, struct stack *stack, struct tensor *d, int64_t first,
                     int64_t end, const struct block_rows *rows, struct err *err)
{
    if (run_again(nn, stack, first, end, rows, err) < 0)
        return -1;
    for (int64_t i = end - 1; i >= first; i--) {
        stage_touch();
        if (block_bwd(nn, &stack->config, &stack->blocks[i], d, &stack->x[i],
                      &stack->acts[i], &stack->scratch, rows, err) < 0)
            return err_wrap(err, "layer %lld backward", (long long)i);
    }
    return 0;
}

int64_t stack_part_first(const struct stack *stack, int64_t end)
{
    return end > STACK_PART_LAYERS ? group_first(stack, end - STACK_PART_LAYERS) : 0;
}

int stack_bwd_part(struct nn *nn, struct stack *stack, struct tensor *d, int64_t first,
                   int64_t end, const struct block_rows *rows, struct err *err)
{
    while (end > first) {
        int64_t begin = group_first(stack, end - 1);

        if (group_bwd(nn, stack, d, begin, end, rows, err) < 0)
            return -1;
        end = begin;
    }
    return 0;
}
