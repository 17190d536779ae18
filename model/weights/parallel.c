#define _GNU_SOURCE /* sched_getaffinity */
#include "model/weights/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

struct run {
    int n_items;
    int (*work)(void *state, int item, struct err *err);
    void *state;
    atomic_int next;
    atomic_bool has_failed;
    pthread_mutex_t lock; /* of err */
    struct err *err;
};

int parallel_threads(int n_processes)
{
    cpu_set_t cpus;
    int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

    n /= n_processes;
    if (n > PARALLEL_THREADS_MAX)
        n = PARALLEL_THREADS_MAX;
    return n < 1 ? 1 : n;
}

static void fail(struct run *run, const struct err *err)
{
    pthread_mutex_lock(&run->lock);
    if (!run->has_failed && run->err)
        *run->err = *err;
    run->has_failed = true;
    pthread_mutex_unlock(&run->lock);
}

static void *thread_main(void *arg)
{
    struct run *run = arg;

    for (int i = run->next++; i < run->n_items && !run->has_failed; i = run->next++) {
        struct err err = {0};

        if (run->work(run->state, i, &err) < 0)
            fail(run, &err);
    }
    return NULL;
}

int parallel_run(int n_threads, int n_items,
                 int (*work)(void *state, int item, struct err *err), void *state,
                 struct err *err)
{
    struct run run = {.n_items = n_items,
                      .work = work,
                      .state = state,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .err = err};
    pthread_t threads[PARALLEL_THREADS_MAX];
    int n_started = 0;

    while (n_started < n_threads - 1 && n_started < PARALLEL_THREADS_MAX &&
           pthread_create(&threads[n_started], NULL, thread_main, &run) == 0)
        n_started++;
    thread_main(&run);
    for (int i = 0; i < n_started; i++)
        pthread_join(threads[i], NULL);
    return run.has_failed ? -1 : 0;
}
