/* cpu_sample.c - drawing the next token, a row at a time
 *
 * The smallest logit that a filter keeps is found bit by bit of its key (sample.h), from the
 * highest: 32 passes over the row, which take less than to sort it.
 */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"
#include "model/backend/sample.h"

#include <math.h>

struct sample {
    const struct sample_args *args;
    float *value, *logits;
    int32_t *tokens;
    uint32_t *seen; /* or NULL */
    const int32_t *streams, *steps;
    int64_t v;
    struct cpu_scratch scratch; /* of each thread: [n_real] */
};

/* One row at work. */
struct row {
    float *z, *weights; /* weights: exp(z - largest), or 1 to count */
    uint32_t least;     /* key of the smallest that is kept so far */
};

static double weight_from(const struct row *row, int64_t n, uint32_t key)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += sample_key(row->z[i]) >= key ? (double)row->weights[i] : 0;
    return sum;
}

/* The largest key from which on there is more than `least` weight; 0: there is none. */
static uint32_t find_key(const struct row *row, int64_t n, double least)
{
    uint32_t key = 0;

    for (int bit = 31; bit >= 0; bit--)
        if (weight_from(row, n, key | 1U << bit) > least)
            key |= 1U << bit;
    return key;
}

static void filter(const struct sample_args *args, struct row *row, float largest)
{
    int64_t n = args->n_real;

    if (args->top_k > 0 && args->top_k < n) {
        for (int64_t i = 0; i < n; i++)
            row->weights[i] = 1;
        row->least = find_key(row, n, (double)args->top_k - 0.5);
    }
    if (args->top_p < 1) {
        uint32_t key;

        for (int64_t i = 0; i < n; i++)
            row->weights[i] = expf(row->z[i] - largest);
        key = find_key(row, n, (double)args->top_p * weight_from(row, n, row->least));
        row->least = key > row->least ? key : row->least;
    }
}

static int32_t draw(const struct sample_args *args, const struct row *row, int32_t stream,
                    int32_t step)
{
    float best = -INFINITY;
    int32_t at = 0;

    for (int64_t i = 0; i < args->n_real; i++) {
        float x = row->z[i];

        if (sample_key(x) < row->least)
            continue;
        if (args->temperature > 0)
            x += sample_noise(args, i, stream, step);
        if (x > best) {
            best = x;
            at = (int32_t)i;
        }
    }
    return at;
}

static void sample_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct sample *s = context;
    int64_t n_words = sample_words(s->args->n_real);

    for (int64_t n = first; n < last; n++) {
        struct row row = {s->logits + n * s->v,
                          s->scratch.each + thread * s->scratch.stride, 0};
        uint32_t *words = s->seen ? s->seen + n * n_words : NULL;
        int32_t at = 0;

        s->value[n] = sample_row(s->args, row.z, words, s->steps[n]);
        if (isfinite(s->value[n])) {
            if (s->args->temperature > 0)
                filter(s->args, &row, s->value[n]);
            at = draw(s->args, &row, s->streams[n], s->steps[n]);
        }
        if (words)
            words[at / 32] |= 1U << (at % 32);
        s->tokens[n] = at;
    }
}

int cpu_sample(struct backend *b, struct tensor *value, struct tensor *tokens,
               struct tensor *logits, struct tensor *seen, const struct tensor *streams,
               const struct tensor *steps, const struct sample_args *args,
               struct err *err)
{
    struct tensor rows = tensor_flat(logits);
    struct sample s = {.args = args,
                       .value = value->data,
                       .logits = logits->data,
                       .tokens = tokens->data,
                       .seen = seen->data,
                       .streams = streams->data,
                       .steps = steps->data,
                       .v = rows.dims[1]};
    struct cpu *cpu = cpu_of(b);

    if (cpu_scratch(cpu, 0, args->n_real, &s.scratch, err) < 0)
        return -1;
    cpu_parallel(cpu, rows.dims[0], 1, sample_rows, &s);
    return 0;
}
