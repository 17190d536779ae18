/* prompt.h - from a question to the sample a batch is made of
 *
 * A question is a record in NeMo's and LLaVA's form. Its last answer, if it has one, is
 * what is expected and not shown to the model.
 * Threads: one caller.
 */
#ifndef VNEVA_WORKER_GENERATE_PROMPT_H
#define VNEVA_WORKER_GENERATE_PROMPT_H

#include "common/base/json.h"
#include "dataprep/text/conversation.h"
#include "worker/generate/options.h"

struct prompter { /* borrowed */
    struct conv_encoder encoder;
    bool has_begin, media_first;       /* see model_folder.h */
    const char *system;                /* NULL: the record's or the template's */
    const char *media_root;            /* what the media that a record names are below */
    const struct options_media *media; /* of a record that names none */
    int n_media;
};

/* {"id", "conversations": [{"from": "human", "value": question}]} */
struct json *prompt_record(const char *id, const char *question, struct err *err);
/* Adds a turn to a record. */
int prompt_add_turn(struct json *record, const char *from, const char *value,
                    struct err *err);

/* The sample of a record; free with dataset_sample_free. Media that the prompter has and
 * the record does not mention go first in the first question. ERR_INVALID: media and
 * <video>, <image> do not fit, the turns are not what the template wants. */
int prompt_sample(struct dataset_sample **out, const struct prompter *prompter,
                  const struct json *record, struct err *err);

/* Said before a model is loaded or a decoder asked, which would only say that it cannot
 * open it. */
int prompt_check_file(enum media_kind kind, const char *path, struct err *err);

#endif
