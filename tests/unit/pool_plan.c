/* What a pool submits, keeps, cancels and ends: one situation after another, and long random
 * lives in which nothing may ever go beyond its bounds. */
#include "coordinator/pool_plan.h"
#include "common/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define NODES_MAX 64
#define NOW_MS 1000000
#define IDLE_MS 60000
#define LONG_AGO 0
#define JUST_NOW (NOW_MS - 1)

struct fixture {
    struct pool_facts facts;
    struct pool_node nodes[NODES_MAX];
    enum pool_action actions[NODES_MAX];
    struct pool_plan plan;
};

static struct fixture pool(int64_t min_nodes, int64_t max_nodes)
{
    return (struct fixture){.facts = {.state = POOL_ACTIVE,
                                      .min_nodes = min_nodes,
                                      .max_nodes = max_nodes,
                                      .idle_ms = IDLE_MS,
                                      .failure = "",
                                      .list_error = "",
                                      .cancel_error = "",
                                      .now_ms = NOW_MS}};
}

static void want(struct fixture *f, int64_t n)
{
    f->facts.n_wanted = n;
    f->facts.wanted_ms = LONG_AGO;
}

static void add(struct fixture *f, enum allocation_state state, bool is_needed,
                int64_t unneeded_ms)
{
    f->nodes[f->facts.n_nodes++] =
        (struct pool_node){.state = state,
                           .has_agent = state == ALLOCATION_RUNNING,
                           .is_needed = is_needed,
                           .unneeded_ms = unneeded_ms,
                           .agentless_ms = JUST_NOW};
}

static void plan(struct fixture *f)
{
    f->facts.nodes = f->nodes;
    f->plan.actions = f->actions;
    pool_plan(&f->plan, &f->facts);
}

static void assert_why(const struct fixture *f, enum pool_why which, const char *text)
{
    assert_string_equal(f->plan.why[which], text);
}

/* ---- submitting ---- */

static void nothing_is_submitted_while_nothing_waits(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_why(&f, POOL_WHY_SUBMITS, "submits nothing: no task waits for another node");
    f.facts.is_work_left = true;
    plan(&f);
    assert_why(&f, POOL_WHY_SUBMITS,
               "submits nothing: what waits is too large for it, or behind another job");
    assert_why(&f, POOL_WHY_KEEPS, "keeps nothing: it has no node");
    assert_why(&f, POOL_WHY_CANCELS, "cancels nothing: no node is pending");
    assert_why(&f, POOL_WHY_ENDS, "ends nothing: no node is running");
}

static void as_many_are_submitted_as_are_wanted(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    want(&f, 2);
    plan(&f);
    assert_int_equal(f.plan.n_submit, 2);
    assert_why(&f, POOL_WHY_SUBMITS, "submits 2 nodes: tasks wait for 2 more");
}

static void work_that_has_only_begun_to_wait_gets_no_node_yet(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    want(&f, 2);
    f.facts.wanted_ms = NOW_MS - POOL_WANTED_MS + 1;
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_why(&f, POOL_WHY_SUBMITS,
               "submits nothing yet: tasks have only begun to wait");
    f.facts.wanted_ms--;
    plan(&f);
    assert_int_equal(f.plan.n_submit, 2);
}

static void those_on_their_way_out_count_against_the_limit(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    want(&f, 4);
    add(&f, ALLOCATION_RUNNING, true, NOW_MS);
    add(&f, ALLOCATION_DRAINING, false, LONG_AGO);
    add(&f, ALLOCATION_CANCELLING, false, LONG_AGO);
    plan(&f);
    assert_int_equal(f.plan.n_submit, 1);
    add(&f, ALLOCATION_PENDING, true, NOW_MS);
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_why(&f, POOL_WHY_SUBMITS,
               "submits nothing: 4 of at most 4 nodes are there or on their way");
}

static void few_submissions_are_under_way_at_once(void **state)
{
    struct fixture f = pool(0, 40);

    (void)state;
    want(&f, 30);
    for (int i = 0; i < POOL_SUBMITTING_MAX - 1; i++)
        add(&f, ALLOCATION_INTENDED, true, NOW_MS);
    plan(&f);
    assert_int_equal(f.plan.n_submit, 1);
    add(&f, ALLOCATION_INTENDED, true, NOW_MS);
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_why(&f, POOL_WHY_SUBMITS, "submits no more until 4 under way are settled");
}

static void minimum_is_filled_without_work(void **state)
{
    struct fixture f = pool(2, 4);

    (void)state;
    add(&f, ALLOCATION_DRAINING, false, LONG_AGO);
    plan(&f);
    assert_int_equal(f.plan.n_submit, 2);
    assert_why(&f, POOL_WHY_SUBMITS, "submits 2 nodes: at least 2 are to be there");
}

static void failure_is_told_and_waited_for(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    want(&f, 1);
    f.facts.failure = "sbatch: no";
    f.facts.retry_ms = NOW_MS + 1;
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_why(&f, POOL_WHY_SUBMITS,
               "submits nothing for a while: the last try failed (sbatch: no)");
    f.facts.retry_ms = NOW_MS;
    plan(&f);
    assert_int_equal(f.plan.n_submit, 1);
}

static void cluster_that_cannot_be_listed_gets_nothing_more_and_that_is_said(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    want(&f, 1);
    f.facts.list_error = "squeue: down";
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_why(&f, POOL_WHY_SUBMITS,
               "submits nothing until the cluster can be listed: squeue: down");
    add(&f, ALLOCATION_DRAINING, false, LONG_AGO);
    f.facts.state = POOL_REMOVING;
    plan(&f);
    assert_why(&f, POOL_WHY_SUBMITS,
               "submits nothing: it is being removed, once the cluster can be listed: "
               "squeue: down");
    assert_why(&f, POOL_WHY_KEEPS, "keeps nothing: 1 node on the way out");
}

static void cancelling_that_fails_is_said(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    f.facts.cancel_error = "scancel: no";
    plan(&f);
    assert_why(&f, POOL_WHY_CANCELS,
               "cancels nothing: no node is pending"); /* any more */
    add(&f, ALLOCATION_CANCELLING, false, LONG_AGO);
    plan(&f);
    assert_why(&f, POOL_WHY_CANCELS,
               "tries to cancel again: the last try failed (scancel: no)");
}

static void nothing_happens_while_agents_may_come_back(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    want(&f, 1);
    f.facts.is_settling = true;
    add(&f, ALLOCATION_RUNNING, false, LONG_AGO);
    add(&f, ALLOCATION_PENDING, false, LONG_AGO);
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_int_equal(f.actions[0], POOL_KEEP);
    assert_int_equal(f.actions[1], POOL_KEEP);
    assert_why(&f, POOL_WHY_SUBMITS,
               "submits nothing: agents may still come back after the restart");
}

static void paused_pool_submits_nothing_and_lets_idle_ones_end(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    want(&f, 1);
    f.facts.state = POOL_PAUSED;
    add(&f, ALLOCATION_RUNNING, false, LONG_AGO);
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_int_equal(f.actions[0], POOL_END);
    assert_why(&f, POOL_WHY_SUBMITS, "submits nothing: it is paused");
}

/* ---- cancelling and ending ---- */

static void unneeded_pending_ones_are_cancelled_after_a_while(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    add(&f, ALLOCATION_PENDING, true, LONG_AGO);
    add(&f, ALLOCATION_PENDING, false, NOW_MS - POOL_UNNEEDED_MS);
    add(&f, ALLOCATION_PENDING, false, NOW_MS - POOL_UNNEEDED_MS + 1);
    plan(&f);
    assert_int_equal(f.actions[0], POOL_KEEP);
    assert_int_equal(f.actions[1], POOL_CANCEL);
    assert_int_equal(f.actions[2], POOL_KEEP);
    f.nodes[1].is_needed = true;
    plan(&f);
    assert_why(&f, POOL_WHY_CANCELS,
               "cancels nothing yet: 1 pending not needed for less than 10 s");
    f.nodes[2].is_needed = true;
    plan(&f);
    assert_why(&f, POOL_WHY_CANCELS,
               "cancels nothing: tasks wait for all that are pending");
}

/* The oldest is the next in the cluster's queue. */
static void newest_pending_one_goes_first_and_the_minimum_stays(void **state)
{
    struct fixture f = pool(1, 4);

    (void)state;
    for (int i = 0; i < 3; i++)
        add(&f, ALLOCATION_PENDING, false, LONG_AGO);
    plan(&f);
    assert_int_equal(f.actions[0], POOL_KEEP);
    assert_int_equal(f.actions[1], POOL_CANCEL);
    assert_int_equal(f.actions[2], POOL_CANCEL);
    f.facts.n_nodes = 1;
    plan(&f);
    assert_why(&f, POOL_WHY_CANCELS, "cancels nothing: at least 1 are to be there");
}

static void idle_ones_end_the_longest_idle_first_down_to_the_minimum(void **state)
{
    struct fixture f = pool(1, 4);

    (void)state;
    add(&f, ALLOCATION_RUNNING, false, NOW_MS - IDLE_MS);
    add(&f, ALLOCATION_RUNNING, false, NOW_MS - 2 * IDLE_MS);
    plan(&f);
    assert_int_equal(f.actions[0], POOL_KEEP);
    assert_int_equal(f.actions[1], POOL_END);
    assert_why(&f, POOL_WHY_ENDS, "ends 1 node: nothing to do on it");
    f.facts.n_nodes = 1;
    plan(&f);
    assert_why(&f, POOL_WHY_ENDS, "ends nothing: at least 1 are to be there");
}

static void one_that_is_needed_is_never_touched(void **state)
{
    struct fixture f = pool(0, 4);

    (void)state;
    add(&f, ALLOCATION_RUNNING, true, LONG_AGO); /* busy, or kept for a gang */
    add(&f, ALLOCATION_RUNNING, false, JUST_NOW);
    plan(&f);
    assert_int_equal(f.actions[0], POOL_KEEP);
    assert_int_equal(f.actions[1], POOL_KEEP);
    assert_why(&f, POOL_WHY_ENDS, "ends nothing yet: 1 idle for less than 60 s");
    f.nodes[1].is_needed = true;
    plan(&f);
    assert_why(&f, POOL_WHY_ENDS, "ends nothing: all 2 running are needed");
}

static void one_without_an_agent_is_cancelled_in_the_end_though_it_is_needed(void **state)
{
    struct fixture f = pool(1, 4);

    (void)state;
    add(&f, ALLOCATION_RUNNING, true, NOW_MS);
    f.nodes[0].has_agent = false;
    f.nodes[0].agentless_ms = NOW_MS - POOL_AGENTLESS_MS + 1;
    plan(&f);
    assert_int_equal(f.actions[0], POOL_KEEP);
    f.nodes[0].agentless_ms--;
    plan(&f);
    assert_int_equal(f.actions[0], POOL_CANCEL);
}

static void pool_that_is_removed_clears_all_but_what_is_busy(void **state)
{
    struct fixture f = pool(2, 4);

    (void)state;
    want(&f, 2);
    f.facts.state = POOL_REMOVING;
    add(&f, ALLOCATION_INTENDED, true, NOW_MS); /* nobody knows yet what to cancel */
    add(&f, ALLOCATION_PENDING, true, NOW_MS);
    add(&f, ALLOCATION_RUNNING, false, JUST_NOW);
    add(&f, ALLOCATION_RUNNING, true, NOW_MS);
    f.nodes[3].is_busy = true;
    add(&f, ALLOCATION_RUNNING, true, NOW_MS);
    f.nodes[4].has_agent = false;
    plan(&f);
    assert_int_equal(f.plan.n_submit, 0);
    assert_int_equal(f.actions[0], POOL_KEEP);
    assert_int_equal(f.actions[1], POOL_CANCEL);
    assert_int_equal(f.actions[2], POOL_END);
    assert_int_equal(f.actions[3], POOL_KEEP);
    assert_int_equal(f.actions[4], POOL_CANCEL);
    assert_why(&f, POOL_WHY_SUBMITS, "submits nothing: it is being removed");
}

/* ---- random lives ---- */

#define LIVES 200
#define TURNS 400
#define STEP_MS 500

struct life {
    struct fixture f;
    struct rng_key key;
    uint64_t n_drawn;
    int64_t demand; /* nodes that the work there is could use */
    int64_t n_submitted, n_cancelled;
};

static int64_t draw(struct life *life, uint64_t below)
{
    return (int64_t)rng_below(life->key, life->n_drawn++, below);
}

static void drop_ended(struct life *life)
{
    size_t n = 0;

    for (size_t i = 0; i < life->f.facts.n_nodes; i++)
        if (life->f.nodes[i].state != ALLOCATION_ENDED)
            life->f.nodes[n++] = life->f.nodes[i];
    life->f.facts.n_nodes = n;
}

/* What the cluster makes of a node when its time has come. */
static enum allocation_state next_state(struct life *life, enum allocation_state state)
{
    switch (state) {
    case ALLOCATION_INTENDED:
        return draw(life, 10) ? ALLOCATION_PENDING : ALLOCATION_ENDED;
    case ALLOCATION_PENDING:
        return ALLOCATION_RUNNING;
    case ALLOCATION_RUNNING:
        return draw(life, 50) ? ALLOCATION_RUNNING : ALLOCATION_ENDED;
    default:
        return ALLOCATION_ENDED;
    }
}

/* Submissions are answered, nodes begin, some die, those that were told to end do. */
static void cluster_goes_on(struct life *life)
{
    for (size_t i = 0; i < life->f.facts.n_nodes; i++) {
        struct pool_node *node = &life->f.nodes[i];

        if (draw(life, 4) == 0)
            node->state = next_state(life, node->state);
        node->has_agent = node->state == ALLOCATION_RUNNING;
    }
    drop_ended(life);
}

/* As the scheduler does: those that run first, then those that come, then more. */
static void work_is_placed(struct life *life)
{
    struct pool_facts *facts = &life->f.facts;
    int64_t left = life->demand;

    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < facts->n_nodes; i++) {
            struct pool_node *node = &life->f.nodes[i];
            bool runs = node->state == ALLOCATION_RUNNING;
            bool comes =
                node->state == ALLOCATION_INTENDED || node->state == ALLOCATION_PENDING;

            if (pass == 0)
                node->is_needed = node->is_busy = false;
            if (pass == 0 ? !runs : !comes)
                continue;
            node->is_needed = left > 0;
            node->is_busy = runs && node->is_needed;
            left -= node->is_needed;
        }
    facts->n_wanted = facts->max_nodes - (int64_t)facts->n_nodes;
    if (facts->n_wanted > left)
        facts->n_wanted = left;
    if (facts->n_wanted <= 0) {
        facts->n_wanted = 0;
        facts->wanted_ms = facts->now_ms;
    }
    for (size_t i = 0; i < facts->n_nodes; i++) {
        if (life->f.nodes[i].is_needed)
            life->f.nodes[i].unneeded_ms = facts->now_ms;
        if (life->f.nodes[i].has_agent || life->f.nodes[i].state != ALLOCATION_RUNNING)
            life->f.nodes[i].agentless_ms = facts->now_ms;
    }
}

static int64_t count_live(const struct life *life)
{
    int64_t n = 0;

    for (size_t i = 0; i < life->f.facts.n_nodes; i++)
        n += life->f.nodes[i].state <= ALLOCATION_RUNNING;
    return n;
}

static void obey(struct life *life)
{
    struct pool_facts *facts = &life->f.facts;
    size_t n = facts->n_nodes;
    int64_t to_min = facts->min_nodes - count_live(life);

    assert_true(life->f.plan.n_submit <=
                (to_min > facts->n_wanted ? to_min : facts->n_wanted));
    for (size_t i = 0; i < n; i++) {
        struct pool_node *node = &life->f.nodes[i];

        if (life->f.actions[i] == POOL_KEEP)
            continue;
        assert_false(node->is_busy);
        assert_false(node->is_needed);
        assert_int_equal(node->state, life->f.actions[i] == POOL_CANCEL
                                          ? ALLOCATION_PENDING
                                          : ALLOCATION_RUNNING);
        node->state = life->f.actions[i] == POOL_CANCEL ? ALLOCATION_CANCELLING
                                                        : ALLOCATION_DRAINING;
        life->n_cancelled++;
    }
    for (int64_t i = 0; i < life->f.plan.n_submit; i++) {
        add(&life->f, ALLOCATION_INTENDED, false, facts->now_ms);
        life->n_submitted++;
    }
    assert_true((int64_t)facts->n_nodes <= facts->max_nodes);
}

static void turn(struct life *life)
{
    life->f.facts.now_ms += STEP_MS;
    cluster_goes_on(life);
    work_is_placed(life);
    plan(&life->f);
    obey(life);
}

static struct life begin_life(uint64_t number)
{
    struct life life = {.key = {number, rng_stream("pool lives")}};
    int64_t max_nodes = 1 + draw(&life, 12);

    life.f = pool(draw(&life, (uint64_t)max_nodes), max_nodes);
    life.f.facts.idle_ms = 1000 + draw(&life, 30000);
    return life;
}

static void no_life_goes_beyond_its_bounds_and_all_end_as_they_should(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < LIVES; n++) {
        struct life life = begin_life(n);
        int64_t min_nodes = life.f.facts.min_nodes, rounds = 0, most = 0;

        for (int i = 0; i < TURNS; i++) {
            if (draw(&life, 20) == 0)
                life.demand = draw(&life, 16);
            turn(&life);
        }
        /* Steady work is served by as many as the limit allows... */
        life.demand = 5;
        for (rounds = 0; rounds < TURNS; rounds++) {
            turn(&life);
            most = count_live(&life) > most ? count_live(&life) : most;
        }
        assert_true(most >= (life.f.facts.max_nodes < 5 ? life.f.facts.max_nodes : 5));
        /* ...and no work by the minimum. */
        life.demand = 0;
        for (rounds = 0; rounds < TURNS; rounds++)
            turn(&life);
        assert_true(count_live(&life) <= min_nodes);
    }
}

/* Work that comes and goes sooner than a node is idle costs no node. */
static void work_that_comes_and_goes_does_not_make_nodes_flap(void **state)
{
    struct life life = {.key = {1, rng_stream("pool flaps")}};

    (void)state;
    life.f = pool(0, 4);
    life.f.facts.idle_ms = 30000;
    for (int i = 0; i < 3; i++)
        add(&life.f, ALLOCATION_RUNNING, true, NOW_MS);
    for (int i = 0; i < 200; i++) {
        life.demand = i / 20 % 2 ? 3 : 0; /* ten seconds each */
        life.f.facts.now_ms += STEP_MS;
        work_is_placed(&life);
        plan(&life.f);
        obey(&life);
    }
    assert_int_equal(life.n_submitted, 0);
    assert_int_equal(life.n_cancelled, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_submitted_while_nothing_waits),
        cmocka_unit_test(as_many_are_submitted_as_are_wanted),
        cmocka_unit_test(work_that_has_only_begun_to_wait_gets_no_node_yet),
        cmocka_unit_test(those_on_their_way_out_count_against_the_limit),
        cmocka_unit_test(few_submissions_are_under_way_at_once),
        cmocka_unit_test(minimum_is_filled_without_work),
        cmocka_unit_test(failure_is_told_and_waited_for),
        cmocka_unit_test(
            cluster_that_cannot_be_listed_gets_nothing_more_and_that_is_said),
        cmocka_unit_test(cancelling_that_fails_is_said),
        cmocka_unit_test(nothing_happens_while_agents_may_come_back),
        cmocka_unit_test(paused_pool_submits_nothing_and_lets_idle_ones_end),
        cmocka_unit_test(unneeded_pending_ones_are_cancelled_after_a_while),
        cmocka_unit_test(newest_pending_one_goes_first_and_the_minimum_stays),
        cmocka_unit_test(idle_ones_end_the_longest_idle_first_down_to_the_minimum),
        cmocka_unit_test(one_that_is_needed_is_never_touched),
        cmocka_unit_test(
            one_without_an_agent_is_cancelled_in_the_end_though_it_is_needed),
        cmocka_unit_test(pool_that_is_removed_clears_all_but_what_is_busy),
        cmocka_unit_test(no_life_goes_beyond_its_bounds_and_all_end_as_they_should),
        cmocka_unit_test(work_that_comes_and_goes_does_not_make_nodes_flap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
