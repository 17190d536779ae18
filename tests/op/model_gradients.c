/* The whole model's gradients against finite differences, on ref in fp32. */
#include "common/base/rng.h"
#include "model/neva/neva.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <string.h>

#define STEP 1e-2F
#define ENTRIES_EACH 5

static double loss_of(struct neva *model, const struct neva_batch *batch)
{
    struct neva_loss loss = {0};
    struct err err = {0};

    EXPECT_OK(tiny_evaluate(model, batch, &loss, &err), &err);
    return loss.sum;
}

/* Entry i of a parameter moved both ways. ref's memory is the host's. */
static double difference(struct neva *model, const struct neva_batch *batch,
                         struct param *param, int64_t i)
{
    float *value = (float *)param->value.data + i, kept = *value;
    double up, down;

    *value = kept + STEP;
    up = loss_of(model, batch);
    *value = kept - STEP;
    down = loss_of(model, batch);
    *value = kept;
    return (up - down) / (2.0 * (double)STEP);
}

static void compare_param(struct neva *model, const struct neva_batch *batch,
                          struct param *param)
{
    const float *grad = param->grad.data;
    int64_t n = tensor_count(&param->grad), largest = 0;
    struct rng_key key = {3, rng_stream(param->name)};

    for (int64_t i = 0; i < n; i++)
        if (fabsf(grad[i]) > fabsf(grad[largest]))
            largest = i;
    /* softmax does not feel a shift of all scores, so only this gradient may vanish */
    EXPECT_MSG(fabsf(grad[largest]) > 0.02F || strstr(param->name, "k_proj.bias"),
               "gradient of %s is at most %g", param->name, (double)grad[largest]);
    for (int k = 0; k < ENTRIES_EACH; k++) {
        int64_t i = k ? (int64_t)rng_below(key, (uint64_t)k, (uint64_t)n) : largest;
        double want = difference(model, batch, param, i);

        /* the loss is good to 1e-6 of about 100, the difference to 1e-4 / STEP and h^2 */
        EXPECT_MSG(expect_near((double)grad[i], want, 0.01,
                               5e-3 + 5e-3 * (double)fabsf(grad[largest])),
                   "%s[%lld]: gradient %g, finite difference %g", param->name,
                   (long long)i, (double)grad[i], want);
    }
}

static void compare(struct tiny_rank *rank)
{
    const struct neva_config *config = rank->arg;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct neva_loss loss;
    struct err err = {0};

    tiny_batch_init(&all, config, 2, 26, 2, 11);
    if (!EXPECT_OK(neva_create(&model, config, rank->backend, rank->tensor, &err), &err))
        return;
    EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
    EXPECT(loss.n_labels > 4 && isnan(loss.sum)); /* nobody has waited */
    EXPECT_OK(neva_read_loss(model, &loss, &err), &err);
    EXPECT(loss.n_labels > 4);
    EXPECT_MSG(expect_near(loss.sum, loss_of(model, &all.batch), 1e-7, 0),
               "evaluate gives another loss than step");
    for (int i = 0; i < neva_params(model)->n_params; i++) {
        struct param *param = &neva_params(model)->params[i];

        if (param->is_trained)
            compare_param(model, &all.batch, param);
        else
            EXPECT_MSG(!param->grad.data, "%s is frozen and has a gradient", param->name);
    }
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void gradients_equal_finite_differences(void)
{
    struct neva_config config = tiny_config();

    tiny_run("ref", 1, 1, compare, &config);
}

static void tied_head_grouped_queries_and_linear_projector_too(void)
{
    struct neva_config config = tiny_config();

    config.llm.tied = true;
    config.llm.n_kv_heads = 2;
    config.projector = NEVA_PROJECTOR_LINEAR;
    config.vision.class_token_length = 0;
    config.vision.act = ACT_GELU;
    config.vision.select_layer = -1;
    tiny_run("ref", 1, 1, compare, &config);
}

static void frozen_parts_let_gradients_through(void)
{
    struct neva_config config = tiny_config();

    config.llm.freeze = true;
    tiny_run("ref", 1, 1, compare, &config);
    config.vision.freeze = true;
    tiny_run("ref", 1, 1, compare, &config);
    config.llm.freeze = false;
    tiny_run("ref", 1, 1, compare, &config);
}

static void other_decoders_too(void)
{
    for (int decoder = 1; decoder < TINY_DECODER_COUNT; decoder++) {
        struct neva_config config = tiny_decoder_config((enum tiny_decoder)decoder);

        tiny_run("ref", 1, 1, compare, &config);
    }
}

static void other_encoders_and_projectors_too(void)
{
    for (int vision = 1; vision < TINY_VISION_COUNT; vision++) {
        struct neva_config config = tiny_vision_config((enum tiny_vision)vision);

        tiny_run("ref", 1, 1, compare, &config);
    }
}

/* The embeddings alone, and all layers. */
static void the_first_and_the_last_layer_can_be_selected(void)
{
    struct neva_config config = tiny_vision_config(TINY_SIGLIP);

    config.projector = NEVA_PROJECTOR_LINEAR;
    config.vision.image_size = 8;
    config.llm.n_layers = 1;
    config.vision.select_layer = 0;
    tiny_run("ref", 1, 1, compare, &config);
    config.vision.select_layer = 3;
    tiny_run("ref", 1, 1, compare, &config);
}

static void biases_in_gated_layers_too(void)
{
    struct neva_config config = tiny_config();

    config.llm.has_bias = true;
    config.llm.rope.scaling = ROPE_LLAMA3;
    config.llm.rope.factor = 8;
    config.llm.rope.low_freq_factor = 1;
    config.llm.rope.high_freq_factor = 4;
    config.llm.rope.original_positions = 16;
    tiny_run("ref", 1, 1, compare, &config);
}

int main(void)
{
    EXPECT_RUN(gradients_equal_finite_differences);
    EXPECT_RUN(tied_head_grouped_queries_and_linear_projector_too);
    EXPECT_RUN(frozen_parts_let_gradients_through);
    EXPECT_RUN(other_decoders_too);
    EXPECT_RUN(other_encoders_and_projectors_too);
    EXPECT_RUN(the_first_and_the_last_layer_can_be_selected);
    EXPECT_RUN(biases_in_gated_layers_too);
    return expect_end();
}
