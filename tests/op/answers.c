#include "tests/op/answers.h"

#include "tests/op/expect.h"

void answers_batch(struct tiny_batch *out, const struct neva_config *config)
{
    tiny_batch_init(out, config, ROWS, PROMPT, FRAMES_EACH, 21);
}

void answer(struct tiny_rank *rank)
{
    struct answers *answers = rank->arg;
    struct answers mine = *answers;
    int32_t streams[ROWS] = {10, 11, 12, 13, 14};
    struct generate_draw draw = {0};
    struct generate_args args = {.max_new_tokens = NEW, .end_token = answers->end_token};
    int64_t each = answers->one_by_one ? 1 : ROWS;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct err err = {0};

    answers_batch(&all, &mine.config);
    EXPECT_OK(neva_create(&model, &mine.config, rank->backend, rank->tensor, &err), &err);
    for (int64_t first = 0; first < ROWS; first += each) {
        struct neva_batch part =
            tiny_part(&all, &mine.config, first, each, rank->rank, rank->n_ranks);

        if (mine.draw) {
            draw = *mine.draw;
            draw.streams = streams + first;
            args.draw = &draw;
        }
        EXPECT_OK(generate_tokens(model, &part, &args, mine.tokens[first],
                                  mine.lens + first, &err),
                  &err);
    }
    if (rank->rank == 0)
        *answers = mine;
    neva_destroy(model);
    tiny_batch_fini(&all);
}
