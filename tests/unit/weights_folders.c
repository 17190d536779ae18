/* Folders of Hugging Face's classes, as tests/golden/make_folders.py wrote them, in every
 * layout of ranks: each element is where its name and place say. */
#include "model/neva/internal.h"
#include "model/weights/convert.h"
#include "model/weights/weights.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"
#include "tests/unit/weights_help.h"

#include <stdlib.h>
#include <string.h>

static void golden_path(char *out, const char *name)
{
    snprintf(out, 512, "%s/tests/golden/weights/%s", getenv("VNEVA_SOURCE"), name);
}

/* ---- what each folder is ---- */

static const struct {
    const char *name, *architecture;
    unsigned parts;
    enum dtype dtype;
} folders[] = {
    {"llava", "LlavaForConditionalGeneration", WEIGHTS_ALL, DTYPE_F32},
    {"llava_shards", "LlavaForConditionalGeneration", WEIGHTS_ALL, DTYPE_BF16},
    {"llava_bin", "LlavaForConditionalGeneration", WEIGHTS_ALL, DTYPE_F32},
    {"llava_bin_shards", "LlavaForConditionalGeneration", WEIGHTS_ALL, DTYPE_F16},
    {"llava_new", "LlavaForConditionalGeneration", WEIGHTS_ALL, DTYPE_BF16},
    {"llava_siglip", "LlavaForConditionalGeneration", WEIGHTS_ALL, DTYPE_BF16},
    {"siglip", "SiglipModel", WEIGHTS_VISION, DTYPE_BF16},
    {"siglip_vision", "SiglipVisionModel", WEIGHTS_VISION, DTYPE_F16},
    {"clip", "CLIPModel", WEIGHTS_VISION, DTYPE_BF16},
    {"clip_vision", "CLIPVisionModel", WEIGHTS_VISION, DTYPE_F32},
    {"llama", "LlamaForCausalLM", WEIGHTS_LLM, DTYPE_BF16},
    {"mistral", "MistralForCausalLM", WEIGHTS_LLM, DTYPE_F16},
    {"qwen2", "Qwen2ForCausalLM", WEIGHTS_LLM, DTYPE_BF16},
    {"stablelm", "StableLmForCausalLM", WEIGHTS_LLM, DTYPE_BF16},
    {"nemotron", "NemotronForCausalLM", WEIGHTS_LLM, DTYPE_BF16},
    {"projector", "projector", WEIGHTS_PROJECTOR, DTYPE_F16},
};
#define N_FOLDERS (sizeof(folders) / sizeof(folders[0]))

/* A whole model around the parts of a folder. */
static struct neva_config config_around(const struct weights_info *info)
{
    struct neva_config config = tiny_config(), from = info->config;

    config.llm.n_heads = config.llm.n_kv_heads = 6;
    config.llm.width = 24;
    if (info->parts & WEIGHTS_VISION) {
        config.vision = from.vision;
        if (info->parts == WEIGHTS_VISION)
            config.vision.select_layer = -2;
    }
    if (info->parts & WEIGHTS_LLM) {
        config.llm = from.llm;
        config.max_tokens = from.max_tokens;
    }
    if (info->parts & WEIGHTS_PROJECTOR)
        config.projector = from.projector;
    return config;
}

/* ---- loading ---- */

struct run {
    char path[512];
    enum dtype dtype;
    int64_t more_vocab; /* rows of the model's vocabulary behind the folder's */
    bool is_frozen;
};

static float wanted(const struct run *run, const struct neva_config *config,
                    const struct param *param, unsigned parts, int64_t whole)
{
    struct param_slice s = param_slice(param);
    int64_t have = s.whole;
    float fresh;

    if (run->more_vocab && s.whole == config->llm.vocab)
        have -= run->more_vocab;
    if (parts & 1U << param->group && whole / s.inner % s.whole < have)
        return help_golden(param->name, whole);
    neva_fresh_values(config, param, whole, 1, &fresh);
    return fresh;
}

/* The slice of this rank, element by element, in the type of x; padding is 0. */
static void check_tensor(const struct run *run, const struct neva_config *config,
                         const struct param *param, const struct tensor *x,
                         unsigned parts)
{
    struct param_slice s = param_slice(param);
    const char *data = x->data;
    int64_t n_wrong = 0;

    for (int64_t i = 0; i < tensor_count(x); i++) {
        int64_t outer = i / (s.local * s.inner), at = i % (s.local * s.inner);
        float got, want = 0;

        convert(&got, DTYPE_F32, data + (size_t)i * dtype_bytes(x->dtype), x->dtype, 1);
        if (at < s.n_real * s.inner)
            want = wanted(run, config, param, parts,
                          (outer * s.whole + s.first) * s.inner + at);
        if (x->dtype == DTYPE_F32)
            n_wrong += got != want;
        else
            n_wrong += fabsf(got - want) > fabsf(want) / 256;
    }
    EXPECT_MSG(n_wrong == 0, "%s: %lld elements of '%s' are wrong", run->path,
               (long long)n_wrong, param->name);
}

static void load_body(struct tiny_rank *rank)
{
    const struct run *run = rank->arg;
    struct weights *weights = NULL;
    struct neva_config config;
    struct neva *model = NULL;
    struct err err = {0};
    unsigned parts;

    if (!EXPECT_OK(weights_open(&weights, run->path, &err), &err))
        return;
    config = config_around(weights_info(weights));
    config.dtype = run->dtype;
    config.llm.vocab += run->more_vocab;
    config.vision.freeze = config.llm.freeze = run->is_frozen;
    parts = weights_info(weights)->parts;
    EXPECT_OK(neva_create_bare(&model, &config, rank->backend, rank->tensor, &err), &err);
    EXPECT_OK(neva_init_fresh(model, ~parts, &err), &err);
    EXPECT_OK(weights_load(model, weights, parts, &err), &err);
    for (int i = 0; i < neva_params(model)->n_params; i++) {
        const struct param *param = &neva_params(model)->params[i];

        check_tensor(run, &config, param, &param->value, parts);
        if (param->master.data)
            check_tensor(run, &config, param, &param->master, parts);
        EXPECT(param->master.data || run->is_frozen || !param->is_trained);
    }
    neva_destroy(model);
    weights_close(weights);
}

static void every_folder_loads_in_every_layout(void)
{
    for (size_t i = 0; i < N_FOLDERS; i++)
        for (int n_ranks = 1; n_ranks <= 3; n_ranks++) {
            struct run run = {.dtype = DTYPE_F32};

            golden_path(run.path, folders[i].name);
            tiny_run("ref", n_ranks, 1, load_body, &run);
        }
}

static void half_models_get_masters_where_trained(void)
{
    static const char *const names[] = {"llava", "llava_shards", "llava_bin_shards"};

    for (int i = 0; i < 3; i++)
        for (int frozen = 0; frozen < 2; frozen++) {
            struct run run = {.dtype = frozen ? DTYPE_F16 : DTYPE_BF16,
                              .is_frozen = frozen};

            golden_path(run.path, names[i]);
            tiny_run("ref", 2, 1, load_body, &run);
        }
}

static void rows_of_a_larger_vocabulary_are_fresh(void)
{
    for (int n_ranks = 1; n_ranks <= 3; n_ranks++) {
        struct run run = {.dtype = DTYPE_F32, .more_vocab = 8};

        golden_path(run.path, "llava_shards");
        tiny_run("ref", n_ranks, 1, load_body, &run);
        golden_path(run.path, "qwen2");
        tiny_run("ref", n_ranks, 1, load_body, &run);
    }
}

/* ---- reading ---- */

static void check_read(struct weights *weights, int i)
{
    const struct param *param = &weights_params(weights)->params[i];
    int64_t n = tensor_count(&param->value), n_wrong = 0;
    char *out = malloc(tensor_bytes(&param->value));
    float *wide = malloc((size_t)n * sizeof(*wide));
    struct err err = {0};

    EXPECT(param->value.data == NULL);
    EXPECT_OK(weights_read(weights, i, out, &err), &err);
    convert(wide, DTYPE_F32, out, param->value.dtype, n);
    for (int64_t j = 0; j < n; j++)
        n_wrong += wide[j] != help_golden(param->name, j);
    EXPECT_MSG(n_wrong == 0, "%lld elements of '%s' are wrong", (long long)n_wrong,
               param->name);
    free(wide);
    free(out);
}

static void every_folder_says_what_it_is(void)
{
    for (size_t i = 0; i < N_FOLDERS; i++) {
        struct weights *weights = NULL;
        const struct weights_info *info;
        struct err err = {0};
        char path[512];
        int64_t n = 0;

        golden_path(path, folders[i].name);
        if (!EXPECT_OK(weights_open(&weights, path, &err), &err))
            continue;
        info = weights_info(weights);
        EXPECT_MSG(strcmp(info->architecture, folders[i].architecture) == 0, "%s: %s",
                   path, info->architecture);
        EXPECT(info->parts == folders[i].parts && info->dtype == folders[i].dtype);
        for (int j = 0; j < weights_params(weights)->n_params; j++) {
            n += tensor_count(&weights_params(weights)->params[j].value);
            check_read(weights, j);
        }
        EXPECT(info->n_params == n);
        weights_close(weights);
    }
}

static int without_vision_model(struct safetensor *tensors, int n)
{
    static const char word[] = "vision_model.";

    for (int i = 0; i < n; i++) {
        char *at = strstr(tensors[i].name, word);

        if (at)
            memmove(at, at + sizeof(word) - 1, strlen(at + sizeof(word) - 1) + 1);
    }
    return n;
}

static void names_of_transformers_5_mean_the_same(void)
{
    static const char *const names[] = {"llava", "llava_new", "llava_siglip",
                                        "siglip_vision"};

    for (int i = 0; i < 4; i++) {
        struct weights *weights;

        help_copy("five", names[i]);
        help_rewrite("five/model.safetensors", without_vision_model);
        weights = help_opened("five");
        for (int j = 0; weights && j < weights_params(weights)->n_params; j++)
            check_read(weights, j);
        weights_close(weights);
    }
}

/* ---- configurations, against what make_folders.py says ---- */

static struct neva_config config_of(const char *name, struct weights_info *info)
{
    struct weights *weights = NULL;
    struct err err = {0};
    char path[512];

    *info = (struct weights_info){0};
    golden_path(path, name);
    if (EXPECT_OK(weights_open(&weights, path, &err), &err))
        *info = *weights_info(weights);
    weights_close(weights);
    return info->config;
}

static void settings_are_those_of_the_classes(void)
{
    struct weights_info info;
    struct neva_config c = config_of("llava", &info);

    EXPECT(c.vision.image_size == 8 && c.vision.patch == 4 && c.vision.width == 12 &&
           c.vision.ffn_width == 20 && c.vision.n_layers == 2 && c.vision.n_heads == 2);
    EXPECT(c.vision.act == ACT_QUICK_GELU && c.vision.eps == 1e-5F &&
           c.vision.select_layer == -2 && c.vision.class_token_length == 1);
    EXPECT(expect_near((double)c.vision.mean[0], 0.48145466, 1e-6, 0));
    EXPECT(c.projector == NEVA_PROJECTOR_MLP2X_GELU && info.image_token == 52);
    EXPECT(c.llm.vocab == 53 && c.llm.width == 24 && c.llm.ffn_width == 26 &&
           c.llm.n_layers == 2 && c.llm.n_heads == 6 && c.llm.n_kv_heads == 6);
    EXPECT(c.llm.norm.kind == NN_NORM_RMS && c.llm.norm.eps == 1e-6F && !c.llm.tied &&
           c.max_tokens == 64 && c.llm.rope.rot_dims == 4 && c.llm.rope.theta == 10000);
    c = config_of("llava_new", &info);
    EXPECT(c.vision.select_layer == 1);
    c = config_of("llava_siglip", &info);
    EXPECT(c.vision.encoder == NEVA_ENCODER_SIGLIP && c.vision.select_layer == -1 &&
           c.vision.class_token_length == 0 && c.vision.act == ACT_GELU_TANH &&
           c.vision.eps == 1e-6F && c.vision.has_head && c.vision.mean[1] == 0.5F &&
           info.sliding_window == 0 && c.llm.rope.theta == 1e6F);
    c = config_of("llava_bin", &info);
    EXPECT(c.llm.tied && c.llm.has_qkv_bias && !c.llm.has_bias);
    c = config_of("clip_vision", &info);
    EXPECT(c.vision.act == ACT_GELU && c.llm.width == 0);
    c = config_of("llama", &info);
    EXPECT(c.llm.rope.scaling == ROPE_LLAMA3 && c.llm.rope.factor == 8 &&
           c.llm.rope.low_freq_factor == 1 && c.llm.rope.high_freq_factor == 4 &&
           c.llm.rope.original_positions == 16 && c.llm.rope.theta == 500000);
    c = config_of("mistral", &info);
    EXPECT(info.sliding_window == 32 && c.max_tokens == 32 && c.llm.rope.rot_dims == 2);
    c = config_of("qwen2", &info);
    EXPECT(c.llm.rope.scaling == ROPE_LINEAR && c.llm.rope.factor == 4 &&
           c.llm.has_qkv_bias && c.llm.tied && info.sliding_window == 0);
    c = config_of("stablelm", &info);
    EXPECT(c.llm.norm.kind == NN_NORM_LAYER && c.llm.norm.eps == 1e-5F &&
           c.llm.rope.rot_dims == 2 && c.llm.has_qkv_bias &&
           c.llm.mlp == NEVA_MLP_SWIGLU);
    c = config_of("nemotron", &info);
    EXPECT(c.llm.norm.kind == NN_NORM_LAYER_1P && c.llm.rope.rot_dims == 2 &&
           c.llm.mlp == NEVA_MLP_RELU_SQUARED && !c.llm.has_bias);
    c = config_of("projector", &info);
    EXPECT(c.vision.width == 12 && c.llm.width == 24 &&
           c.projector == NEVA_PROJECTOR_MLP2X_GELU);
}

int main(void)
{
    help_begin();
    EXPECT_RUN(every_folder_says_what_it_is);
    EXPECT_RUN(names_of_transformers_5_mean_the_same);
    EXPECT_RUN(settings_are_those_of_the_classes);
    EXPECT_RUN(every_folder_loads_in_every_layout);
    EXPECT_RUN(half_models_get_masters_where_trained);
    EXPECT_RUN(rows_of_a_larger_vocabulary_are_fresh);
    help_end();
    return expect_end();
}
