/* Folders with something missing, too much, wrong or cut off are refused, and the tensor
 * and the file are named. */
#include "common/base/fs.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"
#include "tests/unit/weights_help.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NORM "language_model.model.norm.weight"
#define FILE_OF(folder) folder "/model.safetensors"

static int without(struct safetensor *tensors, int n, const char *name)
{
    tensors[help_find(tensors, n, name)] = tensors[n - 1];
    return n - 1;
}

/* A copy of a tensor's entry under another name: the same bytes twice in the file. */
static int with_copy(struct safetensor *tensors, int n, const char *name,
                     const char *copy)
{
    tensors[n] = tensors[help_find(tensors, n, name)];
    snprintf(tensors[n].name, sizeof(tensors[n].name), "%s", copy);
    return n + 1;
}

/* ---- one tensor ---- */

static int drop(struct safetensor *tensors, int n)
{
    return without(tensors, n, "vision_tower.vision_model.post_layernorm.bias");
}

static int add(struct safetensor *tensors, int n)
{
    return with_copy(tensors, n, NORM, "language_model.model.layers.2.norm.weight");
}

static int add_unknown(struct safetensor *tensors, int n)
{
    return with_copy(tensors, n, NORM, "image_newline");
}

static int reshape(struct safetensor *tensors, int n)
{
    struct tensor *norm = &tensors[help_find(tensors, n, NORM)].tensor;

    norm->dims[0] /= 2;
    return n;
}

static int transpose(struct safetensor *tensors, int n)
{
    struct tensor *w =
        &tensors[help_find(tensors, n, "multi_modal_projector.linear_1.weight")].tensor;
    int64_t rows = w->dims[0];

    w->dims[0] = w->dims[1];
    w->dims[1] = rows;
    return n;
}

static int to_integers(struct safetensor *tensors, int n)
{
    tensors[help_find(tensors, n, NORM)].tensor.dtype = DTYPE_I32;
    return n;
}

static int both_names(struct safetensor *tensors, int n)
{
    return with_copy(tensors, n, NORM, "model.language_model.norm.weight");
}

static void wrong_tensors_are_named(void)
{
    static const struct {
        help_edit edit;
        const char *says, *and_says;
    } cases[] = {
        {drop,
         "tensor 'model.vision_tower.vision_model.post_layernorm.bias' is missing from",
         "/wrong'"},
        {add, "tensor 'language_model.model.layers.2.norm.weight' of",
         "model.safetensors' does not belong to this model"},
        {add_unknown, "tensor 'image_newline'", "does not belong"},
        {reshape, "tensor '" NORM "' has not the shape of this model: [12] in",
         "wanted [24]"},
        {transpose, "'multi_modal_projector.linear_1.weight' has not the shape",
         "[12,24] in"},
        {to_integers, "tensor '" NORM "' of", "has dtype I32"},
        {both_names, "tensor 'model.language_model.norm.weight' is there twice",
         "'" NORM "' in"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        help_copy("wrong", "llava");
        help_rewrite(FILE_OF("wrong"), cases[i].edit);
        help_refused("wrong", cases[i].says, cases[i].and_says);
    }
}

/* ---- what is known and of no use ---- */

static int with_buffers(struct safetensor *tensors, int n)
{
    static int32_t positions[10];
    static float frequencies[2];
    const int64_t ten[] = {10}, two[] = {2};

    tensors[n] =
        (struct safetensor){.name = "vision_tower.vision_model.embeddings.position_ids",
                            .tensor = tensor_of(positions, DTYPE_I32, 1, ten)};
    tensors[n + 1] = (struct safetensor){
        .name = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
        .tensor = tensor_of(frequencies, DTYPE_F32, 1, two)};
    return n + 2;
}

static void buffers_of_old_folders_are_passed_over(void)
{
    static const char from[] = "\"dtype\": \"I32\", \"shape\": [10]",
                      to[] = "\"dtype\": \"I64\", \"shape\": [ 5]";
    struct buf bytes = BUF_INIT;
    bool is_found = false;

    help_copy("buffers", "llava");
    help_rewrite(FILE_OF("buffers"), with_buffers);
    help_read(&bytes, FILE_OF("buffers"));
    for (size_t i = 0; i + sizeof(from) < bytes.n_bytes && !is_found; i++)
        if (memcmp(bytes.data + i, from, sizeof(from) - 1) == 0) {
            memcpy(bytes.data + i, to, sizeof(to) - 1);
            is_found = true;
        }
    EXPECT(is_found);
    weights_close(help_opened("buffers"));
    help_write(FILE_OF("buffers"), bytes.data, bytes.n_bytes);
    weights_close(help_opened("buffers"));
    buf_fini(&bytes);
}

static int with_head(struct safetensor *tensors, int n)
{
    return with_copy(tensors, n, "model.embed_tokens.weight", "lm_head.weight");
}

static int with_other_head(struct safetensor *tensors, int n)
{
    static uint16_t head[53 * 24];

    n = with_head(tensors, n);
    memcpy(head, tensors[n - 1].tensor.data, sizeof(head));
    head[1000] ^= 1;
    tensors[n - 1].tensor.data = head;
    return n;
}

static void a_tied_head_must_be_the_embeddings(void)
{
    help_copy("tied", "qwen2");
    help_rewrite(FILE_OF("tied"), with_head);
    weights_close(help_opened("tied"));
    help_copy("tied", "qwen2");
    help_rewrite(FILE_OF("tied"), with_other_head);
    help_refused("tied", "tensor 'lm_head.weight' of", "not the embeddings' copy");
}

/* ---- types we do not have ---- */

static void types_we_do_not_have_are_named(void)
{
    static const char *const names[] = {"F64", "I8", "I64", "F8_E4M3", "BOOL"};
    static const int sizes[] = {8, 1, 8, 1, 1};
    char bytes[512] = "", says[64];

    for (int i = 0; i < 5; i++) {
        uint64_t length = (uint64_t)snprintf(
            bytes + 8, 400,
            "{\"mm_projector.weight\":{\"dtype\":\"%s\",\"shape\":[2,"
            "1],\"data_offsets\":[0,%d]},\"mm_projector.bias\":{"
            "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%d,%d]}}",
            names[i], 2 * sizes[i], 2 * sizes[i], 2 * sizes[i] + 8);

        memcpy(bytes, &length, sizeof(length));
        help_write("one.safetensors", bytes, 8 + length + 2 * (size_t)sizes[i] + 8);
        snprintf(says, sizeof(says), "has dtype %s", names[i]);
        help_refused("one.safetensors", "tensor 'mm_projector.weight' of", says);
    }
}

/* ---- shards ---- */

static void edit_index(const char *tensor, const char *shard)
{
    struct buf text = BUF_INIT;
    struct json *root = NULL;
    struct err err = {0};

    help_read(&text, "shards/model.safetensors.index.json");
    EXPECT_OK(json_parse(&root, text.data, text.n_bytes, &err), &err);
    json_remove(json_get(root, "weight_map"), tensor);
    if (shard)
        EXPECT_OK(
            json_set(json_get(root, "weight_map"), tensor, json_new_string(shard), &err),
            &err);
    buf_reset(&text);
    json_write(&text, root, 0);
    help_write("shards/model.safetensors.index.json", text.data, text.n_bytes);
    buf_fini(&text);
    json_free(root);
}

static void shards_and_index_must_agree(void)
{
    char path[HELP_PATH_MAX];

    help_copy("shards", "llava_shards");
    help_path(path, "shards/model-00002-of-00003.safetensors");
    EXPECT(unlink(path) == 0);
    help_refused("shards", "shard '", "model-00002-of-00003.safetensors' is missing");
    help_copy("shards", "llava_shards");
    edit_index(NORM, "model-00001-of-00003.safetensors");
    help_refused("shards", "tensor '" NORM "' lies in",
                 "names 'model-00001-of-00003.safetensors' for it");
    help_copy("shards", "llava_shards");
    edit_index(NORM, NULL);
    help_refused("shards", "tensor '" NORM "' lies in", "names no file for it");
    edit_index(NORM, "../model.safetensors");
    help_refused("shards", "tensor '" NORM "' has no file of this folder", NULL);
    help_copy("shards", "llava_shards");
    edit_index("no.such.weight", "model-00001-of-00003.safetensors");
    help_refused("shards", "tensor 'no.such.weight' is missing from",
                 "model-00001-of-00003.safetensors'");
    help_write("shards/model.safetensors.index.json", "{}", 2);
    help_refused("shards", "has no \"weight_map\"", NULL);
}

/* ---- files that are no files of weights ---- */

static void make(const char *name, const char *text)
{
    char path[HELP_PATH_MAX];
    char *slash;
    struct err err = {0};

    help_path(path, name);
    slash = strrchr(path, '/');
    *slash = '\0';
    EXPECT_OK(fs_make_dirs(path, 0777, &err), &err);
    help_write(name, text, strlen(text));
}

static void other_folders_are_refused_with_what_to_do(void)
{
    char path[HELP_PATH_MAX];

    help_refused("nowhere", "nowhere' does not exist", NULL);
    make("a.nemo", "x");
    help_refused("a.nemo", "NeMo checkpoint", "convert_llama_nemo_to_hf.py");
    make("unpacked/model_config.yaml", "x");
    help_refused("unpacked", "NeMo checkpoint", "convert it");
    make("two/weights/x", "x");
    make("two/context/x", "x");
    help_refused("two", "NeMo checkpoint", "export_ckpt");
    make("lora/adapter_config.json", "{}");
    help_refused("lora", "adapter (LoRA)", "merge");
    make("empty/readme.txt", "x");
    help_refused("empty", "has no weights", "model.safetensors");
    help_copy("llava", "llava");
    help_write("llava/config.json", "{\"model_type\": ", 15);
    help_refused("llava", "config.json'", "line 1");
    help_path(path, "llava/config.json");
    EXPECT(unlink(path) == 0);
    help_refused("llava", "is no projector's: give a folder with config.json", NULL);
    help_refused("llava/model.safetensors", "is no projector's", "model.safetensors'");
    make("llama.gguf", "GGUF");
    help_refused("llama.gguf", "is no folder", ".safetensors or .bin");
}

/* ---- cut off, flipped ---- */

/* Every prefix of the header, in steps, and of the data. */
static void files_cut_off_anywhere_are_refused(void)
{
    struct buf bytes = BUF_INIT;
    uint64_t header;
    int n_refused = 0, n = 0;

    help_copy("cut", "llama");
    help_read(&bytes, FILE_OF("cut"));
    memcpy(&header, bytes.data, sizeof(header));
    for (size_t length = 0; length < bytes.n_bytes;
         length += length < header + 8 ? 64 : 4096) {
        help_write(FILE_OF("cut"), bytes.data, length);
        help_refused("cut", "model.safetensors'", NULL);
        n_refused++;
        n++;
    }
    EXPECT(n_refused == n && n > 30);
    help_write(FILE_OF("cut"), bytes.data, bytes.n_bytes - 1);
    help_refused("cut", "lies outside the file", "tensor '");
    buf_fini(&bytes);
}

/* No flipped byte of a header may do more than be refused, or mean the same. */
static void flipped_headers_do_no_harm(void)
{
    struct buf bytes = BUF_INIT;
    uint64_t header;
    int n_refused = 0, n = 0;

    help_copy("flipped", "llama");
    help_read(&bytes, FILE_OF("flipped"));
    memcpy(&header, bytes.data, sizeof(header));
    for (size_t at = 0; at < header + 8; at += 3, n++) {
        struct weights *weights = NULL;
        struct err err = {0};
        char path[HELP_PATH_MAX];

        bytes.data[at] ^= (char)(1 << (at % 8));
        help_write(FILE_OF("flipped"), bytes.data, bytes.n_bytes);
        help_path(path, "flipped");
        if (weights_open(&weights, path, &err) < 0)
            n_refused++;
        weights_close(weights);
        bytes.data[at] ^= (char)(1 << (at % 8));
    }
    EXPECT_MSG(n_refused > n / 2, "%d of %d refused", n_refused, n);
    buf_fini(&bytes);
}

/* ---- a folder and a model that do not fit ---- */

static void expect_no_load(const char *name, const struct neva_config *config,
                           unsigned parts, const char *says)
{
    struct weights *weights = help_opened(name);
    struct backend *backend = NULL;
    struct comm *solo = NULL;
    struct neva *model = NULL;
    struct err err = {0};

    EXPECT_OK(backend_create(&backend, "ref", 0, 1, &err), &err);
    EXPECT_OK(comm_create_solo(&solo, "tensor", &err), &err);
    EXPECT_OK(neva_create(&model, config, backend, solo, &err), &err);
    EXPECT(weights_load(model, weights, parts, &err) < 0);
    EXPECT_MSG(strstr(err.text, says), "'%s' should say '%s'", err.text, says);
    neva_destroy(model);
    comm_destroy(solo);
    backend_destroy(backend);
    weights_close(weights);
}

static struct neva_config config_with(const char *name)
{
    struct weights *weights = help_opened(name);
    struct neva_config config = tiny_config();

    config.llm = weights_info(weights)->config.llm;
    config.max_tokens = weights_info(weights)->config.max_tokens;
    weights_close(weights);
    return config;
}

static void models_of_another_shape_are_refused(void)
{
    struct neva_config config, base;

    help_copy("qwen2", "qwen2");
    help_copy("mistral", "mistral");
    base = config = config_with("qwen2");
    expect_no_load("qwen2", &config, WEIGHTS_ALL, "has no vision encoder");
    config.llm.tied = false;
    expect_no_load("qwen2", &config, WEIGHTS_LLM,
                   "set model.share_embeddings_and_output_weights");
    config = base;
    config.llm.has_qkv_bias = false;
    expect_no_load("qwen2", &config, WEIGHTS_LLM, "q_proj.bias' of");
    config = base;
    config.llm.n_layers = 3;
    expect_no_load("qwen2", &config, WEIGHTS_LLM, "layers.2.input_layernorm.weight' is");
    config = base;
    config.llm.vocab--;
    expect_no_load("qwen2", &config, WEIGHTS_LLM, "'model.embed_tokens.weight' has not");
    config = base;
    config.llm.ffn_width++;
    expect_no_load("qwen2", &config, WEIGHTS_LLM, "wanted [27,24]");
    config = config_with("mistral");
    config.max_tokens = 33;
    expect_no_load("mistral", &config, WEIGHTS_LLM, "attends to a sliding window of 32");
}

int main(void)
{
    help_begin();
    EXPECT_RUN(wrong_tensors_are_named);
    EXPECT_RUN(buffers_of_old_folders_are_passed_over);
    EXPECT_RUN(a_tied_head_must_be_the_embeddings);
    EXPECT_RUN(types_we_do_not_have_are_named);
    EXPECT_RUN(shards_and_index_must_agree);
    EXPECT_RUN(other_folders_are_refused_with_what_to_do);
    EXPECT_RUN(files_cut_off_anywhere_are_refused);
    EXPECT_RUN(flipped_headers_do_no_harm);
    EXPECT_RUN(models_of_another_shape_are_refused);
    help_end();
    return expect_end();
}
