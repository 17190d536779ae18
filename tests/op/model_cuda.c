/* The whole model on the CUDA backend, against ref: two training steps and an answer, with
 * every decoder, encoder, precision and recomputation, on one rank and on ranks that share
 * one device and exchange through the host; and a model that is too large for the device. Runs on host stand-ins in CI, and on a GPU where there is one; exit
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
#define SAME_TF32 0.02    /* 11 bits, of the factors of products */
#define SAME_F16 0.02     /* 11 bits */
#define LOSS_SCALE 4096
#define GPUS_VARIABLE "VNEVA_GPUS" /* how many there are, where this runs on GPUs */
#define STAND_IN_GPUS 4
#define WIDE 65536                  /* feed-forward: so that few layers are too many */
#define STAND_IN_MEMORY "134217728" /* bytes of a device that is too small */

/* One layout, and what came out of it. */
struct run {
    struct neva_config config;
    const char *backend;
    int n_ranks, n_data, n_devices; /* n_devices 0: all ranks on one */
    bool is_tf32;
    double scale;                 /* of the loss; 0: as it is */
    struct backend_replay replay; /* of the first rank */
    double loss[STEPS], norm[STEPS];
    float *grads,
        *values; /* whole; gradients of the first step, weights after the last */
    int32_t answer[NEW];
};

static int train(struct tiny_rank *rank, struct run *run, struct neva *model,
                 const struct tiny_batch *all, struct err *err)
{
    bool is_first = rank->rank == 0 && rank->data_rank == 0;

    if (run->scale > 0)
        neva_set_loss_scale(model, run->scale);
    for (int step = 0; step < STEPS; step++) {
        struct optim_report report;
        double totals[2];

        if (tiny_global_batch(rank, model, all, 1, totals, err) < 0)
            return -1;
        if (step == 0) { /* of this data rank alone, before optim_step sums them */
            if (neva_reduce_grad(model, err) < 0)
                return -1;
            if (rank->data_rank == 0)
                tiny_collect(model, TINY_GRAD, run->grads);
        }
        if (optim_step(model, rank->data, &tiny_optim, step, (int64_t)totals[1], &report,
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

    if (generate_tokens(model, &prompt, &args, tokens, &len, err) < 0)
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

    backend_allow_tf32(rank->backend, run->is_tf32);
    EXPECT(comm_has_device(rank->tensor) == (run->n_devices > 0 && rank->n_ranks > 1));
    EXPECT(comm_has_device(rank->data) == (run->n_devices > 0 && rank->n_data > 1));
    tiny_batch_init(&all, &run->config, SAMPLES, TOKENS, FRAMES_EACH, 5);
    if (EXPECT_OK(neva_create(&model, &run->config, rank->backend, rank->tensor, &err),
                  &err) &&
        EXPECT_OK(train(rank, run, model, &all, &err), &err))
        EXPECT_OK(ask(rank, run, model, &all, &err), &err);
    if (rank->rank == 0 && rank->data_rank == 0)
        run->replay = rank->backend->replay;
    EXPECT(run->n_devices == 0 || (!model->vision_nn.staging && !model->llm_nn.staging));
    neva_destroy(model);
    tiny_batch_fini(&all);
}

/* Fills in where the results go, and works. */
static void run_start(struct run *run)
{
    size_t n = (size_t)neva_n_params(&run->config);

    run->grads = calloc(n, sizeof(float));
    run->values = calloc(n, sizeof(float));
    tiny_run_on(run->backend, run->n_devices > 0 ? run->n_devices : 1, run->n_ranks,
                run->n_data, body, run);
}

static struct run run_devices(const struct neva_config *config, const char *backend,
                              int n_ranks, int n_data, int n_devices)
{
    struct run run = {.config = *config,
                      .backend = backend,
                      .n_ranks = n_ranks,
                      .n_data = n_data,
                      .n_devices = n_devices};

    run_start(&run);
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

static void compare(const struct run *got, const struct run *want, bool has_grads,
                    double bound, double weights_bound)
{
    int64_t n = neva_n_params(&want->config);
    double grads = tiny_distance(got->grads, want->grads, n);
    double values = tiny_distance(got->values, want->values, n);

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

static int n_devices_here(void)
{
    const char *text = IS_ON_GPU ? getenv(GPUS_VARIABLE) : NULL;

    if (!IS_ON_GPU)
        return STAND_IN_GPUS;
    return text ? (int)strtol(text, NULL, 10) : 1;
}

/* Exchanged by NCCL, in CI its stand-in: nothing of a step goes through the host. */
static void ranks_with_devices_of_their_own_do_too(void)
{
    static const int layouts[][2] = {{2, 1}, {1, 2}, {2, 2}};
    struct neva_config config = tiny_config();
    struct run want = run_layout(&config, "ref", 1, 1);

    setenv("CUDA_HOST_DEVICES", "4", 1);
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        int n_ranks = layouts[i][0], n_data = layouts[i][1];
        struct run got;

        if (n_ranks * n_data > n_devices_here())
            continue;
        got = run_devices(&config, "cuda", n_ranks, n_data, n_ranks * n_data);
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

/* Products of fp32 with rounded factors: near, and not the same. */
static void tf32_is_near_fp32(void)
{
    struct neva_config config = tiny_config();
    struct run want = run_layout(&config, "ref", 1, 1);
    struct run got = {
        .config = config, .backend = "cuda", .n_ranks = 1, .n_data = 1, .is_tf32 = true};

    run_start(&got);
    compare(&got, &want, true, SAME_TF32, SAME_TF32);
    EXPECT(tiny_distance(got.grads, want.grads, neva_n_params(&config)) > SAME);
    run_fini(&got);
    run_fini(&want);
}

static void fp16_with_a_loss_scale_is_as_good_as_on_ref(void)
{
    struct neva_config config = tiny_config();
    struct run runs[2];

    config.dtype = DTYPE_F16;
    for (int i = 0; i < 2; i++) {
        runs[i] = (struct run){.config = config,
                               .backend = i ? "cuda" : "ref",
                               .n_ranks = 1,
                               .n_data = 1,
                               .scale = LOSS_SCALE};
        run_start(&runs[i]);
    }
    compare(&runs[1], &runs[0], true, SAME_F16, SAME_F16);
    run_fini(&runs[0]);
    run_fini(&runs[1]);
}

/* What is computed again has the same bits as the first time. */
static void recomputation_changes_no_gradient(void)
{
    static const struct {
        enum neva_recompute what;
        enum neva_recompute_method method;
        int64_t n_layers;
    } ways[] = {{NEVA_RECOMPUTE_SELECTIVE, NEVA_RECOMPUTE_UNIFORM, 0},
                {NEVA_RECOMPUTE_FULL, NEVA_RECOMPUTE_UNIFORM, 1},
                {NEVA_RECOMPUTE_FULL, NEVA_RECOMPUTE_UNIFORM, 2},
                {NEVA_RECOMPUTE_FULL, NEVA_RECOMPUTE_BLOCK, 2}};
    struct neva_config config = tiny_config();
    size_t n = (size_t)neva_n_params(&config);

    for (int t = 0; t < 2; t++) {
        struct run want, got;

        config = tiny_config();
        config.dtype = t ? DTYPE_BF16 : DTYPE_F32;
        want = run_layout(&config, "cuda", 1, 1);
        for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
            config.recompute = ways[i].what;
            config.recompute_method = ways[i].method;
            config.recompute_layers = ways[i].n_layers;
            got = run_layout(&config, "cuda", 1, 1);
            EXPECT_MSG(memcmp(got.grads, want.grads, n * sizeof(float)) == 0,
                       "%s, way %zu: gradients differ by %g of their norm",
                       dtype_name(config.dtype), i,
                       tiny_distance(got.grads, want.grads, (int64_t)n));
            run_fini(&got);
        }
        run_fini(&want);
    }
}

/* Recorded and replayed, or asked for piece by piece. */
static void graphs_change_no_bit(void)
{
    struct neva_config config = tiny_config();

    for (int t = 0; t < 2; t++) {
        struct run with, without;
        size_t n = (size_t)neva_n_params(&config);

        config.dtype = t ? DTYPE_BF16 : DTYPE_F32;
        with = run_layout(&config, "cuda", 1, 1);
        setenv("VNEVA_CUDA_GRAPHS", "off", 1);
        without = run_layout(&config, "cuda", 1, 1);
        unsetenv("VNEVA_CUDA_GRAPHS");
        EXPECT_MSG(with.replay.n_launched > 0 && without.replay.n_launched == 0,
                   "%d graphs launched, %d when off; refused: %s",
                   (int)with.replay.n_launched, (int)without.replay.n_launched,
                   with.replay.refusal.text);
        EXPECT(memcmp(with.grads, without.grads, n * sizeof(float)) == 0);
        EXPECT(memcmp(with.values, without.values, n * sizeof(float)) == 0);
        for (int step = 0; step < STEPS; step++)
            EXPECT(with.loss[step] == without.loss[step]);
        EXPECT(memcmp(with.answer, without.answer, sizeof(with.answer)) == 0);
        run_fini(&with);
        run_fini(&without);
    }
}

/* ---- a device that is too small ---- */

static void expect_refused(int rc, const struct err *err)
{
    EXPECT_MSG(rc < 0 && err->code == ERR_NOMEM &&
                   strstr(err->text, "MiB are free: try a smaller micro batch") != NULL,
               "code %d: %s", (int)err->code, err->text);
}

/* A micro batch, and then weights, of twice the memory that there is; of a model's memory
 * without activations a fourth is weights, the rest gradients and moments. */
static void ask_too_much(struct backend *b, struct comm *solo)
{
    struct neva_config config = tiny_config();
    struct backend_memory memory;
    struct neva *model = NULL;
    struct err err = {0};
    int64_t n_samples = 1;

    b->ops->memory(b, &memory);
    config.llm.width = 256;
    config.llm.rope.rot_dims = 64;
    while (neva_plan_bytes(&config, 1, n_samples, TOKENS, 0, true) < 2 * memory.total)
        n_samples *= 2;
    if (!EXPECT_OK(neva_create_bare(&model, &config, b, solo, &err), &err))
        return;
    expect_refused(neva_reserve(model, n_samples, TOKENS, 0, &err), &err);
    neva_destroy(model);
    model = NULL;
    config.llm.ffn_width = WIDE;
    while (neva_plan_bytes(&config, 1, 1, TOKENS, 0, true) < 8 * memory.total)
        config.llm.n_layers *= 2;
    err = (struct err){0};
    expect_refused(neva_create_bare(&model, &config, b, solo, &err), &err);
    EXPECT(!model);
}

static void what_does_not_fit_is_refused_and_the_device_works_on(void)
{
    struct neva_config config = tiny_config();
    struct run want = run_layout(&config, "ref", 1, 1);
    struct backend *b = NULL;
    struct comm *solo = NULL;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct neva_loss loss = {0};
    struct err err = {0};

    setenv("CUDA_HOST_MEMORY", STAND_IN_MEMORY, 1);
    tiny_batch_init(&all, &config, SAMPLES, TOKENS, FRAMES_EACH, 5);
    if (EXPECT_OK(comm_create_solo(&solo, "tensor", &err), &err) &&
        EXPECT_OK(backend_create(&b, "cuda", 0, 1, &err), &err)) {
        ask_too_much(b, solo);
        EXPECT_OK(neva_create(&model, &config, b, solo, &err), &err);
        EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
        EXPECT_OK(neva_read_loss(model, &loss, &err), &err);
        EXPECT_MSG(expect_near(loss.sum, want.loss[0], SAME, 0), "loss %.9g, not %.9g",
                   loss.sum, want.loss[0]);
        neva_destroy(model);
    }
    backend_destroy(b);
    comm_destroy(solo);
    unsetenv("CUDA_HOST_MEMORY");
    tiny_batch_fini(&all);
    run_fini(&want);
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
    if (n_devices_here() > 1)
        EXPECT_RUN(ranks_with_devices_of_their_own_do_too);
    else
        printf("skip ranks_with_devices_of_their_own_do_too (NCCL wants a GPU a rank)\n");
    EXPECT_RUN(frozen_parts_and_recomputation_do_too);
    EXPECT_RUN(recomputation_changes_no_gradient);
    EXPECT_RUN(graphs_change_no_bit);
    EXPECT_RUN(halves_are_as_good_as_on_ref);
    EXPECT_RUN(tf32_is_near_fp32);
    EXPECT_RUN(fp16_with_a_loss_scale_is_as_good_as_on_ref);
    EXPECT_RUN(what_does_not_fit_is_refused_and_the_device_works_on);
    return expect_end();
}
