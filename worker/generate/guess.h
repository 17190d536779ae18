/* guess.h - the conversation template of a Hugging Face folder, which names none
 *
 * A chat template is a program (Jinja) that we do not run; the marks it writes tell the
 * families apart. Without one the decoder's class does.
 * Threads: none.
 */
#ifndef VNEVA_WORKER_GENERATE_GUESS_H
#define VNEVA_WORKER_GENERATE_GUESS_H

#include "common/base/err.h"

#define GUESS_REASON_MAX 200

struct guess {
    const char *template;          /* static; one that conv_template_find knows */
    char reason[GUESS_REASON_MAX]; /* "chat_template.jinja writes '[INST]'" */
};

/* ERR_UNSUPPORTED: nothing here gives it away. */
int guess_template(struct guess *out, const char *folder, struct err *err);

#endif
