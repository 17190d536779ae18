/* bench_gpu.h - what the parts of bench_gpu share: options, records, taking turns
 *
 * A record is a line of a file that tests/gpu_report.awk makes a table of, columns apart by
 * tabs:
 *     figure  KEY  SIDE  VALUE  UNIT  SPREAD  NOTE
 *     none    KEY  SIDE  -      -     -       REASON
 *     failed  PART vneva -      -     -       REASON
 * KEY is a line of tests/gpu_goals.tsv, whose first word (up to a full stop) is the part;
 * SIDE is who was measured; SPREAD is (most - least) / median of the repetitions.
 */
#ifndef VNEVA_TESTS_BENCH_BENCH_GPU_H
#define VNEVA_TESTS_BENCH_BENCH_GPU_H

#include "model/backend/backend.h"
#include "model/neva/neva.h"

#include <stdio.h>

#define REPS_MAX 16
#define KEY_MAX 64

struct bench {
    struct backend *backend;
    FILE *out;    /* records */
    bool is_tiny; /* shapes that a kernel run by fibers can do */
};

/* ---- records ---- */

struct series {
    double values[REPS_MAX];
    int n;
};

double series_median(const struct series *s);
double series_spread(const struct series *s);
/* SIDE's figure: the median of s. */
void bench_figure(struct bench *bench, const char *key, const char *side,
                  const struct series *s, const char *unit, const char *note);
void bench_number(struct bench *bench, const char *key, const char *side, double value,
                  const char *unit, const char *note);
void bench_none(struct bench *bench, const char *key, const char *side,
                const char *reason);
void bench_failed(struct bench *bench, const char *part, const char *reason);

/* ---- taking turns ---- */

/* Something to be timed. run does it n times and waits until all is done. */
struct timed {
    int (*run)(void *arg, int64_t n, struct err *err);
    void *arg;
    struct series seconds; /* of one, in each repetition */
};

/* Each is warmed up and tried, then all take turns, each so often that a turn takes a
 * hundredth of a second. */
int bench_time(const struct bench *bench, struct timed *all, int n, struct err *err);

/* ---- parts: each 0, or -1 with err; figures that were had before stay ---- */

int bench_matmul(struct bench *bench, struct err *err);
int bench_attention(struct bench *bench, struct err *err);
/* A process of its own each, for the memory of one is not there for the other. */
int bench_step(struct bench *bench, bool is_trained, struct err *err);
int bench_generate(struct bench *bench, struct err *err);
/* From the start of this process to the end of its first step. The model: 7B shapes, with
 * random numbers for weights, or a tiny one made as a job makes it. */
int bench_first_step(struct bench *bench, bool is_7b, struct err *err);
/* The shapes of the above as one line of JSON, for a peer to do the same. */
int bench_shapes(struct bench *bench, struct err *err);

#endif
