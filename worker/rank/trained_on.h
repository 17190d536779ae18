/* trained_on.h - whether questions come from what a model was trained on
 *
 * By the annotation files that two prepared datasets name: answers to questions of a file
 * that the model has learnt say what it remembers, not what it can do.
 */
#ifndef VNEVA_WORKER_RANK_TRAINED_ON_H
#define VNEVA_WORKER_RANK_TRAINED_ON_H

#include "common/base/json.h"
#include "jobs/spec/spec.h"

/* prompts: the dataset of questions. trained: folders of datasets; those that are gone
 * tell nothing. Where both were made of one annotation file, the log says so and the table
 * gets "trained_on", that file. */
int trained_on_note(struct json *table, const char *prompts,
                    const struct spec_list *trained, struct err *err);

#endif
