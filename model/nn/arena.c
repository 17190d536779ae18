#include "model/nn/arena.h"

int arena_reserve(struct arena *arena, struct backend *backend, size_t n_bytes,
                  struct err *err)
{
    arena->used = arena->peak = 0;
    if (arena->base && arena->n_bytes >= n_bytes)
        return 0;
    arena_fini(arena);
    if (backend->ops->alloc(backend, (void **)&arena->base, n_bytes ? n_bytes : 1, err) <
        0)
        return -1;
    arena->backend = backend;
    arena->n_bytes = n_bytes;
    return 0;
}

void arena_fini(struct arena *arena)
{
    if (arena->base)
        arena->backend->ops->free(arena->backend, arena->base);
    *arena = (struct arena){0};
}

struct tensor arena_take_joined(struct arena *arena, enum dtype dtype, int n_dims,
                                const int64_t *dims)
{
    struct tensor tensor =
        tensor_of(arena->base ? arena->base + arena->used : NULL, dtype, n_dims, dims);

    arena->used += tensor_bytes(&tensor);
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    return tensor;
}

struct tensor arena_take(struct arena *arena, enum dtype dtype, int n_dims,
                         const int64_t *dims)
{
    arena->used = (arena->used + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return arena_take_joined(arena, dtype, n_dims, dims);
}

struct tensor arena_take_1d(struct arena *arena, enum dtype dtype, int64_t n)
{
    return arena_take(arena, dtype, 1, &n);
}

struct tensor arena_take_2d(struct arena *arena, enum dtype dtype, int64_t rows,
                            int64_t columns)
{
    return arena_take(arena, dtype, 2, (const int64_t[]){rows, columns});
}

void arena_rewind(struct arena *arena, size_t used)
{
    arena->used = used;
}
