/* Points the layers at the table's memory. */
#include "model/neva/internal.h"

#include <stdarg.h>
#include <stdio.h>

static struct param *find(struct neva *model, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static struct param *find(struct neva *model, const char *format, ...)
{
    char name[PARAM_NAME_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    return param_find(&model->params, name);
}

/* n parameters that lie behind each other, from `first` on, as one. */
static struct tensor joint(const struct param *first, int n, bool is_grad)
{
    struct tensor all = is_grad ? first->grad : first->value;

    for (int i = 1; i < n && all.n_dims > 0; i++)
        all.dims[0] += first[i].local_dims[0];
    return all;
}

struct names {
    const char *prefix, *norm1, *norm2, *q, *out, *up, *down;
    int n_up; /* parameters joined into the up product */
};

/* A layer's weights; a bias that is not in the table does not exist. */
static void bind_layer(struct neva *model, const struct names *names, int64_t layer,
                       struct block_weights *w, bool is_grad)
{
    const struct {
        const char *name;
        int n;
        struct tensor *weight, *bias;
    } parts[] = {
        {names->norm1, 1, &w->norm1_w, &w->norm1_b},
        {names->q, 3, &w->qkv_w, &w->qkv_b},
        {names->out, 1, &w->out_w, &w->out_b},
        {names->norm2, 1, &w->norm2_w, &w->norm2_b},
        {names->up, names->n_up, &w->up_w, &w->up_b},
        {names->down, 1, &w->down_w, &w->down_b},
    };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const struct param *bias = find(model, "%slayers.%lld.%s.bias", names->prefix,
                                        (long long)layer, parts[i].name);

        *parts[i].weight = joint(find(model, "%slayers.%lld.%s.weight", names->prefix,
                                      (long long)layer, parts[i].name),
                                 parts[i].n, is_grad);
        if (bias)
            *parts[i].bias = joint(bias, parts[i].n, is_grad);
    }
}

static void bind_stack(struct neva *model, const struct names *names, struct stack *stack)
{
    for (int64_t i = 0; i < stack->n_layers; i++) {
        bind_layer(model, names, i, &stack->blocks[i].w, false);
        bind_layer(model, names, i, &stack->blocks[i].dw, true);
    }
}

static void bind_projector(struct neva *model)
{
    const struct {
        const char *name;
        struct param **param;
    } parts[] = {
        {"norm.weight", &model->projector.norm_w},
        {"norm.bias", &model->projector.norm_b},
        {"linear_1.weight", &model->projector.w1},
        {"linear_1.bias", &model->projector.b1},
        {"linear_2.weight", &model->projector.w2},
        {"linear_2.bias", &model->projector.b2},
    };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        *parts[i].param = find(model, "model.multi_modal_projector.%s", parts[i].name);
}

void neva_bind(struct neva *model)
{
    static const struct names vision = {"model.vision_tower.vision_model.encoder.",
                                        "layer_norm1",
                                        "layer_norm2",
                                        "self_attn.q_proj",
                                        "self_attn.out_proj",
                                        "mlp.fc1",
                                        "mlp.fc2",
                                        1};
    bool is_gated = model->config.llm.mlp == NEVA_MLP_SWIGLU;
    const struct names llm = {"model.language_model.",
                              "input_layernorm",
                              "post_attention_layernorm",
                              "self_attn.q_proj",
                              "self_attn.o_proj",
                              is_gated ? "mlp.gate_proj" : "mlp.up_proj",
                              "mlp.down_proj",
                              is_gated ? 2 : 1};
    const char *tower = "model.vision_tower.vision_model";
    struct param *norm = find(model, "model.language_model.norm.weight");
    struct param *norm_bias = find(model, "model.language_model.norm.bias");
    struct param *head =
        model->config.llm.tied ? model->embed : find(model, "lm_head.weight");

    bind_stack(model, &vision, &model->vision);
    bind_stack(model, &llm, &model->llm);
    model->encoder.class_embedding = find(model, "%s.embeddings.class_embedding", tower);
    model->encoder.patch = find(model, "%s.embeddings.patch_embedding.weight", tower);
    model->encoder.patch_bias = find(model, "%s.embeddings.patch_embedding.bias", tower);
    model->encoder.position =
        find(model, "%s.embeddings.position_embedding.weight", tower);
    model->encoder.norm_w = find(model, "%s.pre_layrnorm.weight", tower);
    model->encoder.norm_b = find(model, "%s.pre_layrnorm.bias", tower);
    bind_projector(model);
    model->head.norm_w = norm->value;
    model->head.w = head->value;
    model->head.d_norm_w = norm->grad;
    model->head.dw = head->grad;
    if (norm_bias) {
        model->head.norm_b = norm_bias->value;
        model->head.d_norm_b = norm_bias->grad;
    }
}
