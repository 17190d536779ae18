/* prepare.h - from conversation files and media to a prepared dataset
 *
 * Three calls, each restartable and giving the same bytes when done again:
 *   prepare_plan    reads the annotation files once, writes the sample index and (for a
 *                   tar) the member index; says how many samples there are
 *   prepare_range   checks, tokenizes and writes the shard of samples [first, first+count)
 *   prepare_finish  writes the manifest and the reject list; fails over the reject limit
 * A record becomes a sample or a reject of one of these kinds, never anything else:
 *   bad-json       no JSON object; the reason has line and column
 *   duplicate-id   an earlier record has its id; the reason has both lines
 *   conversation   roles, order or turns are not what the template wants
 *   no-answer      every answer is empty
 *   media-fields   placeholders, "video", "image", "start", "end" do not fit
 *   media-outside  a name leads out of the media root
 *   media-missing  no such file or tar member
 *   media-bad      the decoders' reason: empty, cut off, no video, hung, too large
 *   too-long       more tokens than max_tokens with its media; nothing is cut
 * Threads: calls on different ranges may run in different processes at once.
 */
#ifndef VNEVA_DATAPREP_PREPARE_PREPARE_H
#define VNEVA_DATAPREP_PREPARE_PREPARE_H

#include "common/base/json.h"
#include "dataprep/media/media.h"

struct prepare_config {
    const char *const *data_paths; /* annotation files, .json or .jsonl */
    int n_data_paths;
    const char *video_root, *image_root; /* folder or .tar that "video" and "image" names
                                            are under; NULL: that of the other */
    const char *output;                  /* the dataset's folder */
    const char *tokenizer;               /* as tokenizer_open takes it */
    const char *conv_template;
    const char *const *extra_tokens; /* additional_special_tokens */
    int n_extra_tokens;
    bool use_im_start_end;
    bool media_first; /* sep_image_conv_front: CONV_MEDIA_FIRST */
    int64_t num_frames, image_size, patch;
    int64_t frame_tokens; /* a frame takes in a sample, as the model makes them */
    enum media_splice splice;
    enum media_aspect aspect;
    enum media_processor processor;
    int64_t max_tokens;         /* encoder_seq_length: longer samples are rejected */
    int64_t shard_size;         /* samples a shard, the last may have fewer */
    bool store_frames;          /* keep the preprocessed frames in the shards */
    bool prompts_only;          /* records end where their last answer would begin, which
                                   need not be there; for evaluate, not for training */
    double max_reject_fraction; /* finish fails above it */
};

/* Called now and then; return -1 to stop (err is then the caller's). */
struct prepare_progress {
    void *state;
    int (*report)(void *state, int64_t done, int64_t total, struct err *err);
};

/* Makes the folder; an earlier manifest in it is removed, its shards are replaced range by
 * range. ERR_EXISTS: what is there is no dataset, or one of other annotation files.
 * ERR_INVALID, ERR_FORMAT: settings or annotation files as a whole are wrong. */
int prepare_plan(const struct prepare_config *config, int64_t *n_samples,
                 struct err *err);
/* first is a multiple of shard_size, count is shard_size (fewer in the last). Media are
 * asked of `frames` ahead of the record at hand, each distinct one once. */
int prepare_range(const struct prepare_config *config, struct frame_service *frames,
                  int64_t first, int64_t count, const struct prepare_progress *progress,
                  int64_t *n_rejects, struct err *err);
/* summary: {"samples","rejects","reasons":{kind: count}}; the caller frees it.
 * ERR_FORMAT: more rejects than allowed, or no sample left; rejects.jsonl is there. */
int prepare_finish(const struct prepare_config *config, struct json **summary,
                   struct err *err);

#endif
