#include "tests/bench/bench_batch.h"

#include "common/base/rng.h"

#include <stdlib.h>

void *must_alloc(size_t n_bytes)
{
    void *p = calloc(n_bytes, 1);

    if (!p)
        abort();
    return p;
}

struct neva_batch batch_make(const struct neva_config *config, int64_t n_rows,
                             int64_t n_tokens, int64_t n_frames, int64_t n_labels)
{
    int64_t n = n_rows * n_tokens, n_media = n_frames * neva_features(config);
    int64_t all_frames = n_rows * n_frames, size = config->vision.image_size;
    size_t n_pixels = (size_t)(all_frames * size * size * 3);
    int32_t *tokens = must_alloc((size_t)n * 4), *labels = must_alloc((size_t)n * 4);
    int32_t *lens = must_alloc((size_t)n_rows * 4);
    uint8_t *pixels = must_alloc(n_pixels);
    struct rng_key key = {1, 2};

    for (int64_t i = 0; i < n; i++) {
        int64_t t = i % n_tokens;

        tokens[i] = (int32_t)rng_below(key, (uint64_t)i, (uint64_t)config->llm.vocab);
        labels[i] = t >= n_tokens - n_labels ? tokens[i] : -1;
        if (t < n_media)
            tokens[i] = NEVA_TOKEN_MEDIA;
        lens[i / n_tokens] = (int32_t)n_tokens;
    }
    for (size_t i = 0; i < n_pixels; i++)
        pixels[i] = (uint8_t)rng_below(key, i, 256);
    return (struct neva_batch){n_rows, n_tokens,   tokens, labels,
                               lens,   all_frames, pixels};
}

void batch_free(const struct neva_batch *batch)
{
    free((void *)batch->tokens);
    free((void *)batch->labels);
    free((void *)batch->lens);
    free((void *)batch->pixels);
}
