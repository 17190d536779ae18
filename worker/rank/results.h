/* results.h - what an evaluation found: result lines, parts, table
 *
 * A result is a line of JSON in the format of NeMo's neva_evaluation: the question's own
 * fields, full_text and pred_answer; and of ours expected, is_correct (exact match of the
 * whole answer) and category.
 * Every lease writes one part file; results_merge puts them in order and counts.
 * Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_RESULTS_H
#define VNEVA_WORKER_RANK_RESULTS_H

#include "common/base/fs.h"
#include "common/base/json.h"

#define RESULTS_FILE_MAX ((size_t)1 << 30) /* bytes of one part */

/* Text without the white space around it, as NeMo trims answers; changes it in place. */
const char *results_trim(char *text);

/* Adds full_text and pred_answer to a record's own fields; to one that ends with an answer
 * also expected, is_correct and category. answer: trimmed. */
int results_fill(struct json *line, const char *full_text, const char *answer,
                 struct err *err);

/* Appends the line. record: the annotation as it was, JSON text. answer: trimmed. */
int results_add(struct buf *out, const char *record, const char *full_text,
                const char *answer, struct err *err);

/* Writes, atomically, the lines of samples [first, ...) of a job. */
int results_write_part(const char *folder, int64_t first, const struct buf *lines,
                       struct err *err);

/* All parts in order into one file. ERR_STATE names samples of [0, n_samples) that no part
 * has. *table: {"categories":[{"category","n","correct","accuracy"}],"n","accuracy"};
 * *results: list of all lines as objects. The caller frees both. */
int results_merge(const char *folder, int64_t n_samples, const char *output,
                  struct json **table, struct json **results, struct err *err);

/* Numbers of n results spread over the categories and the file: one of each category, then
 * a second of each... The same results give the same picks. out [n]; returns how many. */
int64_t results_pick(const struct json *results, int64_t *out, int64_t n);

#endif
