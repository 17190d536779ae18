/* spec_estimate.h - what a training run would be, from its numbers alone
 *
 * Pure. Parameters are counted exactly, over the tensors of Hugging Face's
 * LlavaForConditionalGeneration (CLIP's or SigLIP's vision model, without the head that
 * some folders of SigLIP carry; projector; LLaMA); memory is what one rank
 * holds at its peak, within a tenth of what its backend then has handed out.
 * Units: bytes; tokens of one sample.
 */
#ifndef VNEVA_JOBS_SPEC_SPEC_ESTIMATE_H
#define VNEVA_JOBS_SPEC_SPEC_ESTIMATE_H

#include "jobs/spec/spec.h"

struct spec_estimate {
    int64_t n_ranks, n_data_parallel, n_micro_batches; /* of a step, on each rank */
    int64_t n_vision, n_projector, n_llm;              /* parameters of the whole model */
    int64_t n_trained;
    int64_t n_patches, n_frame_tokens, n_media_tokens; /* of a frame; of a video */
    /* On one rank: */
    uint64_t weight_bytes;     /* compute type, and fp32 masters of what is trained */
    uint64_t gradient_bytes;   /* fp32 */
    uint64_t optimizer_bytes;  /* fp32, two moments */
    uint64_t activation_bytes; /* kept for the backward pass, and the largest scratch */
    uint64_t logit_bytes;      /* of the part of the vocabulary and rows held at once */
    uint64_t backend_bytes;    /* its workspaces */
};

/* vocab: entries of the vocabulary. n_tokens: of the longest sample. Training only.
 * is_on_gpu: the backend will be cuda. */
void spec_estimate(struct spec_estimate *out, const struct spec *spec, int64_t vocab,
                   int64_t n_tokens, bool is_on_gpu);

/* All of it, on one rank at its peak. */
uint64_t spec_estimate_bytes(const struct spec_estimate *e);

#endif
