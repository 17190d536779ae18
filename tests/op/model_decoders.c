/* Decoders against Hugging Face's classes: tests/golden/make_decoders.py wrote weights,
 * hidden states, logits, loss, gradients and greedy tokens of tiny random models. */
#include "model/checkpoint/safetensors.h"
#include "model/generate/generate.h"
#include "model/neva/internal.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

#define FP32_BOUND 1e-4
#define BF16_BOUND 2e-2

enum { LLAMA, LLAMA3, MISTRAL, QWEN2, NEMOTRON, GPT, STABLELM, N_DECODERS };

static const char *const names[N_DECODERS] = {
    "llama", "llama3", "mistral", "qwen2", "nemotron", "gpt", "stablelm",
};

/* What NeMo's keys would select for the model of make_decoders.py. */
static struct neva_config config_of(int decoder)
{
    struct neva_config config = tiny_config();

    config.llm.vocab = 53;
    config.llm.width = 48;
    config.llm.ffn_width = 26;
    config.llm.n_layers = 2;
    config.llm.n_heads = 8;
    config.llm.n_kv_heads = 4;
    config.llm.rope.rot_dims = 6;
    switch (decoder) {
    case LLAMA3:
        config.llm.tied = true;
        config.llm.rope = (struct rope_args){6, 500000, ROPE_LLAMA3, 8, 1, 4, 16};
        break;
    case MISTRAL:
        config.llm.rope.theta = 1000000;
        break;
    case QWEN2:
        config.llm.norm.eps = 1e-6F;
        config.llm.has_qkv_bias = true;
        config.llm.rope = (struct rope_args){6, 1000000, ROPE_LINEAR, 4, 0, 0, 0};
        break;
    case NEMOTRON:
        config.llm.norm.kind = NN_NORM_LAYER_1P;
        config.llm.mlp = NEVA_MLP_RELU_SQUARED;
        config.llm.rope.rot_dims = neva_rotary_dims(6, 0.7);
        break;
    case GPT:
        config.llm.norm.kind = NN_NORM_LAYER_1P;
        config.llm.mlp = NEVA_MLP_GELU;
        config.llm.has_bias = true;
        break;
    case STABLELM:
        config.llm.norm.kind = NN_NORM_LAYER;
        config.llm.has_qkv_bias = true;
        config.llm.rope.rot_dims = neva_rotary_dims(6, 0.34);
        break;
    default:
        break;
    }
    return config;
}

/* ---- the file ---- */

static const struct tensor *find(const struct safetensors *file, const char *name)
{
    for (int i = 0; i < file->n_tensors; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i].tensor;
    EXPECT_MSG(false, "no tensor '%s'", name);
    return NULL;
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

static bool open_golden(struct safetensors *out, int decoder)
{
    char path[1024];
    struct err err = {0};

    snprintf(path, sizeof(path), "%s/tests/golden/decoder_%s.safetensors",
             getenv("VNEVA_SOURCE"), names[decoder]);
    return EXPECT_OK(safetensors_open(out, path, &err), &err);
}

/* ---- comparing ---- */

/* Norm of the difference over the norm of what is wanted. */
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

struct run {
    int decoder;
    const char *backend;
    int n_ranks;
    enum dtype dtype;
    struct neva_config config;
    struct safetensors file;
    struct neva_batch batch;
    double worst; /* of all distances, for the record */
};

static void check_distance(struct run *run, const char *what,
                           const struct distance *distance)
{
    double bound = run->dtype == DTYPE_F32 ? FP32_BOUND : BF16_BOUND;
    double got = relative(distance);

    run->worst = got > run->worst ? got : run->worst;
    EXPECT_MSG(distance->all > 0 && got <= bound,
               "%s on %s, %d ranks: %s is off by %.3g, more than %g", names[run->decoder],
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

/* Every decoder parameter is in the file, in its shape, and the file has no other. */
static void load(struct neva *model, const struct safetensors *file)
{
    struct param_table *table = neva_params(model);
    int n_weights = 0, n_found = 0;
    struct err err = {0};

    for (int i = 0; i < file->n_tensors; i++)
        n_weights += strstr(file->tensors[i].name, "#grad") != NULL;
    for (int i = 0; i < table->n_params; i++) {
        struct param *param = &table->params[i];
        const struct tensor *from;

        if (param->group != PARAM_LLM)
            continue;
        from = find(file, param->name);
        if (!from)
            continue;
        EXPECT_MSG(from->n_dims == param->n_dims && from->dims[0] == param->dims[0] &&
                       (from->n_dims < 2 || from->dims[1] == param->dims[1]),
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

    EXPECT_OK(neva_evaluate(model, &run->batch, &loss, &err), &err);
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

/* A training step keeps every layer's input. */
static void check_hidden(struct run *run, struct neva *model)
{
    const struct tensor *want = find(&run->file, "hidden");

    for (int64_t layer = 0; layer <= model->llm.n_layers; layer++) {
        float *got = to_host(model->backend, &model->llm.x[layer]);
        int64_t n = tensor_count(&model->llm.x[layer]);
        struct distance distance = {0};

        for (int64_t i = 0; i < n; i++)
            add_pair(&distance, (double)got[i], (double)value_at(want, layer * n + i));
        check_distance(run, "a hidden state", &distance);
        free(got);
    }
}

static void check_gradient(struct run *run, const struct param *param, const float *got,
                           struct distance *whole)
{
    char name[PARAM_NAME_MAX + 8];
    struct distance distance = {0};
    const struct tensor *want;

    snprintf(name, sizeof(name), "%s#grad", param->name);
    want = find(&run->file, name);
    for (int64_t i = 0; want && i < tensor_count(want); i++) {
        add_pair(&distance, (double)got[i], (double)value_at(want, i));
        add_pair(whole, (double)got[i], (double)value_at(want, i));
    }
    if (run->dtype == DTYPE_F32)
        check_distance(run, name, &distance);
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
        if (param->group == PARAM_LLM)
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
    struct generate_args args = {.max_new_tokens = n, .end_token = -5};
    int32_t *got = calloc((size_t)(n_rows * n), sizeof(*got));
    int64_t lens[8];
    struct err err = {0};

    EXPECT_OK(generate_greedy(model, &run->batch, &args, got, lens, &err), &err);
    for (int64_t row = 0; row < n_rows && is_first; row++)
        EXPECT_MSG(lens[row] == n && memcmp(got + row * n, tokens + row * n,
                                            (size_t)n * sizeof(*got)) == 0,
                   "%s on %s, %d ranks: row %lld got other tokens", names[run->decoder],
                   run->backend, run->n_ranks, (long long)row);
    free(got);
}

/* The collected gradients of all ranks; filled by all, read by the first one behind the
 * threads' end. */
struct rank_arg {
    struct run *run;
    float *grads;
};

static void body(struct tiny_rank *rank)
{
    struct rank_arg *arg = rank->arg;
    struct run mine = *arg->run; /* of this rank: `worst` is */
    struct neva *model = NULL;
    struct neva_loss loss;
    struct err err = {0};

    if (!EXPECT_OK(neva_create(&model, &mine.config, rank->backend, rank->tensor, &err),
                   &err))
        return;
    load(model, &mine.file);
    check_logits(&mine, model);
    EXPECT_OK(neva_step(model, &mine.batch, &loss, &err), &err);
    check_loss(&mine, &loss);
    check_hidden(&mine, model);
    tiny_collect(model, TINY_GRAD, arg->grads);
    EXPECT_OK(comm_barrier(rank->tensor, &err), &err);
    if (rank->rank == 0)
        check_gradients(&mine, model, arg->grads);
    if (mine.dtype == DTYPE_F32)
        check_generated(&mine, model, rank->rank == 0);
    if (rank->rank == 0)
        arg->run->worst = mine.worst;
    neva_destroy(model);
}

static void compare(int decoder, const char *backend, int n_ranks, enum dtype dtype)
{
    struct run run = {.decoder = decoder,
                      .backend = backend,
                      .n_ranks = n_ranks,
                      .dtype = dtype,
                      .config = config_of(decoder)};
    struct rank_arg arg = {&run, NULL};

    run.config.dtype = dtype;
    if (!open_golden(&run.file, decoder))
        return;
    run.batch = (struct neva_batch){
        .n_samples = find(&run.file, "tokens")->dims[0],
        .n_tokens = find(&run.file, "tokens")->dims[1],
        .tokens = find(&run.file, "tokens")->data,
        .labels = find(&run.file, "labels")->data,
        .lens = find(&run.file, "lens")->data,
    };
    arg.grads = calloc((size_t)neva_n_params(&run.config), sizeof(float));
    tiny_run(backend, n_ranks, 1, body, &arg);
    printf("     %-9s %-4s %d ranks, %s: off by at most %.2g\n", names[decoder], backend,
           n_ranks, dtype == DTYPE_F32 ? "fp32" : "bf16", run.worst);
    free(arg.grads);
    safetensors_close(&run.file);
}

static void decoders_equal_hugging_face_s_in_fp32(void)
{
    for (int decoder = 0; decoder < N_DECODERS; decoder++)
        for (int n_ranks = 1; n_ranks <= 4; n_ranks *= 2) {
            compare(decoder, "ref", n_ranks, DTYPE_F32);
            compare(decoder, "cpu", n_ranks, DTYPE_F32);
        }
}

static void decoders_are_near_in_bf16(void)
{
    for (int decoder = 0; decoder < N_DECODERS; decoder++) {
        compare(decoder, "ref", 1, DTYPE_BF16);
        compare(decoder, "cpu", 1, DTYPE_BF16);
        compare(decoder, "cpu", 2, DTYPE_BF16);
    }
}

int main(void)
{
    EXPECT_RUN(decoders_equal_hugging_face_s_in_fp32);
    EXPECT_RUN(decoders_are_near_in_bf16);
    return expect_end();
}
