/* guess.h - the conversation template of a Hugging Face folder, which names none
 *
 * A chat template is a program (Jinja) that we do not run; the marks it writes tell the
 * families apart. Without one the decoder's class does.
 * Threads: none.
 */
#ifndef VNEVA_WORKER_GENERATE_GUESS_H
#define VNEVA_WORKER_GENERATE_GUESS_H

#include "common/base/err.h"

#include <stdbool.h>

#define GUESS_REASON_MAX 200

struct guess {
    const char *template;          /* static; one that conv_template_find knows */
    bool is_written;               /* by a chat template, and not only likely */
    char reason[GUESS_REASON_MAX]; /* "chat_template.jinja writes '[INST]'" */
};

/* What a likely one gives way to when the tokenizer lacks a token that it needs: v1 needs
 * none but the end of sentence. */
void guess_plainest(struct guess *guess);

/* ERR_UNSUPPORTED: nothing here gives it away. */
int guess_template(struct guess *out, const char *folder, struct err *err);

#endif
