/* preflight.h - what a specification would do here, before it is handed in
 *
 * Looks at the files it names (they must be there, as far as this machine sees them) and
 * counts what it asks for. Everything is kept as one JSON object, printed for people or
 * as it is:
 *   kind, name, ranks, nodes, devices, tensor_parallel, data_parallel
 *   data: [{path, kind: "dataset"|"annotations", samples, longest_tokens, trained_on: of
 *     a validation, the annotation file that it shares with what is trained on}]
 *   sample: {frames, patches, media_tokens, most_tokens}
 *   training: {steps, global_batch, micro_batch, micro_batches, vocab, is_vocab_assumed,
 *     parameters {vision, projector, llm, total, trained},
 *     (parameters and memory_bytes only when all sizes are known)
 *     memory_bytes {weights, gradients, optimizer, activations, logits, backend, total,
 *     device: what a rank may take, when that is known}}
 *   weights: [{part, from, what}] but of prepare: where each part comes from; without
 *     "from" it begins fresh
 *   ignored: [text], refused: [text]
 */
#ifndef VNEVA_JOBS_CLIENT_PREFLIGHT_H
#define VNEVA_JOBS_CLIENT_PREFLIGHT_H

#include "common/base/json.h"
#include "jobs/client/device.h"
#include "jobs/spec/spec.h"

#include <stdio.h>

/* A file that is not there is ERR_NOT_FOUND. What a submit would be refused for is added
 * to notes->refused: also what does not fit into the device's memory. */
int preflight(struct json **out, const struct spec *spec, const struct device *device,
              struct spec_notes *notes, struct err *err);
void preflight_print(FILE *out, const struct json *report);
/* A line for each validation dataset that shares a file with what is trained on. */
void preflight_print_shared(FILE *out, const char *before, const struct json *report);

#endif
