#include "dataprep/text/tokenizer.h"

#include "common/base/fs.h"
#include "dataprep/text/sentencepiece_c.h"

#include <stdlib.h>
#include <string.h>

/* Splits the texts into lines: line breaks are left to the byte tokens. Appends char *
 * pointers into the copies, which `owner` keeps. */
static int split_lines(struct buf *lines, char **copies, const char *const *texts,
                       int64_t n_texts, struct err *err)
{
    for (int64_t i = 0; i < n_texts; i++) {
        char *save = NULL;

        copies[i] = strdup(texts[i]);
        if (!copies[i])
            return err_set(err, ERR_NOMEM, "cannot copy the training texts");
        for (char *line = strtok_r(copies[i], "\r\n", &save); line;
             line = strtok_r(NULL, "\r\n", &save))
            buf_add(lines, &line, sizeof(line));
    }
    return buf_check(lines, err);
}

int tokenizer_train(const char *output, const char *const *texts, int64_t n_texts,
                    int64_t vocab, struct err *err)
{
    char **copies = calloc((size_t)n_texts + 1, sizeof(*copies));
    struct buf lines = BUF_INIT, model = BUF_INIT;
    int rc = -1;

    if (vocab < TOKENIZER_VOCAB_MIN) {
        err_set(err, ERR_INVALID, "a vocabulary of %lld is too small, take at least %d",
                (long long)vocab, TOKENIZER_VOCAB_MIN);
        goto out;
    }
    if (!copies) {
        err_set(err, ERR_NOMEM, "cannot copy the training texts");
        goto out;
    }
    if (split_lines(&lines, copies, texts, n_texts, err) < 0)
        goto out;
    if (!lines.n_bytes) {
        err_set(err, ERR_INVALID, "no text to train a tokenizer from");
        goto out;
    }
    if (sp_train(&model, (const char *const *)lines.data,
                 (int64_t)(lines.n_bytes / sizeof(char *)), vocab, err) < 0) {
        err_wrap(err, "cannot train a tokenizer of %lld tokens", (long long)vocab);
        goto out;
    }
    rc = fs_write_file_atomic(output, model.data, model.n_bytes, err);
out:
    for (int64_t i = 0; copies && i < n_texts; i++)
        free(copies[i]);
    free(copies);
    buf_fini(&lines);
    buf_fini(&model);
    return rc;
}
