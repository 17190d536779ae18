/* golden.h - a model against what a reference computed with the same weights
 *
 * The files are those of tests/golden/make_decoders.py, which have a decoder, and
 * make_llava.py, which have a whole model and frames; what is in them is said there.
 * Compared are the loss, the logits, every layer's hidden state, the gradient of every
 * weight and, in fp32, the tokens of greedy decoding.
 */
#ifndef VNEVA_TESTS_OP_GOLDEN_H
#define VNEVA_TESTS_OP_GOLDEN_H

#include "model/neva/neva.h"

/* Of the norm of the difference over the norm of what is wanted. */
#define GOLDEN_FP32_BOUND 1e-4
#define GOLDEN_BF16_BOUND 2e-2

/* file: its name in tests/golden without ".safetensors". The configuration may freeze
 * parts: their gradients are then not compared, and must not be there. */
void golden_compare(const char *file, const struct neva_config *config,
                    const char *backend, int n_ranks, enum dtype dtype);

#endif
