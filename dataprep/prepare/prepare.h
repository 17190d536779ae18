/* prepare.h - from conversation files and media to a prepared dataset
 *
 * Three calls, each restartable and giving the same bytes when done again:
 *   prepare_plan    reads the annotation files once, writes the sample index and (for a
 *                   tar) the member index; says how many samples there are
 *   prepare_range   checks, tokenizes and writes the shard of samples [first, first+count)
 *   prepare_finish  writes the manifest and the reject list; fails over the reject limit
 * Threads: calls on different ranges may run in different processes at once.
 */
#ifndef VNEVA_DATAPREP_PREPARE_PREPARE_H
#define VNEVA_DATAPREP_PREPARE_PREPARE_H

#include "common/base/json.h"
#include "dataprep/media/media.h"

struct prepare_config {
    const char *const *data_paths; /* annotation files, .json or .jsonl */
    int n_data_paths;
    const char *media_root; /* folder or .tar that "video"/"image" names are under */
    const char *output;     /* the dataset's folder */
    const char *tokenizer;  /* SentencePiece .model */
    const char *conv_template;
    const char *const *extra_tokens; /* additional_special_tokens */
    int n_extra_tokens;
    bool use_im_start_end;
    int64_t num_frames, image_size, patch;
    enum media_splice splice;
    enum media_aspect aspect;
    int64_t max_tokens;         /* encoder_seq_length: longer samples are rejected */
    int64_t shard_size;         /* samples a shard, the last may have fewer */
    bool store_frames;          /* keep the preprocessed frames in the shards */
    double max_reject_fraction; /* finish fails above it */
};

/* Called now and then; return -1 to stop (err is then the caller's). */
struct prepare_progress {
    void *state;
    int (*report)(void *state, int64_t done, int64_t total, struct err *err);
};

int prepare_plan(const struct prepare_config *config, int64_t *n_samples,
                 struct err *err);
int prepare_range(const struct prepare_config *config, struct frame_service *frames,
                  int64_t first, int64_t count, const struct prepare_progress *progress,
                  int64_t *n_rejects, struct err *err);
/* summary: {"samples","rejects","reasons":{...}}; the caller frees it. */
int prepare_finish(const struct prepare_config *config, struct json **summary,
                   struct err *err);

#endif
