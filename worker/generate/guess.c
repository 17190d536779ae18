#include "worker/generate/guess.h"

#include "common/base/fs.h"
#include "common/base/json.h"
#include "common/base/json_file.h"
#include "dataprep/text/conversation.h"

#include <stdio.h>
#include <string.h>

#define CHAT_TEMPLATE_MAX ((size_t)1 << 20)
#define CONFIG_MAX ((size_t)64 << 20) /* tokenizer_config.json lists added tokens */
#define LLAMA3_VOCAB 128000 /* Llama 3 has at least so many tokens, Llama 2 fewer */

struct mark {
    const char *text, *template;
};

/* The first that is there counts. */
static const struct mark marks[] = {
    {"<|start_header_id|>", "llama_3"},
    {"<|im_start|>", "yi_34b"},
    {"<extra_id_0>", "nvgpt"},
    {"<<SYS>>", "llama_2"},
    {"[INST]", "mistral"},
    {"USER:", "v1"},
};

static bool find_mark(struct guess *out, const char *text, const char *where)
{
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
        if (strstr(text, marks[i].text) && conv_template_find(marks[i].template)) {
            out->template = marks[i].template;
            out->is_written = true;
            snprintf(out->reason, sizeof(out->reason), "%s writes '%s'", where,
                     marks[i].text);
            return true;
        }
    return false;
}

/* The file's JSON, NULL when it is not there or no JSON: others may still tell. */
static struct json *read_json(const char *folder, const char *name)
{
    struct json *json = NULL;

    (void)json_file_find(&json, folder, name, CONFIG_MAX, NULL);
    return json;
}

static bool from_jinja(struct guess *out, const char *folder)
{
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    bool found = fs_path(path, NULL, "%s/chat_template.jinja", folder) == 0 &&
                 fs_read_file(&text, path, CHAT_TEMPLATE_MAX, NULL) == 0 &&
                 find_mark(out, buf_str(&text), "chat_template.jinja");

    buf_fini(&text);
    return found;
}

static bool from_json(struct guess *out, const char *folder, const char *name)
{
    struct json *json = read_json(folder, name);
    const char *text = json_get_string(json, "chat_template");
    bool found = text && find_mark(out, text, name);

    json_free(json);
    return found;
}

static const char *of_class(const char *type, int64_t vocab)
{
    if (strcmp(type, "llama") == 0)
        return vocab >= LLAMA3_VOCAB ? "llama_3" : "v1";
    if (strcmp(type, "mistral") == 0)
        return "mistral";
    if (strcmp(type, "qwen2") == 0)
        return "yi_34b"; /* ChatML, as Qwen's own */
    return strcmp(type, "nemotron") == 0 ? "nvgpt" : NULL;
}

static bool from_class(struct guess *out, const char *folder)
{
    struct json *config = read_json(folder, "config.json");
    const struct json *text = json_get(config, "text_config");
    const char *type = json_get_string(text, "model_type"), *template = NULL;
    bool found;

    if (!type)
        type = "llama"; /* LlavaConfig's default */
    if (config)
        template = of_class(type, json_get_int(text, "vocab_size", 0));
    found = template && conv_template_find(template);
    if (found) {
        out->template = template;
        snprintf(out->reason, sizeof(out->reason), "the decoder is of the kind '%.40s'",
                 type);
    }
    json_free(config);
    return found;
}

void guess_plainest(struct guess *guess)
{
    snprintf(guess->reason, sizeof(guess->reason),
             "the tokenizer lacks a token that %s needs", guess->template);
    guess->template = "v1";
}

int guess_template(struct guess *out, const char *folder, struct err *err)
{
    *out = (struct guess){0};
    if (from_jinja(out, folder) || from_json(out, folder, "chat_template.json") ||
        from_json(out, folder, "tokenizer_config.json") ||
        from_json(out, folder, "processor_config.json") || from_class(out, folder))
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "'%s' does not say how its conversations are laid out: give "
                   "--template, one of %s",
                   folder, conv_template_names());
}
