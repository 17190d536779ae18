/* arena.h - memory handed out in order, and the plan of it
 *
 * The same layout code runs twice: over an arena without memory, to learn how many bytes
 * it takes, and over one with memory, to place the tensors. Nothing is freed singly;
 * what is not needed at the same time shares memory through arena_rewind.
 * Owns: its memory, in the backend given to arena_reserve.
 * Units: bytes; every tensor starts at a multiple of ARENA_ALIGN unless joined.
 */
#ifndef VNEVA_MODEL_NN_ARENA_H
#define VNEVA_MODEL_NN_ARENA_H

#include "model/backend/backend.h"

#define ARENA_ALIGN 64

struct arena {
    struct backend *backend; /* who allocated base */
    char *base;              /* NULL: a plan; tensors have no data */
    size_t n_bytes;          /* of base */
    size_t used, peak;       /* now, and the most so far */
};

/* Makes the memory at least n_bytes long and empties the arena. What was there is lost
 * when it has to grow, and kept when it has not. */
int arena_reserve(struct arena *arena, struct backend *backend, size_t n_bytes,
                  struct err *err);
void arena_fini(struct arena *arena);

/* A tensor behind the last one. Its data is NULL in a plan. */
struct tensor arena_take(struct arena *arena, enum dtype dtype, int n_dims,
                         const int64_t *dims);
struct tensor arena_take_1d(struct arena *arena, enum dtype dtype, int64_t n);
struct tensor arena_take_2d(struct arena *arena, enum dtype dtype, int64_t rows,
                            int64_t columns);

/* The same without alignment: directly behind the last tensor, so that both can be seen
 * as one matrix. */
struct tensor arena_take_joined(struct arena *arena, enum dtype dtype, int n_dims,
                                const int64_t *dims);

/* Back to an earlier value of `used`: what comes next overlays what came since. */
void arena_rewind(struct arena *arena, size_t used);

#endif
