/* expect.h - checks for tests of the whole model, whose ranks are threads: the count is
 * one for all files of a program (expect.c), and atomic (check.h passes its state along)
 *
 * A failed check prints where and what, and the program goes on; expect_end() says how many
 * failed and gives main its exit status.
 */
#ifndef VNEVA_TESTS_OP_EXPECT_H
#define VNEVA_TESTS_OP_EXPECT_H

#include "common/base/err.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#define EXPECT_PRINTED_MAX 20 /* failures shown; the rest is counted */

struct expect_state {
    atomic_int n_failed;
    atomic_int n_checks;
};

extern struct expect_state expect_state;

static inline bool expect_that(bool holds, const char *file, int line, const char *format,
                               ...) __attribute__((format(printf, 4, 5)));

static inline bool expect_that(bool holds, const char *file, int line, const char *format,
                               ...)
{
    va_list args;

    expect_state.n_checks++;
    if (holds)
        return true;
    if (expect_state.n_failed++ < EXPECT_PRINTED_MAX) {
        va_start(args, format);
        fprintf(stderr, "%s:%d: ", file, line);
        vfprintf(stderr, format, args);
        fprintf(stderr, "\n");
        va_end(args);
    }
    return false;
}

/* EXPECT(condition) or EXPECT_MSG(condition, "text %d", ...) */
#define EXPECT(condition) expect_that((condition), __FILE__, __LINE__, "%s", #condition)
#define EXPECT_MSG(condition, ...)                                                       \
    expect_that((condition), __FILE__, __LINE__, __VA_ARGS__)

/* A call that must succeed; prints the err it left. */
#define EXPECT_OK(call, err)                                                             \
    expect_that((call) == 0, __FILE__, __LINE__, "%s: %s", #call, (err)->text)

/* |a - b| <= abs + rel * max(|a|, |b|); false for what is not a number */
static inline bool expect_near(double a, double b, double rel, double abs)
{
    return fabs(a - b) <= abs + rel * fmax(fabs(a), fabs(b));
}

/* Runs a test function and says how it went. */
#define EXPECT_RUN(test)                                                                 \
    do {                                                                                 \
        int before = expect_state.n_failed;                                              \
        test();                                                                          \
        printf("%s %s\n", expect_state.n_failed == before ? "ok  " : "FAIL", #test);     \
        fflush(stdout);                                                                  \
    } while (0)

static inline int expect_end(void)
{
    printf("%d checks, %d failed\n", expect_state.n_checks, expect_state.n_failed);
    return expect_state.n_failed ? 1 : 0;
}

#endif
