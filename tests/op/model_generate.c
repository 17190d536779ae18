/* Greedy generation against its definition: the most probable token of the whole prompt,
 * computed without a cache; batches against single rows; ranks against one. */
#include "tests/op/answers.h"
#include "tests/op/expect.h"

#include <stdlib.h>
#include <string.h>

static struct answers answers_of(const char *backend, int n_ranks, bool one_by_one,
                                 int32_t end_token)
{
    struct answers answers = {
        .config = tiny_config(), .one_by_one = one_by_one, .end_token = end_token};

    answers.config.llm.n_kv_heads = n_ranks > 2 ? 4 : 2;
    tiny_run(backend, n_ranks, 1, answer, &answers);
    return answers;
}

static void expect_same(const struct answers *got, const struct answers *want)
{
    for (int b = 0; b < ROWS; b++) {
        EXPECT_MSG(got->lens[b] == want->lens[b], "row %d: %lld tokens, not %lld", b,
                   (long long)got->lens[b], (long long)want->lens[b]);
        EXPECT_MSG(memcmp(got->tokens[b], want->tokens[b], sizeof(got->tokens[b])) == 0,
                   "row %d: other tokens", b);
    }
}

/* Loss of the label `token` after the row's last token: the smaller, the more probable. */
static double loss_after(struct neva *model, const struct neva_batch *row, int64_t last,
                         int32_t token)
{
    struct neva_batch with = *row;
    int32_t labels[PROMPT + NEW];
    struct neva_loss loss = {0};
    struct err err = {0};

    for (int64_t t = 0; t < row->n_tokens; t++)
        labels[t] = -1;
    labels[last] = token;
    with.labels = labels;
    EXPECT_OK(tiny_evaluate(model, &with, &loss, &err), &err);
    return loss.sum;
}

/* Repeats a row's answer without a cache: appends its tokens to the prompt one by one. */
static void check_row(struct neva *model, const struct answers *got,
                      const struct tiny_batch *all, int64_t b)
{
    struct neva_batch row = tiny_part(all, &got->config, b, 1, 0, 1);
    int32_t tokens[PROMPT + NEW], len = row.lens[0];

    memcpy(tokens, row.tokens, PROMPT * sizeof(*tokens));
    row.tokens = tokens;
    row.lens = &len;
    for (int64_t i = 0; i < got->lens[b]; i++) {
        int32_t token = got->tokens[b][i];
        double chosen;

        row.n_tokens = len;
        chosen = loss_after(model, &row, len - 1, token);
        for (int32_t other = 0; other < got->config.llm.vocab; other++)
            EXPECT_MSG(loss_after(model, &row, len - 1, other) >= chosen - 1e-5,
                       "row %lld, answer %lld: token %d is more probable than %d",
                       (long long)b, (long long)i, other, token);
        tokens[len++] = token;
    }
}

static void compare(struct tiny_rank *rank)
{
    const struct answers *got = rank->arg;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct err err = {0};

    answers_batch(&all, &got->config);
    EXPECT_OK(neva_create(&model, &got->config, rank->backend, rank->tensor, &err), &err);
    for (int64_t b = 0; b < ROWS; b++)
        check_row(model, got, &all, b);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void each_token_is_the_most_probable_one(void)
{
    struct answers got = answers_of("ref", 1, false, NO_END);
    int differing = 0;

    for (int b = 0; b < ROWS; b++) {
        EXPECT(got.lens[b] == NEW);
        for (int i = 1; i < NEW; i++)
            differing += got.tokens[b][i] != got.tokens[b][0];
    }
    EXPECT_MSG(differing > ROWS, "the answers say nothing: one token over and over");
    tiny_run("ref", 1, 1, compare, &got);
}

/* The cached pass has products of its own for q, k and v, biases and rotation included. */
static void so_are_another_decoder_s(void)
{
    for (int decoder = 1; decoder < TINY_DECODER_COUNT; decoder++) {
        struct answers got = {.config = tiny_decoder_config((enum tiny_decoder)decoder),
                              .end_token = NO_END};

        tiny_run("ref", 1, 1, answer, &got);
        tiny_run("ref", 1, 1, compare, &got);
    }
}

static void a_batch_gives_each_row_what_it_gets_alone(void)
{
    struct answers alone = answers_of("ref", 1, true, NO_END);
    struct answers batch = answers_of("ref", 1, false, NO_END);

    expect_same(&batch, &alone);
    batch = answers_of("cpu", 1, false, NO_END);
    expect_same(&batch, &alone);
}

static void ranks_give_what_one_gives(void)
{
    struct answers one = answers_of("ref", 1, false, NO_END);
    struct answers two = answers_of("ref", 2, false, NO_END);

    expect_same(&two, &one);
}

static void the_end_token_stops_its_row_only(void)
{
    struct answers free = answers_of("ref", 1, false, NO_END);
    int32_t end = free.tokens[1][3];
    struct answers got = answers_of("ref", 1, false, end);

    for (int b = 0; b < ROWS; b++) {
        int64_t want = 0;

        while (want < NEW && free.tokens[b][want] != end)
            want++;
        EXPECT_MSG(got.lens[b] == want, "row %d has %lld tokens, not %lld", b,
                   (long long)got.lens[b], (long long)want);
        EXPECT(memcmp(got.tokens[b], free.tokens[b], (size_t)want * sizeof(int32_t)) ==
               0);
    }
}

/* What a listener was told, and when it wants the end. */
struct heard {
    int32_t tokens[ROWS][NEW];
    int64_t lens[ROWS], n, stop_after;
};

static int hear(void *state, int64_t row, int32_t token, struct err *err)
{
    struct heard *heard = state;

    heard->tokens[row][heard->lens[row]++] = token;
    if (++heard->n == heard->stop_after)
        return err_set(err, ERR_STATE, "enough");
    return 0;
}

static void listen(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct heard heard = {.stop_after = -1};
    struct generate_args args = {.max_new_tokens = NEW, .end_token = NO_END};
    struct neva *model = NULL;
    struct tiny_batch all;
    int32_t tokens[ROWS][NEW];
    int64_t lens[ROWS];
    struct err err = {0};

    args.on_token = hear;
    args.state = &heard;
    answers_batch(&all, &config);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    EXPECT_OK(generate_tokens(model, &all.batch, &args, tokens[0], lens, &err), &err);
    EXPECT(memcmp(heard.lens, lens, sizeof(lens)) == 0);
    EXPECT(memcmp(heard.tokens, tokens, sizeof(tokens)) == 0);
    heard = (struct heard){.stop_after = ROWS + 1};
    EXPECT(generate_tokens(model, &all.batch, &args, tokens[0], lens, &err) < 0);
    EXPECT_MSG(heard.n == ROWS + 1 && strstr(err.text, "enough"), "%s", err.text);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

/* The second token ends row 1, and no other. */
static int hear_enough_of_one(void *state, int64_t row, int32_t token, struct err *err)
{
    struct heard *heard = state;

    if (hear(state, row, token, err) < 0)
        return -1;
    return row == 1 && heard->lens[1] == 2;
}

static void end_one(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct heard heard = {.stop_after = -1};
    struct generate_args args = {.max_new_tokens = NEW, .end_token = NO_END};
    struct neva *model = NULL;
    struct tiny_batch all;
    int32_t whole[ROWS][NEW], tokens[ROWS][NEW];
    int64_t lens[ROWS];
    struct err err = {0};

    answers_batch(&all, &config);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    EXPECT_OK(generate_tokens(model, &all.batch, &args, whole[0], lens, &err), &err);
    args.on_token = hear_enough_of_one;
    args.state = &heard;
    EXPECT_OK(generate_tokens(model, &all.batch, &args, tokens[0], lens, &err), &err);
    for (int b = 0; b < ROWS; b++) {
        EXPECT_MSG(lens[b] == (b == 1 ? 2 : NEW), "row %d has %d tokens", b,
                   (int)lens[b]);
        EXPECT(memcmp(tokens[b], whole[b], (size_t)lens[b] * sizeof(int32_t)) == 0);
    }
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void a_listener_may_end_a_row(void)
{
    tiny_run("ref", 1, 1, end_one, NULL);
}

static void every_token_is_told_once_until_the_listener_has_enough(void)
{
    tiny_run("ref", 1, 1, listen, NULL);
}

static void too_long(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct generate_args args = {.max_new_tokens = config.max_tokens, .end_token = 2};
    struct neva *model = NULL;
    struct tiny_batch all;
    int32_t tokens[64];
    int64_t lens[1];
    struct err err = {0};

    tiny_batch_init(&all, &config, 1, PROMPT, FRAMES_EACH, 21);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    EXPECT(generate_tokens(model, &all.batch, &args, tokens, lens, &err) < 0);
    EXPECT_MSG(err.code == ERR_LIMIT && strstr(err.text, "encoder_seq_length"), "%s",
               err.text);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

/* A prompt and its answer just fit; the row it is padded to goes beyond. */
static void padded(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct generate_args args = {.max_new_tokens = NEW, .end_token = NO_END};
    struct neva *model = NULL;
    struct tiny_batch all;
    struct neva_batch row;
    int32_t tokens[NEW + 1];
    int64_t lens[1], b = 0;
    struct err err = {0};

    answers_batch(&all, &config);
    while (b < ROWS - 1 && all.lens[b] == PROMPT)
        b++;
    EXPECT_MSG(all.lens[b] < PROMPT, "no row of the batch is padded");
    row = tiny_part(&all, &config, b, 1, 0, 1);
    config.max_tokens = all.lens[b] + NEW;
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    EXPECT_OK(generate_tokens(model, &row, &args, tokens, lens, &err), &err);
    EXPECT(lens[0] == NEW);
    args.max_new_tokens++;
    EXPECT(generate_tokens(model, &row, &args, tokens, lens, &err) < 0);
    EXPECT_MSG(strstr(err.text, "lower inference.tokens_to_generate"), "%s", err.text);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void padding_takes_no_place_from_the_answer(void)
{
    tiny_run("ref", 1, 1, padded, NULL);
}

static void answers_past_the_longest_row_are_refused(void)
{
    tiny_run("ref", 1, 1, too_long, NULL);
}

int main(void)
{
    EXPECT_RUN(each_token_is_the_most_probable_one);
    EXPECT_RUN(so_are_another_decoder_s);
    EXPECT_RUN(a_batch_gives_each_row_what_it_gets_alone);
    EXPECT_RUN(ranks_give_what_one_gives);
    EXPECT_RUN(the_end_token_stops_its_row_only);
    EXPECT_RUN(every_token_is_told_once_until_the_listener_has_enough);
    EXPECT_RUN(a_listener_may_end_a_row);
    EXPECT_RUN(padding_takes_no_place_from_the_answer);
    EXPECT_RUN(answers_past_the_longest_row_are_refused);
    return expect_end();
}
