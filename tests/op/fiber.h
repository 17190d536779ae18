/* fiber.h - runs CUDA kernels on the host: blocks one after another, threads as fibers
 *
 * A thread runs until it waits (barrier, shuffle) or ends, so what another thread sees of
 * it depends on the order in which they are run. Three orders are offered; a kernel whose
 * results differ between them has a race. Found out and said, besides: threads of a block
 * that do not all reach the same barrier, lanes that do not all reach the same shuffle,
 * writes beside shared memory (by guard bytes; by AddressSanitizer reads as well). Shared
 * memory is full of NaN at first.
 * Stricter than the device: a thread that has ended counts as one that missed a barrier.
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
#define FIBER_SHARED_MAX (48 * 1024) /* of a block, all arrays together */

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

/* Fibers are never interrupted, so a plain addition is atomic. */
template <typename T> T fiber_atomic_add(T *at, T value)
{
    T old = *at;

    *at = old + value;
    return old;
}

#endif
