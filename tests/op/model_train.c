/* Training as a whole: the optimizer's formulas, learning, saving, loading, resuming, and
 * what is refused. */
#include "common/base/fs.h"
#include "model/checkpoint/checkpoint.h"
#include "model/optim/optim.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAMPLES 4
#define TOKENS 26
#define FRAMES_EACH 2

/* ---- the schedule ---- */

/* Values of NeMo's CosineAnnealing(max_steps=100, warmup_steps=10, min_lr=1e-4) and
 * base lr 1e-3, from the formulas of its lr_scheduler.py worked out by hand. */
static void the_schedule_is_that_of_nemo(void)
{
    struct optim_config config = {
        .lr = 1e-3F, .min_lr = 1e-4F, .warmup_steps = 10, .max_steps = 100};

    EXPECT(expect_near((double)optim_lr(&config, 0), 1e-3 / 11, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 9), 1e-3 * 10 / 11, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 10), 1e-3, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 55), 5.5e-4, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 40), 1e-4 + 9e-4 * 0.75, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 100), 1e-4, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 5000), 1e-4, 1e-6, 0));
    config.constant_steps =
        30; /* NeMo's other branch: warm-up from 0, 60 steps of decay */
    EXPECT(optim_lr(&config, 0) == 0);
    EXPECT(expect_near((double)optim_lr(&config, 5), 5e-4, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 10), 1e-3, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 40), 5.5e-4, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 70), 1e-4, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 71), 1e-4, 1e-6, 0));
    config = (struct optim_config){.lr = 1e-3F, .max_steps = 10};
    EXPECT(expect_near((double)optim_lr(&config, 0), 1e-3, 1e-6, 0));
    EXPECT(expect_near((double)optim_lr(&config, 5), 5e-4, 1e-6, 0));
}

/* ---- training runs ---- */

/* A run of steps [first, last) over the same batch, from a folder or from the start. */
struct train {
    struct neva_config config;
    int first, last;
    const char *load, *save; /* folders, or NULL */
    float *values, *m;       /* whole, after the last step */
    double first_loss, last_loss, norm;
};

static int train_step(struct tiny_rank *rank, struct neva *model,
                      const struct tiny_batch *all, int step, struct train *train,
                      struct err *err)
{
    struct optim_report report;
    double totals[2];

    if (tiny_global_batch(rank, model, all, 1, totals, err) < 0 ||
        optim_step(model, rank->data, &tiny_optim, step, (int64_t)totals[1], &report,
                   err) < 0)
        return -1;
    EXPECT_MSG(expect_near(report.loss_sum, totals[0], 1e-12, 0), "loss %.17g and %.17g",
               report.loss_sum, totals[0]);
    if (rank->rank == 0 && rank->data_rank == 0) {
        if (step == train->first)
            train->first_loss = totals[0] / totals[1];
        train->last_loss = totals[0] / totals[1];
        train->norm = report.grad_norm;
    }
    return 0;
}

static void train_body(struct tiny_rank *rank)
{
    struct train *train = rank->arg;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct err err = {0};
    int rc;

    tiny_batch_init(&all, &train->config, SAMPLES, TOKENS, FRAMES_EACH, 9);
    rc = neva_create(&model, &train->config, rank->backend, rank->tensor, &err);
    if (rc == 0 && train->load)
        rc = checkpoint_load(model, train->load, true, &err);
    for (int step = train->first; rc == 0 && step < train->last; step++)
        rc = train_step(rank, model, &all, step, train, &err);
    if (rc == 0 && train->save && rank->data_rank == 0)
        rc = checkpoint_save(model, train->save, NULL, &err);
    if (EXPECT_OK(rc, &err) && rank->data_rank == 0) {
        tiny_collect(model, TINY_VALUE, train->values);
        tiny_collect(model, TINY_M, train->m);
    }
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static struct train run_train(const struct neva_config *config, int n_ranks, int n_data,
                              int first, int last, const char *load, const char *save)
{
    size_t n = (size_t)neva_n_params(config);
    struct train train = {.config = *config,
                          .first = first,
                          .last = last,
                          .load = load,
                          .save = save,
                          .values = calloc(n, sizeof(float)),
                          .m = calloc(n, sizeof(float))};

    tiny_run("ref", n_ranks, n_data, train_body, &train);
    return train;
}

static void train_fini(struct train *train)
{
    free(train->values);
    free(train->m);
}

static void expect_bits(const struct train *got, const struct train *want)
{
    size_t n_bytes = (size_t)neva_n_params(&want->config) * sizeof(float);

    EXPECT_MSG(memcmp(got->values, want->values, n_bytes) == 0, "weights differ");
    EXPECT_MSG(memcmp(got->m, want->m, n_bytes) == 0, "moments differ");
}

static void expect_close(const struct train *got, const struct train *want, double bound)
{
    double distance =
        tiny_distance(got->values, want->values, neva_n_params(&want->config));

    EXPECT_MSG(distance <= bound, "weights differ by %g of their norm", distance);
}

static void training_reduces_the_loss(void)
{
    struct neva_config config = tiny_config();
    struct train train = run_train(&config, 1, 1, 0, 30, NULL, NULL);

    EXPECT_MSG(train.last_loss < 0.5 * train.first_loss, "loss %g, then %g",
               train.first_loss, train.last_loss);
    train_fini(&train);
    config.dtype = DTYPE_BF16;
    train = run_train(&config, 2, 1, 0, 30, NULL, NULL);
    EXPECT_MSG(train.last_loss < 0.5 * train.first_loss, "bf16: loss %g, then %g",
               train.first_loss, train.last_loss);
    train_fini(&train);
}

static void layouts_take_the_same_steps(struct neva_config config)
{
    struct train want = run_train(&config, 1, 1, 0, 3, NULL, NULL);
    static const int layouts[][2] = {{2, 1}, {4, 1}, {1, 2}, {2, 2}};

    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        struct train got =
            run_train(&config, layouts[i][0], layouts[i][1], 0, 3, NULL, NULL);

        EXPECT(expect_near(got.last_loss, want.last_loss, 1e-5, 0));
        EXPECT(expect_near(got.norm, want.norm, 1e-5, 0));
        expect_close(&got, &want, 1e-4);
        train_fini(&got);
    }
    train_fini(&want);
}

static void any_layout_takes_the_same_steps(void)
{
    for (int decoder = 0; decoder < TINY_DECODER_COUNT; decoder++)
        layouts_take_the_same_steps(tiny_decoder_config((enum tiny_decoder)decoder));
}

/* ---- checkpoints ---- */

static char *temporary_folder(void)
{
    static char path[64];

    snprintf(path, sizeof(path), "/tmp/vneva-test-XXXXXX");
    EXPECT(mkdtemp(path) != NULL);
    return path;
}

static void resumed_training_gives_the_same_bits(void)
{
    struct neva_config config = tiny_config();
    char *folder = temporary_folder(), path[128];
    struct err err = {0};

    snprintf(path, sizeof(path), "%s/step-3", folder);
    for (int ranks = 1; ranks <= 2; ranks++) {
        struct train whole = run_train(&config, ranks, 1, 0, 6, NULL, NULL);
        struct train half = run_train(&config, ranks, 1, 0, 3, NULL, path);
        struct train rest = run_train(&config, ranks, 1, 3, 6, path, NULL);

        expect_bits(&rest, &whole);
        train_fini(&whole);
        train_fini(&half);
        train_fini(&rest);
    }
    config.dtype = DTYPE_BF16; /* fp32 masters are what is kept */
    struct train whole = run_train(&config, 2, 1, 0, 6, NULL, NULL);
    struct train half = run_train(&config, 2, 1, 0, 3, NULL, path);
    struct train rest = run_train(&config, 2, 1, 3, 6, path, NULL);

    expect_bits(&rest, &whole);
    train_fini(&whole);
    train_fini(&half);
    train_fini(&rest);
    EXPECT_OK(fs_remove_tree(folder, &err), &err);
}

static void pass_through_layouts(struct neva_config config)
{
    char *folder = temporary_folder(), path[5][128];
    static const int ranks[] = {1, 2, 4, 1, 2};
    struct train want;
    struct err err = {0};

    for (int i = 0; i < 5; i++)
        snprintf(path[i], sizeof(path[i]), "%s/%d", folder, i);
    want = run_train(&config, 1, 1, 0, 2, NULL, path[0]);
    for (int i = 1; i < 5; i++) {
        struct train got = run_train(&config, ranks[i], 1, 2, 2, path[i - 1], path[i]);

        expect_bits(&got, &want);
        train_fini(&got);
    }
    train_fini(&want);
    EXPECT_OK(fs_remove_tree(folder, &err), &err);
}

static void a_checkpoint_passes_through_all_layouts_unchanged(void)
{
    for (int decoder = 0; decoder < TINY_DECODER_COUNT; decoder++)
        pass_through_layouts(tiny_decoder_config((enum tiny_decoder)decoder));
    for (int vision = 1; vision < TINY_VISION_COUNT; vision++)
        pass_through_layouts(tiny_vision_config((enum tiny_vision)vision));
}

/* ---- what is refused ---- */

/* Runs on one rank; arg is what to do with the model's gradients before the step. */
static void not_finite(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct neva *model = NULL;
    struct tiny_batch all;
    struct optim_report report;
    struct neva_loss loss;
    struct param *param;
    struct err err = {0};
    float before;

    tiny_batch_init(&all, &config, SAMPLES, TOKENS, FRAMES_EACH, 9);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
    param = param_find(neva_params(model), "model.language_model.norm.weight");
    ((float *)param->grad.data)[3] = NAN;
    before = ((float *)param->value.data)[0];
    EXPECT(optim_step(model, rank->data, &tiny_optim, 4, loss.n_labels, &report, &err) <
           0);
    EXPECT_MSG(err.code == ERR_FORMAT && strstr(err.text, param->name), "%s", err.text);
    EXPECT(((float *)param->value.data)[0] == before);

    EXPECT_OK(neva_zero_grad(model, &err), &err);
    EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
    param = param_find(neva_params(model), "model.multi_modal_projector.linear_1.weight");
    memset(param->grad.data, 0, tensor_bytes(&param->grad));
    param = param_find(neva_params(model), "model.multi_modal_projector.linear_1.bias");
    memset(param->grad.data, 0, tensor_bytes(&param->grad));
    EXPECT(optim_step(model, rank->data, &tiny_optim, 0, loss.n_labels, &report, &err) <
           0);
    EXPECT_MSG(strstr(err.text, "model.multi_modal_projector.linear_1 is exactly zero"),
               "%s", err.text);
    EXPECT_OK(optim_step(model, rank->data, &tiny_optim, 1, loss.n_labels, &report, &err),
              &err);

    param = param_find(neva_params(model), "model.language_model.norm.weight");
    ((float *)param->value.data)[0] = NAN; /* then so is the loss, and that is told */
    EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
    EXPECT(optim_step(model, rank->data, &tiny_optim, 2, loss.n_labels, &report, &err) <
           0);
    EXPECT(isnan(report.loss_sum));
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void gradients_that_are_not_finite_or_never_arrive_are_named(void)
{
    tiny_run("ref", 1, 1, not_finite, NULL);
}

/* In the first step of a text-only batch the encoder is rightly not reached. */
static void text_only(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct neva *model = NULL;
    struct tiny_batch all;
    struct optim_report report;
    struct neva_loss loss;
    struct err err = {0};

    tiny_batch_init(&all, &config, SAMPLES, TOKENS, 0, 9);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
    EXPECT_OK(optim_step(model, rank->data, &tiny_optim, 0, loss.n_labels, &report, &err),
              &err);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void batches_without_media_train_the_decoder(void)
{
    tiny_run("ref", 2, 1, text_only, NULL);
}

static void bad_batches(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct neva *model = NULL;
    struct tiny_batch all;
    struct neva_loss loss;
    struct err err = {0};

    tiny_batch_init(&all, &config, SAMPLES, TOKENS, FRAMES_EACH, 9);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    all.tokens[TOKENS] = (int32_t)config.llm.vocab;
    EXPECT(neva_step(model, &all.batch, &loss, &err) < 0);
    EXPECT_MSG(strstr(err.text, "sample 1") && strstr(err.text, "token 0"), "%s",
               err.text);
    all.tokens[TOKENS] = NEVA_TOKEN_MEDIA;
    EXPECT(neva_step(model, &all.batch, &loss, &err) < 0);
    EXPECT_MSG(strstr(err.text, "media tokens"), "%s", err.text);
    all.tokens[TOKENS] = 1;
    all.lens[2] = 0;
    EXPECT(neva_step(model, &all.batch, &loss, &err) < 0);
    EXPECT_MSG(strstr(err.text, "length"), "%s", err.text);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void batches_that_cannot_be_are_refused(void)
{
    tiny_run("ref", 1, 1, bad_batches, NULL);
}

static void expect_refused(const struct neva_config *config, int n_ranks, const char *key)
{
    struct comm *comms[8] = {NULL};
    struct neva *model = NULL;
    struct err err = {0};

    EXPECT_OK(comm_create_threads(comms, "tensor", n_ranks, 1000, &err), &err);
    EXPECT(neva_create(&model, config, NULL, comms[0], &err) < 0);
    EXPECT_MSG(err.code == ERR_INVALID && strstr(err.text, key), "'%s' should name %s",
               err.text, key);
    for (int i = 0; i < n_ranks; i++)
        comm_destroy(comms[i]);
}

static void configurations_that_cannot_be_are_refused_by_key(void)
{
    struct neva_config config = tiny_config();

    config.llm.n_kv_heads = 2;
    expect_refused(&config, 4, "num_query_groups");
    config = tiny_config();
    expect_refused(&config, 3, "tensor_model_parallel_size");
    config.vision.patch = 9;
    expect_refused(&config, 1, "patch_dim");
    config = tiny_config();
    config.vision.select_layer = -5;
    expect_refused(&config, 1, "vision_select_layer");
    config.vision.select_layer = 4;
    expect_refused(&config, 1, "vision_select_layer");
    config = tiny_config();
    config.vision.has_head = true;
    expect_refused(&config, 1, "vision_use_head");
    config = tiny_vision_config(TINY_SIGLIP);
    config.vision.class_token_length = 1;
    expect_refused(&config, 1, "class_token_length");
    config = tiny_vision_config(TINY_CLASS);
    config.projector = NEVA_PROJECTOR_MLP_DOWNSAMPLE;
    expect_refused(&config, 1, "mm_mlp_adapter_type");
    config = tiny_config();
    config.recompute = NEVA_RECOMPUTE_FULL;
    expect_refused(&config, 1, "activations_checkpoint_num_layers");
    config = tiny_config();
    config.llm.n_heads = 3;
    expect_refused(&config, 1, "num_attention_heads");
    config = tiny_config();
    config.llm.rope.rot_dims = 3;
    expect_refused(&config, 1, "rotary_percentage");
    config.llm.rope.rot_dims = 6; /* a head has 4 */
    expect_refused(&config, 1, "rotary_percentage");
    config = tiny_config();
    config.llm.rope.scaling = ROPE_LINEAR;
    expect_refused(&config, 1, "seq_len_interpolation_factor");
}

/* ---- memory ---- */

/* A backend that counts what it hands out; the rest is ref's. */
struct counting {
    struct backend_ops ops;
    const struct backend_ops *real;
    size_t sizes[256];
    void *blocks[256];
    size_t now, peak;
    int n_allocs;
};

static struct counting counting; /* one backend, one thread */

static int counting_alloc(struct backend *b, void **out, size_t n_bytes, struct err *err)
{
    if (counting.real->alloc(b, out, n_bytes, err) < 0)
        return -1;
    for (int i = 0; i < 256; i++)
        if (!counting.blocks[i]) {
            counting.blocks[i] = *out;
            counting.sizes[i] = n_bytes;
            break;
        }
    counting.n_allocs++;
    counting.now += n_bytes;
    if (counting.now > counting.peak)
        counting.peak = counting.now;
    return 0;
}

static void counting_free(struct backend *b, void *data)
{
    for (int i = 0; i < 256; i++)
        if (data && counting.blocks[i] == data) {
            counting.now -= counting.sizes[i];
            counting.blocks[i] = NULL;
        }
    counting.real->free(b, data);
}

static void measure(struct tiny_rank *rank)
{
    struct neva_config config = *(struct neva_config *)rank->arg;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct optim_report report;
    struct neva_loss loss;
    struct err err = {0};
    uint64_t plan =
        neva_plan_bytes(&config, 1, SAMPLES, TOKENS, SAMPLES * FRAMES_EACH, true);
    int n_allocs = 0;

    counting = (struct counting){.ops = *rank->backend->ops, .real = rank->backend->ops};
    counting.ops.alloc = counting_alloc;
    counting.ops.free = counting_free;
    rank->backend->ops = &counting.ops;
    tiny_batch_init(&all, &config, SAMPLES, TOKENS, FRAMES_EACH, 9);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    for (int step = 0; step < 3; step++) {
        EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
        EXPECT_OK(optim_step(model, rank->data, &tiny_optim, step, loss.n_labels, &report,
                             &err),
                  &err);
        if (step == 0)
            n_allocs = counting.n_allocs;
    }
    EXPECT_MSG(counting.n_allocs == n_allocs, "%d allocations after the first step",
               counting.n_allocs - n_allocs);
    EXPECT_MSG(expect_near((double)counting.peak, (double)plan, 0.1, 0),
               "took %zu bytes, planned %llu", counting.peak, (unsigned long long)plan);
    neva_destroy(model);
    EXPECT_MSG(counting.now == 0, "%zu bytes are left", counting.now);
    rank->backend->ops = counting.real;
    tiny_batch_fini(&all);
}

static void the_plan_says_what_is_taken(void)
{
    struct neva_config config = tiny_config();

    tiny_run("ref", 1, 1, measure, &config);
    config.recompute = NEVA_RECOMPUTE_FULL;
    config.recompute_layers = 1;
    tiny_run("ref", 1, 1, measure, &config);
    config.vision.freeze = config.llm.freeze = true;
    config.dtype = DTYPE_BF16;
    tiny_run("ref", 1, 1, measure, &config);
    for (int decoder = 1; decoder < TINY_DECODER_COUNT; decoder++) {
        config = tiny_decoder_config((enum tiny_decoder)decoder);
        tiny_run("ref", 1, 1, measure, &config);
    }
    for (int vision = 1; vision < TINY_VISION_COUNT; vision++) {
        config = tiny_vision_config((enum tiny_vision)vision);
        tiny_run("ref", 1, 1, measure, &config);
        config.vision.freeze = true;
        tiny_run("ref", 1, 1, measure, &config);
    }
}

int main(void)
{
    EXPECT_RUN(the_schedule_is_that_of_nemo);
    EXPECT_RUN(training_reduces_the_loss);
    EXPECT_RUN(any_layout_takes_the_same_steps);
    EXPECT_RUN(resumed_training_gives_the_same_bits);
    EXPECT_RUN(a_checkpoint_passes_through_all_layouts_unchanged);
    EXPECT_RUN(gradients_that_are_not_finite_or_never_arrive_are_named);
    EXPECT_RUN(batches_without_media_train_the_decoder);
    EXPECT_RUN(batches_that_cannot_be_are_refused);
    EXPECT_RUN(configurations_that_cannot_be_are_refused_by_key);
    EXPECT_RUN(the_plan_says_what_is_taken);
    return expect_end();
}
