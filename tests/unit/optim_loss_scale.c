/* The loss scale's rules against Megatron-LM's, and what a checkpoint may hold of it. */
#include "model/optim/loss_scale.h"
#include "tests/op/expect.h"

#include <math.h>
#include <string.h>

/* Megatron's rule in its own terms: a tracker that counts hysteresis down, below zero too,
 * and growth at the interval. */
struct megatron {
    double scale;
    int64_t growth_tracker, hysteresis_tracker;
};

static void megatron_update(struct megatron *m, const struct loss_scale_config *config,
                            bool found_inf)
{
    if (found_inf) {
        m->growth_tracker = 0;
        m->hysteresis_tracker--;
        if (m->hysteresis_tracker <= 0)
            m->scale = fmax(m->scale * 0.5, 1.0);
        return;
    }
    m->growth_tracker++;
    if (m->growth_tracker == config->growth_interval) {
        m->growth_tracker = 0;
        m->hysteresis_tracker = config->hysteresis;
        m->scale *= 2;
    }
}

/* o: overflow, .: good. The scale after each step. */
static void expect_scales(const struct loss_scale_config *config, const char *steps,
                          const double *scales)
{
    struct loss_scale s;

    loss_scale_init(&s, config);
    EXPECT(s.scale == config->initial);
    for (size_t i = 0; steps[i]; i++) {
        loss_scale_update(&s, config, steps[i] == 'o');
        EXPECT_MSG(s.scale == scales[i], "'%s' step %zu: scale %g, not %g", steps, i,
                   s.scale, scales[i]);
    }
}

static void scales_worked_out_by_hand(void)
{
    struct loss_scale_config config = {
        .initial = 8, .growth_interval = 3, .hysteresis = 2};

    expect_scales(&config, "...o..", (double[]){8, 8, 16, 16, 16, 16});
    /* the first overflow is forgiven, each further one halves */
    expect_scales(&config, "ooo.o", (double[]){8, 4, 2, 2, 1});
    /* good steps forgive only when there are enough for growth */
    expect_scales(&config, "o..o...o", (double[]){8, 8, 8, 4, 4, 4, 8, 8});
    /* an overflow breaks the row of good steps */
    expect_scales(&config, "..o..o", (double[]){8, 8, 8, 8, 8, 4});
    config.hysteresis = 1;
    expect_scales(&config, "oooooo.", (double[]){4, 2, 1, 1, 1, 1, 1});
}

static void every_sequence_is_megatrons(void)
{
    for (int64_t interval = 1; interval <= 4; interval++)
        for (int64_t hysteresis = 1; hysteresis <= 4; hysteresis++)
            for (unsigned steps = 0; steps < 1U << 12; steps++) {
                struct loss_scale_config config = {16, interval, hysteresis};
                struct megatron want = {16, 0, hysteresis};
                struct loss_scale s;
                bool is_same = true;

                loss_scale_init(&s, &config);
                for (int i = 0; i < 12; i++) {
                    loss_scale_update(&s, &config, steps >> i & 1);
                    megatron_update(&want, &config, steps >> i & 1);
                    is_same &= s.scale == want.scale;
                }
                EXPECT_MSG(is_same && s.n_skipped == __builtin_popcount(steps),
                           "interval %d, hysteresis %d, overflows %x", (int)interval,
                           (int)hysteresis, steps);
            }
}

static void the_scale_has_bounds(void)
{
    struct loss_scale_config config = {LOSS_SCALE_MAX, 1, 1};
    struct loss_scale s;

    loss_scale_init(&s, &config);
    loss_scale_update(&s, &config, false);
    EXPECT(s.scale == LOSS_SCALE_MAX);
    config.initial = 2;
    loss_scale_init(&s, &config);
    loss_scale_update(&s, &config, true); /* to 1 */
    for (int i = 0; i < LOSS_SCALE_STUCK; i++) {
        EXPECT(!loss_scale_is_stuck(&s));
        loss_scale_update(&s, &config, true);
    }
    EXPECT(loss_scale_is_stuck(&s) && s.scale == LOSS_SCALE_MIN);
    loss_scale_update(&s, &config, false);
    EXPECT(!loss_scale_is_stuck(&s));
}

static void damaged_states_are_refused(void)
{
    const struct loss_scale good = {.scale = 8};
    struct loss_scale bad[] = {good, good, good, good, good, good, good};
    struct err err = {0};

    bad[0].scale = NAN;
    bad[1].scale = 0.5;
    bad[2].scale = INFINITY;
    bad[3].n_good = -1;
    bad[4].n_left = -1;
    bad[5].n_stuck = -1;
    bad[6].n_skipped = -1;
    EXPECT_OK(loss_scale_check(&good, &err), &err);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        EXPECT_MSG(loss_scale_check(&bad[i], &err) < 0 && err.code == ERR_FORMAT &&
                       strstr(err.text, "loss scale"),
                   "state %zu: '%s'", i, err.text);
}

int main(void)
{
    EXPECT_RUN(scales_worked_out_by_hand);
    EXPECT_RUN(every_sequence_is_megatrons);
    EXPECT_RUN(the_scale_has_bounds);
    EXPECT_RUN(damaged_states_are_refused);
    return expect_end();
}
