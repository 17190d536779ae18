/* An evaluation: a trained model answers the questions of a prepared dataset.
 *
 *     plan     how many questions there are
 *     work     answers [first, first + count) into a part file
 *     finish   parts into results.jsonl, the table by category, examples with frames
 *
 * The model is the folder's own: a checkpoint's spec comes with it, a Hugging Face folder
 * has its config.json, and frames are then as the prompts were prepared. Of the job's spec
 * counts how to compute, how many tokens to generate, and splice_single_frame.
 */
#include "common/base/clock.h"
#include "common/base/json_file.h"
#include "common/base/log.h"
#include "common/base/stage.h"
#include "dataprep/prepare/from_spec.h"
#include "dataprep/text/tokenizer.h"
#include "model/generate/generate.h"
#include "worker/rank/answer.h"
#include "worker/rank/checkpoints.h"
#include "worker/rank/engine.h"
#include "worker/rank/examples.h"
#include "worker/rank/loader.h"
#include "worker/rank/pictures.h"
#include "worker/rank/results.h"
#include "worker/rank/sources.h"
#include "worker/rank/trained_on.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define EVALUATE_BATCHES_AHEAD 2
#define EVALUATE_REPORT_MS 500

struct evaluate {
    struct rank *rank;
    const struct spec *spec;
    char checkpoint[FS_PATH_MAX]; /* or a folder of weights */
    struct spec *model_spec;      /* of the run that wrote the checkpoint, or NULL */
    struct sources sources;       /* what the folder says by itself; may be empty */
    int64_t data_vocab;           /* of the run's data; -1: not known */
    struct neva_config config;
    struct engine engine;
    bool has_model;
    struct feed feed;
    struct tokenizer *tokenizer;
    const struct dataset_info *info;
    int32_t *answers;                  /* [batch_size, tokens_to_generate] */
    int64_t *answer_lens;              /* [batch_size] */
    int32_t *streams;                  /* [batch_size]: numbers of the questions */
    const struct msg_task_start *task; /* the present one */
    int64_t reported_ms;
};

static void evaluate_close(void *state)
{
    struct evaluate *evaluate = state;

    if (!evaluate)
        return;
    tokenizer_close(evaluate->tokenizer);
    feed_close(&evaluate->feed);
    engine_close(&evaluate->engine);
    sources_close(&evaluate->sources);
    spec_free(evaluate->model_spec);
    free(evaluate->answers);
    free(evaluate->answer_lens);
    free(evaluate->streams);
    free(evaluate);
}

/* ---- open ---- */

/* The spec of the run, when the folder has one. */
static int evaluate_read_meta(struct evaluate *evaluate, struct err *err)
{
    struct json *meta = NULL;
    struct buf text = BUF_INIT;
    int rc = 0;

    if (checkpoint_read_meta(&meta, evaluate->checkpoint, err) < 0)
        return -1;
    evaluate->data_vocab = json_get_int(meta, "vocab", -1);
    if (json_get(meta, "spec")) {
        json_write(&text, json_get(meta, "spec"), 0);
        rc = buf_check(&text, err);
        if (rc == 0)
            rc = spec_from_json(&evaluate->model_spec, buf_str(&text), text.n_bytes, err);
        if (rc < 0)
            err_wrap(err, "cannot read the spec in '%s'", evaluate->checkpoint);
    }
    buf_fini(&text);
    json_free(meta);
    return rc;
}

static bool has_file(const char *folder, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_path(path, NULL, "%s/%s", folder, name) == 0 && fs_exists(path);
}

/* A checkpoint, the newest of a run, or a Hugging Face folder. */
static int evaluate_open_folder(struct evaluate *evaluate, struct err *err)
{
    const char *file = evaluate->spec->evaluate.neva_model_file;
    int rc;

    if (!file)
        return err_set(err, ERR_INVALID, "neva_model_file is not set");
    if (!has_file(file, "checkpoint.json") && has_file(file, "config.json"))
        rc = fs_path(evaluate->checkpoint, err, "%s", file);
    else
        rc = checkpoints_find_once(evaluate->checkpoint, evaluate->rank->start->folder,
                                   file, err);
    if (rc < 0)
        return err_wrap(err, "neva_model_file");
    evaluate->data_vocab = -1;
    if (has_file(evaluate->checkpoint, "checkpoint.json") &&
        evaluate_read_meta(evaluate, err) < 0)
        return -1;
    if (!has_file(evaluate->checkpoint, "config.json"))
        return 0;
    return sources_add(&evaluate->sources, "neva_model_file", evaluate->checkpoint,
                       WEIGHTS_ALL, err);
}

/* ---- configuration ---- */

/* As the run asked for frames, or as the prompts were prepared. */
static int evaluate_frames(struct evaluate *evaluate, const struct neva_config *config,
                           struct err *err)
{
    struct frame_config *frames = &evaluate->engine.frames;
    const struct dataset_info *info = evaluate->info;

    if (evaluate->model_spec) {
        if (config_frames(frames, evaluate->model_spec, config, err) < 0)
            return -1;
    } else {
        *frames = (struct frame_config){.num_frames = info->num_frames,
                                        .splice = info->splice,
                                        .image_size = config->vision.image_size,
                                        .frame_tokens = neva_features(config),
                                        .max_tokens = config->max_tokens};
        if (pictures_read(frames, evaluate->checkpoint, config, err) < 0)
            return -1;
        frames->aspect = info->aspect; /* the questions' own */
    }
    return splice_from_spec(&frames->splice, evaluate->spec->data.splice_single_frame,
                            err);
}

static int find_config(const struct evaluate *evaluate, struct neva_config *config,
                       struct err *err)
{
    const struct sources *sources = &evaluate->sources;

    if (evaluate->model_spec) {
        if (config_model(config, evaluate->model_spec,
                         sources_vocab(sources, sources->n ? 0 : evaluate->data_vocab),
                         err) < 0)
            return -1;
        return sources_config(sources, evaluate->model_spec, config, err);
    }
    if (!sources->n)
        return err_set(err, ERR_FORMAT, "'%s' says nothing of its model",
                       evaluate->checkpoint);
    *config = weights_info(sources->list[0].weights)->config;
    return config_dtype(&config->dtype, evaluate->spec, err);
}

static int evaluate_config(const struct evaluate *evaluate, struct neva_config *config,
                           struct err *err)
{
    if (find_config(evaluate, config, err) < 0)
        return -1;
    config->vision.freeze = config->llm.freeze = true; /* no masters, no gradients */
    return 0;
}

/* The tokens of the prompts must be those the model learnt. */
static int evaluate_check_vocab(const struct evaluate *evaluate, int64_t vocab,
                                struct err *err)
{
    int64_t has = evaluate->info->vocab;

    if (evaluate->data_vocab >= 0 ? has == evaluate->data_vocab : has <= vocab)
        return 0;
    return err_set(err, ERR_INVALID,
                   "prompt_file '%s' was prepared with another tokenizer than the "
                   "model's data (vocabulary %" PRId64 " against %" PRId64 ")",
                   evaluate->spec->evaluate.prompt_file, has,
                   evaluate->data_vocab >= 0 ? evaluate->data_vocab : vocab);
}

static int evaluate_open_data(struct evaluate *evaluate, struct err *err)
{
    char *folder = evaluate->spec->evaluate.prompt_file;
    char tokenizer[FS_PATH_MAX];

    if (!folder)
        return err_set(err, ERR_INVALID, "prompt_file is not set");
    if (corpus_open(&evaluate->feed.corpus, (const char *const *)&folder, 1, err) < 0)
        return err_wrap(err, "prompt_file");
    evaluate->info = corpus_info(evaluate->feed.corpus);
    if (evaluate_config(evaluate, &evaluate->config, err) < 0 ||
        evaluate_check_vocab(evaluate, evaluate->config.llm.vocab, err) < 0 ||
        evaluate_frames(evaluate, &evaluate->config, err) < 0)
        return -1;
    if (fs_path(tokenizer, err, "%s/%s", folder, evaluate->info->tokenizer) < 0)
        return -1;
    return tokenizer_open(&evaluate->tokenizer, tokenizer, evaluate->info->extra_tokens,
                          evaluate->info->n_extra_tokens, err);
}

static int evaluate_open(void **state, struct rank *rank, struct err *err)
{
    struct evaluate *evaluate = calloc(1, sizeof(*evaluate));
    int64_t batch_size = rank->spec->evaluate.batch_size;
    int64_t n_tokens = rank->spec->evaluate.tokens_to_generate;

    if (!evaluate)
        return err_set(err, ERR_NOMEM, "cannot allocate an evaluation");
    *state = evaluate;
    evaluate->rank = evaluate->engine.rank = rank;
    evaluate->spec = rank->spec;
    if (batch_size < 1 || n_tokens < 1 || batch_size > INT32_MAX || n_tokens > INT32_MAX)
        return err_set(err, ERR_INVALID,
                       "inference.batch_size and inference.tokens_to_generate must be 1 "
                       "or more");
    evaluate->answers =
        calloc((size_t)batch_size * (size_t)n_tokens, sizeof(*evaluate->answers));
    evaluate->answer_lens = calloc((size_t)batch_size, sizeof(*evaluate->answer_lens));
    evaluate->streams = calloc((size_t)batch_size, sizeof(*evaluate->streams));
    if (!evaluate->answers || !evaluate->answer_lens || !evaluate->streams)
        return err_set(err, ERR_NOMEM, "cannot allocate an evaluation");
    if (evaluate_open_folder(evaluate, err) < 0)
        return -1;
    return evaluate_open_data(evaluate, err);
}

/* Behind the backend, which says whether there is a GPU for decoders; a finish has none. */
static int evaluate_need_decoders(struct evaluate *evaluate, struct err *err)
{
    char *folder = evaluate->spec->evaluate.prompt_file;
    const struct spec_list folders = {&folder, 1};
    int64_t n_batches = EVALUATE_BATCHES_AHEAD + 1;

    if (evaluate->feed.pool)
        return 0;
    if (feed_open(&evaluate->feed, &evaluate->engine, &folders,
                  n_batches * evaluate->spec->evaluate.batch_size, err) < 0)
        return err_wrap(err, "prompt_file");
    return 0;
}

/* Weights are read when the first questions come; plan and finish do without. */
static int evaluate_need_model(struct evaluate *evaluate, struct err *err)
{
    int rc;

    if (evaluate->has_model)
        return 0;
    if (pump_progress(evaluate->rank->pump, "loading", -1, 0, evaluate->task->count, NULL,
                      err) < 0 ||
        engine_open(&evaluate->engine, evaluate->rank, &evaluate->config, err) < 0 ||
        evaluate_need_decoders(evaluate, err) < 0)
        return -1;
    rc = evaluate->sources.n
             ? sources_load(&evaluate->sources, evaluate->engine.model, err)
             : checkpoint_load(evaluate->engine.model, evaluate->checkpoint, false, err);
    if (rc < 0)
        return -1;
    sources_close(&evaluate->sources);
    evaluate->has_model = true;
    log_info("model of '%s'", evaluate->checkpoint);
    return 0;
}

/* ---- answers ---- */

static int evaluate_generate(struct evaluate *evaluate, const struct batch *batch,
                             const struct generate_args *args, struct err *err)
{
    struct stage_mark before = stage_begin("generate", NULL, STAGE_LIMITED);
    int rc = generate_tokens(evaluate->engine.model, batch_get(batch), args,
                             evaluate->answers, evaluate->answer_lens, err);

    stage_end(before);
    return rc;
}

/* Every rank has the same tokens, and so ends the row at the same one. */
static int evaluate_token(void *state, int64_t row, int32_t token, struct err *err)
{
    struct evaluate *evaluate = state;
    int64_t n_each = evaluate->spec->evaluate.tokens_to_generate;
    bool has_ended;

    (void)token; /* the row has it */
    if (answer_has_ended(&has_ended, evaluate->tokenizer,
                         evaluate->answers + row * n_each, evaluate->answer_lens[row],
                         &evaluate->spec->evaluate.end_strings, err) < 0)
        return -1;
    return has_ended;
}

/* NeMo's greedy answers know no penalty. A question draws the same whatever stands beside it. */
static struct generate_draw evaluate_draw(const struct evaluate *evaluate)
{
    const struct spec *spec = evaluate->spec;
    bool is_greedy = spec->evaluate.greedy;

    return (struct generate_draw){
        .temperature = is_greedy ? 0 : (float)spec->evaluate.temperature,
        .top_k = spec->evaluate.top_k,
        .top_p = (float)spec->evaluate.top_p,
        .repetition_penalty = is_greedy ? 1 : (float)spec->evaluate.repetition_penalty,
        .min_new_tokens = spec->evaluate.min_tokens_to_generate,
        .seed = (uint64_t)spec->evaluate.seed,
        .streams = evaluate->streams,
    };
}

static int evaluate_batch(struct evaluate *evaluate, const struct batch *batch,
                          struct buf *lines, struct err *err)
{
    const struct generate_draw draw = evaluate_draw(evaluate);
    bool is_drawn = !evaluate->spec->evaluate.greedy || draw.min_new_tokens > 0;
    struct generate_args args = {
        .max_new_tokens = evaluate->spec->evaluate.tokens_to_generate,
        .end_token = (int32_t)evaluate->info->end_token,
        .draw = is_drawn ? &draw : NULL,
    };

    if (evaluate->spec->evaluate.end_strings.count > 0) {
        args.on_token = evaluate_token;
        args.state = evaluate;
    }

    for (int64_t i = 0; i < batch_get(batch)->n_samples; i++)
        evaluate->streams[i] = (int32_t)batch_sample(batch, i)->number;
    if (evaluate_generate(evaluate, batch, &args, err) < 0)
        return -1;
    for (int64_t i = 0; i < batch_get(batch)->n_samples; i++)
        if (answer_add(lines, evaluate->tokenizer, batch_sample(batch, i),
                       evaluate->answers + i * args.max_new_tokens,
                       evaluate->answer_lens[i], &evaluate->spec->evaluate.end_strings,
                       err) < 0)
            return -1;
    return 0;
}

static int64_t evaluate_numbers(void *state, int64_t k, int64_t *out)
{
    const struct evaluate *evaluate = state;
    int64_t batch_size = evaluate->spec->evaluate.batch_size;
    int64_t first = evaluate->task->first + k * batch_size, n = 0;

    while (n < batch_size && first + n < evaluate->task->first + evaluate->task->count) {
        out[n] = first + n;
        n++;
    }
    return n;
}

/* 1: on, 0: asked to stop. Alone the rank stops at once; of several each would stop at
 * another place, so they finish their lease. */
static int evaluate_report(struct evaluate *evaluate, int64_t done, struct err *err)
{
    struct pump *pump = evaluate->rank->pump;
    int64_t now_ms = clock_mono_ms(), total = evaluate->task->count;

    if (pump_poll(pump, err) < 0)
        return -1;
    if (pump_is_stopping(pump) && evaluate->rank->layout.n_ranks == 1)
        return 0;
    if (now_ms - evaluate->reported_ms < EVALUATE_REPORT_MS && done < total)
        return 1;
    evaluate->reported_ms = now_ms;
    return pump_progress(pump, "answering", -1, done, total, NULL, err) < 0 ? -1 : 1;
}

static int evaluate_answer(struct evaluate *evaluate, struct buf *lines, struct err *err)
{
    struct loader_config config = {
        .source = {.corpus = evaluate->feed.corpus,
                   .frames = &evaluate->engine.frames,
                   .service = &evaluate->feed.service,
                   .model = evaluate->engine.model,
                   .is_prompt = true},
        .capacity = evaluate->spec->evaluate.batch_size,
        .n_ahead = EVALUATE_BATCHES_AHEAD,
        .state = evaluate,
        .numbers = evaluate_numbers,
    };
    struct loader *loader = NULL;
    const struct batch *batch;
    int64_t done = 0;
    int rc = loader_create(&loader, &config, err);

    while (rc >= 0 && (rc = loader_next(loader, &batch, err)) > 0) {
        if (evaluate_batch(evaluate, batch, lines, err) < 0) {
            rc = -1;
            break;
        }
        done += batch_get(batch)->n_samples;
        rc = evaluate_report(evaluate, done, err);
        if (rc <= 0)
            break;
    }
    loader_destroy(loader);
    if (rc < 0)
        return -1;
    return done == evaluate->task->count;
}

static int evaluate_work(struct evaluate *evaluate, struct buf *result, struct err *err)
{
    const struct msg_task_start *task = evaluate->task;
    struct buf lines = BUF_INIT;
    int rc = evaluate_need_model(evaluate, err);

    if (rc == 0)
        rc = evaluate_answer(evaluate, &lines, err);
    if (rc > 0 && evaluate->rank->layout.rank == 0 &&
        results_write_part(evaluate->rank->start->folder, task->first, &lines, err) < 0)
        rc = -1;
    if (rc > 0)
        buf_printf(result, "{\"n_samples\":%" PRId64 "}", task->count);
    buf_fini(&lines);
    return rc;
}

/* ---- finish ---- */

static int evaluate_save_table(const struct evaluate *evaluate, const struct json *table,
                               struct buf *result, struct err *err)
{
    if (json_file_write(evaluate->rank->start->folder, "table.json", table, err) < 0)
        return -1;
    json_write(result, table, 0);
    return 0;
}

static int evaluate_finish(struct evaluate *evaluate, struct buf *result, struct err *err)
{
    struct batch_source source = {.corpus = evaluate->feed.corpus,
                                  .frames = &evaluate->engine.frames,
                                  .service = &evaluate->feed.service,
                                  .is_prompt = true};
    const char *folder = evaluate->rank->start->folder;
    const char *wanted = evaluate->spec->evaluate.output_file;
    struct json *table = NULL, *results = NULL;
    char output[FS_PATH_MAX];
    int rc = -1;

    if (evaluate_need_decoders(evaluate, err) == 0 &&
        fs_path(output, err, "%s%s", wanted ? wanted : folder,
                wanted ? "" : "/results.jsonl") == 0 &&
        results_merge(folder, corpus_n_samples(evaluate->feed.corpus), output, &table,
                      &results, err) == 0 &&
        (!evaluate->model_spec ||
         trained_on_note(table, evaluate->spec->evaluate.prompt_file,
                         &evaluate->model_spec->data.data_path, err) == 0) &&
        examples_write(folder, &source, results, evaluate->spec->evaluate.n_examples,
                       err) == 0 &&
        evaluate_save_table(evaluate, table, result, err) == 0)
        rc = 1;
    json_free(table);
    json_free(results);
    return rc;
}

static int evaluate_run(void *state, const struct msg_task_start *task,
                        struct buf *result, struct err *err)
{
    struct evaluate *evaluate = state;

    evaluate->task = task;
    if (strcmp(task->phase, "work") == 0)
        return evaluate_work(evaluate, result, err);
    if (evaluate->rank->layout.rank != 0)
        return 1; /* rank 0 answers for all */
    if (strcmp(task->phase, "finish") == 0)
        return evaluate_finish(evaluate, result, err);
    buf_printf(result, "{\"n_samples\":%" PRId64 "}",
               corpus_n_samples(evaluate->feed.corpus));
    return 1;
}

const struct rank_kind rank_kind_evaluate = {
    .open = evaluate_open,
    .run = evaluate_run,
    .close = evaluate_close,
};
