#define _GNU_SOURCE /* sched_getaffinity */
#include "worker/generate/session.h"

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "dataprep/text/tokenizer.h"
#include "model/generate/generate.h"
#include "model/weights/weights.h"
#include "worker/decode/pool.h"
#include "worker/generate/prompt.h"
#include "worker/generate/stream.h"
#include "worker/rank/answer.h"
#include "worker/rank/batch.h"
#include "worker/rank/pictures.h"
#include "worker/rank/results.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEW_TOKENS_DEFAULT 256
#define DECODE_PROCESSES_MAX 4
#define DECODE_SLOTS 8
#define DECODE_DEADLINE_MS 30000
#define DECODE_MEMORY_BYTES ((uint64_t)2 << 30) /* of one process */
#define DECODE_PIXELS_MAX ((int64_t)3840 * 2160 * 4)
#define GPU_DRIVER "/dev/nvidiactl" /* there where the driver of a GPU is loaded */

struct session {
    const struct options *options;
    struct model_folder folder;
    struct tokenizer *tokenizer;
    struct prompter prompter;
    char media_root[FS_PATH_MAX];
    int n_threads;
    struct backend *backend;
    struct comm *comm;
    struct neva *model;
    struct frame_config frames;
    struct dataset_info info; /* what batches ask of a dataset */
    struct decode_pool *pool;
    struct frame_service service;
    struct batch *batch;
    int64_t load_ns;
    int32_t n_asked; /* each question draws anew */
};

/* ---- open ---- */

static int n_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : CPU_COUNT(&set);
}

/* Records name media below the folder of their file, unless told otherwise. */
static int find_media_root(struct session *session, struct err *err)
{
    const char *file = session->options->questions;

    if (session->options->media_root)
        return fs_path(session->media_root, err, "%s", session->options->media_root);
    return fs_parent(session->media_root, file ? file : "", err);
}

static int open_encoder(struct session *session, struct err *err)
{
    struct model_folder *folder = &session->folder;
    struct guess *guess = &folder->guess;
    int rc = conv_encoder_init(&session->prompter.encoder,
                               conv_template_find(folder->template), session->tokenizer,
                               folder->use_im_start_end, err);

    if (rc == 0 || !guess->template || guess->is_written)
        return rc;
    err_clear(err);
    guess_plainest(guess);
    folder->template = guess->template;
    return conv_encoder_init(&session->prompter.encoder,
                             conv_template_find(folder->template), session->tokenizer,
                             folder->use_im_start_end, err);
}

static int open_words(struct session *session, struct err *err)
{
    const struct model_folder *folder = &session->folder;
    const struct options *options = session->options;

    if (find_media_root(session, err) < 0 ||
        tokenizer_open(&session->tokenizer, folder->tokenizer, folder->extra_tokens,
                       folder->n_extra_tokens, err) < 0)
        return -1;
    session->prompter = (struct prompter){
        .has_begin = folder->has_begin,
        .media_first = folder->media_first,
        .system = options->system,
        .media_root = session->media_root,
        .media = options->media,
        .n_media = options->n_media,
    };
    return open_encoder(session, err);
}

/* Whether the CPU is news: somebody asked, named a plugin, or has a GPU here. */
static bool is_cpu_news(const struct options *options)
{
    return options->is_verbose || getenv("VNEVA_CUDA_PLUGIN") || fs_exists(GPU_DRIVER);
}

/* As backend_create; `auto` says why it is not the GPU, where that matters. */
static int create_backend(struct session *session, const char *name, struct err *err)
{
    struct err why = {0};

    if (strcmp(name, "auto") != 0)
        return backend_create(&session->backend, name, 0, session->n_threads, err);
    if (backend_create_auto(&session->backend, 0, session->n_threads, &why, err) < 0)
        return -1;
    if (why.code && is_cpu_news(session->options))
        fprintf(stderr, "vneva generate: computing on the CPU: %s\n", why.text);
    return 0;
}

static int open_backend(struct session *session, struct neva_config *config,
                        struct err *err)
{
    const struct options *options = session->options;
    const char *name = options->backend ? options->backend : "auto";
    const char *precision = options->precision;

    session->n_threads = options->n_threads ? (int)options->n_threads : n_cpus();
    if (create_backend(session, name, err) < 0)
        return err_wrap(err, "--backend '%s'", name);
    if (!precision)
        precision = backend_is_fast(session->backend, DTYPE_BF16) ? "bf16" : "32";
    config->dtype = strcmp(precision, "bf16") == 0 ? DTYPE_BF16
                    : strcmp(precision, "16") == 0 ? DTYPE_F16
                                                   : DTYPE_F32;
    return comm_create_solo(&session->comm, "tensor", err);
}

static int check_parts(const struct session *session, const struct weights_info *info,
                       struct err *err)
{
    int64_t vocab = tokenizer_vocab(session->tokenizer);

    if (info->parts != WEIGHTS_ALL)
        return err_set(err, ERR_INVALID,
                       "'%s' (%s) is not a whole model: encoder, projector and decoder",
                       session->folder.path, info->architecture);
    if (vocab > info->config.llm.vocab)
        return err_set(err, ERR_INVALID,
                       "the tokenizer '%s' has %" PRId64
                       " tokens, the model knows %" PRId64 ": it is another model's",
                       session->folder.tokenizer, vocab, info->config.llm.vocab);
    return 0;
}

static int load_model(struct session *session, struct weights *weights, struct err *err)
{
    const struct weights_info *info = weights_info(weights);
    struct neva_config config = info->config;

    if (check_parts(session, info, err) < 0)
        return -1;
    config.vision.freeze = config.llm.freeze = true; /* no masters, no gradients */
    if (info->sliding_window > 0 && info->sliding_window < config.max_tokens)
        config.max_tokens = info->sliding_window;
    if (open_backend(session, &config, err) < 0 ||
        neva_create(&session->model, &config, session->backend, session->comm, err) < 0)
        return -1;
    return weights_load(session->model, weights, WEIGHTS_ALL, err);
}

static int open_model(struct session *session, struct err *err)
{
    struct weights *weights = NULL;
    int rc = weights_open(&weights, session->folder.path, err);

    if (rc == 0)
        rc = load_model(session, weights, err);
    weights_close(weights);
    return rc;
}

static int find_decode_program(char *out, struct err *err)
{
    char folder[FS_PATH_MAX];

    if (fs_program_folder(folder, err) < 0)
        return -1;
    return fs_path(out, err, "%s/vneva-decode", folder);
}

/* Processes are started when the first medium is asked for. */
static int need_pool(struct session *session, struct err *err)
{
    char program[FS_PATH_MAX];
    int64_t max_frames = config_request_frames(&session->frames);
    size_t frame_bytes =
        (size_t)(session->frames.image_size * session->frames.image_size * 3);
    struct decode_pool_config config = {
        .n_processes = session->n_threads < DECODE_PROCESSES_MAX ? session->n_threads
                                                                 : DECODE_PROCESSES_MAX,
        .n_slots = DECODE_SLOTS,
        .slot_bytes = (size_t)max_frames * frame_bytes,
        .deadline_ms = DECODE_DEADLINE_MS,
        .memory_bytes = DECODE_MEMORY_BYTES,
        .limits = {.max_pixels = DECODE_PIXELS_MAX, .max_frames = max_frames},
        .program = program,
    };

    if (session->pool)
        return 0;
    if (session->options->n_media > 0 && session->options->n_media < config.n_processes)
        config.n_processes = session->options->n_media;
    if (find_decode_program(program, err) < 0 ||
        decode_pool_create(&session->pool, &config, err) < 0)
        return -1;
    session->service = decode_pool_service(session->pool);
    return 0;
}

static int open_batch(struct session *session, struct err *err)
{
    const struct neva_config *config = neva_config(session->model);
    const struct batch_source source = {.frames = &session->frames,
                                        .service = &session->service,
                                        .model = session->model,
                                        .is_prompt = true};
    bool is_siglip = config->vision.encoder == NEVA_ENCODER_SIGLIP;

    session->frames = (struct frame_config){
        .num_frames = session->folder.num_frames,
        .splice = session->folder.splice,
        .aspect = session->folder.aspect,
        .processor = is_siglip ? MEDIA_PROCESSOR_SIGLIP : MEDIA_PROCESSOR_CLIP,
        .image_size = config->vision.image_size,
        .frame_tokens = neva_features(config),
        .max_tokens = config->max_tokens,
    };
    session->info = (struct dataset_info){.num_frames = -1};
    if (!session->folder.spec &&
        pictures_read(&session->frames, session->folder.path, config, err) < 0)
        return -1;
    if (media_check_processor(session->frames.processor, session->frames.aspect, err) < 0)
        return err_wrap(err, "'%s'", session->folder.path);
    return batch_create(&session->batch, &source, 1, err);
}

int session_open(struct session **out, const struct options *options, struct err *err)
{
    struct session *session = calloc(1, sizeof(*session));
    int64_t start_ns = clock_mono_ns();

    if (!session)
        return err_set(err, ERR_NOMEM, "cannot allocate a session");
    session->options = options;
    if (model_folder_open(&session->folder, options, err) < 0 ||
        open_words(session, err) < 0 || open_model(session, err) < 0 ||
        open_batch(session, err) < 0) {
        session_close(session);
        return -1;
    }
    session->load_ns = clock_mono_ns() - start_ns;
    *out = session;
    return 0;
}

void session_close(struct session *session)
{
    if (!session)
        return;
    batch_destroy(session->batch); /* returns its tickets to the pool */
    decode_pool_destroy(session->pool);
    neva_destroy(session->model);
    comm_destroy(session->comm);
    backend_destroy(session->backend);
    tokenizer_close(session->tokenizer);
    model_folder_close(&session->folder);
    free(session);
}

const struct model_folder *session_folder(const struct session *session)
{
    return &session->folder;
}

int session_describe(struct buf *out, const struct session *session, struct err *err)
{
    const struct neva_config *config = neva_config(session->model);

    buf_printf(out, "%.1fM parameters, %s on %s, %d threads, loaded in %.1f s",
               (double)neva_n_params(config) / 1e6, dtype_name(config->dtype),
               session->backend->ops->name, session->n_threads,
               (double)session->load_ns / 1e9);
    return buf_check(out, err);
}

/* ---- ask ---- */

/* With --num-frames -1 the decoders say how many frames there are before tokens are
 * counted. */
static int count_frames(struct session *session, struct dataset_media *media,
                        struct err *err)
{
    struct frame_request request;
    struct media_info info;
    const uint8_t *none;
    int64_t ticket;
    int rc;

    batch_media_request(&request, &session->frames, media);
    if (session->service.submit(session->service.state, &request, true, &ticket, err) < 0)
        return -1;
    rc = session->service.wait(session->service.state, ticket, &none, &info, err);
    session->service.release(session->service.state, ticket);
    if (rc < 0)
        return err_wrap(err, "'%s'", media->ref.path);
    media->n_frames = info.n_frames;
    return 0;
}

/* Tokens of the prompt with its media, refused here with what would mend it. */
static int check_length(const struct session *session,
                        const struct dataset_sample *sample, int64_t *max_new,
                        struct err *err)
{
    int64_t n_each = session->frames.frame_tokens, n_frames = 0, n_tokens, n;
    int64_t wanted = session->options->max_new_tokens;

    for (int64_t i = 0; i < sample->n_media; i++) {
        if (batch_media_frames(&n, &session->frames, &session->info, &sample->media[i],
                               err) < 0)
            return -1;
        n_frames += n;
    }
    n_tokens = sample->n_prompt - sample->n_media + n_frames * n_each;
    *max_new = wanted ? wanted : NEW_TOKENS_DEFAULT;
    if (!wanted && n_tokens + *max_new > session->frames.max_tokens)
        *max_new = session->frames.max_tokens - n_tokens;
    if (*max_new >= 1 && n_tokens + *max_new <= session->frames.max_tokens)
        return 0;
    return err_set(err, ERR_LIMIT,
                   "the question takes %" PRId64 " tokens (%" PRId64 " of %" PRId64
                   " frames) and %" PRId64 " are asked for, but the model has room for "
                   "%" PRId64 ": lower --num-frames or --max-new-tokens",
                   n_tokens, n_frames * n_each, n_frames, wanted ? wanted : 1,
                   session->frames.max_tokens);
}

static int plan(struct session *session, struct dataset_sample *sample, int64_t *max_new,
                struct err *err)
{
    if (sample->n_media > 0 && need_pool(session, err) < 0)
        return -1;
    for (int64_t i = 0; i < sample->n_media; i++)
        if (session->frames.num_frames == -1 &&
            count_frames(session, &sample->media[i], err) < 0)
            return -1;
    return check_length(session, sample, max_new, err);
}

/* What one answer takes along. */
struct asking {
    struct answer *answer;
    struct stream stream;
    int64_t start_ns;
};

static int on_token(void *state, int64_t row, int32_t token, struct err *err)
{
    struct asking *asking = state;

    (void)row; /* there is one */
    if (!asking->answer->tokens.n_bytes)
        asking->answer->first_ns = clock_mono_ns() - asking->start_ns;
    buf_add(&asking->answer->tokens, &token, sizeof(token));
    return asking->stream.file ? stream_add(&asking->stream, token, err) : 0;
}

/* Without --temperature, --top-k and --top-p still the most probable tokens. */
static struct generate_draw draw_of(const struct session *session)
{
    const struct options *options = session->options;

    return (struct generate_draw){
        .temperature = options->is_drawn ? (float)options->temperature : 0,
        .top_k = options->top_k,
        .top_p = (float)options->top_p,
        .repetition_penalty = (float)options->repetition_penalty,
        .min_new_tokens = options->min_new_tokens,
        .seed = (uint64_t)options->seed,
        .streams = &session->n_asked,
    };
}

static int generate(struct session *session, struct asking *asking, int64_t max_new,
                    struct err *err)
{
    const struct neva_batch *batch = batch_get(session->batch);
    const struct generate_draw draw = draw_of(session);
    bool is_greedy =
        draw.temperature <= 0 && draw.repetition_penalty == 1 && draw.min_new_tokens == 0;
    struct generate_args args = {.max_new_tokens = max_new,
                                 .end_token = session->prompter.encoder.stop,
                                 .on_token = on_token,
                                 .state = asking,
                                 .draw = is_greedy ? NULL : &draw};
    int32_t *tokens = calloc((size_t)max_new, sizeof(*tokens));
    int64_t n;
    int rc;

    if (!tokens)
        return err_set(err, ERR_NOMEM, "cannot allocate an answer of %" PRId64 " tokens",
                       max_new);
    asking->start_ns = clock_mono_ns();
    buf_add(&asking->answer->prompt, batch->tokens,
            (size_t)batch->lens[0] * sizeof(*batch->tokens));
    asking->answer->n_frames = batch->n_frames;
    rc = generate_tokens(session->model, batch, &args, tokens, &n, err);
    if (rc == 0 && asking->stream.file)
        rc = stream_end(&asking->stream, err);
    asking->answer->rest_ns =
        clock_mono_ns() - asking->start_ns - asking->answer->first_ns;
    free(tokens);
    return rc;
}

static int take_texts(const struct session *session, struct answer *answer,
                      const struct dataset_sample *sample, struct err *err)
{
    const int32_t *tokens = (const int32_t *)(const void *)answer->tokens.data;
    struct buf raw = BUF_INIT;
    int rc = buf_check(&answer->tokens, err);

    if (rc == 0)
        rc = answer_texts(&raw, &answer->full, session->tokenizer, sample, tokens,
                          (int64_t)(answer->tokens.n_bytes / sizeof(*tokens)), err);
    if (rc == 0) {
        buf_add_str(&answer->text, results_trim(raw.data));
        rc = buf_check(&answer->text, err);
    }
    buf_fini(&raw);
    return rc;
}

int session_ask(struct session *session, struct answer *out, const struct json *record,
                FILE *file, struct err *err)
{
    struct asking asking = {out, {session->tokenizer, file, BUF_INIT, 0}, 0};
    struct dataset_sample *sample;
    int64_t max_new, start_ns;
    int rc;

    *out = (struct answer){.text = BUF_INIT};
    if (prompt_sample(&sample, &session->prompter, record, err) < 0)
        return -1;
    if (plan(session, sample, &max_new, err) < 0) {
        dataset_sample_free(sample);
        return -1;
    }
    start_ns = clock_mono_ns();
    rc = batch_plan_one(session->batch, sample, &session->info, err);
    if (rc == 0)
        rc = batch_finish(session->batch, err);
    out->frames_ns = clock_mono_ns() - start_ns;
    if (rc == 0)
        rc = generate(session, &asking, max_new, err);
    session->n_asked++;
    if (rc == 0)
        rc = take_texts(session, out, sample, err);
    stream_fini(&asking.stream);
    batch_reset(session->batch); /* frees the sample */
    return rc;
}

void answer_fini(struct answer *answer)
{
    buf_fini(&answer->text);
    buf_fini(&answer->full);
    buf_fini(&answer->prompt);
    buf_fini(&answer->tokens);
}
