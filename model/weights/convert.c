#include "model/weights/convert.h"

#include "model/backend/half.h"

#define PIECE 1024 /* numbers that go through F32 on the stack: 4 KiB, in the L1 cache */

static void f32_from_bf16(float *out, const unsigned char *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;

        memcpy(&half, from + 2 * i, sizeof(half));
        out[i] = bf16_to_float(half);
    }
}

static void f32_from_f16(float *out, const unsigned char *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;

        memcpy(&half, from + 2 * i, sizeof(half));
        out[i] = f16_to_float(half);
    }
}

static void half_from_f32(uint16_t *out, enum dtype to, const float *from, int64_t n)
{
    if (to == DTYPE_BF16)
        for (int64_t i = 0; i < n; i++)
            out[i] = bf16_of_float(from[i]);
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = f16_of_float(from[i]);
}

static void to_f32(float *out, const unsigned char *from, enum dtype type, int64_t n)
{
    if (type == DTYPE_BF16)
        f32_from_bf16(out, from, n);
    else if (type == DTYPE_F16)
        f32_from_f16(out, from, n);
    else
        memcpy(out, from, (size_t)n * sizeof(float));
}

void convert(void *out, enum dtype to, const void *from, enum dtype from_type, int64_t n)
{
    const unsigned char *bytes = from;
    float piece[PIECE];

    if (to == from_type) {
        memcpy(out, from, (size_t)n * dtype_bytes(to));
        return;
    }
    if (to == DTYPE_F32) {
        to_f32(out, bytes, from_type, n);
        return;
    }
    for (int64_t done = 0; done < n; done += PIECE) {
        int64_t count = n - done < PIECE ? n - done : PIECE;

        to_f32(piece, bytes + (size_t)done * dtype_bytes(from_type), from_type, count);
        half_from_f32((uint16_t *)out + done, to, piece, count);
    }
}
