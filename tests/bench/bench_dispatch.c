/* bench_dispatch [AGENTS [TASKS]]: how many tasks a second the coordinator hands out and
 * takes back, each completion durable (SQLite, synchronous=FULL) before the next lease.
 *
 * The real program over its socket; agents (default 64, of one device each) answer every
 * task at once, so all that is measured is dispatch. A round trip is from a TASK_DONE sent
 * to the next TASK_START received.
 */
#include "common/base/clock.h"
#include "tests/integration/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define AGENTS_DEFAULT 64
#define TASKS_DEFAULT 10000

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* All round trips of all agents, sorted; those never measured are 0 and left out. */
static int64_t *collect(struct cluster *cluster, int64_t *count)
{
    int64_t total = 0, *all;

    for (int a = 0; a < cluster->n_agents; a++)
        total += cluster->agents[a].n_done;
    all = calloc((size_t)total + 1, sizeof(*all));
    *count = 0;
    for (int a = 0; all && a < cluster->n_agents; a++)
        for (int64_t i = 0; i < cluster->agents[a].n_done; i++)
            if (cluster->agents[a].round_trips_ns[i])
                all[(*count)++] = cluster->agents[a].round_trips_ns[i];
    if (all)
        qsort(all, (size_t)*count, sizeof(*all), compare);
    return all;
}

static bool is_done(struct cluster *cluster, int64_t n_tasks)
{
    int64_t n_done = 0;

    for (int a = 0; a < cluster->n_agents; a++)
        n_done += cluster->agents[a].n_done;
    return n_done == n_tasks + 2; /* plan and finish */
}

static void run(struct cluster *cluster, int n_agents, int64_t n_tasks)
{
    int64_t begun_ns, count, p50, p99, *trips;
    char spec[1024];
    double seconds;

    spec_prepare(spec, sizeof(spec), 1);
    for (int i = 0; i < n_agents; i++) {
        struct fake_agent *agent = cluster_add_agent(cluster, 1, n_tasks);

        agent->round_trips_ns = calloc((size_t)n_tasks + 2, sizeof(int64_t));
        assert_non_null(agent->round_trips_ns);
    }
    begun_ns = clock_mono_ns();
    cluster_submit(cluster, "bench", "prepare", spec);
    while (!is_done(cluster, n_tasks))
        cluster_step(cluster, 0);
    cluster_wait_job(cluster, 1, "done");
    seconds = (double)(clock_mono_ns() - begun_ns) / 1e9;
    trips = collect(cluster, &count);
    assert_true(trips && count > 0);
    p50 = trips[count / 2];
    p99 = trips[count * 99 / 100];
    printf("%8s %8s %10s %14s %14s %14s\n", "agents", "tasks", "seconds", "durable/s",
           "lease p50 ms", "lease p99 ms");
    printf("%8d %8lld %10.2f %14.0f %14.2f %14.2f\n", n_agents, (long long)n_tasks,
           seconds, (double)n_tasks / seconds, (double)p50 / 1e6, (double)p99 / 1e6);
    free(trips);
    for (int a = 0; a < n_agents; a++)
        free(cluster->agents[a].round_trips_ns);
}

static struct {
    int n_agents;
    int64_t n_tasks;
} size = {AGENTS_DEFAULT, TASKS_DEFAULT};

static void bench(void **state)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));

    (void)state;
    assert_non_null(cluster);
    cluster_init(cluster);
    cluster_start(cluster, NULL);
    run(cluster, size.n_agents, size.n_tasks);
    cluster_fini(cluster);
    free(cluster);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bench)};

    if (argc > 1)
        size.n_agents = (int)strtol(argv[1], NULL, 10);
    if (argc > 2)
        size.n_tasks = strtol(argv[2], NULL, 10);
    if (size.n_agents < 1 || size.n_agents > CLUSTER_AGENTS_MAX || size.n_tasks < 1) {
        fprintf(stderr, "usage: bench_dispatch [AGENTS up to %d [TASKS]]\n",
                CLUSTER_AGENTS_MAX);
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
