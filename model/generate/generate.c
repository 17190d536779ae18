#include "model/generate/generate.h"

#include "common/base/hash.h"
#include "model/neva/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One call's state. The first pass reads the whole prompts, each later one a token a row:
 * its key and value go to the row's next place in the cache. All that changes from token to
 * token lies in tables, so that these passes can be replayed. */
struct run {
    struct neva *model;
    int64_t n_rows, n_prompt, capacity; /* B, T, tokens the cache holds of a row */
    int32_t end_token;
    struct arena arena;
    struct block_cache *caches;   /* one a layer */
    int32_t *host;                /* of the tables, in their order */
    struct tensor block;          /* the tables in the backend's memory, I32 */
    struct neva_table kv_lens;    /* [B]: tokens of each row so far */
    struct neva_table head_rows;  /* [B]: rows of the pass whose next token is wanted */
    struct neva_table streams;    /* [B]: see generate_draw */
    struct neva_table steps;      /* [B]: tokens of each row's answer so far */
    struct neva_table cache_rows; /* [B*T]: where the pass's keys go */
    struct tensor value, index;   /* F32 [B], I32 [B]: this rank's best after a pass */
    float *values;                /* [B]: the same on the host... */
    int32_t *next;                /* [B]: ...and the token each row got last */
    bool *has_ended;              /* [B] */
    const struct generate_draw *asked; /* NULL: greedy, and draw is not used */
    struct head_draw draw;
};

#define TABLES 4 /* of [B] */

int generate_check_draw(const struct generate_draw *draw, struct err *err)
{
    if (!(draw->temperature >= 0) || !isfinite(draw->temperature))
        return err_set(err, ERR_INVALID, "inference.temperature is %g: 0 or more",
                       (double)draw->temperature);
    if (!(draw->top_p > 0 && draw->top_p <= 1))
        return err_set(err, ERR_INVALID, "inference.top_p is %g: above 0, at most 1",
                       (double)draw->top_p);
    if (draw->top_k < 0)
        return err_set(err, ERR_INVALID, "inference.top_k is %lld: 0 (all) or more",
                       (long long)draw->top_k);
    if (!(draw->repetition_penalty > 0) || !isfinite(draw->repetition_penalty))
        return err_set(err, ERR_INVALID,
                       "inference.repetition_penalty is %g: above 0, and 1 is none",
                       (double)draw->repetition_penalty);
    if (draw->min_new_tokens < 0 || draw->min_new_tokens > INT32_MAX)
        return err_set(err, ERR_INVALID,
                       "inference.min_tokens_to_generate is %lld: 0 to %d",
                       (long long)draw->min_new_tokens, INT32_MAX);
    return 0;
}

static int check(const struct neva *model, const struct neva_batch *batch,
                 const struct generate_args *args, struct err *err)
{
    int64_t longest = 0; /* rows end at their length; what pads them takes no place */

    if (args->max_new_tokens < 1)
        return err_set(err, ERR_INVALID,
                       "inference.tokens_to_generate is %lld: it must be 1 or more",
                       (long long)args->max_new_tokens);
    if (batch->n_samples < 1 || batch->n_tokens < 1)
        return err_set(err, ERR_INVALID, "%lld prompts of %lld tokens",
                       (long long)batch->n_samples, (long long)batch->n_tokens);
    for (int64_t b = 0; b < batch->n_samples; b++)
        if (batch->lens[b] > longest)
            longest = batch->lens[b];
    if (longest + args->max_new_tokens > model->config.max_tokens)
        return err_set(err, ERR_LIMIT,
                       "a prompt of %lld tokens and %lld new ones are more than "
                       "model.encoder_seq_length %lld: lower "
                       "inference.tokens_to_generate",
                       (long long)longest, (long long)args->max_new_tokens,
                       (long long)model->config.max_tokens);
    return args->draw ? generate_check_draw(args->draw, err) : 0;
}

static void tables_layout(struct run *run)
{
    int64_t n = run->n_rows, at = 0;
    const struct {
        struct neva_table *table;
        int64_t n;
    } all[] = {{&run->kv_lens, n},
               {&run->head_rows, n},
               {&run->streams, n},
               {&run->steps, n},
               {&run->cache_rows, n * run->n_prompt}};

    run->block = arena_take_1d(&run->arena, DTYPE_I32, n * (TABLES + run->n_prompt));
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); at += all[i++].n) {
        struct tensor part = tensor_rows(&run->block, at, all[i].n);

        *all[i].table = (struct neva_table){run->host + at, part};
    }
    /* behind each other: they are downloaded at once */
    run->value = arena_take_1d(&run->arena, DTYPE_F32, n);
    run->index = arena_take_joined(&run->arena, DTYPE_I32, 1, &n);
}

static void draw_layout(struct run *run)
{
    struct neva *model = run->model;
    int64_t n = run->n_rows, n_words = sample_words(model->config.llm.vocab);
    const struct generate_draw *asked = run->asked;

    if (!asked)
        return;
    run->draw =
        (struct head_draw){.args = {.n_real = model->config.llm.vocab,
                                    .temperature = asked->temperature,
                                    .top_k = asked->top_k,
                                    .top_p = asked->top_p,
                                    .repetition_penalty = asked->repetition_penalty,
                                    .end_token = run->end_token,
                                    .min_tokens = (int32_t)asked->min_new_tokens,
                                    .seed = asked->seed},
                           .streams = run->streams.there,
                           .steps = run->steps.there};
    if (asked->repetition_penalty != 1)
        run->draw.seen = arena_take_2d(&run->arena, DTYPE_I32, n, n_words);
    head_draw_layout(&run->draw, &model->llm_nn, &model->head, n, &run->arena);
}

static void cache_layout(struct run *run)
{
    const struct neva *model = run->model;
    const struct block_config *block = &model->llm.config;
    const int64_t dims[] = {run->n_rows, run->capacity,
                            block->n_kv_heads * block->head_size};

    for (int64_t i = 0; i < model->llm.n_layers; i++) {
        run->caches[i].k = arena_take(&run->arena, model->config.dtype, 3, dims);
        run->caches[i].v = arena_take(&run->arena, model->config.dtype, 3, dims);
        run->caches[i].rows = &run->cache_rows.there;
    }
    tables_layout(run);
    draw_layout(run);
}

/* For a pass of n_new tokens a row. */
static int tables_upload(struct run *run, int64_t n_new, struct err *err)
{
    size_t n = (size_t)(run->n_rows * (TABLES + n_new));

    return run->model->backend->ops->upload(run->model->backend, run->block.data,
                                            run->host, n * sizeof(*run->host), err);
}

static int run_init(struct run *run, struct err *err)
{
    size_t n = (size_t)run->n_rows, n_layers = (size_t)run->model->llm.n_layers;
    size_t n_cache_bytes;

    run->caches = calloc(n_layers, sizeof(*run->caches));
    run->host = calloc(n * (TABLES + (size_t)run->n_prompt), sizeof(int32_t));
    run->values = calloc(2 * n, sizeof(float));
    run->has_ended = calloc(n, sizeof(*run->has_ended));
    if (!run->caches || !run->host || !run->values || !run->has_ended) {
        err_set(err, ERR_NOMEM, "cannot allocate tables for %zu prompts", n);
        return -1;
    }
    run->next = (int32_t *)(run->values + n);
    cache_layout(run);
    n_cache_bytes = run->arena.peak;
    if (arena_reserve(&run->arena, run->model->backend, n_cache_bytes, err) < 0)
        return err_wrap(err, "key-value cache of %zu bytes", n_cache_bytes);
    cache_layout(run);
    return 0;
}

static void run_fini(struct run *run)
{
    arena_fini(&run->arena);
    free(run->caches);
    free(run->host);
    free(run->values);
    free(run->has_ended);
    run->model->shape = (struct neva_shape){0}; /* its positions were changed */
}

/* ---- passes ---- */

/* True where the tokens need not go through the host to be the next pass's input: of greedy
 * ones each rank has its own until the hosts have compared them. */
static bool feeds_itself(const struct run *run)
{
    return run->asked || comm_size(run->model->group) == 1;
}

/* The tokens behind the last pass, for read_begin. */
static int pick(struct run *run, struct err *err)
{
    struct neva *model = run->model;

    if (run->asked)
        return head_draw_ask(&model->llm_nn, &model->head, &model->head_scratch,
                             &model->llm.x[model->llm.n_layers], &run->head_rows.there,
                             &run->draw, &run->value, &run->index, err);
    return head_greedy_ask(&model->llm_nn, &model->head, &model->head_scratch,
                           &model->llm.x[model->llm.n_layers], &run->head_rows.there,
                           &run->value, &run->index, err);
}

/* The bits of the prompts' tokens; media have none. */
static int mark_prompts(struct run *run, const struct neva_batch *batch, struct err *err)
{
    struct backend *b = run->model->backend;
    int64_t n_words = sample_words(run->model->config.llm.vocab);
    uint32_t *words;
    int rc;

    if (!run->draw.seen.data)
        return 0;
    words = calloc((size_t)(run->n_rows * n_words), sizeof(*words));
    if (!words)
        return err_set(err, ERR_NOMEM, "cannot allocate marks of %lld prompts",
                       (long long)run->n_rows);
    for (int64_t n = 0; n < run->n_rows; n++)
        for (int64_t t = 0; t < batch->lens[n]; t++) {
            int32_t token = batch->tokens[n * run->n_prompt + t];

            if (token >= 0)
                words[n * n_words + token / 32] |= 1U << (token % 32);
        }
    rc =
        b->ops->upload(b, run->draw.seen.data, words, tensor_bytes(&run->draw.seen), err);
    free(words);
    return rc;
}

/* The prompts, all at once. */
static int first_pass(struct run *run, const struct neva_batch *batch, struct err *err)
{
    const struct neva_shape shape = {run->n_rows, run->n_prompt, batch->n_frames, false};
    struct neva *model = run->model;

    if (neva_prepare(model, &shape, err) < 0 ||
        neva_index_fill(model, batch, false, err) < 0)
        return -1;
    for (int64_t b = 0; b < run->n_rows; b++) {
        for (int64_t t = 0; t < run->n_prompt; t++)
            run->cache_rows.host[b * run->n_prompt + t] =
                (int32_t)(b * run->capacity + t);
        run->streams.host[b] = run->asked ? run->asked->streams[b] : 0;
        run->kv_lens.host[b] = batch->lens[b];
        run->head_rows.host[b] = (int32_t)(b * run->n_prompt + batch->lens[b] - 1);
    }
    if (tables_upload(run, run->n_prompt, err) < 0 || mark_prompts(run, batch, err) < 0 ||
        neva_forward(model, batch, run->caches, err) < 0)
        return -1;
    return pick(run, err);
}

static int decode(void *context, struct err *err)
{
    struct run *run = context;
    struct backend *b = run->model->backend;

    if (feeds_itself(run) &&
        b->ops->copy(b, run->model->index.ids.there.data, run->index.data,
                     tensor_bytes(&run->index), err) < 0)
        return -1;
    if (neva_forward(run->model, &(const struct neva_batch){0}, run->caches, err) < 0)
        return -1;
    return pick(run, err);
}

/* What fixes the pass beside shape and memory. */
static uint64_t replay_part(const struct run *run)
{
    const struct sample_args *args = &run->draw.args;

    return hash64(args, SAMPLE_ARGS_BYTES, (uint64_t)run->capacity);
}

/* One token a row: those of the last pass, or, where they go through the host, run->next. */
static int next_pass(struct run *run, struct err *err)
{
    const struct neva_shape shape = {run->n_rows, 1, 0, false};
    struct neva *model = run->model;
    struct neva_index *index = &model->index;

    if (neva_prepare(model, &shape, err) < 0)
        return -1;
    for (int64_t b = 0; b < run->n_rows; b++) {
        index->ids.host[b] = run->next[b];
        index->positions.host[b] = run->kv_lens.host[b];
        run->cache_rows.host[b] = (int32_t)(b * run->capacity + run->kv_lens.host[b]);
        run->head_rows.host[b] = (int32_t)b;
        run->kv_lens.host[b]++;
        run->steps.host[b]++;
    }
    run->cache_rows.there.dims[0] = run->n_rows;
    for (int64_t i = 0; i < model->llm.n_layers; i++)
        run->caches[i].kv_lens = &run->kv_lens.there;
    if (neva_index_upload(model, true, err) < 0 || tables_upload(run, 1, err) < 0)
        return -1;
    return neva_replay(model, "next token", replay_part(run), run->arena.base, decode,
                       run, err);
}

/* ---- tokens ---- */

/* What the last pass found, for read_end: a pass that is asked for between them goes on
 * meanwhile. */
static int read_begin(struct run *run, struct err *err)
{
    struct backend *b = run->model->backend;

    return b->ops->download_begin(b, run->values, run->value.data,
                                  tensor_bytes(&run->value) + tensor_bytes(&run->index),
                                  err);
}

static int read_end(struct run *run, struct err *err)
{
    struct neva *model = run->model;
    struct backend *b = model->backend;

    if (b->ops->download_end(b, err) < 0)
        return -1;
    if (run->asked)
        return head_draw_join(run->n_rows, run->values, err);
    return head_greedy_join(&model->llm_nn, &model->head, &model->head_scratch,
                            run->n_rows, run->values, run->next, err);
}

/* Takes every running row's new token; the number of rows that still run, or -1. */
static int64_t take_tokens(struct run *run, int64_t step,
                           const struct generate_args *args, int32_t *out,
                           int64_t *out_lens, struct err *err)
{
    int64_t n_running = 0;

    for (int64_t b = 0; b < run->n_rows; b++) {
        int rc = 0;

        run->has_ended[b] |= run->next[b] == run->end_token;
        if (run->has_ended[b])
            continue;
        out[b * args->max_new_tokens + step] = run->next[b];
        out_lens[b]++;
        if (args->on_token)
            rc = args->on_token(args->state, b, run->next[b], err);
        if (rc < 0)
            return -1;
        run->has_ended[b] = rc > 0;
        n_running += rc == 0;
    }
    return n_running;
}

/* Tokens until all rows have ended. A device computes the next ones while the host looks at
 * the last; when these were the last, nobody reads them. */
static int run_all(struct run *run, const struct generate_args *args, int32_t *out,
                   int64_t *out_lens, struct err *err)
{
    bool is_ahead = feeds_itself(run) && !run->model->backend->ops->is_host;

    for (int64_t step = 0;; step++) {
        bool is_last = step + 1 == args->max_new_tokens;
        int64_t n_running;

        if (read_begin(run, err) < 0 ||
            (is_ahead && !is_last && next_pass(run, err) < 0) || read_end(run, err) < 0)
            return -1;
        /* every rank has the same tokens, so all stop at the same step */
        n_running = take_tokens(run, step, args, out, out_lens, err);
        if (n_running < 0)
            return -1;
        if (n_running == 0 || is_last)
            return 0;
        if (!is_ahead && next_pass(run, err) < 0)
            return -1;
    }
}

int generate_tokens(struct neva *model, const struct neva_batch *batch,
                    const struct generate_args *args, int32_t *out, int64_t *out_lens,
                    struct err *err)
{
    struct run run = {.model = model,
                      .n_rows = batch->n_samples,
                      .n_prompt = batch->n_tokens,
                      .capacity = batch->n_tokens + args->max_new_tokens,
                      .end_token = args->end_token,
                      .asked = args->draw};
    int rc;

    if (check(model, batch, args, err) < 0)
        return -1;
    memset(out, 0, (size_t)(batch->n_samples * args->max_new_tokens) * sizeof(*out));
    memset(out_lens, 0, (size_t)batch->n_samples * sizeof(*out_lens));
    rc = run_init(&run, err);
    if (rc == 0)
        rc = first_pass(&run, batch, err);
    if (rc == 0)
        rc = run_all(&run, args, out, out_lens, err);
    run_fini(&run);
    return rc < 0 ? err_wrap(err, "generation") : 0;
}
