/* dataset.h - a prepared dataset: checked, tokenized samples, ready to train on
 *
 * A folder:
 *     manifest.json        counts, settings, shards with checksums; written last
 *     shard-NNNNN.sqlite   samples of one task (crash safe, readable with sqlite3)
 *     rejects.jsonl        {"file","line","id","kind","reason"} of every sample refused
 *     tokenizer.model      a copy of the tokenizer, or tokenizer/, the files of a
 *                          Hugging Face tokenizer
 *     plan.sqlite          where each annotation stands, for preparing again
 * Samples are numbered 0..n-1 over the shards in order; rejected ones have no number.
 *
 * Tokens hold DATASET_TOKEN_MEDIA once per media item; dataset_expand puts in one entry
 * per token of a frame. Labels are not shifted here: is_label marks tokens that are to be
 * predicted.
 * Every sample carries a checksum that dataset_read compares; a damaged one is an error
 * that names its shard.
 * Threads: one caller per dataset.
 */
#ifndef VNEVA_DATAPREP_DATASET_DATASET_H
#define VNEVA_DATAPREP_DATASET_DATASET_H

#include "common/base/err.h"
#include "common/base/json.h"
#include "dataprep/media/media.h"

#include <stdint.h>

#define DATASET_TOKEN_MEDIA (-1)
#define DATASET_MEDIA_MAX 64 /* media items in one sample */

struct dataset_media {
    struct media_ref ref;
    int64_t n_frames; /* with the num_frames the dataset was prepared for */
};

struct dataset_sample {
    int64_t number;
    char *id;
    char *record; /* the annotation as it was, JSON text */
    int64_t n_media;
    struct dataset_media *media;
    int64_t n_tokens;
    int32_t *tokens;
    uint8_t *is_label;
    int64_t n_prompt; /* tokens up to the last answer: what generation is given */
    uint8_t *frames;  /* stored frames [sum of n_frames, S, S, 3], or NULL */
    size_t n_frame_bytes;
};

/* Settings a dataset was prepared with, from its manifest; all borrowed. */
struct dataset_info {
    int64_t n_samples, n_rejects;
    const char *conv_template, *tokenizer; /* tokenizer: name inside the folder */
    const char *const *extra_tokens;       /* to be given to tokenizer_open */
    int n_extra_tokens;
    bool use_im_start_end, media_first, has_frames;
    bool prompts_only; /* nothing is to be learnt from its samples */
    int64_t num_frames, image_size, patch;
    int64_t frame_tokens; /* a frame takes in a sample: longest_tokens counts them */
    enum media_splice splice;
    enum media_aspect aspect;
    enum media_processor processor; /* that has_frames and its checks are about */
    int64_t vocab, end_token;       /* end_token ends an answer; -1: none does */
    int64_t longest_tokens;         /* of any sample, expanded, without its last token */
    uint64_t fingerprint;           /* of the settings and every sample */
};

struct dataset;

int dataset_open(struct dataset **out, const char *folder, struct err *err);
void dataset_close(struct dataset *dataset);
const struct dataset_info *dataset_info(const struct dataset *dataset);

/* Sample `number`; free with dataset_sample_free. */
int dataset_read(struct dataset *dataset, int64_t number, struct dataset_sample **out,
                 struct err *err);
void dataset_sample_free(struct dataset_sample *sample);

/* The sample as the model reads it: media entries repeated n_frames * frame_tokens times,
 * the labels shifted by one (label[t] = token[t+1] if that is a label, else -1). The last
 * token is only a label, as in NeMo, so there is one entry fewer than tokens; a prompt
 * (the first n_prompt tokens) is had whole by setting sample->n_tokens = n_prompt + 1.
 * n_frames[i]: frames of media item i as they will be given (1 when spliced).
 * tokens, labels: capacity entries; *n_out how many were needed, ERR_LIMIT when more. */
int dataset_expand(const struct dataset_sample *sample, const int64_t *n_frames,
                   int64_t frame_tokens, int32_t *tokens, int32_t *labels,
                   int64_t capacity, int64_t *n_out, struct err *err);

#endif
