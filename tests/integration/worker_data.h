/* worker_data.h - a few drawn clips, a tokenizer and the specs of jobs on them
 *
 * For tests of the worker: everything is small, so that a job takes seconds on one core.
 */
#ifndef VNEVA_TESTS_INTEGRATION_WORKER_DATA_H
#define VNEVA_TESTS_INTEGRATION_WORKER_DATA_H

#include "common/base/buf.h"

#include <stdint.h>

#define DATA_CLIPS 24
#define DATA_QUESTIONS (2 * DATA_CLIPS)

/* All calls end the program with a message when something fails. */

/* Draws the clips into folder/clips and trains folder/tokenizer.model. */
void data_make(const char *folder);

/* The spec, resolved, as JSON text. more: overrides, ended by NULL. */
void data_spec_prepare(struct buf *out, const char *folder, const char *output,
                       const char *const *more);
void data_spec_train(struct buf *out, const char *folder, const char *dataset,
                     const char *const *more);
void data_spec_evaluate(struct buf *out, const char *run, const char *dataset,
                        const char *const *more);

#endif
