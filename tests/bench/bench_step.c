/* bench_step - training steps of the quickstart's model
 *
 *     bench_step [--backend NAME] [--ranks 1|2|4] [--threads N] [--dtype f32|bf16]
 *                [--steps N] [--batch B] [--recompute]
 *
 * Ranks are processes that meet in shared memory, as in a job. Prints one line of JSON:
 * samples/s, tokens/s, GFLOP/s (counted as model/neva/README.md says) and the
 * milliseconds of a step. Where the time goes: perf record -g.
 */
#include "common/base/args.h"
#include "common/base/clock.h"
#include "model/optim/optim.h"
#include "tests/bench/bench_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOKENS 128
#define FRAMES_EACH 4
#define LABELS_EACH 6
#define WARMUP_STEPS 3
#define SLOT_BYTES ((size_t)1 << 20)
#define COMM_TIMEOUT_MS 60000

#define USAGE                                                                            \
    "usage: bench_step [--backend NAME] [--ranks N] [--threads N] [--dtype f32|bf16] "   \
    "[--steps N] [--batch N] [--recompute]"

struct options {
    const char *backend;
    int64_t n_ranks, n_threads, n_steps, batch;
    enum dtype dtype;
    bool recompute;
};

static struct neva_config quickstart(const struct options *options)
{
    return (struct neva_config){
        .vision = {.image_size = 64,
                   .patch = 16,
                   .width = 96,
                   .ffn_width = 384,
                   .n_layers = 2,
                   .n_heads = 4,
                   .select_layer = -1,
                   .class_token_length = 1,
                   .act = ACT_QUICK_GELU,
                   .eps = 1e-5F,
                   .mean = {0.5F, 0.5F, 0.5F},
                   .std = {0.25F, 0.25F, 0.25F}},
        .projector = NEVA_PROJECTOR_MLP2X_GELU,
        .llm = {.vocab = 512,
                .width = 96,
                .ffn_width = 256,
                .n_layers = 4,
                .n_heads = 4,
                .n_kv_heads = 4,
                .norm = {NN_NORM_RMS, 1e-5F},
                .rope = {.rot_dims = 24, .theta = 10000}},
        .max_tokens = 256,
        .dtype = options->dtype,
        .init_std = 0.05F,
        .seed = 1,
        .recompute = options->recompute ? NEVA_RECOMPUTE_FULL : NEVA_RECOMPUTE_NONE,
        .recompute_layers = 1,
    };
}

static int step(struct neva *model, struct comm *solo, const struct neva_batch *batch,
                int i, struct err *err)
{
    static const struct optim_config optim = {.lr = 1e-3F,
                                              .beta1 = 0.9F,
                                              .beta2 = 0.98F,
                                              .eps = 1e-8F,
                                              .weight_decay = 0.01F,
                                              .clip = 1,
                                              .warmup_steps = 10,
                                              .max_steps = 1000};
    struct optim_report report;
    struct neva_loss loss;

    if (neva_step(model, batch, &loss, err) < 0)
        return -1;
    return optim_step(model, solo, &optim, i, loss.n_labels, &report, err);
}

static void report(const struct options *options, const struct neva_config *config,
                   double seconds)
{
    double each = seconds / options->n_steps, n = (double)options->batch;
    double flops =
        neva_step_flops(config, options->batch, TOKENS, options->batch * FRAMES_EACH,
                        options->batch * LABELS_EACH);

    printf("{\"backend\":\"%s\",\"ranks\":%d,\"threads\":%d,\"dtype\":\"%s\","
           "\"recompute\":%s,\"params\":%lld,\"step_ms\":%.2f,\"samples_per_s\":%.1f,"
           "\"tokens_per_s\":%.0f,\"gflop_per_s\":%.1f}\n",
           options->backend, (int)options->n_ranks, (int)options->n_threads,
           dtype_name(options->dtype), options->recompute ? "true" : "false",
           (long long)neva_n_params(config), each * 1e3, n / each, n * TOKENS / each,
           flops / each / 1e9);
}

static int run(const struct options *options, int rank, const char *segment,
               struct err *err)
{
    struct neva_config config = quickstart(options);
    struct neva_batch batch =
        batch_make(&config, options->batch, TOKENS, FRAMES_EACH, LABELS_EACH);
    struct comm *solo = NULL, *group = NULL;
    struct backend *b = NULL;
    struct neva *model = NULL;
    int64_t start_ns = 0;
    int rc = -1;

    if (comm_create_solo(&solo, "data", err) < 0 ||
        (options->n_ranks == 1
             ? comm_create_solo(&group, "tensor", err)
             : comm_create_shm(&group, "tensor", segment, rank, (int)options->n_ranks,
                               SLOT_BYTES, COMM_TIMEOUT_MS, err)) < 0 ||
        backend_create(&b, options->backend, 0, (int)options->n_threads, err) < 0 ||
        neva_create(&model, &config, b, group, err) < 0)
        goto out;
    for (int i = 0; i < WARMUP_STEPS + options->n_steps; i++) {
        if (i == WARMUP_STEPS)
            start_ns = clock_mono_ns();
        if (step(model, solo, &batch, i, err) < 0)
            goto out;
    }
    if (rank == 0)
        report(options, &config, (double)(clock_mono_ns() - start_ns) * 1e-9);
    rc = 0;
out:
    neva_destroy(model);
    batch_free(&batch);
    backend_destroy(b);
    comm_destroy(group);
    comm_destroy(solo);
    return rc;
}

static int run_rank(const struct options *options, int rank, const char *segment)
{
    struct err err = {0};

    if (run(options, rank, segment, &err) == 0)
        return 0;
    fprintf(stderr, "bench_step: rank %d: %s\n", rank, err.text);
    return 1;
}

static int read_options(struct options *out, int argc, char **argv, struct err *err)
{
    static const struct args_option known[] = {{.name = "backend", .value = "NAME"},
                                               {.name = "ranks", .value = "N"},
                                               {.name = "threads", .value = "N"},
                                               {.name = "dtype", .value = "f32|bf16"},
                                               {.name = "steps", .value = "N"},
                                               {.name = "batch", .value = "N"},
                                               {.name = "recompute"},
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
    out->dtype = dtype && strcmp(dtype, "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32;
    out->recompute = args_has(&args, "recompute");
    if (args_int(&args, "ranks", 1, INT32_MAX, 1, &out->n_ranks, err) < 0 ||
        args_int(&args, "threads", 1, INT32_MAX, 1, &out->n_threads, err) < 0 ||
        args_int(&args, "steps", 1, INT32_MAX, 20, &out->n_steps, err) < 0)
        return -1;
    return args_int(&args, "batch", 1, INT32_MAX, 32, &out->batch, err);
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err = {0};
    char segment[64];
    int failed = 0, status;

    if (read_options(&options, argc, argv, &err) < 0) {
        fprintf(stderr, "bench_step: %s\n", err.text);
        return 2;
    }
    snprintf(segment, sizeof(segment), "/vneva-bench-%d", (int)getpid());
    for (int rank = 1; rank < options.n_ranks; rank++)
        if (fork() == 0)
            _exit(run_rank(&options, rank, segment));
    failed = run_rank(&options, 0, segment);
    while (wait(&status) > 0)
        failed |= status != 0;
    return failed;
}
