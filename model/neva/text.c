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
        index->all_ids[row] = token;
        if (token == NEVA_TOKEN_MEDIA) {
            index->media_rows[index->n_media++] = (int32_t)row;
        } else {
            index->text_ids[index->n_text] = token;
            index->text_rows[index->n_text++] = (int32_t)row;
        }
        if (label >= 0) {
            index->labels[index->n_labels] = label;
            index->label_rows[index->n_labels++] = (int32_t)row;
        }
    }
    return 0;
}

int neva_index_fill(struct neva *model, const struct neva_batch *batch, bool has_labels,
                    struct err *err)
{
    struct neva_index *index = &model->index;
    int64_t n_wanted = batch->n_frames * neva_features(&model->config);

    index->n_text = index->n_media = index->n_labels = 0;
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
    return 0;
}

int text_fwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->llm_nn;
    const struct backend_ops *ops = nn->backend->ops;
    const struct neva_index *index = &model->index;
    struct tensor rows;

    if (index->n_text == 0)
        return 0;
    rows = tensor_rows(&model->text_acts.rows, 0, index->n_text);
    if (ops->embed_fwd(nn->backend, &rows, &model->embed->value, index->text_ids,
                       model->head.first, err) < 0 ||
        nn_sum_ranks(nn, &rows, err) < 0)
        return -1;
    return ops->scatter_rows(nn->backend, &model->llm.x[0], &rows, index->text_rows,
                             index->n_text, err);
}

int text_bwd(struct neva *model, struct err *err)
{
    if (!model->embed->is_trained)
        return 0;
    return model->backend->ops->embed_bwd(model->backend, &model->embed->grad,
                                          &model->text_acts.d, model->index.all_ids,
                                          model->head.first, err);
}
