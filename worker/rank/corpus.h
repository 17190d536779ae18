/* corpus.h - several prepared datasets seen as one
 *
 * Samples are numbered through the datasets in the order they are given.
 * Owns: the datasets. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_CORPUS_H
#define VNEVA_WORKER_RANK_CORPUS_H

#include "dataprep/dataset/dataset.h"

#define CORPUS_DATASETS_MAX 256

struct corpus;

/* Refuses datasets that do not go together: another vocabulary or end token. */
int corpus_open(struct corpus **out, const char *const *folders, int64_t n_folders,
                struct err *err);
void corpus_close(struct corpus *corpus);

int64_t corpus_n_samples(const struct corpus *corpus);
int64_t corpus_vocab(const struct corpus *corpus);
/* Tokens of the longest sample, with n_frames frames of frame_tokens (-1: as prepared); 0:
 * the datasets do not say. */
int64_t corpus_longest(const struct corpus *corpus, int64_t n_frames,
                       int64_t frame_tokens);
/* The first dataset's settings. Borrowed. */
const struct dataset_info *corpus_info(const struct corpus *corpus);
/* Of all datasets, in order: what a checkpoint is bound to. */
uint64_t corpus_fingerprint(const struct corpus *corpus);

/* Sample `number` of the whole; *info: of its dataset, borrowed. */
int corpus_read(struct corpus *corpus, int64_t number, struct dataset_sample **sample,
                const struct dataset_info **info, struct err *err);

#endif
