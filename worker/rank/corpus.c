#include "worker/rank/corpus.h"

#include "common/base/hash.h"

#include <inttypes.h>
#include <stdlib.h>

struct corpus {
    int n_datasets;
    int64_t n_samples;
    uint64_t fingerprint;
    struct dataset *datasets[CORPUS_DATASETS_MAX];
    int64_t firsts[CORPUS_DATASETS_MAX]; /* number of each dataset's first sample */
};

static int corpus_add(struct corpus *corpus, const char *folder, struct err *err)
{
    const struct dataset_info *first, *info;
    uint64_t pair[2];

    if (dataset_open(&corpus->datasets[corpus->n_datasets], folder, err) < 0)
        return -1;
    corpus->firsts[corpus->n_datasets] = corpus->n_samples;
    info = dataset_info(corpus->datasets[corpus->n_datasets++]);
    first = dataset_info(corpus->datasets[0]);
    if (info->vocab != first->vocab || info->end_token != first->end_token)
        return err_set(err, ERR_INVALID,
                       "dataset '%s' was prepared with another tokenizer than the first "
                       "one (vocabulary %" PRId64 " against %" PRId64 ")",
                       folder, info->vocab, first->vocab);
    pair[0] = corpus->fingerprint;
    pair[1] = info->fingerprint;
    corpus->fingerprint = hash64(pair, sizeof(pair), 0);
    corpus->n_samples += info->n_samples;
    return 0;
}

int corpus_open(struct corpus **out, const char *const *folders, int64_t n_folders,
                struct err *err)
{
    struct corpus *corpus = calloc(1, sizeof(*corpus));

    if (!corpus)
        return err_set(err, ERR_NOMEM, "cannot allocate the list of datasets");
    if (n_folders < 1 || n_folders > CORPUS_DATASETS_MAX) {
        err_set(err, ERR_INVALID, "%" PRId64 " datasets are given: 1 to %d", n_folders,
                CORPUS_DATASETS_MAX);
        goto fail;
    }
    for (int64_t i = 0; i < n_folders; i++)
        if (corpus_add(corpus, folders[i], err) < 0)
            goto fail;
    if (corpus->n_samples == 0) {
        err_set(err, ERR_INVALID, "dataset '%s' has no samples", folders[0]);
        goto fail;
    }
    *out = corpus;
    return 0;
fail:
    corpus_close(corpus);
    return -1;
}

void corpus_close(struct corpus *corpus)
{
    if (!corpus)
        return;
    for (int i = 0; i < corpus->n_datasets; i++)
        dataset_close(corpus->datasets[i]);
    free(corpus);
}

int64_t corpus_n_samples(const struct corpus *corpus)
{
    return corpus->n_samples;
}

int64_t corpus_vocab(const struct corpus *corpus)
{
    return dataset_info(corpus->datasets[0])->vocab;
}

int64_t corpus_longest(const struct corpus *corpus, int64_t n_frames,
                       int64_t frame_tokens)
{
    int64_t longest = 0;

    for (int i = 0; i < corpus->n_datasets; i++) {
        const struct dataset_info *info = dataset_info(corpus->datasets[i]);
        int64_t has = info->splice == MEDIA_SPLICE_NONE ? info->num_frames : 1;
        int64_t n = info->longest_tokens;

        if (n > 0 && has >= 0 && n_frames > has)
            n += (n_frames - has) * frame_tokens;
        longest = n > longest ? n : longest;
    }
    return longest;
}

const struct dataset_info *corpus_info(const struct corpus *corpus)
{
    return dataset_info(corpus->datasets[0]);
}

uint64_t corpus_fingerprint(const struct corpus *corpus)
{
    return corpus->fingerprint;
}

int corpus_read(struct corpus *corpus, int64_t number, struct dataset_sample **sample,
                const struct dataset_info **info, struct err *err)
{
    int i = corpus->n_datasets - 1;

    if (number < 0 || number >= corpus->n_samples)
        return err_set(err, ERR_INVALID, "there is no sample %" PRId64 " among %" PRId64,
                       number, corpus->n_samples);
    while (corpus->firsts[i] > number)
        i--;
    *info = dataset_info(corpus->datasets[i]);
    return dataset_read(corpus->datasets[i], number - corpus->firsts[i], sample, err);
}
