/* Drawing the next token: the generator against its authors' vectors, frequencies against
 * softmax, the filters against what NeMo keeps, worked out by hand. */
#include "model/backend/sample.h"

#include "model/backend/backend.h"
#include "tests/op/expect.h"

#include <stdlib.h>
#include <string.h>

#define V 6
#define DRAWS 4000
#define SIGMAS 5 /* with fixed seeds: either always or never beyond */

static const char *const backends[] = {
    "ref",
#ifdef VNEVA_HAVE_ONEDNN
    "cpu",
#endif
};
static struct backend *b;

/* Draws N tokens, each with a stream of its own, from the same logits. */
static void draw(int32_t *tokens, const float *logits, const struct sample_args *args,
                 uint32_t seen, int32_t step)
{
    static float rows[DRAWS * V], values[DRAWS];
    static int32_t streams[DRAWS], steps[DRAWS];
    static uint32_t words[DRAWS];
    const int64_t dims[] = {DRAWS, V}, n = DRAWS;
    struct tensor x = tensor_of(rows, DTYPE_F32, 2, dims);
    struct tensor value = tensor_of(values, DTYPE_F32, 1, &n);
    struct tensor token = tensor_of(tokens, DTYPE_I32, 1, &n);
    struct tensor stream = tensor_of(streams, DTYPE_I32, 1, &n);
    struct tensor at = tensor_of(steps, DTYPE_I32, 1, &n);
    struct tensor had =
        tensor_of(seen ? words : NULL, DTYPE_I32, 2, (int64_t[]){DRAWS, 1});
    struct err err = {0};

    for (int i = 0; i < DRAWS; i++) {
        memcpy(rows + i * V, logits, V * sizeof(*logits));
        streams[i] = i;
        steps[i] = step;
        words[i] = seen;
    }
    EXPECT_OK(b->ops->sample(b, &value, &token, &x, &had, &stream, &at, args, &err),
              &err);
}

/* want: the probability of each token */
static void expect_shares(const float *logits, const struct sample_args *args,
                          uint32_t seen, const double *want)
{
    static int32_t tokens[DRAWS];
    int counts[V] = {0};

    draw(tokens, logits, args, seen, 0);
    for (int i = 0; i < DRAWS; i++)
        counts[tokens[i]]++;
    for (int i = 0; i < V; i++) {
        double mean = want[i] * DRAWS, sigma = sqrt(mean * (1 - want[i]));

        EXPECT_MSG(fabs(counts[i] - mean) <= SIGMAS * sigma,
                   "%s: token %d was drawn %d times, not about %.0f", b->ops->name, i,
                   counts[i], mean);
    }
}

static struct sample_args plain(void)
{
    return (struct sample_args){.n_real = V,
                                .temperature = 1,
                                .top_p = 1,
                                .repetition_penalty = 1,
                                .end_token = -1,
                                .seed = 7};
}

/* kat_vectors of Random123, philox4x32 with 10 rounds */
static void the_generator_is_philox(void)
{
    static const struct {
        uint32_t counter[4];
        uint64_t key;
        uint32_t want[4];
    } known[] = {
        {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         UINT64_MAX,
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         0x299f31d0a4093822,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint32_t c[4];

        memcpy(c, known[i].counter, sizeof(c));
        sample_philox(c, known[i].key);
        EXPECT_MSG(memcmp(c, known[i].want, sizeof(c)) == 0,
                   "vector %d: %08x %08x %08x %08x", (int)i, c[0], c[1], c[2], c[3]);
    }
}

/* ln of 1, 2, 4, 1, 8, 4: twentieths */
static const float logits[V] = {0, 0.6931472F, 1.3862944F, 0, 2.0794415F, 1.3862944F};

static void tokens_come_as_often_as_softmax_says(void)
{
    struct sample_args args = plain();

    expect_shares(logits, &args, 0, (double[]){.05, .1, .2, .05, .4, .2});
    args.temperature = 0.5F; /* weights squared: of 102 */
    expect_shares(
        logits, &args, 0,
        (double[]){1 / 102., 4 / 102., 16 / 102., 1 / 102., 64 / 102., 16 / 102.});
    args.n_real = 4; /* the rest is padding */
    args.temperature = 1;
    expect_shares(logits, &args, 0, (double[]){.125, .25, .5, .125, 0, 0});
}

static void top_k_keeps_the_largest_and_their_equals(void)
{
    struct sample_args args = plain();

    args.top_k = 1;
    expect_shares(logits, &args, 0, (double[]){0, 0, 0, 0, 1, 0});
    args.top_k = 2;
    expect_shares(logits, &args, 0, (double[]){0, 0, .25, 0, .5, .25});
    args.top_k = 4;
    expect_shares(logits, &args, 0, (double[]){0, 1 / 9., 2 / 9., 0, 4 / 9., 2 / 9.});
    args.top_k = 100;
    expect_shares(logits, &args, 0, (double[]){.05, .1, .2, .05, .4, .2});
}

/* A token stays while those before it do not make up more than top_p. */
static void top_p_keeps_the_token_that_crosses_it(void)
{
    struct sample_args args = plain();

    args.top_p = 0.3F;
    expect_shares(logits, &args, 0, (double[]){0, 0, 0, 0, 1, 0});
    args.top_p = 0.5F;
    expect_shares(logits, &args, 0, (double[]){0, 0, .25, 0, .5, .25});
    args.top_p = 0.85F;
    expect_shares(logits, &args, 0, (double[]){0, 1 / 9., 2 / 9., 0, 4 / 9., 2 / 9.});
    args.top_p = 0.95F;
    expect_shares(logits, &args, 0, (double[]){.05, .1, .2, .05, .4, .2});
    args.top_k = 3; /* first: top_p is of what it leaves, 8 + 4 + 4 */
    args.top_p = 0.45F;
    expect_shares(logits, &args, 0, (double[]){0, 0, 0, 0, 1, 0});
}

/* Positive logits are divided, negative ones multiplied. */
static void what_was_there_before_is_less_likely(void)
{
    static const float signs[V] = {-1, 1.3862944F, 0, 0, 0, 0};
    struct sample_args args = plain();
    double w[V] = {exp(-2), 2, 1, 1, 1, 1}, sum = 0;

    args.repetition_penalty = 2;
    for (int i = 0; i < V; i++)
        sum += w[i];
    for (int i = 0; i < V; i++)
        w[i] /= sum;
    expect_shares(signs, &args, 0x3, w);
}

static void no_answer_ends_before_its_time(void)
{
    static int32_t tokens[DRAWS];
    struct sample_args args = plain();
    int n_ends = 0;

    args.end_token = 4;
    args.min_tokens = 2;
    args.temperature = 0;
    draw(tokens, logits, &args, 0, 1);
    for (int i = 0; i < DRAWS; i++)
        n_ends +=
            tokens[i] != 2; /* the most probable of the others, of equals the first */
    EXPECT_MSG(n_ends == 0, "%d of %d", n_ends, DRAWS);
    draw(tokens, logits, &args, 0, 2);
    EXPECT(tokens[0] == 4 && tokens[DRAWS - 1] == 4);
}

static void what_is_drawn_counts_from_then_on(void)
{
    const int64_t dims[] = {1, V}, one = 1;
    float row[V], largest;
    int32_t token, stream = 0, step = 0;
    uint32_t word = 1U << 4;
    struct tensor x = tensor_of(row, DTYPE_F32, 2, dims);
    struct tensor value = tensor_of(&largest, DTYPE_F32, 1, &one);
    struct tensor tokens = tensor_of(&token, DTYPE_I32, 1, &one);
    struct tensor streams = tensor_of(&stream, DTYPE_I32, 1, &one);
    struct tensor steps = tensor_of(&step, DTYPE_I32, 1, &one);
    struct tensor seen = tensor_of(&word, DTYPE_I32, 1, &one);
    struct sample_args args = plain();
    struct err err = {0};

    args.temperature = 0;
    args.repetition_penalty = 100;
    memcpy(row, logits, sizeof(row));
    EXPECT_OK(
        b->ops->sample(b, &value, &tokens, &x, &seen, &streams, &steps, &args, &err),
        &err);
    EXPECT(token == 2 && word == (1U << 4 | 1U << 2) && largest == logits[2]);
    memcpy(row, logits, sizeof(row));
    row[1] = NAN;
    EXPECT_OK(
        b->ops->sample(b, &value, &tokens, &x, &seen, &streams, &steps, &args, &err),
        &err);
    EXPECT(largest != largest);
}

int main(void)
{
    struct err err = {0};

    EXPECT_RUN(the_generator_is_philox);
    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
        if (!EXPECT_OK(backend_create(&b, backends[i], 0, 1, &err), &err))
            break;
        EXPECT_RUN(tokens_come_as_often_as_softmax_says);
        EXPECT_RUN(top_k_keeps_the_largest_and_their_equals);
        EXPECT_RUN(top_p_keeps_the_token_that_crosses_it);
        EXPECT_RUN(what_was_there_before_is_less_likely);
        EXPECT_RUN(no_answer_ends_before_its_time);
        EXPECT_RUN(what_is_drawn_counts_from_then_on);
        backend_destroy(b);
    }
    return expect_end();
}
