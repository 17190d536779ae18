/* preflight_weights.h - where the weights of a run come from, before it is handed in
 *
 * Part of preflight.h: adds "weights": [{part, from, what}] and "run": {folder, begins} to
 * the report.
 */
#ifndef VNEVA_JOBS_CLIENT_PREFLIGHT_WEIGHTS_H
#define VNEVA_JOBS_CLIENT_PREFLIGHT_WEIGHTS_H

#include "common/base/json.h"
#include "jobs/spec/spec.h"

/* spec: sizes it leaves to folders are filled in, as far as they can be read here; borrowed
 * texts. *vocab: grows to that of the LLM's folder. A folder that is not there is
 * ERR_NOT_FOUND; what does not fit is added to notes->refused. Training and evaluation. */
int preflight_weights(struct spec *spec, int64_t *vocab, struct json *report,
                      struct spec_notes *notes, struct err *err);
/* Whether every size that parameters and memory are counted from is known. */
bool preflight_has_sizes(const struct spec *spec);

#endif
