/* bench_gpu - what a GPU makes of vneva
 *
 *     bench_gpu [--tiny] [--out FILE] PART...
 *
 * about                 one line: device, libraries
 * shapes                one line of JSON, for bench_gpu.py
 * matmul                products of a 7B model: our call path, and cuBLASLt's best
 * attention             4,096 causal, forward and backward: as chosen, and own kernels
 * step.frozen, step.trained    training steps of LLaVA-1.5-7B's shapes
 * generate              answers of it, 1 and 8 rows
 * first_step.7b, first_step.tiny    how long until the first step is done
 *
 * Figures are appended to FILE (bench_gpu.h says how) and printed. Every time is wall clock
 * between two points at which the device has nothing left to do. Exit status 77: there is no
 * GPU; 1: a part failed, the others were run.
 */
#include "tests/bench/bench_gpu.h"

#include "common/base/args.h"
#include "common/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define USAGE "usage: bench_gpu [--tiny] [--out FILE] PART..."
#define SKIPPED 77
#define REPS 7
#define REPS_TINY 3
#define TURN_S 0.01
#define TURN_CALLS_MAX 1000

/* ---- records ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static struct series sorted(const struct series *s)
{
    struct series copy = *s;

    qsort(copy.values, (size_t)copy.n, sizeof(copy.values[0]), compare_doubles);
    return copy;
}

double series_median(const struct series *s)
{
    struct series in = sorted(s);

    return s->n % 2 ? in.values[s->n / 2]
                    : (in.values[s->n / 2 - 1] + in.values[s->n / 2]) / 2;
}

double series_spread(const struct series *s)
{
    struct series in = sorted(s);

    return (in.values[s->n - 1] - in.values[0]) / series_median(s);
}

static void record(struct bench *bench, const char *kind, const char *key,
                   const char *side, const char *value, const char *unit,
                   const char *spread, const char *note)
{
    char line[1024];
    int n = snprintf(line, sizeof(line), "%s\t%s\t%s\t%s\t%s\t%s\t", kind, key, side,
                     value, unit, spread);

    printf("%-7s %-26s %-10s %12s %-9s %8s  %s\n", kind, key, side, value, unit, spread,
           note);
    fflush(stdout);
    if (!bench->out || n < 0)
        return;
    snprintf(line + n, sizeof(line) - (size_t)n, "%s", note);
    for (char *c = line + n; *c; c++)
        if (*c == '\t' || *c == '\n')
            *c = ' ';
    fprintf(bench->out, "%s\n", line);
    fflush(bench->out); /* what is measured stays, whatever comes */
}

void bench_figure(struct bench *bench, const char *key, const char *side,
                  const struct series *s, const char *unit, const char *note)
{
    char value[32], spread[32];

    snprintf(value, sizeof(value), "%.6g", series_median(s));
    snprintf(spread, sizeof(spread), "%.3f", series_spread(s));
    record(bench, "figure", key, side, value, unit, s->n > 1 ? spread : "-", note);
}

void bench_number(struct bench *bench, const char *key, const char *side, double value,
                  const char *unit, const char *note)
{
    struct series s = {.values = {value}, .n = 1};

    bench_figure(bench, key, side, &s, unit, note);
}

void bench_none(struct bench *bench, const char *key, const char *side,
                const char *reason)
{
    record(bench, "none", key, side, "-", "-", "-", reason);
}

void bench_failed(struct bench *bench, const char *part, const char *reason)
{
    record(bench, "failed", part, "vneva", "-", "-", "-", reason);
}

/* ---- taking turns ---- */

static int turn(struct timed *timed, int64_t n, double *seconds, struct err *err)
{
    int64_t start_ns = clock_mono_ns();

    if (timed->run(timed->arg, n, err) < 0)
        return -1;
    *seconds = (double)(clock_mono_ns() - start_ns) * 1e-9;
    return 0;
}

int bench_time(const struct bench *bench, struct timed *all, int n, struct err *err)
{
    int reps = bench->is_tiny ? REPS_TINY : REPS;
    int64_t calls[8] = {0};
    double seconds;

    for (int i = 0; i < n; i++) {
        all[i].seconds.n = 0;
        if (turn(&all[i], 2, &seconds, err) < 0 || turn(&all[i], 1, &seconds, err) < 0)
            return -1;
        calls[i] = (int64_t)fmin(fmax(TURN_S / fmax(seconds, 1e-9), 1), TURN_CALLS_MAX);
        if (bench->is_tiny)
            calls[i] = 1;
    }
    for (int rep = 0; rep < reps; rep++)
        for (int i = 0; i < n; i++) {
            if (turn(&all[i], calls[i], &seconds, err) < 0)
                return -1;
            all[i].seconds.values[all[i].seconds.n++] = seconds / (double)calls[i];
        }
    return 0;
}

/* ---- main ---- */

static int about(struct bench *bench, struct err *err)
{
    struct backend_about text;

    (void)err;
    bench->backend->ops->about(bench->backend, &text);
    printf("%s; %s\n", text.device, text.libraries);
    return 0;
}

static int step_frozen(struct bench *bench, struct err *err)
{
    return bench_step(bench, false, err);
}

static int step_trained(struct bench *bench, struct err *err)
{
    return bench_step(bench, true, err);
}

static int first_step_7b(struct bench *bench, struct err *err)
{
    return bench_first_step(bench, true, err);
}

static int first_step_tiny(struct bench *bench, struct err *err)
{
    return bench_first_step(bench, false, err);
}

static const struct {
    const char *name;
    int (*run)(struct bench *bench, struct err *err);
} parts[] = {
    {"about", about},
    {"shapes", bench_shapes},
    {"matmul", bench_matmul},
    {"attention", bench_attention},
    {"step.frozen", step_frozen},
    {"step.trained", step_trained},
    {"generate", bench_generate},
    {"first_step.7b", first_step_7b},
    {"first_step.tiny", first_step_tiny},
};

static int run_part(struct bench *bench, const char *name)
{
    struct err err = {0};

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (strcmp(parts[i].name, name) == 0) {
            if (parts[i].run(bench, &err) == 0)
                return 0;
            bench_failed(bench, name, err.text);
            return 1;
        }
    bench_failed(bench, name, "there is no such part");
    return 1;
}

static int run(struct bench *bench, const struct args *args)
{
    struct err err = {0};
    int rc = 0;

    if (backend_create(&bench->backend, "cuda", 0, 0, &err) < 0) {
        fprintf(stderr, "bench_gpu: %s\n", err.text);
        return err.code == ERR_UNSUPPORTED ? SKIPPED : 1;
    }
    for (int i = 0; i < args->n_words; i++)
        rc |= run_part(bench, args->words[i]);
    backend_destroy(bench->backend);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct args_option known[] = {
        {.name = "tiny"}, {.name = "out", .value = "FILE"}, {0}};
    const struct args_known takes = {known, NULL, USAGE};
    struct bench bench = {0};
    struct args args;
    struct err err = {0};
    const char *path;
    int rc;

    if (args_parse(&args, &takes, argc - 1, argv + 1, &err) < 0 || !args.n_words) {
        fprintf(stderr, "bench_gpu: %s\n", err.code ? err.text : USAGE);
        return 2;
    }
    bench.is_tiny = args_has(&args, "tiny");
    path = args_value(&args, "out");
    if (path && !(bench.out = fopen(path, "a"))) {
        fprintf(stderr, "bench_gpu: cannot write '%s'\n", path);
        return 1;
    }
    rc = run(&bench, &args);
    if (bench.out && fclose(bench.out) != 0)
        rc = 1;
    return rc;
}
