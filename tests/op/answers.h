/* answers.h - what a tiny model answers, for tests of generating */
#ifndef VNEVA_TESTS_OP_ANSWERS_H
#define VNEVA_TESTS_OP_ANSWERS_H

#include "model/generate/generate.h"
#include "tests/op/tiny.h"

#define ROWS 5
#define PROMPT 24
#define FRAMES_EACH 2
#define NEW 9
#define NO_END (-5)

struct answers {
    struct neva_config config;
    const struct generate_draw *draw; /* streams are the rows' numbers; NULL: greedy */
    bool one_by_one;
    int32_t end_token;
    int32_t tokens[ROWS][NEW];
    int64_t lens[ROWS];
};

/* The batch that is asked about. */
void answers_batch(struct tiny_batch *out, const struct neva_config *config);

/* For tiny_run, with the answers as its argument: fills tokens and lens. */
void answer(struct tiny_rank *rank);

#endif
