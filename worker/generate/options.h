/* options.h - what was asked of `vneva generate` on its command line
 *
 * Pure but for the words borrowed from argv. Threads: none.
 */
#ifndef VNEVA_WORKER_GENERATE_OPTIONS_H
#define VNEVA_WORKER_GENERATE_OPTIONS_H

#include "common/base/err.h"
#include "dataprep/dataset/dataset.h"

#define OPTIONS_FRAMES_MAX 4096 /* of a video; -1 is all */
#define OPTIONS_TOKENS_MAX 1000000
#define OPTIONS_SEED_DEFAULT 1234
#define OPTIONS_THREADS_MAX 4096

struct options_media {
    enum media_kind kind;
    const char *path;
};

struct options { /* NULL, 0: not given */
    const char *model, *question, *questions, *media_root;
    const char *template, *tokenizer, *system, *backend, *precision;
    struct options_media media[DATASET_MEDIA_MAX]; /* in their order */
    int n_media;
    int64_t num_frames, max_new_tokens, n_threads;
    bool is_drawn; /* something below was asked for that is not greedy's */
    double temperature, top_p, repetition_penalty; /* 1, 1, 1 */
    int64_t top_k, min_new_tokens, seed;
    bool is_json, is_verbose, is_help;
};

extern const char options_help[];

/* ERR_INVALID says which option is wrong and what would do. */
int options_parse(struct options *out, int argc, char *const *argv, struct err *err);

#endif
