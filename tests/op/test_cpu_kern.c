/* test_cpu_kern.c - the vectorised exponential against libm, at every instruction set */
#include "model/backend/cpu/kern/kern.h"
#include "tests/op/check.h"

#define N 4096

/* as kern_math.h states */
#define EXP_BOUND 1.2e-7
#define EXP_LOW (-87.3F)
#define EXP_HIGH 88.37F

static double worst_error(const struct kern *kern, float low, float high)
{
    double worst = 0;

    for (int part = 0; part < 64; part++) { /* 262,144 arguments over the range */
        float x[N], y[N];

        for (int i = 0; i < N; i++)
            x[i] =
                fminf(low + (high - low) * ((float)(part * N + i) / (64.0F * N)), high);
        kern->pointwise->exp(y, x, N);
        for (int i = 0; i < N; i++) {
            double want = exp((double)x[i]);
            double error = fabs(y[i] - want) / want;

            worst = error > worst ? error : worst;
        }
    }
    return worst;
}

static void check_level(struct check *check, const struct kern *kern)
{
    float x[8] = {-INFINITY, INFINITY, NAN, 0, -0.0F, -88, 89, -1e30F}, y[8];
    double wide = worst_error(kern, EXP_LOW, EXP_HIGH);
    double narrow = worst_error(kern, -1, 1);

    printf("%s: exp is within %.3g\n", kern->name, wide > narrow ? wide : narrow);
    check_that(check, wide < EXP_BOUND, "%s: exp is off by %.3g", kern->name, wide);
    check_that(check, narrow < EXP_BOUND, "%s: exp near 0 is off by %.3g", kern->name,
               narrow);
    kern->pointwise->exp(y, x, 8);
    check_near(check, y[0], 0, 0, "exp of -infinity");
    check_that(check, isinf(y[1]), "exp of infinity is %g", y[1]);
    check_that(check, isnan(y[2]), "exp of NaN is %g", y[2]);
    check_near(check, y[3], 1, 0, "exp of 0");
    check_near(check, y[4], 1, 0, "exp of -0");
    check_near(check, y[5], 0, 0, "exp of -88");
    check_that(check, isinf(y[6]), "exp of 89 is %g", y[6]);
    check_near(check, y[7], 0, 0, "exp of -1e30");
}

static void exp_is_as_exact_as_stated(struct check *check)
{
    static const char *const levels[] = {"base", "avx2", "avx512"};

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        const struct kern *kern = kern_find(levels[i]);

        if (kern)
            check_level(check, kern);
        else
            check_skip(check, levels[i]);
    }
    check_that(check, kern_find(NULL) != NULL, "no level was chosen");
    check_that(check, kern_find("mmx") == NULL, "a level that is not built was found");
}

int main(void)
{
    struct check check = {0};

    check_run(&check, exp_is_as_exact_as_stated);
    return check_end(&check);
}
