/* Every state x event pair of the machines, against the diagrams of states.h; the
 * placement of attempts; and which task is next. */
#include "coordinator/model.h"
#include "coordinator/scheduler.h"
#include "coordinator/states.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct arrow {
    int from, event, to;
};

/* The arrow's end, 0 when there is none. */
static int expected(const struct arrow *arrows, size_t count, int from, int event)
{
    for (size_t i = 0; i < count; i++)
        if (arrows[i].from == from && arrows[i].event == event)
            return arrows[i].to;
    return 0;
}

#define EXPECTED(arrows, from, event)                                                    \
    expected(arrows, sizeof(arrows) / sizeof((arrows)[0]), from, event)

static void job_goes_where_the_diagram_says_and_nowhere_else(void **state)
{
    static const struct arrow arrows[] = {
        {JOB_SUBMITTED, JOB_EV_ACCEPT, JOB_QUEUED},
        {JOB_QUEUED, JOB_EV_PLACE, JOB_PLACED},
        {JOB_QUEUED, JOB_EV_HOLD, JOB_HELD},
        {JOB_QUEUED, JOB_EV_CANCEL, JOB_CANCELLED},
        {JOB_QUEUED, JOB_EV_FAIL, JOB_FAILED},
        {JOB_PLACED, JOB_EV_READY, JOB_RUNNING},
        {JOB_PLACED, JOB_EV_STOP, JOB_STOPPING},
        {JOB_RUNNING, JOB_EV_STOP, JOB_STOPPING},
        {JOB_RUNNING, JOB_EV_FINISH, JOB_DONE},
        {JOB_STOPPING, JOB_EV_RETRY, JOB_QUEUED},
        {JOB_STOPPING, JOB_EV_HOLD, JOB_HELD},
        {JOB_STOPPING, JOB_EV_CANCEL, JOB_CANCELLED},
        {JOB_STOPPING, JOB_EV_FAIL, JOB_FAILED},
        {JOB_STOPPING, JOB_EV_FINISH, JOB_DONE},
        {JOB_HELD, JOB_EV_RELEASE, JOB_QUEUED},
        {JOB_HELD, JOB_EV_CANCEL, JOB_CANCELLED},
    };
    (void)state;
    for (int from = 0; from < JOB_STATE_COUNT; from++)
        for (int event = 0; event < JOB_EVENT_COUNT; event++)
            assert_int_equal(job_state_next((enum job_state)from, (enum job_event)event),
                             EXPECTED(arrows, from, event));
}

static void attempt_goes_where_the_diagram_says_and_nowhere_else(void **state)
{
    static const struct arrow arrows[] = {
        {ATTEMPT_STARTING, ATTEMPT_EV_READY, ATTEMPT_RUNNING},
        {ATTEMPT_STARTING, ATTEMPT_EV_STOP, ATTEMPT_STOPPING},
        {ATTEMPT_RUNNING, ATTEMPT_EV_STOP, ATTEMPT_STOPPING},
        {ATTEMPT_STOPPING, ATTEMPT_EV_END, ATTEMPT_ENDED},
    };
    (void)state;
    for (int from = 0; from < ATTEMPT_STATE_COUNT; from++)
        for (int event = 0; event < ATTEMPT_EVENT_COUNT; event++)
            assert_int_equal(
                attempt_state_next((enum attempt_state)from, (enum attempt_event)event),
                EXPECTED(arrows, from, event));
}

static void task_goes_where_the_diagram_says_and_nowhere_else(void **state)
{
    static const struct arrow arrows[] = {
        {TASK_READY, TASK_EV_LEASE, TASK_LEASED},
        {TASK_LEASED, TASK_EV_FINISH, TASK_DONE},
        {TASK_LEASED, TASK_EV_RETURN, TASK_READY},
        {TASK_READY, TASK_EV_QUARANTINE, TASK_QUARANTINED},
    };
    (void)state;
    for (int from = 0; from < TASK_STATE_COUNT; from++)
        for (int event = 0; event < TASK_EVENT_COUNT; event++)
            assert_int_equal(
                task_state_next((enum task_state)from, (enum task_event)event),
                EXPECTED(arrows, from, event));
}

static void pool_goes_where_the_diagram_says_and_nowhere_else(void **state)
{
    static const struct arrow arrows[] = {
        {POOL_ACTIVE, POOL_EV_PAUSE, POOL_PAUSED},
        {POOL_PAUSED, POOL_EV_RESUME, POOL_ACTIVE},
        {POOL_ACTIVE, POOL_EV_REMOVE, POOL_REMOVING},
        {POOL_PAUSED, POOL_EV_REMOVE, POOL_REMOVING},
    };
    (void)state;
    for (int from = 0; from < POOL_STATE_COUNT; from++)
        for (int event = 0; event < POOL_EVENT_COUNT; event++)
            assert_int_equal(
                pool_state_next((enum pool_state)from, (enum pool_event)event),
                EXPECTED(arrows, from, event));
}

static void allocation_goes_where_the_diagram_says_and_nowhere_else(void **state)
{
    static const struct arrow arrows[] = {
        {ALLOCATION_INTENDED, ALLOCATION_EV_PEND, ALLOCATION_PENDING},
        {ALLOCATION_INTENDED, ALLOCATION_EV_RUN, ALLOCATION_RUNNING},
        {ALLOCATION_INTENDED, ALLOCATION_EV_END, ALLOCATION_ENDED},
        {ALLOCATION_PENDING, ALLOCATION_EV_RUN, ALLOCATION_RUNNING},
        {ALLOCATION_PENDING, ALLOCATION_EV_CANCEL, ALLOCATION_CANCELLING},
        {ALLOCATION_PENDING, ALLOCATION_EV_END, ALLOCATION_ENDED},
        {ALLOCATION_RUNNING, ALLOCATION_EV_PEND, ALLOCATION_PENDING},
        {ALLOCATION_RUNNING, ALLOCATION_EV_DRAIN, ALLOCATION_DRAINING},
        {ALLOCATION_RUNNING, ALLOCATION_EV_CANCEL, ALLOCATION_CANCELLING},
        {ALLOCATION_RUNNING, ALLOCATION_EV_END, ALLOCATION_ENDED},
        {ALLOCATION_DRAINING, ALLOCATION_EV_CANCEL, ALLOCATION_CANCELLING},
        {ALLOCATION_DRAINING, ALLOCATION_EV_END, ALLOCATION_ENDED},
        {ALLOCATION_CANCELLING, ALLOCATION_EV_END, ALLOCATION_ENDED},
    };
    (void)state;
    for (int from = 0; from < ALLOCATION_STATE_COUNT; from++)
        for (int event = 0; event < ALLOCATION_EVENT_COUNT; event++)
            assert_int_equal(allocation_state_next((enum allocation_state)from,
                                                   (enum allocation_event)event),
                             EXPECTED(arrows, from, event));
}

static void every_name_is_found_again(void **state)
{
    (void)state;
    for (int i = 1; i < JOB_STATE_COUNT; i++)
        assert_int_equal(job_state_find(job_state_name((enum job_state)i)), i);
    for (int i = 1; i < ATTEMPT_STATE_COUNT; i++)
        assert_int_equal(attempt_state_find(attempt_state_name((enum attempt_state)i)),
                         i);
    for (int i = 1; i < TASK_STATE_COUNT; i++)
        assert_int_equal(task_state_find(task_state_name((enum task_state)i)), i);
    for (int i = 0; i < PHASE_COUNT; i++)
        assert_int_equal(task_phase_find(task_phase_name((enum task_phase)i)), i);
    for (int i = 0; i < GOAL_COUNT; i++)
        assert_int_equal(job_goal_find(job_goal_name((enum job_goal)i)), i);
    for (int i = 0; i < CAUSE_COUNT; i++)
        assert_int_equal(attempt_cause_find(attempt_cause_name((enum attempt_cause)i)),
                         i);
    for (int i = 1; i < POOL_STATE_COUNT; i++)
        assert_int_equal(pool_state_find(pool_state_name((enum pool_state)i)), i);
    for (int i = 1; i < ALLOCATION_STATE_COUNT; i++)
        assert_int_equal(
            allocation_state_find(allocation_state_name((enum allocation_state)i)), i);
    assert_int_equal(job_state_find("resting"), JOB_NONE);
}

/* ---- scheduler ---- */

static const bool all_free[16];

static void plan(struct sched_plan *out, const struct sched_node *nodes, int64_t n_nodes,
                 const struct sched_job *jobs, int64_t n_jobs)
{
    struct err err = {ERR_NONE, ""};

    assert_int_equal(scheduler_plan(out, nodes, n_nodes, jobs, n_jobs, &err), 0);
}

static void group_goes_to_the_fullest_node_that_holds_it(void **state)
{
    static const bool half[] = {true, false, true, false};
    const struct sched_node nodes[] = {
        {8, all_free, SCHED_HERE}, {4, half, SCHED_HERE}, {3, all_free, SCHED_HERE}};
    const struct sched_job job = {4, 2, 1};
    struct sched_plan p;

    (void)state;
    plan(&p, nodes, 3, &job, 1);
    assert_int_equal(p.n_starts, 1);
    assert_int_equal(p.starts[0].ranks[0].node, 1);
    assert_int_equal(p.starts[0].ranks[0].device, 1);
    assert_int_equal(p.starts[0].ranks[1].node, 1);
    assert_int_equal(p.starts[0].ranks[1].device, 3);
    assert_int_equal(p.starts[0].ranks[2].node, 2); /* the second group, whole again */
    assert_int_equal(p.starts[0].ranks[3].node, 2);
    assert_string_equal(p.reasons[0], "");
    scheduler_plan_fini(&p);
}

static void group_is_spread_when_no_node_holds_it(void **state)
{
    const struct sched_node nodes[] = {{2, all_free, SCHED_HERE},
                                       {2, all_free, SCHED_HERE}};
    const struct sched_job job = {4, 4, 1};
    bool is_taken[2][2] = {{false, false}, {false, false}};
    struct sched_plan p;

    (void)state;
    plan(&p, nodes, 2, &job, 1);
    assert_int_equal(p.n_starts, 1);
    for (int r = 0; r < 4; r++) {
        const struct sched_place *place = &p.starts[0].ranks[r];

        assert_false(is_taken[place->node][place->device]);
        is_taken[place->node][place->device] = true;
    }
    scheduler_plan_fini(&p);
}

static void batch_job_gets_as_many_attempts_as_fit(void **state)
{
    const struct sched_node node = {5, all_free, SCHED_HERE};
    const struct sched_job job = {2, 2, 10};
    struct sched_plan p;

    (void)state;
    plan(&p, &node, 1, &job, 1);
    assert_int_equal(p.n_starts, 2);
    assert_string_equal(p.reasons[0], "needs 2 devices, 1 free");
    scheduler_plan_fini(&p);
}

static void later_job_does_not_take_what_an_earlier_one_waits_for(void **state)
{
    static const bool one_busy[] = {true, false};
    const struct sched_node node = {2, one_busy, SCHED_HERE};
    const struct sched_job jobs[] = {{2, 2, 1}, {1, 1, 1}};
    struct sched_plan p;

    (void)state;
    plan(&p, &node, 1, jobs, 2);
    assert_int_equal(p.n_starts, 0);
    assert_string_equal(p.reasons[0], "needs 2 devices, 1 free");
    assert_string_equal(p.reasons[1], "waits behind an earlier job");
    scheduler_plan_fini(&p);
}

static void job_that_never_fits_does_not_block_others(void **state)
{
    const struct sched_node node = {2, all_free, SCHED_HERE};
    const struct sched_job jobs[] = {{4, 2, 1}, {1, 1, 1}};
    struct sched_plan p;

    (void)state;
    plan(&p, &node, 1, jobs, 2);
    assert_int_equal(p.n_starts, 1);
    assert_int_equal(p.starts[0].job, 1);
    assert_string_equal(p.reasons[0], "needs 4 devices, there are 2");
    scheduler_plan_fini(&p);
}

static void job_without_a_ready_task_starts_nothing(void **state)
{
    const struct sched_node node = {2, all_free, SCHED_HERE};
    const struct sched_job job = {1, 1, 0};
    struct sched_plan p;

    (void)state;
    plan(&p, &node, 1, &job, 1);
    assert_int_equal(p.n_starts, 0);
    assert_string_equal(p.reasons[0], "");
    scheduler_plan_fini(&p);
}

static void without_nodes_every_job_says_what_it_needs(void **state)
{
    const struct sched_job job = {1, 1, 1};
    struct sched_plan p;

    (void)state;
    plan(&p, NULL, 0, &job, 1);
    assert_int_equal(p.n_starts, 0);
    assert_string_equal(p.reasons[0], "needs 1 device, there are 0");
    scheduler_plan_fini(&p);
}

static void awaited_node_is_used_only_when_those_that_are_there_do_not_do(void **state)
{
    const struct sched_node nodes[] = {{8, all_free, SCHED_HERE},
                                       {2, all_free, SCHED_COMING}};
    const struct sched_job jobs[] = {{2, 2, 1}, {8, 2, 1}};
    struct sched_plan p;

    (void)state;
    plan(&p, nodes, 2, jobs, 2);
    assert_int_equal(p.n_starts, 2);
    assert_int_equal(p.starts[0].ranks[0].node, 0); /* though the other is the tighter */
    assert_int_equal(p.starts[0].n_awaited, 0);
    assert_int_equal(p.starts[1].n_awaited, 2);
    assert_string_equal(p.reasons[0], "");
    assert_string_equal(p.reasons[1], "needs 8 devices, 6 free");
    scheduler_plan_fini(&p);
}

static void job_that_waits_for_nodes_keeps_what_it_has_of_those_there(void **state)
{
    const struct sched_node nodes[] = {{4, all_free, SCHED_HERE},
                                       {4, all_free, SCHED_COMING}};
    const struct sched_job jobs[] = {{8, 4, 1}, {1, 1, 1}};
    struct sched_plan p;

    (void)state;
    plan(&p, nodes, 2, jobs, 2);
    assert_int_equal(p.n_starts, 1);
    assert_int_equal(p.starts[0].n_awaited, 4);
    assert_string_equal(p.reasons[0], "needs 8 devices, there are 4");
    assert_int_equal(p.n_left[1], 1);
    scheduler_plan_fini(&p);
}

static void group_waits_for_a_node_that_holds_it_rather_than_be_spread(void **state)
{
    const struct sched_node nodes[] = {{2, all_free, SCHED_HERE},
                                       {4, all_free, SCHED_COMING},
                                       {4, all_free, SCHED_COMING}};
    const struct sched_job job = {4, 4, 1};
    struct sched_plan p;

    (void)state;
    plan(&p, nodes, 3, &job, 1);
    assert_int_equal(p.starts[0].n_awaited, 4);
    for (int r = 0; r < 4; r++)
        assert_int_equal(p.starts[0].ranks[r].node, 1);
    scheduler_plan_fini(&p);
}

static void node_that_comes_is_taken_before_another_is_asked_for(void **state)
{
    const struct sched_node nodes[] = {{1, all_free, SCHED_HERE},
                                       {8, all_free, SCHED_COMING},
                                       {2, all_free, SCHED_POSSIBLE}};
    const struct sched_job jobs[] = {{2, 2, 1}, {8, 2, 1}};
    struct sched_plan p;

    (void)state;
    plan(&p, nodes, 3, jobs, 2);
    assert_int_equal(p.n_starts, 2);
    assert_int_equal(p.starts[0].ranks[0].node, 1);
    assert_int_equal(p.starts[1].ranks[6].node, 2);
    scheduler_plan_fini(&p);
}

static void group_larger_than_any_node_is_spread_over_those_that_come(void **state)
{
    const struct sched_node nodes[] = {{1, all_free, SCHED_HERE},
                                       {1, all_free, SCHED_COMING}};
    const struct sched_job job = {2, 2, 1};
    struct sched_plan p;

    (void)state;
    plan(&p, nodes, 2, &job, 1);
    assert_int_equal(p.n_starts, 1);
    assert_int_equal(p.starts[0].n_awaited, 1);
    assert_int_equal(p.starts[0].ranks[0].node, 0);
    assert_int_equal(p.starts[0].ranks[1].node, 1);
    scheduler_plan_fini(&p);
}

/* A failed task waits; of a batch job the others may go before it. */
static void steps_of_training_are_not_leased_past_ones_that_wait(void **state)
{
    struct task waits = {.id = 1, .count = 10, .not_before_ms = 50, .state = TASK_READY};
    struct task next = {.id = 2, .first = 10, .count = 10, .state = TASK_READY};
    struct model model = {0};
    struct job *job;
    struct err err;

    (void)state;
    job = model_job_add(&model, 1, "n", "pretrain", "{}", &err);
    assert_non_null(job);
    assert_int_equal(job_task_insert(job, 0, &waits, &err), 0);
    assert_int_equal(job_task_insert(job, 1, &next, &err), 0);
    assert_int_equal(job_task_next(job, 40)->id, 2);
    job->plan.is_training = true;
    assert_null(job_task_next(job, 40));
    assert_int_equal(job_task_next(job, 50)->id, 1);
    model_fini(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(job_goes_where_the_diagram_says_and_nowhere_else),
        cmocka_unit_test(attempt_goes_where_the_diagram_says_and_nowhere_else),
        cmocka_unit_test(task_goes_where_the_diagram_says_and_nowhere_else),
        cmocka_unit_test(pool_goes_where_the_diagram_says_and_nowhere_else),
        cmocka_unit_test(allocation_goes_where_the_diagram_says_and_nowhere_else),
        cmocka_unit_test(every_name_is_found_again),
        cmocka_unit_test(group_goes_to_the_fullest_node_that_holds_it),
        cmocka_unit_test(group_is_spread_when_no_node_holds_it),
        cmocka_unit_test(batch_job_gets_as_many_attempts_as_fit),
        cmocka_unit_test(later_job_does_not_take_what_an_earlier_one_waits_for),
        cmocka_unit_test(job_that_never_fits_does_not_block_others),
        cmocka_unit_test(job_without_a_ready_task_starts_nothing),
        cmocka_unit_test(awaited_node_is_used_only_when_those_that_are_there_do_not_do),
        cmocka_unit_test(job_that_waits_for_nodes_keeps_what_it_has_of_those_there),
        cmocka_unit_test(group_waits_for_a_node_that_holds_it_rather_than_be_spread),
        cmocka_unit_test(node_that_comes_is_taken_before_another_is_asked_for),
        cmocka_unit_test(group_larger_than_any_node_is_spread_over_those_that_come),
        cmocka_unit_test(without_nodes_every_job_says_what_it_needs),
        cmocka_unit_test(steps_of_training_are_not_leased_past_ones_that_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
