/* The rows of a micro batch, and their embeddings. */
#include "model/neva/internal.h"

static int batch_error(struct err *err, int64_t sample, int64_t token, const char *what,
                       int64_t value)
{
    return err_set(err, ERR_INVALID,
                   "sample %lld of the micro batch, token %lld: %s %lld",
                   (long long)sample, (long long)token, what, (long long)value);
}

static int row_fill(struct neva *model, const struct neva_batch *batch, int64_t sample,
                    bool has_labels, struct err *err)
{
    struct neva_index *index = &model->index;
    int64_t vocab = model->config.llm.vocab;

    for (int64_t t = 0; t < batch->n_tokens; t++) {
        int64_t row = sample * batch->n_tokens + t;
        int32_t token = batch->tokens[row], label = has_labels ? batch->labels[row] : -1;

        if (token < NEVA_TOKEN_MEDIA || token >= vocab)
            return batch_error(err, sample, t, "no such token:", token);
        if (label < -1 || label >= vocab)
            return batch_error(err, sample, t, "no such label:", label);
        if (label >= 0 && t >= batch->lens[sample])
            return batch_error(err, sample, t, "a label behind the row's end:", label);
        index->ids.host[row] = token;
        index->grad_ids.host[row] = t < batch->lens[sample] ? token : -1;
        if (token == NEVA_TOKEN_MEDIA)
            index->media_rows.host[index->n_media++] = (int32_t)row;
        if (label >= 0) {
            index->labels.host[index->n_labels] = label;
            index->label_rows.host[index->n_labels++] = (int32_t)row;
        }
    }
    return 0;
}

int neva_index_fill(struct neva *model, const struct neva_batch *batch, bool has_labels,
                    struct err *err)
{
    struct neva_index *index = &model->index;
    int64_t n_wanted = batch->n_frames * neva_features(&model->config);

    index->n_media = index->n_labels = 0;
    for (int64_t i = 0; i < batch->n_samples; i++) {
        if (batch->lens[i] < 1 || batch->lens[i] > batch->n_tokens)
            return batch_error(err, i, 0, "a row's length must be 1 to T, not",
                               batch->lens[i]);
        if (row_fill(model, batch, i, has_labels, err) < 0)
            return -1;
    }
    if (index->n_media != n_wanted)
        return err_set(err, ERR_INVALID,
                       "%lld media tokens for %lld frames of %lld features: there must "
                       "be one for each feature",
                       (long long)index->n_media, (long long)batch->n_frames,
                       (long long)neva_features(&model->config));
    index->labels.there.dims[0] = index->label_rows.there.dims[0] = index->n_labels;
    return neva_index_upload(model, false, err);
}

/* Rows without a token are zero: media rows until features take their places. */
int text_fwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->llm_nn;
    struct tensor *rows = &model->llm.x[0];

    if (nn->backend->ops->embed_fwd(nn->backend, rows, &model->embed->value,
                                    &model->index.ids.there, model->head.first, err) < 0)
        return -1;
    return nn_sum_ranks(nn, rows, err);
}

int text_bwd(struct neva *model, struct err *err)
{
    if (!model->embed->is_trained)
        return 0;
    return model->backend->ops->embed_bwd(
        model->backend, &model->embed->grad, &model->text_acts.d,
        &model->index.grad_ids.there, model->head.first, err);
}
