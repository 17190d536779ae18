/* template.h - what a conversation template is made of; a row of the table in templates.c
 *
 * Inside dataprep/text only.
 */
#ifndef VNEVA_DATAPREP_TEXT_TEMPLATE_H
#define VNEVA_DATAPREP_TEXT_TEMPLATE_H

#include "dataprep/text/conversation.h"

#define CONV_QUALITY "<extra_id_2>" /* comes before SteerLM's label */

/* What NeMo writes around the turns. A turn without text is its role alone. */
struct conv_template {
    const char *name;
    const char *opening, *system, *system_end; /* what opens the conversation */
    const char *first;                         /* opens the first question */
    const char *human, *human_begin, *human_end;
    const char *gpt, *gpt_begin, *gpt_end;
    const char *next;     /* between an answer and the next question */
    const char *quality;  /* SteerLM's label where the answer has none */
    const char *stop;     /* the token that ends gpt_end; NULL: end of sentence */
    bool has_begin;       /* a begin of sentence opens the conversation, */
    bool has_begins;      /* or every question but the first */
    bool is_plain;        /* media and caption, nothing else */
    bool takes_system;    /* the record's "system" replaces the template's */
    bool has_patch_token; /* NeMo keeps the patch token; elsewhere it writes 0 */
};

#endif
