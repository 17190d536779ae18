/* Exact resume: a training job whose ranks, agent and coordinator are killed at random
 * moments, 20 times, ends with the same sample log and the same bits as the one left alone.
 *
 * Should a job get to its end before all kills were made, the next one takes the rest:
 * each has to equal the first.
 */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/rng.h"
#include "tests/integration/worker_home.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_KILLS 20
#define N_DEVICES 2
#define EARLY_MAX 2 /* kills in a row that may come before a checkpoint was reached */

enum victim { VICTIM_RANK_0, VICTIM_RANK_1, VICTIM_AGENT, VICTIM_COORDINATOR, N_VICTIMS };

struct resume {
    struct home home;
    char dataset[128];
    int64_t job_alone;
    int n_kills, n_early;
    int n_killed[N_VICTIMS];
};

static const char *const training[] = {
    "trainer.max_steps=200",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=50",
    "exp_manager.checkpoint_callback_params.every_n_train_steps=5",
    "exp_manager.checkpoint_callback_params.save_top_k=3",
    NULL,
};

static int64_t submit_training(struct resume *resume)
{
    return home_submit_training(&resume->home, resume->dataset, training);
}

/* ---- killing ---- */

static int64_t draw(const struct resume *resume, const char *what, uint64_t n)
{
    struct rng_key key = {7, rng_stream(what)};

    return (int64_t)rng_below(key, (uint64_t)resume->n_kills, n);
}

static bool is_over(const char *state)
{
    return strcmp(state, "done") == 0 || strcmp(state, "failed") == 0;
}

/* Waits until the job has an attempt whose ranks are known and which has come to `step`.
 * The process numbers of its ranks; false when the job has ended. */
static bool wait_for_step(struct resume *resume, int64_t job, int64_t step,
                          pid_t pids[N_DEVICES])
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;

    while (clock_mono_ms() < end_ms) {
        struct json *row = home_job(&resume->home, job);
        struct json *attempt = home_attempt(&resume->home, job);
        const char *state = json_get_string(attempt, "state");
        bool is_end = is_over(json_get_string(row, "state"));
        bool is_there = state && strcmp(state, "running") == 0 &&
                        json_get_int(row, "done", 0) >= step;

        for (int r = 0; r < N_DEVICES; r++)
            pids[r] = (pid_t)json_get_int(json_at(json_get(attempt, "ranks"), (size_t)r),
                                          "pid", 0);
        json_free(attempt);
        json_free(row);
        if (is_end)
            return false;
        if (is_there && pids[0] > 0 && pids[1] > 0)
            return true;
        poll(NULL, 0, 2);
    }
    fail_msg("the job does not come to step %lld", (long long)step);
    return false;
}

static void kill_one(struct resume *resume, enum victim victim, const pid_t *pids)
{
    struct home *home = &resume->home;

    resume->n_killed[victim]++;
    switch (victim) {
    case VICTIM_AGENT:
        home_kill(&home->agent);
        home_start_agent(home, N_DEVICES);
        break;
    case VICTIM_COORDINATOR:
        home_kill(&home->coordinator);
        home_start_coordinator(home);
        break;
    default:
        kill(pids[victim == VICTIM_RANK_1], SIGKILL);
    }
}

static int64_t steps_done(struct resume *resume, int64_t job)
{
    struct json *row = home_job(&resume->home, job);
    int64_t done = json_get_int(row, "done", 0);

    json_free(row);
    return done;
}

/* Kills somebody a few steps from here. Not too often before the next checkpoint: five
 * attempts without one are taken for hopeless. False when the job has ended. */
static bool kill_somewhere(struct resume *resume, int64_t job)
{
    int64_t ahead = draw(resume, "ahead", 9);
    pid_t pids[N_DEVICES];

    if (ahead >= 5 || resume->n_early >= EARLY_MAX) {
        ahead = ahead < 5 ? ahead + 5 : ahead;
        resume->n_early = 0;
    } else {
        resume->n_early++;
    }
    if (!wait_for_step(resume, job, steps_done(resume, job) + ahead, pids))
        return false;
    /* Every four kills take each once, in an order of their own. */
    kill_one(resume,
             (enum victim)rng_permute(7, (uint64_t)resume->n_kills / N_VICTIMS,
                                      (uint64_t)resume->n_kills % N_VICTIMS, N_VICTIMS),
             pids);
    resume->n_kills++;
    return true;
}

/* ---- the test ---- */

static int setup(void **state)
{
    struct resume *resume = calloc(1, sizeof(*resume));

    *state = resume;
    home_init(&resume->home, N_DEVICES);
    home_prepare(&resume->home, NULL, resume->dataset, sizeof(resume->dataset));
    return 0;
}

static int teardown(void **state)
{
    struct resume *resume = *state;

    home_fini(&resume->home);
    free(resume);
    return 0;
}

static void killed_training_equals_the_one_left_alone(void **state)
{
    struct resume *resume = *state;

    resume->job_alone = submit_training(resume);
    home_wait_done(&resume->home, resume->job_alone);
    while (resume->n_kills < N_KILLS) {
        int64_t job = submit_training(resume);

        while (resume->n_kills < N_KILLS && kill_somewhere(resume, job))
            ;
        home_wait_done(&resume->home, job);
        home_expect_same_run(&resume->home, job, resume->job_alone);
    }
    print_message("killed: rank 0 %d times, rank 1 %d, agent %d, coordinator %d\n",
                  resume->n_killed[VICTIM_RANK_0], resume->n_killed[VICTIM_RANK_1],
                  resume->n_killed[VICTIM_AGENT], resume->n_killed[VICTIM_COORDINATOR]);
    for (int i = 0; i < N_VICTIMS; i++)
        assert_true(resume->n_killed[i] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(killed_training_equals_the_one_left_alone, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
