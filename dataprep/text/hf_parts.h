/* hf_parts.h - what hf_tokenizer.c and hf_read.c share; only they include it */
#ifndef VNEVA_DATAPREP_TEXT_HF_PARTS_H
#define VNEVA_DATAPREP_TEXT_HF_PARTS_H

#include "dataprep/text/added.h"
#include "dataprep/text/bpe.h"
#include "dataprep/text/detokenize.h"
#include "dataprep/text/hf_tokenizer.h"
#include "dataprep/text/normalize.h"
#include "dataprep/text/pretokenize.h"

struct hf_tokenizer {
    struct added added;
    struct vocab added_vocab; /* the same tokens, by text and number */
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct bpe bpe;
    struct detokenizer detokenizer;
    int32_t bos, eos;
};

/* Fills it from the files. */
int hf_read(struct hf_tokenizer *out, const struct token_folder *folder,
            const char *const *extra_tokens, int n_extra_tokens, struct err *err);
/* Appends what becomes of a token's text when it is normalized (state: the tokenizer). */
int hf_normalize_token(void *state, struct buf *out, const struct added_token *token,
                       struct err *err);

#endif
