/* neva_step_flops against what a training step asks of its backend: every matrix product
 * and attention is counted on the way, as model/neva/README.md says. */
#include "model/neva/neva.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#define SAMPLES 2
#define TOKENS 26
#define FRAMES_EACH 2

/* Around a backend's operations; one backend, one thread. */
struct counting {
    struct backend_ops ops;
    const struct backend_ops *real;
    double flops;
};

static struct counting counting;

static int count_matmul(struct backend *b, struct tensor *c, const struct tensor *a,
                        const struct tensor *bb, const struct matmul_args *args,
                        struct err *err)
{
    int64_t inner = args->trans_a ? a->dims[0] : a->dims[1];

    counting.flops += 2 * (double)c->dims[0] * (double)c->dims[1] * (double)inner;
    return counting.real->matmul(b, c, a, bb, args, err);
}

/* q k^T and p v, for the pairs that are not masked. */
static double attention_flops(const struct tensor *q, const struct attention_args *args)
{
    double t = (double)q->dims[1], pairs = args->causal ? t * (t + 1) / 2 : t * t;

    return 4 * (double)q->dims[0] * pairs * (double)q->dims[2];
}

static int count_attention_fwd(struct backend *b, struct tensor *o, struct tensor *lse,
                               const struct tensor *q, const struct tensor *k,
                               const struct tensor *v, const struct attention_args *args,
                               struct err *err)
{
    counting.flops += attention_flops(q, args);
    return counting.real->attention_fwd(b, o, lse, q, k, v, args, err);
}

static int count_attention_bwd(struct backend *b, struct tensor *dq, struct tensor *dk,
                               struct tensor *dv, const struct tensor *d_o,
                               const struct tensor *q, const struct tensor *k,
                               const struct tensor *v, const struct tensor *o,
                               const struct tensor *lse,
                               const struct attention_args *args, struct err *err)
{
    counting.flops += 2 * attention_flops(q, args);
    return counting.real->attention_bwd(b, dq, dk, dv, d_o, q, k, v, o, lse, args, err);
}

static void count(struct tiny_rank *rank)
{
    const struct neva_config *config = rank->arg;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct neva_loss loss;
    struct err err = {0};
    double want;

    counting = (struct counting){.ops = *rank->backend->ops, .real = rank->backend->ops};
    counting.ops.matmul = count_matmul;
    counting.ops.attention_fwd = count_attention_fwd;
    counting.ops.attention_bwd = count_attention_bwd;
    rank->backend->ops = &counting.ops;
    tiny_batch_init(&all, config, SAMPLES, TOKENS, FRAMES_EACH, 9);
    if (EXPECT_OK(neva_create(&model, config, rank->backend, rank->tensor, &err), &err) &&
        EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err)) {
        want = neva_step_flops(config, SAMPLES, TOKENS, SAMPLES * FRAMES_EACH,
                               loss.n_labels);
        EXPECT_MSG(expect_near(counting.flops, want, 1e-12, 0),
                   "a step takes %.0f operations, neva_step_flops says %.0f",
                   counting.flops, want);
    }
    neva_destroy(model);
    rank->backend->ops = counting.real;
    tiny_batch_fini(&all);
}

static void frozen_or_not(struct neva_config config)
{
    for (int frozen = 0; frozen < 4; frozen++) {
        config.vision.freeze = frozen & 1;
        config.llm.freeze = frozen & 2;
        tiny_run("ref", 1, 1, count, &config);
    }
}

static void every_encoder_and_projector_is_counted(void)
{
    for (int vision = 0; vision < TINY_VISION_COUNT; vision++)
        frozen_or_not(tiny_vision_config((enum tiny_vision)vision));
}

static void every_decoder_is_counted(void)
{
    for (int decoder = 0; decoder < TINY_DECODER_COUNT; decoder++) {
        struct neva_config config = tiny_decoder_config((enum tiny_decoder)decoder);

        config.llm.n_kv_heads = 2;
        config.projector = NEVA_PROJECTOR_LINEAR;
        frozen_or_not(config);
    }
}

static void what_is_computed_again_is_counted(void)
{
    struct neva_config config = tiny_vision_config(TINY_SIGLIP);

    config.recompute = NEVA_RECOMPUTE_SELECTIVE;
    frozen_or_not(config);
    config.recompute = NEVA_RECOMPUTE_FULL;
    for (int64_t n = 1; n <= 3; n++) {
        config.recompute_layers = n;
        config.recompute_method = NEVA_RECOMPUTE_UNIFORM;
        frozen_or_not(config);
        config.recompute_method = NEVA_RECOMPUTE_BLOCK;
        frozen_or_not(config);
    }
}

int main(void)
{
    EXPECT_RUN(every_encoder_and_projector_is_counted);
    EXPECT_RUN(every_decoder_is_counted);
    EXPECT_RUN(what_is_computed_again_is_counted);
    return expect_end();
}
