/* bench_gpu_shape.h - the models that bench_gpu measures, and their batches
 *
 * LLaVA-1.5-7B's shapes: CLIP-L/14 over 8 frames of 224 x 224, frozen; rows of 4,096 tokens,
 * the first half frames, the last quarter labels. Weights are random numbers.
 */
#ifndef VNEVA_TESTS_BENCH_BENCH_GPU_SHAPE_H
#define VNEVA_TESTS_BENCH_BENCH_GPU_SHAPE_H

#include "tests/bench/bench_batch.h"
#include "tests/bench/bench_gpu.h"

struct shape {
    struct neva_config config;
    int64_t n_tokens, n_frames, n_labels; /* of each row */
    int64_t n_prompt, n_new;              /* of an answer */
};

/* 7B with the decoder frozen; trained, with as many layers as fit the device; half of each
 * row, to answer it. Small numbers where bench->is_tiny. */
struct shape shape_frozen(const struct bench *bench);
struct shape shape_trained(const struct bench *bench);
struct shape shape_answer(const struct bench *bench);
/* The quickstart's model. */
struct shape shape_small(const struct bench *bench);

/* n_rows of them, of n_tokens; owns its memory. */
struct neva_batch shape_batch(const struct shape *s, int64_t n_rows, int64_t n_tokens);

/* neva_create with weights that are made on the device: 7 billion of them take no minutes.
 * *out is NULL after an error. */
int model_create(struct neva **out, struct bench *bench, const struct neva_config *config,
                 struct comm *solo, struct err *err);

#endif
