/* spec_model.h - a specification of a small model, and the model's configuration from it */
#ifndef VNEVA_TESTS_INTEGRATION_SPEC_MODEL_H
#define VNEVA_TESTS_INTEGRATION_SPEC_MODEL_H

#include "jobs/spec/spec.h"
#include "model/neva/neva.h"

/* Three layers of width 64, rows of up to 512 tokens, 4 frames of 4 x 4 patches, with
 * "key=value" overrides. The caller frees it. */
struct spec *spec_model_read(const char *const *overrides, int n_overrides);
struct neva_config spec_model_config(const struct spec *spec, int64_t vocab);

#endif
