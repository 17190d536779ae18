/* template.h - what a conversation template is made of; a row of the table in templates.c
 *
 * Inside dataprep/text only.
 */
#ifndef VNEVA_DATAPREP_TEXT_TEMPLATE_H
#define VNEVA_DATAPREP_TEXT_TEMPLATE_H

#include "dataprep/text/conversation.h"

#define CONV_QUALITY "<extra_id_2>" /* comes before SteerLM's label */
#define CONV_PAD "<pad>"
#define CONV_NEEDS_MAX 6

enum conv_shape {
    CONV_SHAPE_TURNS,
    CONV_SHAPE_PLAIN,      /* media and caption, nothing else */
    CONV_SHAPE_INTERLEAVED /* one text with media in it, all of it to be learnt */
};

/* What NeMo writes around the turns. A turn without text is its role alone. */
struct conv_template {
    const char *name;
    enum conv_shape shape;
    const char *system_begin, *system, *system_end; /* system NULL: none by itself */
    const char *human, *human_begin, *human_end;
    const char *gpt, *gpt_begin, *gpt_end;
    const char *next;    /* between an answer and the next question */
    const char *quality; /* SteerLM's label where the answer has none */
    const char *stop;    /* the token that ends gpt_end; NULL: end of sentence */
    const char *needs[CONV_NEEDS_MAX]; /* tokens in the words above; NULL ends them */
    bool is_llama_3;                   /* media tokens are Llama 3's reserved ones */
    bool system_in_question;           /* the system prompt opens the first question */
    bool has_begin;                    /* a begin of sentence opens the conversation, */
    bool has_begins;                   /* or every question but the first */
    bool takes_label;                  /* an answer's "label" is SteerLM's */
    bool needs_question;               /* the first question may not be empty */
    bool has_empty_questions;          /* one without text is written all the same */
    bool has_empty_answers;            /* one without text is ended, but for the last */
    bool strips_questions;             /* white space around one is left out */
    bool learns_next;                  /* `next` is part of the answer before it */
    bool has_patch_token;              /* NeMo keeps the patch token; else it writes 0 */
};

#endif
