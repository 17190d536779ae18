/* spec_memory.h - what a rank holds at its peak besides weights and what belongs to them
 *
 * Pure. Part of spec_estimate, which is what others call.
 */
#ifndef VNEVA_JOBS_SPEC_SPEC_MEMORY_H
#define VNEVA_JOBS_SPEC_SPEC_MEMORY_H

#include "jobs/spec/spec_estimate.h"

/* Of a value in the type that is computed in. */
int64_t spec_value_bytes(const struct spec *spec);

/* Fills activation_bytes, logit_bytes and backend_bytes; reads the tokens and patches of a
 * frame that `e` has already. */
void spec_memory(struct spec_estimate *e, const struct spec *spec, int64_t vocab,
                 int64_t n_tokens, bool is_on_gpu);

#endif
