/* weights_peek.h - what a folder of weights says of its sizes, at a glance
 *
 * For `vneva submit --check`, which links no model: the sizes of config.json, nothing else.
 * Whether the tensors are there and fit is the rank's to check.
 * Pure but for reading the file.
 */
#ifndef VNEVA_JOBS_CLIENT_WEIGHTS_PEEK_H
#define VNEVA_JOBS_CLIENT_WEIGHTS_PEEK_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define PEEK_WHAT_MAX 96

/* 0: not said. */
struct weights_peek {
    char what[PEEK_WHAT_MAX]; /* "LlamaForCausalLM", "a run: its newest checkpoint" */
    bool is_weights;          /* it looks like weights, or a run that has some */
    bool has_sizes;           /* a config.json was read */
    struct {
        int64_t image_size, patch, width, ffn_width, n_layers, n_heads;
        bool is_siglip;
    } vision;
    struct {
        int64_t vocab, width, ffn_width, n_layers, n_heads, n_kv_heads;
        bool is_gated, is_tied;
    } llm;
};

/* Whether checkpoints of a run lie in folder/checkpoints. */
bool weights_peek_run(const char *folder);
/* path: a folder or file that is there. ERR_FORMAT: a config.json that is none. */
int weights_peek(struct weights_peek *out, const char *path, struct err *err);

#endif
