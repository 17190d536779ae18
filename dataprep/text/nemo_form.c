#include "dataprep/text/template.h"

static void add_int(struct buf *out, int32_t value)
{
    buf_add(out, &value, sizeof(value));
}

static void add_media(const struct conv_encoder *encoder, struct buf *tokens, int64_t n)
{
    bool has_ends = !encoder->use_im_start_end && n >= 2 && encoder->start >= 0;
    int32_t patch =
        encoder->template->has_patch_token && encoder->patch >= 0 ? encoder->patch : 0;

    for (int64_t i = 0; i < n; i++)
        add_int(tokens, has_ends && i == 0       ? encoder->start
                        : has_ends && i == n - 1 ? encoder->end
                                                 : patch);
}

int conv_nemo_form(const struct conv_encoder *encoder, const struct conv_tokens *tokens,
                   const int64_t *n_patches, struct buf *out_tokens,
                   struct buf *out_labels, struct err *err)
{
    const int32_t *token = (const int32_t *)tokens->tokens.data;
    const uint8_t *is_label = (const uint8_t *)tokens->is_label.data;
    int64_t media = 0;

    for (int64_t i = 0; i < tokens->n_tokens; i++) {
        int64_t n = 1;

        if (token[i] == CONV_TOKEN_MEDIA)
            n = n_patches[media++];
        if (token[i] == CONV_TOKEN_MEDIA)
            add_media(encoder, out_tokens, n);
        else if (i + 1 < tokens->n_tokens)
            add_int(out_tokens, token[i]);
        for (int64_t k = 0; k < n; k++)
            if (i > 0 || k > 0) /* the label of the entry before */
                add_int(out_labels, is_label[i] ? token[i] : -1);
    }
    return buf_check(out_tokens, err) < 0 ? -1 : buf_check(out_labels, err);
}
