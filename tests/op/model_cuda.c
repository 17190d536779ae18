/* The whole model on the CUDA backend, against ref: two training steps and an answer, with
 * every decoder and encoder, on one rank and on ranks that share one device and exchange
 * through the host. Runs on host stand-ins in CI, and on a GPU where there is one; exit
 * status 77: there is none. */
#include "model/comm/device.h"
#include "model/generate/generate.h"
#include "model/neva/internal.h"
#include "model/optim/optim.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

#ifdef VNEVA_TEST_ON_GPU
#define IS_ON_GPU true
#else
#define IS_ON_GPU false
#endif
#define SKIPPED 77
#define SAMPLES 4
#define TOKENS 26
#define FRAMES_EACH 2
#define STEPS 2
#define NEW 4
#define SAME 1e-5
#define SAME_WEIGHTS 1e-4 /* behind AdamW, which divides by small numbers */
#define SAME_BF16 0.05    /* 8 bits: an error of 2^-8 a rounding */

static const struct optim_config optim = {.lr = 1e-2F,
                                          .min_lr = 1e-3F,
                                          .warmup_steps = 1,
                                          .max_steps = 10,
                                          .beta1 = 0.9F,
                                          .beta2 = 0.95F,
                                          .eps = 1e-8F,
                                          .weight_decay = 0.1F,
                                          .clip = 1};

/* One layout, and what came out of it. */
struct run {
    struct neva_config config;
    const char *backend;
    int n_ranks, n_data, n_devices; /* n_devices 0: all ranks on one */
    double loss[STEPS], norm[STEPS];
    float *grads,
        *values; /* whole; gradients of the first step, weights after the last */
    int32_t answer[NEW];
};

static int global_batch(struct tiny_rank *rank, const struct run *run, struct neva *model,
                        const struct tiny_batch *all, double totals[2], struct err *err)
{
    int64_t each = SAMPLES / run->n_data;
    struct neva_batch part = tiny_part(all, &run->config, rank->data_rank * each, each,
                                       rank->rank, rank->n_ranks);
    struct neva_loss loss;

    if (neva_step(model, &part, &loss, err) < 0)
        return -1;
    totals[0] = loss.sum;
    totals[1] = (double)loss.n_labels;
    return comm_all_reduce_f64(rank->data, totals, 2, COMM_SUM, err);
}

static int train(struct tiny_rank *rank, struct run *run, struct neva *model,
                 const struct tiny_batch *all, struct err *err)
{
    bool is_first = rank->rank == 0 && rank->data_rank == 0;

    for (int step = 0; step < STEPS; step++) {
        struct optim_report report;
        double totals[2];

        if (global_batch(rank, run, model, all, totals, err) < 0)
            return -1;
        if (step == 0) { /* of this data rank alone, before optim_step sums them */
            if (neva_reduce_grad(model, err) < 0)
                return -1;
            if (rank->data_rank == 0)
                tiny_collect(model, TINY_GRAD, run->grads);
        }
        if (optim_step(model, rank->data, &optim, step, (int64_t)totals[1], &report,
                       err) < 0)
            return -1;
        if (is_first) {
            run->loss[step] = totals[0];
            run->norm[step] = report.grad_norm;
        }
    }
    if (rank->data_rank == 0)
        tiny_collect(model, TINY_VALUE, run->values);
    return 0;
}

static int ask(struct tiny_rank *rank, struct run *run, struct neva *model,
               const struct tiny_batch *all, struct err *err)
{
    struct generate_args args = {.max_new_tokens = NEW, .end_token = -1};
    struct neva_batch prompt =
        tiny_part(all, &run->config, 0, 1, rank->rank, rank->n_ranks);
    int32_t tokens[NEW];
    int64_t len;

    if (generate_greedy(model, &prompt, &args, tokens, &len, err) < 0)
        return -1;
    if (rank->rank == 0 && rank->data_rank == 0)
        memcpy(run->answer, tokens, sizeof(tokens));
    return 0;
}

static void body(struct tiny_rank *rank)
{
    struct run *run = rank->arg;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct err err = {0};

    EXPECT(comm_has_device(rank->tensor) == (run->n_devices > 0 && rank->n_ranks > 1));
    EXPECT(comm_has_device(rank->data) == (run->n_devices > 0 && rank->n_data > 1));
    tiny_batch_init(&all, &run->config, SAMPLES, TOKENS, FRAMES_EACH, 5);
    if (EXPECT_OK(neva_create(&model, &run->config, rank->backend, rank->tensor, &err),
                  &err) &&
        EXPECT_OK(train(rank, run, model, &all, &err), &err))
        EXPECT_OK(ask(rank, run, model, &all, &err), &err);
    EXPECT(run->n_devices == 0 || (!model->vision_nn.staging && !model->llm_nn.staging));
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static struct run run_devices(const struct neva_config *config, const char *backend,
                              int n_ranks, int n_data, int n_devices)
{
    size_t n = (size_t)neva_n_params(config);
    struct run run = {.config = *config,
                      .backend = backend,
                      .n_ranks = n_ranks,
                      .n_data = n_data,
                      .n_devices = n_devices,
                      .grads = calloc(n, sizeof(float)),
                      .values = calloc(n, sizeof(float))};

    tiny_run_on(backend, n_devices > 0 ? n_devices : 1, n_ranks, n_data, body, &run);
    return run;
}

static struct run run_layout(const struct neva_config *config, const char *backend,
                             int n_ranks, int n_data)
{
    return run_devices(config, backend, n_ranks, n_data, 0);
}

static void run_fini(struct run *run)
{
    free(run->grads);
    free(run->values);
}

static double distance(const float *got, const float *want, int64_t n)
{
    double diff = 0, all = 0;

    for (int64_t i = 0; i < n; i++) {
        diff += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        all += (double)want[i] * (double)want[i];
    }
    return diff > 0 ? sqrt(diff / all) : diff;
}

static void compare(const struct run *got, const struct run *want, bool has_grads,
                    double bound, double weights_bound)
{
    int64_t n = neva_n_params(&want->config);
    double grads = distance(got->grads, want->grads, n);
    double values = distance(got->values, want->values, n);

    for (int step = 0; step < STEPS; step++) {
        EXPECT_MSG(expect_near(got->loss[step], want->loss[step], bound, 0),
                   "TP %d DP %d: loss %.9g, not %.9g, in step %d", got->n_ranks,
                   got->n_data, got->loss[step], want->loss[step], step);
        EXPECT_MSG(expect_near(got->norm[step], want->norm[step], bound, 0),
                   "TP %d DP %d: norm %.9g, not %.9g, in step %d", got->n_ranks,
                   got->n_data, got->norm[step], want->norm[step], step);
    }
    EXPECT_MSG(!has_grads || grads <= bound,
               "TP %d DP %d: gradients differ by %g of their norm", got->n_ranks,
               got->n_data, grads);
    EXPECT_MSG(values <= weights_bound, "TP %d DP %d: weights differ by %g of their norm",
               got->n_ranks, got->n_data, values);
}

static void expect_same(const struct run *want, int n_ranks, int n_data)
{
    struct run got = run_layout(&want->config, "cuda", n_ranks, n_data);

    compare(&got, want, n_data == want->n_data, SAME, SAME_WEIGHTS);
    EXPECT_MSG(memcmp(got.answer, want->answer, sizeof(got.answer)) == 0,
               "TP %d DP %d: another answer", n_ranks, n_data);
    run_fini(&got);
}

static void expect_alike_in(enum dtype dtype, struct neva_config config)
{
    struct run want, got;

    config.dtype = dtype;
    want = run_layout(&config, "ref", 1, 1);
    got = run_layout(&config, "cuda", 1, 1);
    compare(&got, &want, true, SAME_BF16, SAME_BF16);
    run_fini(&got);
    run_fini(&want);
}

static void every_decoder_trains_as_on_ref(void)
{
    for (int decoder = 0; decoder < TINY_DECODER_COUNT; decoder++) {
        struct neva_config config = tiny_decoder_config((enum tiny_decoder)decoder);
        struct run want = run_layout(&config, "ref", 1, 1);

        expect_same(&want, 1, 1);
        run_fini(&want);
    }
}

static void every_encoder_trains_as_on_ref(void)
{
    for (int vision = 1; vision < TINY_VISION_COUNT; vision++) {
        struct neva_config config = tiny_vision_config((enum tiny_vision)vision);
        struct run want = run_layout(&config, "ref", 1, 1);

        expect_same(&want, 1, 1);
        run_fini(&want);
    }
}

static void ranks_that_share_a_device_do_as_one(void)
{
    struct neva_config config = tiny_config();
    struct run want = run_layout(&config, "ref", 1, 1);

    expect_same(&want, 2, 1);
    expect_same(&want, 4, 1);
    expect_same(&want, 1, 2);
    expect_same(&want, 2, 2);
    run_fini(&want);
}

/* Exchanged by NCCL, here its stand-in: nothing of a step goes through the host. */
static void ranks_with_devices_of_their_own_do_too(void)
{
    static const int layouts[][2] = {{2, 1}, {1, 2}, {2, 2}};
    struct neva_config config = tiny_config();
    struct run want = run_layout(&config, "ref", 1, 1);

    setenv("CUDA_HOST_DEVICES", "4", 1);
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        int n_ranks = layouts[i][0], n_data = layouts[i][1];
        struct run got = run_devices(&config, "cuda", n_ranks, n_data, n_ranks * n_data);

        compare(&got, &want, n_data == 1, SAME, SAME_WEIGHTS);
        EXPECT(memcmp(got.answer, want.answer, sizeof(got.answer)) == 0);
        run_fini(&got);
    }
    unsetenv("CUDA_HOST_DEVICES");
    run_fini(&want);
}

static void frozen_parts_and_recomputation_do_too(void)
{
    struct neva_config config = tiny_config();
    struct run want;

    config.vision.freeze = true;
    config.llm.freeze = true;
    config.llm.n_kv_heads = 2;
    config.recompute = NEVA_RECOMPUTE_FULL;
    config.recompute_layers = 1;
    want = run_layout(&config, "ref", 1, 1);
    expect_same(&want, 1, 1);
    run_fini(&want);
}

static void halves_are_as_good_as_on_ref(void)
{
    expect_alike_in(DTYPE_BF16, tiny_config());
    expect_alike_in(DTYPE_F16, tiny_config());
    expect_alike_in(DTYPE_BF16, tiny_vision_config(TINY_SIGLIP));
}

/* The exit status where there is nothing to run on, else -1. */
static int check_device(void)
{
    struct backend *b = NULL;
    struct err err = {0};

    if (backend_create(&b, "cuda", 0, 0, &err) == 0) {
        backend_destroy(b);
        return -1;
    }
    printf("%s: %s\n", IS_ON_GPU ? "skipped" : "no stand-in", err.text);
    return IS_ON_GPU && err.code == ERR_UNSUPPORTED ? SKIPPED : 1;
}

int main(void)
{
    int rc = check_device();

    if (rc >= 0)
        return rc;
    EXPECT_RUN(every_decoder_trains_as_on_ref);
    EXPECT_RUN(every_encoder_trains_as_on_ref);
    EXPECT_RUN(ranks_that_share_a_device_do_as_one);
    if (!IS_ON_GPU)
        EXPECT_RUN(ranks_with_devices_of_their_own_do_too);
    EXPECT_RUN(frozen_parts_and_recomputation_do_too);
    EXPECT_RUN(halves_are_as_good_as_on_ref);
    return expect_end();
}
