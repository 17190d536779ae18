/* convert.h - numbers of one type to another: F32, BF16 and F16
 *
 * To nearest, ties to even; the same type is copied. Loops the compiler vectorises; `from`
 * needs no alignment, since files may have any.
 * Threads: any.
 */
#ifndef VNEVA_MODEL_WEIGHTS_CONVERT_H
#define VNEVA_MODEL_WEIGHTS_CONVERT_H

#include "model/tensor.h"

void convert(void *out, enum dtype to, const void *from, enum dtype from_type, int64_t n);

#endif
