/* fiber_mma.h - the warp's matrix instructions on fibers (fiber.h)
 *
 * What PTX says of mma.sync.m16n8k16 and ldmatrix, and which lane has what. Besides: rows for
 * ldmatrix must be aligned, lie in shared memory, and the 8 rows of a matrix in different
 * banks, or the kernel fails.
 * Source: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and
 * "Warp-level matrix load instruction: ldmatrix".
 */
#ifndef VNEVA_TESTS_OP_FIBER_MMA_H
#define VNEVA_TESTS_OP_FIBER_MMA_H

#include "tests/op/fiber.h"

#define FIBER_MMA_M 16
#define FIBER_MMA_N 8
#define FIBER_MMA_K 16

/* What a lane brings to a product. */
struct fiber_mma_lane {
    uint32_t a[4], b[2];
    float c[4];
};

/* Two elements of 16 bits lie in a register, the first in its lower half. */
template <float (*to_float)(uint16_t)>
void fiber_mma_unpack(float *first, float *second, uint32_t both)
{
    *first = to_float((uint16_t)both);
    *second = to_float((uint16_t)(both >> 16));
}

/* Row and column, within 16 x 16, of the first of register i of a; and of register i of b
 * (16 x 8) and element i of c (16 x 8). Lanes are four to a row of a and c, and four to a
 * column of b. */
inline void fiber_mma_at_a(int lane, int i, int *row, int *column)
{
    *row = lane / 4 + i % 2 * 8;
    *column = lane % 4 * 2 + i / 2 * 8;
}

inline void fiber_mma_at_b(int lane, int i, int *row, int *column)
{
    *row = lane % 4 * 2 + i * 8;
    *column = lane / 4;
}

inline void fiber_mma_at_c(int lane, int i, int *row, int *column)
{
    *row = lane / 4 + i / 2 * 8;
    *column = lane % 4 * 2 + i % 2;
}

template <float (*to_float)(uint16_t)> void fiber_mma_work(fiber_together &all)
{
    float a[FIBER_MMA_M][FIBER_MMA_K], b[FIBER_MMA_K][FIBER_MMA_N];
    double sums[FIBER_MMA_M][FIBER_MMA_N] = {};
    int row, column;

    for (int lane = 0; lane < FIBER_WARP; lane++) {
        const fiber_mma_lane &in = *(const fiber_mma_lane *)all.in[lane];

        for (int i = 0; i < 4; i++) {
            fiber_mma_at_a(lane, i, &row, &column);
            fiber_mma_unpack<to_float>(&a[row][column], &a[row][column + 1], in.a[i]);
        }
        for (int i = 0; i < 2; i++) {
            fiber_mma_at_b(lane, i, &row, &column);
            fiber_mma_unpack<to_float>(&b[row][column], &b[row + 1][column], in.b[i]);
        }
    }
    for (int m = 0; m < FIBER_MMA_M; m++)
        for (int k = 0; k < FIBER_MMA_K; k++)
            for (int n = 0; n < FIBER_MMA_N; n++)
                sums[m][n] += (double)a[m][k] * (double)b[k][n];
    for (int lane = 0; lane < FIBER_WARP; lane++) {
        const fiber_mma_lane &in = *(const fiber_mma_lane *)all.in[lane];

        for (int i = 0; i < 4; i++) {
            fiber_mma_at_c(lane, i, &row, &column);
            ((float *)all.out[lane])[i] = (float)(in.c[i] + sums[row][column]);
        }
    }
}

/* c [16,8] += a [16,16] b [16,8] */
template <float (*to_float)(uint16_t)>
void fiber_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
               const char *file, int line)
{
    fiber_mma_lane in = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};

    static_assert(sizeof(in) <= FIBER_BRING_MAX && sizeof(c) <= FIBER_GET_MAX, "room");
    fiber_do_together(c, sizeof(c), &in, sizeof(in), fiber_mma_work<to_float>, file,
                      line);
}

/* Lane l gets of matrix i row l / 4, elements 2 (l % 4) and the next; transposed: of column
 * l / 4. The addresses of matrix i's rows are those of lanes 8i to 8i + 7. */
template <int N, bool IS_TRANSPOSED> void fiber_ldmatrix_work(fiber_together &all)
{
    for (int i = 0; i < N; i++) {
        const uint16_t *rows[8];
        unsigned banks = 0;

        for (int r = 0; r < 8; r++) {
            memcpy(&rows[r], all.in[i * 8 + r], sizeof(rows[r]));
            if (!fiber_is_shared(rows[r], 16) || (uintptr_t)rows[r] % 16 != 0) {
                all.wrong = "a row of ldmatrix is not 16 aligned bytes of shared memory";
                return;
            }
            banks |= 1U << (uintptr_t)rows[r] / 16 % 8;
        }
        if (banks != 0xff) {
            all.wrong = "rows of ldmatrix are in the same banks";
            return;
        }
        for (int lane = 0; lane < FIBER_WARP; lane++) {
            int x = lane / 4, y = lane % 4 * 2;
            uint32_t low = IS_TRANSPOSED ? rows[y][x] : rows[x][y];
            uint32_t high = IS_TRANSPOSED ? rows[y + 1][x] : rows[x][y + 1];

            ((uint32_t *)all.out[lane])[i] = high << 16 | low;
        }
    }
}

template <bool IS_TRANSPOSED, int N>
void fiber_ldmatrix(uint32_t (&to)[N], const void *row, const char *file, int line)
{
    fiber_do_together(to, sizeof(to), &row, sizeof(row),
                      fiber_ldmatrix_work<N, IS_TRANSPOSED>, file, line);
}

#endif
