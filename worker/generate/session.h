/* session.h - a model ready to be asked
 *
 * Owns: backend, model, tokenizer and decoder processes. Media are opened by those
 * processes only. Threads: one caller. Units: times in ns.
 */
#ifndef VNEVA_WORKER_GENERATE_SESSION_H
#define VNEVA_WORKER_GENERATE_SESSION_H

#include "common/base/json.h"
#include "worker/generate/model_folder.h"

#include <stdio.h>

struct session;

struct answer {
    struct buf text;   /* trimmed */
    struct buf full;   /* prompt and answer, media as <video> and <image> */
    struct buf prompt; /* int32 token numbers; -1 once for each patch */
    struct buf tokens; /* int32, of the answer */
    int64_t n_frames;
    int64_t frames_ns, first_ns, rest_ns; /* decoding, first token, the others */
};

/* Says on standard error what it had to guess. */
int session_open(struct session **out, const struct options *options, struct err *err);
void session_close(struct session *session); /* NULL is fine */
const struct model_folder *session_folder(const struct session *session);
/* "0.8M parameters, bf16 on cpu, 2 threads, loaded in 0.1 s" */
int session_describe(struct buf *out, const struct session *session, struct err *err);

/* record: see prompt.h. file: where the answer is streamed to, or NULL. Answers are added
 * to nothing: *out is overwritten; free with answer_fini, also after an error. */
int session_ask(struct session *session, struct answer *out, const struct json *record,
                FILE *file, struct err *err);
void answer_fini(struct answer *answer);

#endif
