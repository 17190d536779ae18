/* The warp's matrix instructions and asynchronous copies on fibers: they must do what the PTX
 * ISA says, element by element, and find the mistakes that they say they find. */
#include "cuda_runtime.h"

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

extern "C" {
#include "model/backend/half.h"
}

static int n_failed;

static void expect(bool holds, const char *what)
{
    if (!holds)
        n_failed++;
    printf("%s %s\n", holds ? "ok  " : "FAIL", what);
}

template <typename F>
static std::string run(unsigned n_threads, size_t shared, F f,
                       fiber_order order = FIBER_FORWARD)
{
    const char *wrong = fiber_run(1, dim3(n_threads), shared, order, f);

    return wrong ? wrong : "";
}

static bool says(const std::string &text, const char *part)
{
    return text.find(part) != std::string::npos;
}

static const fiber_order orders[] = {FIBER_FORWARD, FIBER_REVERSE, FIBER_SCRAMBLED};

/* ---- mma.sync.m16n8k16 ---- */

/* Small integers, so that every sum is exact in both types. */
static float a_of(int row, int column)
{
    return (float)((row * 7 + column * 3) % 11 - 5);
}

static float b_of(int row, int column)
{
    return (float)((row * 5 + column * 2) % 9 - 4);
}

static float c_of(int row, int column)
{
    return (float)(row - 20 * column);
}

/* "Matrix Fragments for mma.m16n8k16 with floating point type", as the PTX ISA has it:
 * groupID = %laneid >> 2, threadID_in_group = %laneid % 4;
 * a: row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, groupID + 8 otherwise;
 *    col = (threadID_in_group * 2) + (i & 0x1) for ai where i < 4, that + 8 where i >= 4
 * b: row = (threadID_in_group * 2) + (i & 0x1) for bi where i < 2, that + 8 where i >= 2;
 *    col = groupID
 * c: row = groupID for ci where i < 2, groupID + 8 where i >= 2;
 *    col = (threadID_in_group * 2) + (i & 0x1) */
struct fragments {
    float a[8], b[4], c[4];
};

static fragments fragments_of(int lane)
{
    int group = lane >> 2, thread = lane % 4;
    fragments f;

    for (int i = 0; i < 8; i++) {
        int row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;

        f.a[i] = a_of(row, thread * 2 + (i & 1) + (i < 4 ? 0 : 8));
    }
    for (int i = 0; i < 4; i++)
        f.b[i] = b_of(thread * 2 + (i & 1) + (i < 2 ? 0 : 8), group);
    for (int i = 0; i < 4; i++)
        f.c[i] = c_of(i < 2 ? group : group + 8, thread * 2 + (i & 1));
    return f;
}

template <uint16_t (*of_float)(float)> static uint32_t both(const float *x)
{
    return (uint32_t)of_float(x[1]) << 16 | of_float(x[0]);
}

template <float (*to_float)(uint16_t), uint16_t (*of_float)(float)>
static bool product_is_right(fiber_order order)
{
    float d[16][8];
    std::string wrong = run(
        32, 0,
        [&] {
            int lane = (int)threadIdx.x, group = lane >> 2, thread = lane % 4;
            fragments f = fragments_of(lane);
            uint32_t a[4] = {both<of_float>(f.a), both<of_float>(f.a + 2),
                             both<of_float>(f.a + 4), both<of_float>(f.a + 6)};

            fiber_mma<to_float>(f.c, a, both<of_float>(f.b), both<of_float>(f.b + 2),
                                __FILE__, __LINE__);
            for (int i = 0; i < 4; i++)
                d[i < 2 ? group : group + 8][thread * 2 + (i & 1)] = f.c[i];
        },
        order);
    bool is_right = wrong.empty();

    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 8; column++) {
            float want = c_of(row, column);

            for (int k = 0; k < 16; k++)
                want += a_of(row, k) * b_of(k, column);
            is_right = is_right && d[row][column] == want;
        }
    return is_right;
}

static void products_are_those_of_the_ptx_isa()
{
    for (fiber_order order : orders) {
        expect(product_is_right<bf16_to_float, bf16_of_float>(order), "bf16 product");
        expect(product_is_right<f16_to_float, f16_of_float>(order), "fp16 product");
    }
}

static void a_product_that_a_lane_misses_is_found()
{
    expect(says(run(32, 0,
                    [] {
                        float c[4] = {};
                        uint32_t a[4] = {};

                        if (threadIdx.x != 9)
                            fiber_mma<bf16_to_float>(c, a, 0, 0, __FILE__, __LINE__);
                    }),
                "not all lanes of the mask"),
           "a product that a lane misses is found");
}

/* ---- ldmatrix ---- */

#define PITCH 24 /* elements: 3 times 16 bytes, so 8 rows lie in different banks */

/* Matrix i has row r, column c = 64 i + 8 r + c, at rows 8i of shared memory. PTX ISA: thread
 * t of .num matrices gets of matrix i the elements (t / 4, 2 (t % 4)) and the next; with
 * .trans those of the transposed matrix. */
template <int N, bool IS_TRANSPOSED> static bool matrices_are_right(fiber_order order)
{
    bool is_right = true;
    std::string wrong = run(
        32, sizeof(uint16_t) * 32 * PITCH,
        [&] {
            CUDA_DYNAMIC_SHARED(uint16_t, x);
            int lane = (int)threadIdx.x, r = lane / 4, c = lane % 4 * 2;
            uint32_t to[N];

            for (int column = 0; column < 8; column++)
                x[lane * PITCH + column] = (uint16_t)(lane * 8 + column);
            __syncthreads();
            fiber_ldmatrix<IS_TRANSPOSED>(to, x + lane * PITCH, __FILE__, __LINE__);
            for (int i = 0; i < N; i++) {
                int first = IS_TRANSPOSED ? c * 8 + r : r * 8 + c;
                int next = IS_TRANSPOSED ? (c + 1) * 8 + r : r * 8 + c + 1;

                if ((int)(to[i] & 0xffff) != 64 * i + first ||
                    (int)(to[i] >> 16) != 64 * i + next)
                    is_right = false;
            }
        },
        order);

    return is_right && wrong.empty();
}

static void matrices_are_loaded_as_the_ptx_isa_says()
{
    for (fiber_order order : orders) {
        expect(matrices_are_right<1, false>(order), "one matrix");
        expect(matrices_are_right<2, false>(order), "two matrices");
        expect(matrices_are_right<4, false>(order), "four matrices");
        expect(matrices_are_right<1, true>(order), "one matrix, transposed");
        expect(matrices_are_right<2, true>(order), "two matrices, transposed");
        expect(matrices_are_right<4, true>(order), "four matrices, transposed");
    }
}

/* What is said of rows that lie `pitch` elements apart, the first at `first`. */
static std::string loading(int pitch, int first)
{
    return run(32, sizeof(uint16_t) * 32 * 32, [=] {
        CUDA_DYNAMIC_SHARED(uint16_t, x);
        uint32_t to[4];

        fiber_ldmatrix<false>(to, x + first + (int)threadIdx.x * pitch, __FILE__,
                              __LINE__);
    });
}

static void rows_that_ldmatrix_cannot_load_well_are_found()
{
    expect(loading(24, 0).empty(), "rows 48 bytes apart are fine");
    expect(says(loading(16, 0), "same banks"), "rows in the same banks are found");
    expect(says(loading(24, 4), "aligned"), "a row that is not aligned is found");
    expect(says(loading(40, 0), "shared memory"), "a row outside is found");
}

/* ---- asynchronous copies ---- */

#define N_COPIED 8 /* floats a group of two copies */

/* What the last float of each of two groups is, after a wait that leaves n groups. */
static std::string copied(float (&seen)[2], unsigned n_left, fiber_order order)
{
    static float from[2 * N_COPIED]; /* all zeros: shared memory is full of NaN */

    return run(
        1, sizeof(from),
        [&] {
            CUDA_DYNAMIC_SHARED(float, to);

            for (int group = 0; group < 2; group++) {
                for (int i = 0; i < N_COPIED; i += 4)
                    fiber_copy_async(to + group * N_COPIED + i,
                                     from + group * N_COPIED + i, __FILE__, __LINE__);
                fiber_copy_commit();
            }
            fiber_copy_wait(n_left);
            seen[0] = to[N_COPIED - 1];
            seen[1] = to[2 * N_COPIED - 1];
            fiber_copy_wait(0);
        },
        order);
}

static void copies_are_there_when_they_are_waited_for()
{
    float seen[2];

    for (fiber_order order : orders)
        expect(copied(seen, 0, order).empty() && seen[0] == 0 && seen[1] == 0,
               "what is waited for is there");
    expect(copied(seen, 1, FIBER_FORWARD).empty() && seen[0] == 0 && std::isnan(seen[1]),
           "of two groups the first is there");
    expect(copied(seen, 2, FIBER_FORWARD).empty() && std::isnan(seen[0]) &&
               std::isnan(seen[1]),
           "what is not waited for is not there");
    expect(copied(seen, 2, FIBER_REVERSE).empty() && seen[0] == 0 && seen[1] == 0,
           "and may be there too early");
}

static void copies_of_nothing_are_zeros()
{
    float seen = 1;

    run(1, 16, [&] {
        CUDA_DYNAMIC_SHARED(float, to);

        fiber_copy_async(to, nullptr, __FILE__, __LINE__);
        fiber_copy_commit();
        fiber_copy_wait(0);
        seen = to[3];
    });
    expect(seen == 0, "a copy of nothing is zeros");
}

static void wrong_copies_are_found()
{
    alignas(16) static float from[8];

    expect(says(run(1, 32,
                    [] {
                        CUDA_DYNAMIC_SHARED(float, to);

                        fiber_copy_async(to + 1, from, __FILE__, __LINE__);
                    }),
                "not aligned"),
           "a copy that is not aligned is found");
    expect(says(run(1, 32, [] { fiber_copy_async(from, from + 4, __FILE__, __LINE__); }),
                "not go to shared memory"),
           "a copy to somewhere else is found");
    expect(says(run(1, 32,
                    [] {
                        CUDA_DYNAMIC_SHARED(float, to);

                        fiber_copy_async(to, from, __FILE__, __LINE__);
                        fiber_copy_commit();
                    }),
                "on their way"),
           "a thread that ends before its copies is found");
}

/* Another thread's copies are there only behind a barrier. */
static void a_missing_barrier_behind_copies_shows()
{
    static float from[64 * 4];

    for (bool has_barrier : {true, false}) {
        bool is_seen = true;

        for (fiber_order order : orders)
            run(
                64, sizeof(from),
                [&] {
                    CUDA_DYNAMIC_SHARED(float, to);

                    fiber_copy_async(to + threadIdx.x * 4, from + threadIdx.x * 4,
                                     __FILE__, __LINE__);
                    fiber_copy_commit();
                    fiber_copy_wait(0);
                    if (has_barrier)
                        __syncthreads();
                    is_seen = is_seen && to[(threadIdx.x + 32) % 64 * 4] == 0;
                },
                order);
        expect(is_seen == has_barrier, has_barrier ? "with a barrier all copies are seen"
                                                   : "without one some are not");
    }
}

int main()
{
    products_are_those_of_the_ptx_isa();
    a_product_that_a_lane_misses_is_found();
    matrices_are_loaded_as_the_ptx_isa_says();
    rows_that_ldmatrix_cannot_load_well_are_found();
    copies_are_there_when_they_are_waited_for();
    copies_of_nothing_are_zeros();
    wrong_copies_are_found();
    a_missing_barrier_behind_copies_shows();
    return n_failed != 0;
}
