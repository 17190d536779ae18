#include "jobs/client/weights_peek.h"

#include "common/base/fs.h"
#include "common/base/json.h"
#include "common/base/json_file.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_MAX (1u << 20) /* bytes of a config.json */

/* Sizes that Hugging Face's classes take where the file has none. */
static const struct text_class {
    const char *model_type;
    int64_t width, ffn_width, n_layers, n_heads, n_kv_heads; /* 0: n_heads */
} text_classes[] = {
    {"llama", 4096, 11008, 32, 32, 0},    {"mistral", 4096, 14336, 32, 32, 8},
    {"qwen2", 4096, 22016, 32, 32, 32},   {"stablelm", 2560, 6912, 32, 32, 32},
    {"nemotron", 6144, 24576, 32, 48, 0},
};

static bool has_file(const char *folder, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_path(path, NULL, "%s/%s", folder, name) == 0 && fs_exists(path);
}

/* Names of checkpoints begin so (model/checkpoint/checkpoint.h). */
static bool has_steps(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    bool has = false;

    while (dir && !has && (entry = readdir(dir)))
        has = strncmp(entry->d_name, "step-", 5) == 0;
    if (dir)
        closedir(dir);
    return has;
}

bool weights_peek_run(const char *folder)
{
    char path[FS_PATH_MAX];

    return fs_path(path, NULL, "%s/checkpoints", folder) == 0 && has_steps(path);
}

static void read_text(struct weights_peek *out, const struct json *config)
{
    const char *type = json_get_string(config, "model_type");
    struct text_class class = text_classes[0];

    for (size_t i = 0; type && i < sizeof(text_classes) / sizeof(text_classes[0]); i++)
        if (strcmp(text_classes[i].model_type, type) == 0)
            class = text_classes[i];
    out->llm.vocab = json_get_int(config, "vocab_size", 0);
    out->llm.width = json_get_int(config, "hidden_size", class.width);
    out->llm.ffn_width = json_get_int(config, "intermediate_size", class.ffn_width);
    out->llm.n_layers = json_get_int(config, "num_hidden_layers", class.n_layers);
    out->llm.n_heads = json_get_int(config, "num_attention_heads", class.n_heads);
    out->llm.n_kv_heads =
        json_get_int(config, "num_key_value_heads",
                     class.n_kv_heads ? class.n_kv_heads : out->llm.n_heads);
    out->llm.is_gated = strcmp(class.model_type, "nemotron") != 0;
    out->llm.is_tied = json_bool(json_get(config, "tie_word_embeddings"), false);
}

static void read_vision(struct weights_peek *out, const struct json *config)
{
    const char *type = json_get_string(config, "model_type");
    bool is_clip = !type || !strstr(type, "siglip");

    out->vision.is_siglip = !is_clip;
    out->vision.image_size = json_get_int(config, "image_size", 224);
    out->vision.patch = json_get_int(config, "patch_size", is_clip ? 32 : 16);
    out->vision.width = json_get_int(config, "hidden_size", 768);
    out->vision.ffn_width = json_get_int(config, "intermediate_size", 3072);
    out->vision.n_layers = json_get_int(config, "num_hidden_layers", 12);
    out->vision.n_heads = json_get_int(config, "num_attention_heads", 12);
}

/* A LLaVA has both inside, CLIPModel its encoder (beside a text model that is not read),
 * the others are what they are. */
static void read_config(struct weights_peek *out, const struct json *config)
{
    const struct json *vision = json_get(config, "vision_config");
    const struct json *text = json_get(config, "text_config");
    const char *class = json_string(json_at(json_get(config, "architectures"), 0));

    snprintf(out->what, sizeof(out->what), "%s", class ? class : "a config.json");
    out->has_sizes = true;
    if (class && strstr(class, "Llava")) {
        read_vision(out, vision);
        read_text(out, text);
    } else if (class && (strstr(class, "CLIP") || strstr(class, "Siglip"))) {
        read_vision(out, vision ? vision : config);
    } else {
        read_text(out, config);
    }
}

static int read_file(struct weights_peek *out, const char *path, struct err *err)
{
    struct json *config = NULL;

    if (json_file_read(&config, path, "config.json", CONFIG_MAX, err) < 0)
        return -1;
    read_config(out, config);
    json_free(config);
    return 0;
}

int weights_peek(struct weights_peek *out, const char *path, struct err *err)
{
    *out = (struct weights_peek){.is_weights = true};
    if (has_file(path, "config.json"))
        return read_file(out, path, err);
    if (has_file(path, "checkpoint.json")) {
        snprintf(out->what, sizeof(out->what), "a checkpoint");
    } else if (has_file(path, "adapter_config.json")) {
        out->is_weights = false;
        snprintf(out->what, sizeof(out->what),
                 "a LoRA adapter: merge it into its model and give that");
    } else if (!fs_is_dir(path)) {
        snprintf(out->what, sizeof(out->what), "a file");
    } else if (weights_peek_run(path) || has_steps(path)) {
        snprintf(out->what, sizeof(out->what), "a run: its newest checkpoint");
    } else if (has_file(path, "logs")) { /* a job's folder: it may have one by then */
        snprintf(out->what, sizeof(out->what), "a run without a checkpoint so far");
    } else if (has_file(path, "mm_projector.bin") ||
               has_file(path, "model.safetensors")) {
        snprintf(out->what, sizeof(out->what), "a projector");
    } else {
        out->is_weights = false;
        snprintf(out->what, sizeof(out->what),
                 "no folder of weights: it has no config.json or checkpoint.json");
    }
    return 0;
}
