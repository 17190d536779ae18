/* check.h - all that the operation tests need of a test framework
 *
 * They must build where there is nothing but a C compiler and CUDA, so no cmocka here.
 * A main runs its tests with check_run and returns check_end(): non-zero when any check
 * failed. A failure is printed and the test goes on.
 */
#ifndef VNEVA_TESTS_OP_CHECK_H
#define VNEVA_TESTS_OP_CHECK_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct check {
    int n_checks, n_failed, n_skipped;
    const char *test; /* the one that runs */
};

static inline void check_that(struct check *check, bool is_true, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static inline void check_that(struct check *check, bool is_true, const char *format, ...)
{
    check->n_checks++;
    if (!is_true) {
        va_list args;

        check->n_failed++;
        printf("FAILED %s: ", check->test);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
    }
}

static inline void check_near(struct check *check, double got, double want, double bound,
                              const char *what)
{
    check_that(check, fabs(got - want) <= bound, "%s is %.9g, not %.9g (bound %.2g)",
               what, got, want, bound);
}

static inline void check_skip(struct check *check, const char *why)
{
    check->n_skipped++;
    printf("skipped %s: %s\n", check->test, why);
}

#define check_run(state, function)                                                       \
    do {                                                                                 \
        (state)->test = #function;                                                       \
        function(state);                                                                 \
    } while (0)

/* Prints the count; the exit status. A test in which nothing was checked has failed. */
static inline int check_end(const struct check *check)
{
    printf("%d checks, %d failed, %d skipped\n", check->n_checks, check->n_failed,
           check->n_skipped);
    return check->n_failed || !check->n_checks;
}

/* How far `got` is from `want`. */
struct distance {
    double nmse;    /* sum (got - want)^2 / sum want^2 */
    double max_rel; /* largest |got - want| / (|want| + root mean square of want) */
};

/* Infinite when a NaN is in `got` only; NaN and infinity agree with themselves. */
static inline struct distance distance_of(const float *got, const float *want, int64_t n)
{
    struct distance d = {0, 0};
    double squares = 0, errors = 0, rms;

    for (int64_t i = 0; i < n; i++)
        squares += isfinite(want[i]) ? (double)want[i] * want[i] : 0;
    rms = n ? sqrt(squares / (double)n) : 0;
    for (int64_t i = 0; i < n; i++) {
        double error = fabs((double)got[i] - want[i]);

        if (got[i] == want[i] || (isnan(got[i]) && isnan(want[i])))
            continue;
        if (!isfinite(error))
            return (struct distance){INFINITY, INFINITY};
        errors += error * error;
        d.max_rel = fmax(d.max_rel, error / (fabs((double)want[i]) + rms));
    }
    d.nmse = errors > 0 ? errors / squares : 0;
    return d;
}

#endif
