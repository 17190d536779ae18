/* Answers that are drawn: the same again with the same seed, whatever stands in the batch and
 * however many ranks there are; and what each setting does to them. */
#include "model/nn/head.h"
#include "tests/op/answers.h"
#include "tests/op/expect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct answers answers_of(const char *backend, int n_ranks,
                                 const struct generate_draw *draw)
{
    struct answers answers = {.config = tiny_config(), .draw = draw, .end_token = NO_END};

    tiny_run(backend, n_ranks, 1, answer, &answers);
    return answers;
}

static int count_differing(const struct answers *a, const struct answers *b)
{
    int n = 0;

    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < NEW; i++)
            n += a->tokens[r][i] != b->tokens[r][i];
    return n;
}

/* A tiny random model is nearly sure of nothing: sharpened, its tokens are not all alike. */
static struct generate_draw settings(void)
{
    return (struct generate_draw){.temperature = 0.5F,
                                  .top_k = 20,
                                  .top_p = 0.9F,
                                  .repetition_penalty = 1.3F,
                                  .seed = 3};
}

static void an_answer_depends_on_its_seed_and_row_alone(void)
{
    struct generate_draw draw = settings();
    struct answers whole = answers_of("ref", 1, &draw), other;
    struct answers alone = {
        .config = tiny_config(), .draw = &draw, .end_token = NO_END, .one_by_one = true};

    tiny_run("ref", 1, 1, answer, &alone);
    EXPECT(count_differing(&alone, &whole) == 0);
    other = answers_of("ref", 2, &draw);
    EXPECT(count_differing(&other, &whole) == 0);
    other = answers_of("ref", 4, &draw);
    EXPECT(count_differing(&other, &whole) == 0);
#ifdef VNEVA_HAVE_ONEDNN
    other = answers_of("cpu", 2, &draw);
    EXPECT(count_differing(&other, &whole) == 0);
#endif
    draw.seed = 4;
    other = answers_of("ref", 1, &draw);
    EXPECT(count_differing(&other, &whole) > ROWS * NEW / 2);
}

static void what_leaves_no_choice_is_greedy(void)
{
    struct answers greedy = answers_of("ref", 1, NULL), drawn;
    struct generate_draw draw = {
        .temperature = 1, .top_k = 1, .top_p = 1, .repetition_penalty = 1};

    drawn = answers_of("ref", 1, &draw);
    EXPECT(count_differing(&drawn, &greedy) == 0);
    draw = (struct generate_draw){.temperature = 0, .top_p = 1, .repetition_penalty = 1};
    drawn = answers_of("ref", 2, &draw);
    EXPECT(count_differing(&drawn, &greedy) == 0);
    draw.temperature = 5;
    drawn = answers_of("ref", 1, &draw);
    EXPECT(count_differing(&drawn, &greedy) > ROWS * NEW / 2);
}

static int count_repeated(const struct answers *a)
{
    int n = 0;

    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < NEW; i++)
            for (int before = 0; before < i; before++)
                if (a->tokens[r][before] == a->tokens[r][i]) {
                    n++;
                    break;
                }
    return n;
}

/* The least temperature makes logits large, so that the penalty outweighs all else. */
static void a_penalty_keeps_tokens_from_coming_again(void)
{
    struct generate_draw draw = {
        .temperature = 0.05F, .top_p = 1, .repetition_penalty = 1};
    struct answers without = answers_of("ref", 1, &draw), with, again;

    draw.repetition_penalty = 20;
    with = answers_of("ref", 1, &draw);
    EXPECT_MSG(count_repeated(&with) < count_repeated(&without) / 2,
               "%d tokens came again, %d without a penalty", count_repeated(&with),
               count_repeated(&without));
    again = answers_of("ref", 2, &draw); /* their bits are on every rank */
    EXPECT(count_differing(&again, &with) == 0);
}

static void answers_are_no_shorter_than_asked(void)
{
    struct answers greedy = answers_of("ref", 1, NULL), got;
    struct generate_draw draw = {.top_p = 1, .repetition_penalty = 1};
    int32_t end = greedy.tokens[0][1];

    got = (struct answers){.config = tiny_config(), .draw = &draw, .end_token = end};
    tiny_run("ref", 1, 1, answer, &got);
    EXPECT_MSG(got.lens[0] <= 1, "row 0 has %lld tokens", (long long)got.lens[0]);
    draw.min_new_tokens = 4;
    tiny_run("ref", 1, 1, answer, &got);
    for (int r = 0; r < ROWS; r++)
        EXPECT_MSG(got.lens[r] >= 4, "row %d has %lld tokens", r, (long long)got.lens[r]);
}

static void settings_that_cannot_be_are_refused(void)
{
    static const struct {
        struct generate_draw draw;
        const char *key;
    } wrong[] = {
        {{.temperature = -1, .top_p = 1, .repetition_penalty = 1},
         "inference.temperature"},
        {{.temperature = NAN, .top_p = 1, .repetition_penalty = 1},
         "inference.temperature"},
        {{.temperature = 1, .top_p = 0, .repetition_penalty = 1}, "inference.top_p"},
        {{.temperature = 1, .top_p = 1.5F, .repetition_penalty = 1}, "inference.top_p"},
        {{.temperature = 1, .top_k = -1, .top_p = 1, .repetition_penalty = 1},
         "inference.top_k"},
        {{.temperature = 1, .top_p = 1, .repetition_penalty = 0},
         "inference.repetition_penalty"},
        {{.temperature = 1, .top_p = 1, .repetition_penalty = 1, .min_new_tokens = -1},
         "inference.min_tokens_to_generate"},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct err err = {0};

        EXPECT(generate_check_draw(&wrong[i].draw, &err) < 0);
        EXPECT_MSG(err.code == ERR_INVALID && strstr(err.text, wrong[i].key), "'%s'",
                   err.text);
    }
}

static void logits_that_are_no_numbers_are_told(void)
{
    struct err err = {0};

    EXPECT_OK(head_draw_join(2, (float[]){1, -2}, &err), &err);
    EXPECT(head_draw_join(3, (float[]){1, NAN, INFINITY}, &err) < 0);
    EXPECT_MSG(err.code == ERR_FORMAT && strstr(err.text, "row 1 are not finite"), "'%s'",
               err.text);
}

int main(void)
{
    EXPECT_RUN(an_answer_depends_on_its_seed_and_row_alone);
    EXPECT_RUN(what_leaves_no_choice_is_greedy);
    EXPECT_RUN(a_penalty_keeps_tokens_from_coming_again);
    EXPECT_RUN(answers_are_no_shorter_than_asked);
    EXPECT_RUN(settings_that_cannot_be_are_refused);
    EXPECT_RUN(logits_that_are_no_numbers_are_told);
    return expect_end();
}
