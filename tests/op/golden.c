#include "tests/op/golden.h"

#include "model/checkpoint/safetensors.h"
#include "model/generate/generate.h"
#include "model/neva/internal.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

#define NO_TOKEN (-5) /* an end token that never comes */
#define ROWS_MAX 8

struct run {
    const char *name, *backend;
    int n_ranks;
    struct neva_config config;
    struct safetensors file;
    struct neva_batch batch;
    double worst; /* of all distances, for the record */
};

/* ---- the file ---- */

static const struct tensor *find_maybe(const struct safetensors *file, const char *name)
{
    for (int i = 0; i < file->n_tensors; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i].tensor;
    return NULL;
}

static const struct tensor *find(const struct safetensors *file, const char *name)
{
    const struct tensor *x = find_maybe(file, name);

    EXPECT_MSG(x, "no tensor '%s'", name);
    return x;
}

static float value_at(const struct tensor *x, int64_t i)
{
    uint32_t bits;
    float value;

    if (x->dtype == DTYPE_F32)
        return ((const float *)x->data)[i];
    bits = (uint32_t)((const uint16_t *)x->data)[i] << 16; /* bf16 */
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static bool open_file(struct run *run)
{
    char path[1024];
    struct err err = {0};

    snprintf(path, sizeof(path), "%s/tests/golden/%s.safetensors", getenv("VNEVA_SOURCE"),
             run->name);
    return EXPECT_OK(safetensors_open(&run->file, path, &err), &err);
}

/* A file without frames has a decoder alone. */
static bool is_whole(const struct run *run)
{
    return find_maybe(&run->file, "pixels") != NULL;
}

static struct neva_batch batch_of(const struct safetensors *file)
{
    const struct tensor *pixels = find_maybe(file, "pixels");

    return (struct neva_batch){
        .n_samples = find(file, "tokens")->dims[0],
        .n_tokens = find(file, "tokens")->dims[1],
        .tokens = find(file, "tokens")->data,
        .labels = find(file, "labels")->data,
        .lens = find(file, "lens")->data,
        .n_frames = pixels ? pixels->dims[0] : 0,
        .pixels = pixels ? pixels->data : NULL,
    };
}

/* ---- comparing ---- */

struct distance {
    double diff, all;
};

static void add_pair(struct distance *distance, double got, double want)
{
    distance->diff += (got - want) * (got - want);
    distance->all += want * want;
}

static double relative(const struct distance *distance)
{
    return sqrt(distance->diff / distance->all);
}

static bool is_fp32(const struct run *run)
{
    return run->config.dtype == DTYPE_F32;
}

static void check_distance(struct run *run, const char *what,
                           const struct distance *distance)
{
    double bound = is_fp32(run) ? GOLDEN_FP32_BOUND : GOLDEN_BF16_BOUND;
    double got = relative(distance);

    run->worst = got > run->worst ? got : run->worst;
    EXPECT_MSG(distance->all > 0 && got <= bound,
               "%s on %s, %d ranks: %s is off by %.3g, more than %g", run->name,
               run->backend, run->n_ranks, what, got, bound);
}

/* ---- one rank ---- */

static int write_param(struct neva *model, struct param *param, const struct tensor *from,
                       struct err *err)
{
    struct param_slice s = param_slice(param);
    float *local = calloc((size_t)tensor_count(&param->value), sizeof(*local));
    int rc;

    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < s.n_real * s.inner; i++)
            local[o * s.local * s.inner + i] =
                value_at(from, (o * s.whole + s.first) * s.inner + i);
    rc = neva_param_write(model, param, local, err);
    free(local);
    return rc;
}

static bool is_weight(const char *name)
{
    return strchr(name, '.') && !strchr(name, '#');
}

/* Every parameter of what the file has is there, in its shape, and there is no other. */
static void load(struct neva *model, const struct run *run)
{
    struct param_table *table = neva_params(model);
    int n_weights = 0, n_found = 0;
    struct err err = {0};

    for (int i = 0; i < run->file.n_tensors; i++)
        n_weights += is_weight(run->file.tensors[i].name);
    for (int i = 0; i < table->n_params; i++) {
        struct param *param = &table->params[i];
        const struct tensor *from;

        if (param->group != PARAM_LLM && !is_whole(run))
            continue;
        from = find(&run->file, param->name);
        if (!from)
            continue;
        EXPECT_MSG(from->n_dims == param->n_dims &&
                       memcmp(from->dims, param->dims,
                              (size_t)param->n_dims * sizeof(*param->dims)) == 0,
                   "%s has another shape", param->name);
        EXPECT_OK(write_param(model, param, from, &err), &err);
        n_found++;
    }
    EXPECT_MSG(n_found == n_weights, "the table has %d of the file's %d weights", n_found,
               n_weights);
}

/* x of the backend, as floats on the host; the caller frees. */
static float *to_host(struct backend *b, const struct tensor *x)
{
    float *host = malloc((size_t)tensor_count(x) * sizeof(*host));
    struct tensor wide = {0};
    struct err err = {0};

    EXPECT_OK(backend_tensor(b, &wide, DTYPE_F32, x->n_dims, x->dims, &err), &err);
    EXPECT_OK(b->ops->cast(b, &wide, x, &err), &err);
    EXPECT_OK(b->ops->download(b, host, wide.data, tensor_bytes(&wide), &err), &err);
    b->ops->free(b, wide.data);
    return host;
}

static void check_loss(struct run *run, const struct neva_loss *loss)
{
    struct distance distance = {0};

    add_pair(&distance, loss->sum, (double)value_at(find(&run->file, "loss"), 0));
    check_distance(run, "the loss", &distance);
}

/* Evaluation leaves the logits of the rows with labels in the head's scratch. */
static void check_logits(struct run *run, struct neva *model)
{
    const struct tensor *want = find(&run->file, "logits");
    const struct head *head = &model->head;
    int64_t n_columns;
    struct distance distance = {0};
    struct neva_loss loss;
    struct err err = {0};
    float *got;

    EXPECT_OK(tiny_evaluate(model, &run->batch, &loss, &err), &err);
    check_loss(run, &loss);
    EXPECT(loss.n_labels == want->dims[0]);
    got = to_host(model->backend, &model->head_scratch.logits);
    n_columns = model->head_scratch.logits.dims[1];
    for (int64_t row = 0; row < loss.n_labels; row++)
        for (int64_t i = 0; i < head->n_real; i++)
            add_pair(&distance, (double)got[row * n_columns + i],
                     (double)value_at(want, row * want->dims[1] + head->first + i));
    check_distance(run, "a rank's part of the logits", &distance);
    free(got);
}

/* Every layer's rows; want has n_rows a layer, of which this rank has those from first. */
static void check_stack(struct run *run, struct neva *model, const struct stack *stack,
                        const struct tensor *want, int64_t first)
{
    int64_t width = want->dims[2];

    for (int64_t layer = 0; layer <= stack->n_layers; layer++) {
        float *got = to_host(model->backend, &stack->x[layer]);
        int64_t n = tensor_count(&stack->x[layer]);
        int64_t from = (layer * want->dims[1] + first) * width;
        struct distance distance = {0};

        for (int64_t i = 0; i < n; i++)
            add_pair(&distance, (double)got[i], (double)value_at(want, from + i));
        check_distance(run,
                       want->dims[1] == n / width ? "a hidden state" : "a rank's part",
                       &distance);
        free(got);
    }
}

/* A training step keeps every layer's input, of the encoder where that is trained. */
static void check_hidden(struct run *run, struct neva *model)
{
    int64_t first, count;

    check_stack(run, model, &model->llm, find(&run->file, "hidden"), 0);
    if (!is_whole(run) || run->config.vision.freeze)
        return;
    neva_frame_range(model, run->batch.n_frames, &first, &count);
    check_stack(run, model, &model->vision, find(&run->file, "vision_hidden"),
                first * neva_vision_tokens(&run->config));
}

/* The norm that a difference of this gradient is measured by: its own, but for the bias of
 * an encoder's keys. That shifts all scores of a query alike, softmax does not feel it, and
 * what a reference has is rounding: it must be small beside that of the queries. */
static const struct tensor *measure_of(const struct run *run, const struct param *param)
{
    char name[PARAM_NAME_MAX + 8];
    char *key;

    snprintf(name, sizeof(name), "%s#grad", param->name);
    key = strstr(name, "k_proj.bias");
    if (key && param->group == PARAM_VISION)
        *key = 'q';
    return find(&run->file, name);
}

static void check_gradient(struct run *run, const struct param *param, const float *got,
                           struct distance *whole)
{
    char name[PARAM_NAME_MAX + 8];
    struct distance distance = {0}, own = {0};
    const struct tensor *want, *measure = measure_of(run, param);

    snprintf(name, sizeof(name), "%s#grad", param->name);
    want = find(&run->file, name);
    for (int64_t i = 0; want && i < tensor_count(want); i++) {
        add_pair(&own, (double)got[i], (double)value_at(want, i));
        add_pair(whole, (double)got[i], (double)value_at(want, i));
    }
    for (int64_t i = 0; measure && i < tensor_count(measure); i++)
        add_pair(&distance, 0, (double)value_at(measure, i));
    distance.diff = own.diff;
    if (is_fp32(run))
        check_distance(run, name, &distance);
}

static bool is_frozen(const struct neva_config *config, enum param_group group)
{
    return (group == PARAM_VISION && config->vision.freeze) ||
           (group == PARAM_LLM && config->llm.freeze);
}

/* What is not trained although its part is: the reference has no gradient of it. */
static void check_untrained(const struct run *run, const struct param *param)
{
    char name[PARAM_NAME_MAX + 8];

    snprintf(name, sizeof(name), "%s#grad", param->name);
    EXPECT_MSG(!param->grad.data, "%s is not trained and has a gradient", param->name);
    if (!is_frozen(&run->config, param->group))
        EXPECT_MSG(!find_maybe(&run->file, name), "%s should be trained", param->name);
}

static void check_gradients(struct run *run, struct neva *model, const float *got)
{
    struct param_table *table = neva_params(model);
    struct distance whole = {0};

    for (int i = 0; i < table->n_params; i++) {
        const struct param *param = &table->params[i];
        int64_t n = 1;

        for (int axis = 0; axis < param->n_dims; axis++)
            n *= param->dims[axis];
        if (!param->is_trained)
            check_untrained(run, param);
        else if (param->group == PARAM_LLM || is_whole(run))
            check_gradient(run, param, got, &whole);
        got += n;
    }
    check_distance(run, "the whole gradient", &whole);
}

static void check_generated(struct run *run, struct neva *model, bool is_first)
{
    const struct tensor *want = find(&run->file, "generated");
    const int32_t *tokens = want->data;
    int64_t n_rows = want->dims[0], n = want->dims[1];
    struct generate_args args = {.max_new_tokens = n, .end_token = NO_TOKEN};
    int32_t *got = calloc((size_t)(n_rows * n), sizeof(*got));
    int64_t lens[ROWS_MAX];
    struct err err = {0};

    EXPECT_OK(generate_tokens(model, &run->batch, &args, got, lens, &err), &err);
    for (int64_t row = 0; row < n_rows && is_first; row++)
        EXPECT_MSG(lens[row] == n && memcmp(got + row * n, tokens + row * n,
                                            (size_t)n * sizeof(*got)) == 0,
                   "%s on %s, %d ranks: row %lld got other tokens", run->name,
                   run->backend, run->n_ranks, (long long)row);
    free(got);
}

/* The collected gradients of all ranks; filled by all, read by the first one behind the
 * threads' end. */
struct rank_arg {
    struct run *run;
    float *grads;
};

/* Moves the batch's pixels to this rank's frames. */
static void take_frames(struct run *run, const struct neva *model)
{
    int64_t side = run->config.vision.image_size, first, count;

    neva_frame_range(model, run->batch.n_frames, &first, &count);
    if (run->batch.pixels)
        run->batch.pixels += first * side * side * 3;
}

static void body(struct tiny_rank *rank)
{
    struct rank_arg *arg = rank->arg;
    struct run mine = *arg->run; /* of this rank: `worst` and the frames are */
    struct neva *model = NULL;
    struct neva_loss loss;
    struct err err = {0};

    if (!EXPECT_OK(neva_create(&model, &mine.config, rank->backend, rank->tensor, &err),
                   &err))
        return;
    load(model, &mine);
    take_frames(&mine, model);
    check_logits(&mine, model);
    EXPECT_OK(neva_step(model, &mine.batch, &loss, &err), &err);
    EXPECT_OK(neva_read_loss(model, &loss, &err), &err);
    check_loss(&mine, &loss);
    check_hidden(&mine, model);
    EXPECT_OK(neva_reduce_grad(model, &err), &err);
    tiny_collect(model, TINY_GRAD, arg->grads);
    EXPECT_OK(comm_barrier(rank->tensor, &err), &err);
    if (rank->rank == 0)
        check_gradients(&mine, model, arg->grads);
    if (is_fp32(&mine))
        check_generated(&mine, model, rank->rank == 0);
    if (rank->rank == 0)
        arg->run->worst = mine.worst;
    neva_destroy(model);
}

void golden_compare(const char *file, const struct neva_config *config,
                    const char *backend, int n_ranks, enum dtype dtype)
{
    struct run run = {
        .name = file, .backend = backend, .n_ranks = n_ranks, .config = *config};
    struct rank_arg arg = {&run, NULL};

    run.config.dtype = dtype;
    if (!open_file(&run))
        return;
    run.batch = batch_of(&run.file);
    if (EXPECT(run.batch.n_samples <= ROWS_MAX)) {
        arg.grads = calloc((size_t)neva_n_params(&run.config), sizeof(float));
        tiny_run(backend, n_ranks, 1, body, &arg);
        printf("     %-18s %-4s %d ranks, %s: off by at most %.2g\n", file, backend,
               n_ranks, is_fp32(&run) ? "fp32" : "bf16", run.worst);
        free(arg.grads);
    }
    safetensors_close(&run.file);
}
