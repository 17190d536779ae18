/* How often the host waits for the device in a training step, and how much it asks of it, as
 * the stand-ins count it (tests/cuda_host/counts.h): once a global batch, however many micro
 * batches, layers and parameters there are. */
#include "model/neva/internal.h"
#include "model/optim/optim.h"
#include "tests/cuda_host/counts.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>

#define TOKENS 26
#define FRAMES_EACH 2
#define N_MICRO 3
#define STEPS 3
#define UPDATE_MOST 9 /* asked of the device by optim_step on one rank */

struct run {
    struct neva_config config;
    int n_ranks, n_data, n_micro;
    /* of the last rank; n_early before optim_step; n_update in the last step */
    uint64_t n_waits[STEPS], n_early[STEPS], n_update;
    double loss[STEPS];
};

static int micro_batches(struct tiny_rank *rank, const struct run *run,
                         struct neva *model, const struct tiny_batch *all,
                         int64_t *n_labels, struct err *err)
{
    *n_labels = 0;
    for (int i = 0; i < run->n_micro; i++) {
        struct neva_batch part =
            tiny_part(all, &run->config, rank->data_rank * run->n_micro + i, 1,
                      rank->rank, rank->n_ranks);
        struct neva_loss loss;

        if (neva_step(model, &part, &loss, err) < 0)
            return -1;
        *n_labels += loss.n_labels;
    }
    return 0;
}

/* The stand-ins' memory is the host's, and nothing is done there before it is waited for. */
static float a_weight(struct neva *model)
{
    const struct param *param =
        param_find(neva_params(model), "model.multi_modal_projector.linear_1.weight");

    return ((const float *)param->master.data)[0];
}

/* Called when optim_step has returned. */
static int expect_to_be_updating(struct neva *model, float before, struct err *err)
{
    EXPECT_MSG(a_weight(model) == before, "optim_step has waited for the update");
    if (model->backend->ops->sync(model->backend, err) < 0)
        return -1;
    EXPECT_MSG(a_weight(model) != before, "there was no update");
    return 0;
}

static int one_step(struct tiny_rank *rank, struct run *run, struct neva *model,
                    const struct tiny_batch *all, int step, struct err *err)
{
    struct cuda_host_counts before = cuda_host_counts(), between;
    struct optim_config optim = tiny_optim;
    struct optim_report report;
    int64_t n_labels;
    float weight;

    optim.skips_overflow = true;
    if (micro_batches(rank, run, model, all, &n_labels, err) < 0)
        return -1;
    between = cuda_host_counts();
    run->n_early[step] = between.n_waits - before.n_waits;
    weight = a_weight(model);
    if (optim_step(model, rank->data, &optim, step, n_labels * rank->n_data, &report,
                   err) < 0)
        return -1;
    run->n_waits[step] = cuda_host_counts().n_waits - before.n_waits;
    run->n_update = cuda_host_counts().n_asked - between.n_asked;
    run->loss[step] = report.loss_sum;
    return expect_to_be_updating(model, weight, err);
}

static void body(struct tiny_rank *rank)
{
    struct run mine = *(struct run *)rank->arg;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct err err = {0};
    int rc;

    tiny_batch_init(&all, &mine.config, mine.n_micro * rank->n_data, TOKENS, FRAMES_EACH,
                    5);
    rc = neva_create(&model, &mine.config, rank->backend, rank->tensor, &err);
    if (rc == 0) /* what is made once is made here */
        rc = neva_reserve(model, 1, TOKENS, FRAMES_EACH, &err);
    if (rc == 0)
        rc = rank->backend->ops->sync(rank->backend, &err);
    for (int step = 0; rc == 0 && step < STEPS; step++)
        rc = one_step(rank, &mine, model, &all, step, &err);
    EXPECT_OK(rc, &err);
    neva_destroy(model);
    tiny_batch_fini(&all);
    if (rank->rank == rank->n_ranks - 1 && rank->data_rank == rank->n_data - 1)
        *(struct run *)rank->arg = mine;
}

static struct run run_on(const struct neva_config *config, int n_ranks, int n_data,
                         int n_micro)
{
    struct run run = {
        .config = *config, .n_ranks = n_ranks, .n_data = n_data, .n_micro = n_micro};

    tiny_run_on("cuda", n_ranks * n_data, n_ranks, n_data, body, &run);
    EXPECT_MSG(run.loss[STEPS - 1] < run.loss[0], "loss %g, then %g", run.loss[0],
               run.loss[STEPS - 1]);
    return run;
}

static void expect_one_wait(const struct neva_config *config)
{
    struct run run = run_on(config, 1, 1, N_MICRO);

    for (int step = 1; step < STEPS; step++)
        EXPECT_MSG(run.n_waits[step] == 1 && run.n_early[step] == 0,
                   "%d waits in step %d, %d of them before its end",
                   (int)run.n_waits[step], step, (int)run.n_early[step]);
    EXPECT_MSG(run.n_update <= UPDATE_MOST, "%d things asked for an update",
               (int)run.n_update);
}

static void the_host_waits_once_a_step(void)
{
    struct neva_config config = tiny_config();

    expect_one_wait(&config);
    config.dtype = DTYPE_BF16;
    config.recompute = NEVA_RECOMPUTE_FULL;
    config.recompute_layers = 1;
    expect_one_wait(&config);
    config.llm.n_layers++; /* more parameters */
    config.dtype = DTYPE_F16;
    expect_one_wait(&config);
}

/* With communicators the one wait asks for an event again and again, so as to see when a peer
 * is gone: a whole stream is waited for never. */
static void nor_does_it_for_the_sums_between_devices(void)
{
    static const int layouts[][2] = {{2, 1}, {1, 2}, {2, 2}};
    struct neva_config config = tiny_config();

    setenv("CUDA_HOST_DEVICES", "4", 1);
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        struct run run = run_on(&config, layouts[i][0], layouts[i][1], N_MICRO);

        for (int step = 1; step < STEPS; step++)
            EXPECT_MSG(run.n_waits[step] == 0, "TP %d DP %d: %d waits in step %d",
                       run.n_ranks, run.n_data, (int)run.n_waits[step], step);
    }
    unsetenv("CUDA_HOST_DEVICES");
}

/* The second of the marks waits for the first, with NEVA_BEHIND_MAX micro batches between. */
static void of_many_micro_batches_old_ones_are_waited_for(void)
{
    struct neva_config config = tiny_config();
    struct run run = run_on(&config, 1, 1, 2 * NEVA_BEHIND_MAX);

    EXPECT_MSG(run.n_early[1] == 0, "%d waits", (int)run.n_early[1]);
    run = run_on(&config, 1, 1, 2 * NEVA_BEHIND_MAX + 1);
    EXPECT_MSG(run.n_early[1] == 1 && run.n_waits[1] == 2, "%d waits, %d in all",
               (int)run.n_early[1], (int)run.n_waits[1]);
}

int main(void)
{
    EXPECT_RUN(the_host_waits_once_a_step);
    EXPECT_RUN(nor_does_it_for_the_sums_between_devices);
    EXPECT_RUN(of_many_micro_batches_old_ones_are_waited_for);
    return expect_end();
}
