/* Training steps, answers, and how long the first step takes. */
#include "tests/bench/bench_gpu_shape.h"

#include "common/base/clock.h"
#include "model/generate/generate.h"
#include "model/optim/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WARMUP_STEPS 2
#define STEPS 8
#define ANSWERS 3
#define NO_TOKEN (-2) /* never generated: answers have their full length */

/* ---- training steps ---- */

struct training {
    struct neva *model;
    struct comm *solo;
    struct neva_batch batch;
    int64_t n_steps;
    double loss; /* of the last step, a label */
};

static int step(struct training *t, struct err *err)
{
    static const struct optim_config optim = {.lr = 1e-5F,
                                              .beta1 = 0.9F,
                                              .beta2 = 0.95F,
                                              .eps = 1e-8F,
                                              .weight_decay = 0.1F,
                                              .clip = 1,
                                              .max_steps = 1000};
    struct optim_report report;
    struct neva_loss loss;

    if (neva_step(t->model, &t->batch, &loss, err) < 0 ||
        optim_step(t->model, t->solo, &optim, t->n_steps, loss.n_labels, &report, err) <
            0)
        return -1;
    t->n_steps++;
    t->loss = report.loss_sum / (double)loss.n_labels;
    return 0;
}

static int training_open(struct training *t, struct bench *bench, const struct shape *s,
                         struct err *err)
{
    *t = (struct training){.batch = shape_batch(s, 1, s->n_tokens)};
    if (comm_create_solo(&t->solo, "bench", err) < 0 ||
        model_create(&t->model, bench, &s->config, t->solo, err) < 0)
        return -1;
    return neva_reserve(t->model, 1, s->n_tokens, s->n_frames, err);
}

static void training_close(struct training *t)
{
    neva_destroy(t->model);
    comm_destroy(t->solo);
    batch_free(&t->batch);
}

/* Dense bf16 TFLOP/s without sparsity, of NVIDIA's data sheets; 0: not known. */
static double chip_tflops(const char *device)
{
    static const struct {
        const char *name;
        double tflops;
    } chips[] = {
        {"H100 PCIe", 756}, {"H100 NVL", 835}, {"H100", 989}, {"H200", 989},
        {"A100", 312},      {"B200", 2250},    {"L40S", 362},
    };

    for (size_t i = 0; i < sizeof(chips) / sizeof(chips[0]); i++)
        if (strstr(device, chips[i].name))
            return chips[i].tflops;
    return 0;
}

/* MFU: operations of the step without what is computed again; with it: hardware. */
static void report_use(struct bench *bench, const char *name, const struct shape *s,
                       const struct series *seconds)
{
    struct neva_config plain = s->config;
    struct backend_about about;
    struct series mfu = {.n = seconds->n}, hardware = {.n = seconds->n};
    double peak, model, all;
    char key[KEY_MAX], hardware_key[KEY_MAX];

    plain.recompute = NEVA_RECOMPUTE_NONE;
    model = neva_step_flops(&plain, 1, s->n_tokens, s->n_frames, s->n_labels);
    all = neva_step_flops(&s->config, 1, s->n_tokens, s->n_frames, s->n_labels);
    bench->backend->ops->about(bench->backend, &about);
    peak = chip_tflops(about.device) * 1e12;
    snprintf(key, sizeof(key), "step.%s.mfu", name);
    snprintf(hardware_key, sizeof(hardware_key), "step.%s.hfu", name);
    if (peak == 0) {
        bench_none(bench, key, "vneva", "this chip's dense bf16 rate is not known");
        bench_none(bench, hardware_key, "vneva",
                   "this chip's dense bf16 rate is not known");
        return;
    }
    for (int i = 0; i < seconds->n; i++) {
        mfu.values[i] = 100 * model / seconds->values[i] / peak;
        hardware.values[i] = 100 * all / seconds->values[i] / peak;
    }
    bench_figure(bench, key, "vneva", &mfu, "%", "without recomputation");
    bench_figure(bench, hardware_key, "vneva", &hardware, "%", "recomputation counts");
}

/* What was replayed so far. */
static const char *graphs_text(const struct backend *b, char *text, size_t size)
{
    const struct backend_replay *r = &b->replay;

    snprintf(text, size, "graphs: %llu launched, %llu refused",
             (unsigned long long)r->n_launched, (unsigned long long)r->n_refused);
    return text;
}

static void report_steps(struct bench *bench, const char *name, const struct shape *s,
                         const struct series *seconds)
{
    struct series rate = {.n = seconds->n};
    struct backend_memory memory;
    struct backend_about about;
    char key[KEY_MAX], note[160], graphs[64];

    for (int i = 0; i < rate.n; i++)
        rate.values[i] = (double)s->n_tokens / seconds->values[i];
    bench->backend->ops->about(bench->backend, &about);
    bench->backend->ops->memory(bench->backend, &memory);
    snprintf(note, sizeof(note), "%lld layers; attention: %s; %s",
             (long long)s->config.llm.n_layers, about.attention,
             graphs_text(bench->backend, graphs, sizeof(graphs)));
    snprintf(key, sizeof(key), "step.%s", name);
    bench_figure(bench, key, "vneva", &rate, "tokens/s", note);
    snprintf(key, sizeof(key), "step.%s.memory", name);
    bench_number(bench, key, "vneva", (double)memory.peak / 1e9, "GB", "the most in use");
    report_use(bench, name, s, seconds);
}

static int measure_steps(struct bench *bench, const char *name, const struct shape *s,
                         struct err *err)
{
    struct series seconds = {.n = 0};
    struct training t;
    int rc = training_open(&t, bench, s, err);

    for (int i = 0; i < WARMUP_STEPS + (bench->is_tiny ? 2 : STEPS) && rc == 0; i++) {
        int64_t start_ns = clock_mono_ns();

        rc = step(&t, err);
        if (rc == 0)
            rc = bench->backend->ops->sync(bench->backend, err);
        if (rc == 0 && i >= WARMUP_STEPS)
            seconds.values[seconds.n++] = (double)(clock_mono_ns() - start_ns) * 1e-9;
    }
    if (rc == 0 && !isfinite(t.loss))
        rc = err_set(err, ERR_FORMAT, "the loss is %g", t.loss);
    if (rc == 0)
        report_steps(bench, name, s, &seconds);
    training_close(&t);
    return rc;
}

int bench_step(struct bench *bench, bool is_trained, struct err *err)
{
    struct shape s = is_trained ? shape_trained(bench) : shape_frozen(bench);

    return measure_steps(bench, is_trained ? "trained" : "frozen", &s, err);
}

/* ---- answers ---- */

static int answer(struct neva *model, const struct neva_batch *batch, int64_t n_new,
                  double *seconds, struct err *err)
{
    const struct generate_args args = {.max_new_tokens = n_new, .end_token = NO_TOKEN};
    size_t n_rows = (size_t)batch->n_samples;
    int32_t *out = must_alloc(n_rows * (size_t)n_new * sizeof(*out));
    int64_t *lens = must_alloc(n_rows * sizeof(*lens));
    int64_t start_ns = clock_mono_ns();
    int rc = generate_tokens(model, batch, &args, out, lens, err);

    *seconds = (double)(clock_mono_ns() - start_ns) * 1e-9;
    free(out);
    free(lens);
    return rc;
}

/* Prompts count; and without them, by the difference of a long answer and one token. */
static int measure_answers(struct bench *bench, struct neva *model, const struct shape *s,
                           int64_t n_rows, struct err *err)
{
    struct neva_batch batch = shape_batch(s, n_rows, s->n_prompt);
    struct series whole = {.n = 0}, decode = {.n = 0};
    double first = 0, all = 0;
    char key[KEY_MAX], note[128], graphs[64];
    int rc = answer(model, &batch, s->n_new, &all, err);

    for (int i = 0; i < ANSWERS && rc == 0; i++) {
        rc = answer(model, &batch, 1, &first, err) < 0 ||
                     answer(model, &batch, s->n_new, &all, err) < 0
                 ? -1
                 : 0;
        whole.values[whole.n++] = (double)(n_rows * s->n_new) / all;
        decode.values[decode.n++] =
            (double)(n_rows * (s->n_new - 1)) / fmax(all - first, 1e-9);
    }
    batch_free(&batch);
    if (rc < 0)
        return -1;
    snprintf(note, sizeof(note), "%s, %lld new behind %lld; %s",
             dtype_name(s->config.dtype), (long long)s->n_new, (long long)s->n_prompt,
             graphs_text(bench->backend, graphs, sizeof(graphs)));
    snprintf(key, sizeof(key), "generate.%lld", (long long)n_rows);
    bench_figure(bench, key, "vneva", &whole, "tokens/s", note);
    snprintf(key, sizeof(key), "generate.%lld.decode", (long long)n_rows);
    bench_figure(bench, key, "vneva", &decode, "tokens/s", "without the prompts");
    return 0;
}

int bench_generate(struct bench *bench, struct err *err)
{
    struct shape s = shape_answer(bench);
    struct comm *solo = NULL;
    struct neva *model = NULL;
    int rc = -1;

    if (comm_create_solo(&solo, "bench", err) == 0 &&
        model_create(&model, bench, &s.config, solo, err) == 0 &&
        measure_answers(bench, model, &s, 1, err) == 0)
        rc = measure_answers(bench, model, &s, 8, err);
    neva_destroy(model);
    comm_destroy(solo);
    return rc;
}

/* ---- the first step ---- */

/* Since this process began: field 22 of /proc/self/stat (proc(5)), in ticks since boot. */
static int process_seconds(double *out, struct err *err)
{
    FILE *file = fopen("/proc/self/stat", "r");
    char text[1024] = "";
    size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
    const char *at = strrchr(text, ')'); /* ends the second field, a name */
    struct timespec now;

    if (file)
        fclose(file);
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!n || !at || clock_gettime(CLOCK_BOOTTIME, &now) < 0)
        return err_set(err, ERR_IO, "/proc/self/stat does not say when this began");
    *out = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec -
           strtod(at, NULL) / (double)sysconf(_SC_CLK_TCK);
    return 0;
}

int bench_first_step(struct bench *bench, bool is_7b, struct err *err)
{
    struct shape s = is_7b ? shape_frozen(bench) : shape_small(bench);
    struct training t = {.batch = shape_batch(&s, 1, s.n_tokens)};
    double seconds = 0;
    int rc = -1;

    if (comm_create_solo(&t.solo, "bench", err) == 0 &&
        (is_7b ? model_create(&t.model, bench, &s.config, t.solo, err)
               : neva_create(&t.model, &s.config, bench->backend, t.solo, err)) == 0 &&
        step(&t, err) == 0 && bench->backend->ops->sync(bench->backend, err) == 0)
        rc = process_seconds(&seconds, err);
    if (rc == 0)
        bench_number(bench, is_7b ? "first_step.7b" : "first_step.tiny", "vneva", seconds,
                     "s", is_7b ? "weights made on the device" : "");
    training_close(&t);
    return rc;
}
