/* conversation.h - a dialogue, laid out by a template and turned into tokens as NeMo does
 *
 * A record is LLaVA's and NeMo's: {"conversations": [{"from": "human", "value": "..."},
 * {"from": "gpt", "value": "..."}, ...]}, <video> and <image> standing for media anywhere
 * in a human turn. Rendering puts the template's words around the turns and notes which
 * bytes are answers; a token is to be predicted when it holds bytes of an answer, so the
 * mask does not hang on how pieces would be tokenized apart. Template interleaved wants
 * "conversations" to be one text with media in it, and all of it is to be learnt.
 * Templates and their names are those of NeMo 2.0 (conv_template_names); nvgpt, llama_2
 * and the others match tests/golden/nemo_conversations.jsonl, made by NeMo 2.0, token for
 * token, and llama_3, yi_34b and interleaved match tests/golden/conversations.jsonl,
 * made by tests/golden/make_conversations.py.
 * Special tokens that a turn spells out are those tokens, as in NeMo, whose tokenizers
 * look for them in the whole text; they stand for no medium and end no turn of the mask.
 * "system" of the record takes the place of the template's system prompt. (NeMo does so
 * for nvgpt and nv_dpo and passes over it elsewhere.)
 * Threads: none. Owns: what its structs hold; free with the _fini of each.
 */
#ifndef VNEVA_DATAPREP_TEXT_CONVERSATION_H
#define VNEVA_DATAPREP_TEXT_CONVERSATION_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/json.h"
#include "dataprep/media/media.h"
#include "dataprep/text/tokenizer.h"

#define CONV_TOKEN_MEDIA (-1) /* stands once for a media item */
#define CONV_PATCH "<extra_id_3>"
#define CONV_MEDIA_START "<extra_id_4>"
#define CONV_MEDIA_END "<extra_id_5>"
#define CONV_BEGIN_TEXT "<extra_id_6>" /* NeMo's names of begin and end of sentence */
#define CONV_STOP_TEXT "<extra_id_7>"

struct conv_template;

const struct conv_template *conv_template_find(const char *name); /* NULL: no such */
const char *conv_template_names(void);                            /* "plain, v1, ..." */

enum conv_part_kind {
    CONV_TEXT,  /* bytes [begin, end) of the text */
    CONV_MEDIA, /* one media item */
    CONV_BEGIN, /* the tokenizer's begin of sentence */
    CONV_STOP,  /* the tokenizer's end of sentence */
};

struct conv_part {
    enum conv_part_kind kind;
    enum media_kind media; /* of CONV_MEDIA */
    bool is_answer;        /* to be predicted */
    size_t begin, end;
};

struct conversation {
    struct buf text;
    struct buf parts; /* struct conv_part, in order */
    bool is_prompt;   /* an answer is to follow */
};

/* CONV_MEDIA_FIRST: NeMo's sep_image_conv_front, the media of the first question before
 * its words, " USER: " between them.
 * CONV_PROMPT: up to where the last answer begins, which need not be there. */
enum conv_flag { CONV_MEDIA_FIRST = 1, CONV_PROMPT = 2 };

/* flags: of enum conv_flag. ERR_INVALID: the record's turns are not what the template
 * wants; says why. */
int conversation_render_as(struct conversation *out, const struct conv_template *template,
                           unsigned flags, const struct json *record, struct err *err);
/* The same without flags. */
int conversation_render(struct conversation *out, const struct conv_template *template,
                        const struct json *record, struct err *err);
void conversation_fini(struct conversation *conversation);

/* What encodes; borrows template and tokenizer. */
struct conv_encoder {
    const struct conv_template *template;
    const struct tokenizer *tokenizer;
    bool use_im_start_end;     /* media stand between start and end tokens */
    const char *const *marker; /* texts of patch, start and end of media */
    bool is_inline;            /* the tokenizer finds the start and end tokens in text */
    bool has_inline_ends;      /* so it does NeMo's begin and end of sentence */
    bool adds_space;           /* the tokenizer puts a space before a text */
    int32_t patch, start, end; /* of media; -1: the tokenizer has none */
    int32_t pad;               /* likewise */
    int32_t begin;             /* of sentence; -1: the tokenizer has none */
    int32_t stop;              /* what ends an answer; -1 with interleaved: nothing */
};

/* ERR_INVALID: the tokenizer lacks a token that the template needs; says which, and what
 * to do. */
int conv_encoder_init(struct conv_encoder *encoder, const struct conv_template *template,
                      const struct tokenizer *tokenizer, bool use_im_start_end,
                      struct err *err);

struct conv_tokens {
    struct buf tokens;   /* int32; CONV_TOKEN_MEDIA once a media item */
    struct buf is_label; /* uint8 a token; not shifted */
    struct buf media;    /* enum media_kind an item */
    int64_t n_tokens, n_media, n_labels;
    int64_t n_prompt; /* tokens before the last answer; all of a prompt */
};

int conv_encode(const struct conv_encoder *encoder, struct conv_tokens *out,
                const struct conversation *conversation, struct err *err);
void conv_tokens_fini(struct conv_tokens *tokens);

/* Tokens and shifted labels as NeMo's preprocessing gives them, each appended to a buf of
 * int32: media start, frames x patches copies of its patch token, media end (together
 * frames x patches without use_im_start_end), the last token only as a label, -1 where
 * no label is. n_patches: frames x patches of media item i. */
int conv_nemo_form(const struct conv_encoder *encoder, const struct conv_tokens *tokens,
                   const int64_t *n_patches, struct buf *out_tokens,
                   struct buf *out_labels, struct err *err);

#endif
