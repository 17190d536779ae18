/* answer.h - from the tokens of an answer to its texts
 *
 * Evaluation and `vneva generate` say what a model answered in the same words.
 * Threads: none.
 */
#ifndef VNEVA_WORKER_RANK_ANSWER_H
#define VNEVA_WORKER_RANK_ANSWER_H

#include "dataprep/dataset/dataset.h"
#include "dataprep/text/tokenizer.h"
#include "jobs/spec/spec.h"

/* Appends the text of the answer alone to `answer`; and to `full` prompt and answer as one
 * text (a space between them belongs to neither alone), media as NeMo marks them. tokens
 * [n_tokens]: the answer's. The prompt is the sample's. */
int answer_texts(struct buf *answer, struct buf *full, const struct tokenizer *tokenizer,
                 const struct dataset_sample *sample, const int32_t *tokens,
                 int64_t n_tokens, struct err *err);

/* *out: whether the text of the tokens has one of the strings that end an answer. */
int answer_has_ended(bool *out, const struct tokenizer *tokenizer, const int32_t *tokens,
                     int64_t n_tokens, const struct spec_list *ends, struct err *err);

/* Appends the line of results.h. From the first of `ends` on nothing is part of the answer. */
int answer_add(struct buf *lines, const struct tokenizer *tokenizer,
               const struct dataset_sample *sample, const int32_t *tokens,
               int64_t n_tokens, const struct spec_list *ends, struct err *err);

#endif
