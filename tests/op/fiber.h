/* fiber.h - runs CUDA kernels on the host: blocks one after another, threads as fibers
 *
 * A thread runs until it waits (barrier, shuffle) or ends, so what another thread sees of
 * it depends on the order in which they are run. Three orders are offered; a kernel whose
 * results differ between them has a race. Found out and said, besides: threads of a block
 * that do not all reach the same barrier, lanes that do not all reach the same shuffle,
 * writes beside shared memory (by guard bytes; by AddressSanitizer reads as well). Shared
 * memory is full of NaN at first.
 * Stricter than the device: a thread that has ended counts as one that missed a barrier.
 * Asynchronous copies land as late as they may (FORWARD: when their thread waits for them),
 * as early as they may (REVERSE: at once), or now so, now so (SCRAMBLED).
 * Threads: any number of host threads may each run kernels of their own.
 */
#ifndef VNEVA_TESTS_OP_FIBER_H
#define VNEVA_TESTS_OP_FIBER_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define FIBER_THREADS_MAX 1024 /* of a block, as on the device */
#define FIBER_WARP 32
#define FIBER_SHARED_MAX (227 * 1024)       /* of a block, all arrays together (H100) */
#define FIBER_STATIC_SHARED_MAX (48 * 1024) /* of those that are declared with a size */

enum fiber_order { FIBER_FORWARD, FIBER_REVERSE, FIBER_SCRAMBLED };

struct fiber_dim {
    unsigned x, y, z;

    fiber_dim(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z)
    {
    }
};

/* Runs the kernel `body` over the grid. NULL, or what was wrong; the text lives until the
 * next call of this thread. */
const char *fiber_run(fiber_dim grid, fiber_dim block, size_t shared_bytes,
                      fiber_order order, const std::function<void()> &body);

/* ---- for kernels ---- */

struct fiber_place {
    fiber_dim thread, block, block_dim, grid_dim;
};

const fiber_place &fiber_here();
void *fiber_dynamic_shared();
/* The block's array that is declared at this line; the same for all of its threads. */
void *fiber_static_shared(const char *file, int line, size_t n_bytes);
void fiber_barrier(const char *file, int line);
/* All lanes of the mask meet; afterwards lane i's value is in the result's slot i. */
const uint64_t *fiber_meet_warp(unsigned mask, uint64_t value, const char *file,
                                int line);
int fiber_lane();
/* Ends this thread and the kernel with an error. */
void fiber_fail(const char *what, const char *file, int line);

/* What the lanes of a full warp bring to an instruction that all of them do together, and
 * what each gets. */
#define FIBER_BRING_MAX 48
#define FIBER_GET_MAX 16

struct fiber_together {
    alignas(16) unsigned char in[FIBER_WARP][FIBER_BRING_MAX],
        out[FIBER_WARP][FIBER_GET_MAX];
    const char *wrong; /* set by `work`: what was wrong */
    bool is_done;
};

/* The lanes meet; `work` is done once, before any of them goes on. */
void fiber_do_together(void *out, size_t n_out, const void *in, size_t n_in,
                       void (*work)(fiber_together &all), const char *file, int line);

/* True when [data, data + n) lies in one shared array of this block. */
bool fiber_is_shared(const void *data, size_t n_bytes);
/* 16 bytes to shared memory, of zeros when src is NULL. */
void fiber_copy_async(void *dst, const void *src, const char *file, int line);
void fiber_copy_commit(); /* the copies since the last one are a group */
void fiber_copy_wait(unsigned n_groups_left);

template <typename T>
T fiber_shuffle(unsigned mask, T value, int from, const char *file, int line)
{
    uint64_t bits = 0;
    T result;

    static_assert(sizeof(T) <= sizeof(bits), "a shuffle moves at most 8 bytes");
    memcpy(&bits, &value, sizeof(value));
    bits = fiber_meet_warp(mask, bits, file, line)[from % FIBER_WARP];
    memcpy(&result, &bits, sizeof(result));
    return result;
}

inline bool fiber_any(unsigned mask, bool holds, const char *file, int line)
{
    const uint64_t *all = fiber_meet_warp(mask, holds, file, line);
    bool any = false;

    for (int i = 0; i < FIBER_WARP; i++)
        any |= (mask >> i & 1) && all[i];
    return any;
}

/* Fibers are never interrupted, so a plain addition is atomic. */
template <typename T> T fiber_atomic_add(T *at, T value)
{
    T old = *at;

    *at = old + value;
    return old;
}

#endif
