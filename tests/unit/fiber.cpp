/* The runner of kernels itself: it must compute what the device would, and find each kind
 * of mistake in a kernel that it says it finds. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

static int n_failed;

static void expect(bool holds, const char *what)
{
    if (!holds)
        n_failed++;
    printf("%s %s\n", holds ? "ok  " : "FAIL", what);
}

template <typename F>
static std::string run(dim3 grid, dim3 block, size_t shared, F f,
                       fiber_order order = FIBER_FORWARD)
{
    const char *wrong = fiber_run(grid, block, shared, order, f);

    return wrong ? wrong : "";
}

static bool says(const std::string &text, const char *part)
{
    return text.find(part) != std::string::npos;
}

static const fiber_order orders[] = {FIBER_FORWARD, FIBER_REVERSE, FIBER_SCRAMBLED};

static void every_thread_of_the_grid_runs_once()
{
    std::vector<int> seen(4 * 3 * 2 * 33, 0);

    for (fiber_order order : orders)
        expect(
            run(
                dim3(4, 3), dim3(33, 2), 0,
                [&] {
                    unsigned block = blockIdx.y * gridDim.x + blockIdx.x;

                    seen[(block * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x]++;
                },
                order)
                .empty(),
            "a grid runs");
    for (int n : seen)
        if (n != 3) {
            expect(false, "every thread of the grid runs once");
            return;
        }
    expect(true, "every thread of the grid runs once");
}

/* Sums 1..n by shuffles, shared memory and a barrier. */
static int sum_of(int n_threads, fiber_order order)
{
    int sum = -1;
    std::string wrong = run(
        1, dim3((unsigned)n_threads), sizeof(int) * 32,
        [&] {
            CUDA_DYNAMIC_SHARED(int, parts);
            int x = (int)threadIdx.x + 1;

            for (int with = 16; with > 0; with /= 2)
                x += __shfl_xor_sync(0xffffffffU, x, with);
            if (threadIdx.x % 32 == 0)
                parts[threadIdx.x / 32] = x;
            __syncthreads();
            if (threadIdx.x == 0) {
                sum = 0;
                for (unsigned i = 0; i < blockDim.x / 32; i++)
                    sum += parts[i];
            }
        },
        order);

    if (!wrong.empty())
        printf("%s\n", wrong.c_str());
    return sum;
}

static void barriers_and_shuffles_work_in_every_order()
{
    for (fiber_order order : orders) {
        expect(sum_of(32, order) == 32 * 33 / 2, "a warp adds up");
        expect(sum_of(1024, order) == 1024 * 1025 / 2, "a block adds up");
    }
}

static void atomic_additions_add_up()
{
    int n = 0;

    run(7, 96, 0, [&] { atomicAdd(&n, 2); });
    expect(n == 7 * 96 * 2, "atomic additions add up");
}

static void a_barrier_that_some_do_not_reach_is_found()
{
    expect(says(run(1, 64, 0,
                    [] {
                        if (threadIdx.x < 40)
                            __syncthreads();
                    }),
                "not all threads of the block reach a barrier"),
           "a barrier that some do not reach is found");
    expect(says(run(1, 64, 0,
                    [] {
                        if (threadIdx.x < 32)
                            __syncthreads();
                        else
                            __syncthreads();
                    }),
                "different barriers"),
           "different barriers are found");
}

static void a_shuffle_that_some_do_not_reach_is_found()
{
    expect(says(run(1, 32, 0,
                    [] {
                        if (threadIdx.x != 5)
                            __shfl_xor_sync(0xffffffffU, 1, 1);
                    }),
                "not all lanes of the mask"),
           "a shuffle that a lane does not reach is found");
    expect(says(run(1, 40, 0, [] { __shfl_xor_sync(0xffffffffU, 1, 1); }),
                "not all lanes of the mask"),
           "a shuffle of a warp that is not full is found");
}

static void writing_beside_shared_memory_is_found()
{
#if !defined(__SANITIZE_ADDRESS__) /* which ends the program itself */
    for (int at : {-1, 10})
        expect(says(run(1, 32, 10 * sizeof(float),
                        [at] {
                            volatile float *x = (float *)fiber_dynamic_shared();

                            if (threadIdx.x == 3)
                                x[at] = 1;
                        }),
                    "beside shared memory"),
               "writing beside shared memory is found");
#endif
}

/* Without a barrier between: what is read depends on who came first. */
static float race(fiber_order order, bool has_barrier)
{
    float got = 0;

    run(
        1, 64, 64 * sizeof(float),
        [&] {
            CUDA_DYNAMIC_SHARED(float, x);

            x[threadIdx.x] = (float)threadIdx.x;
            if (has_barrier)
                __syncthreads();
            if (threadIdx.x == 40)
                got = x[20] + x[60];
        },
        order);
    return got;
}

static void a_missing_barrier_shows()
{
    for (fiber_order order : orders) {
        expect(race(order, true) == 80, "with a barrier every order is right");
        expect(!(race(order, false) == 80), "without one what is not there yet is NaN");
    }
}

int main()
{
    every_thread_of_the_grid_runs_once();
    barriers_and_shuffles_work_in_every_order();
    atomic_additions_add_up();
    a_barrier_that_some_do_not_reach_is_found();
    a_shuffle_that_some_do_not_reach_is_found();
    writing_beside_shared_memory_is_found();
    a_missing_barrier_shows();
    return n_failed != 0;
}
