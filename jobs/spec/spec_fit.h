/* spec_fit.h - whether a training run fits into a device's memory, and what would
 *
 * Pure: from the estimate of spec_estimate.h. Every alternative that is told has been
 * calculated for the same model and the same global batch.
 */
#ifndef VNEVA_JOBS_SPEC_SPEC_FIT_H
#define VNEVA_JOBS_SPEC_SPEC_FIT_H

#include "common/base/buf.h"
#include "jobs/spec/spec.h"

/* Kept free on a GPU for what is not handed out by the backend: the driver's context and
 * the code of its libraries. */
#define SPEC_FIT_GPU_CONTEXT ((uint64_t)768 << 20)
/* The same for each decoder process that may use the GPU, of which a rank has as many as
 * num_workers, at most 8 (worker/decode): a context and surfaces of 4K. Not measured. */
#define SPEC_FIT_GPU_DECODER ((uint64_t)512 << 20)
#define SPEC_FIT_GPU_DECODERS_MAX 8

struct spec_fit {
    const struct spec *spec; /* training, all sizes known */
    int64_t vocab, n_tokens; /* as for spec_estimate */
    bool is_on_gpu;
    uint64_t memory_bytes; /* of the device, for one rank; 0: not known, so all fits */
    uint64_t kept_bytes;   /* of it, for others: spec_fit_gpu_kept, or 0 */
};

/* kept_bytes of a GPU that one rank of this job computes on. */
uint64_t spec_fit_gpu_kept(const struct spec *spec);

/* What a rank needs, with kept_bytes. */
uint64_t spec_fit_need(const struct spec_fit *fit);
bool spec_fit_is_too_much(const struct spec_fit *fit);

/* "these would fit: model.micro_batch_size=1 (60.2 GiB); ...", as words for the command line
 * of a submit; or that nothing would, and how far the least is from it. */
void spec_fit_suggest(struct buf *out, const struct spec_fit *fit);

/* "a rank needs 93.1 GiB and has 79.2 GiB: " and what spec_fit_suggest says. */
void spec_fit_describe(struct buf *out, const struct spec_fit *fit);

/* "80G", "141 GiB", "512MiB", "85899345920": powers of 1024. False: no such number. */
bool spec_fit_parse_bytes(uint64_t *out, const char *text);

#endif
