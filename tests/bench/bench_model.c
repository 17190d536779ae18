/* bench_model - a LLaVA of about 100 million parameters, worked as it is told
 *
 *     bench_model [--backend NAME] [--threads N] [--dtype f32|bf16] [--batch B]
 *                 [--frozen]
 *
 * Reads one command a line and answers each with one line of JSON, so that another program
 * (bench_model.py) can let it take turns with a peer:
 *
 *     shape        the shape, for the peer to build the same; comes first
 *     forward      the loss of the batch
 *     step         forward, backward, clipping, AdamW with fp32 masters
 *     generate N   N new tokens for each row of the batch, greedy, prompts included
 *
 * Answers hold wall_s, cpu_s (user and system, all threads), peak_mb (resident, so far).
 */
#include "common/base/args.h"
#include "common/base/clock.h"
#include "model/generate/generate.h"
#include "model/optim/optim.h"
#include "tests/bench/bench_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define TOKENS 640
#define FRAMES_EACH 8
#define LABELS_EACH 96
#define NEW_MAX 256
#define LINE_MAX_BYTES 256
#define NO_TOKEN (-2) /* never generated: rows run to their full length */

#define USAGE                                                                            \
    "usage: bench_model [--backend NAME] [--threads N] [--dtype f32|bf16] [--batch B] "  \
    "[--frozen]"

struct options {
    const char *backend;
    int64_t n_threads, batch;
    enum dtype dtype;
    bool is_frozen; /* for all but steps: no masters, as when a model answers */
};

struct bench {
    struct neva_config config;
    struct neva_batch batch;
    struct comm *solo;
    struct backend *backend;
    struct neva *model;
    int64_t n_steps; /* taken so far */
};

static struct neva_config shape(const struct options *options)
{
    return (struct neva_config){
        .vision = {.image_size = 112,
                   .patch = 14,
                   .width = 512,
                   .ffn_width = 2048,
                   .n_layers = 8,
                   .n_heads = 8,
                   .select_layer = -2,
                   .class_token_length = 1,
                   .act = ACT_QUICK_GELU,
                   .freeze = options->is_frozen,
                   .eps = 1e-5F,
                   .mean = {0.48145466F, 0.4578275F, 0.40821073F},
                   .std = {0.26862954F, 0.26130258F, 0.27577711F}},
        .projector = NEVA_PROJECTOR_MLP2X_GELU,
        .llm = {.vocab = 32000,
                .width = 640,
                .ffn_width = 1728,
                .n_layers = 8,
                .n_heads = 10,
                .n_kv_heads = 10,
                .norm = {NN_NORM_RMS, 1e-5F},
                .rope = {.rot_dims = 64, .theta = 10000},
                .freeze = options->is_frozen},
        .max_tokens = TOKENS + NEW_MAX,
        .dtype = options->dtype,
        .init_std = 0.02F,
        .seed = 1,
    };
}

static int step(struct bench *bench, double *loss, struct err *err)
{
    static const struct optim_config optim = {.lr = 1e-4F,
                                              .beta1 = 0.9F,
                                              .beta2 = 0.98F,
                                              .eps = 1e-8F,
                                              .weight_decay = 0.01F,
                                              .clip = 1,
                                              .max_steps = 1000};
    struct optim_report report;
    struct neva_loss sum;

    if (neva_step(bench->model, &bench->batch, &sum, err) < 0 ||
        optim_step(bench->model, bench->solo, &optim, bench->n_steps, sum.n_labels,
                   &report, err) < 0)
        return -1;
    bench->n_steps++;
    *loss = report.loss_sum / (double)sum.n_labels;
    return 0;
}

static int forward(struct bench *bench, double *loss, struct err *err)
{
    struct neva_loss sum;

    if (neva_begin_evaluation(bench->model, err) < 0 ||
        neva_evaluate(bench->model, &bench->batch, &sum, err) < 0 ||
        neva_end_evaluation(bench->model, &sum.sum, err) < 0)
        return -1;
    *loss = sum.sum / (double)sum.n_labels;
    return 0;
}

static int generate(struct bench *bench, int64_t n_new, struct err *err)
{
    size_t n_rows = (size_t)bench->batch.n_samples;
    const struct generate_args args = {.max_new_tokens = n_new, .end_token = NO_TOKEN};
    int32_t *out = must_alloc(n_rows * NEW_MAX * sizeof(*out));
    int64_t *lens = must_alloc(n_rows * sizeof(*lens));
    int rc = generate_tokens(bench->model, &bench->batch, &args, out, lens, err);

    free(out);
    free(lens);
    return rc;
}

static void print_shape(const struct bench *bench)
{
    const struct neva_config *c = &bench->config;

    printf("{\"params\":%lld,\"samples\":%lld,\"tokens\":%d,\"frames_each\":%d,"
           "\"labels_each\":%d,\"image_size\":%lld,\"patch\":%lld,\"vision_width\":%lld,"
           "\"vision_ffn\":%lld,\"vision_layers\":%lld,\"vision_heads\":%lld,"
           "\"select_layer\":%lld,\"vocab\":%lld,\"width\":%lld,\"ffn\":%lld,"
           "\"layers\":%lld,\"heads\":%lld,\"max_tokens\":%lld,\"step_gflop\":%.1f}\n",
           (long long)neva_n_params(c), (long long)bench->batch.n_samples, TOKENS,
           FRAMES_EACH, LABELS_EACH, (long long)c->vision.image_size,
           (long long)c->vision.patch, (long long)c->vision.width,
           (long long)c->vision.ffn_width, (long long)c->vision.n_layers,
           (long long)c->vision.n_heads, (long long)c->vision.select_layer,
           (long long)c->llm.vocab, (long long)c->llm.width, (long long)c->llm.ffn_width,
           (long long)c->llm.n_layers, (long long)c->llm.n_heads,
           (long long)c->max_tokens,
           neva_step_flops(c, bench->batch.n_samples, TOKENS, bench->batch.n_frames,
                           bench->batch.n_samples * LABELS_EACH) *
               1e-9);
}

static double cpu_seconds(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           1e-6 * (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec);
}

/* One command; what it took goes to standard output. */
static int obey(struct bench *bench, const char *line, struct err *err)
{
    int64_t start_ns = clock_mono_ns();
    struct rusage before, after;
    double loss = 0;
    int rc;

    getrusage(RUSAGE_SELF, &before);
    if (strcmp(line, "shape\n") == 0) {
        print_shape(bench);
        return 0;
    }
    if (strcmp(line, "forward\n") == 0)
        rc = forward(bench, &loss, err);
    else if (strcmp(line, "step\n") == 0)
        rc = step(bench, &loss, err);
    else if (strncmp(line, "generate ", 9) == 0)
        rc = generate(bench, strtol(line + 9, NULL, 10), err);
    else
        rc = err_set(err, ERR_INVALID, "no such command: %s", line);
    if (rc < 0)
        return -1;
    getrusage(RUSAGE_SELF, &after);
    printf("{\"wall_s\":%.4f,\"cpu_s\":%.4f,\"peak_mb\":%.1f,\"loss\":%.6f}\n",
           (double)(clock_mono_ns() - start_ns) * 1e-9,
           cpu_seconds(&after) - cpu_seconds(&before), (double)after.ru_maxrss / 1024,
           loss);
    return 0;
}

static int run(const struct options *options, struct err *err)
{
    struct bench bench = {.config = shape(options)};
    char line[LINE_MAX_BYTES];
    int rc = -1;

    bench.batch =
        batch_make(&bench.config, options->batch, TOKENS, FRAMES_EACH, LABELS_EACH);
    if (comm_create_solo(&bench.solo, "bench", err) < 0 ||
        backend_create(&bench.backend, options->backend, 0, (int)options->n_threads,
                       err) < 0 ||
        neva_create(&bench.model, &bench.config, bench.backend, bench.solo, err) < 0)
        goto out;
    while (fgets(line, sizeof(line), stdin)) {
        if (obey(&bench, line, err) < 0)
            goto out;
        fflush(stdout);
    }
    rc = 0;
out:
    neva_destroy(bench.model);
    batch_free(&bench.batch);
    backend_destroy(bench.backend);
    comm_destroy(bench.solo);
    return rc;
}

static int read_options(struct options *out, int argc, char **argv, struct err *err)
{
    static const struct args_option known[] = {{.name = "backend", .value = "NAME"},
                                               {.name = "threads", .value = "N"},
                                               {.name = "dtype", .value = "f32|bf16"},
                                               {.name = "batch", .value = "B"},
                                               {.name = "frozen"},
                                               {0}};
    const struct args_known takes = {known, NULL, USAGE};
    const char *backend, *dtype;
    struct args args;

    if (args_parse(&args, &takes, argc - 1, argv + 1, err) < 0)
        return -1;
    if (args.wants_help || args.n_words)
        return err_set(err, ERR_INVALID, USAGE);
    backend = args_value(&args, "backend");
    dtype = args_value(&args, "dtype");
    out->backend = backend ? backend : "cpu";
    out->dtype = dtype && strcmp(dtype, "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    out->is_frozen = args_has(&args, "frozen");
    if (args_int(&args, "threads", 1, INT32_MAX, 2, &out->n_threads, err) < 0)
        return -1;
    return args_int(&args, "batch", 1, INT32_MAX, 2, &out->batch, err);
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err = {0};

    if (read_options(&options, argc, argv, &err) < 0) {
        fprintf(stderr, "bench_model: %s\n", err.text);
        return 2;
    }
    if (run(&options, &err) == 0)
        return 0;
    fprintf(stderr, "bench_model: %s\n", err.text);
    return 1;
}
