#include "worker/generate/model_folder.h"

#include "common/base/json_file.h"
#include "dataprep/text/conversation.h"
#include "model/checkpoint/checkpoint.h"
#include "model/weights/weights.h"
#include "worker/rank/checkpoints.h"

#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX ((size_t)64 << 20) /* tokenizer_config.json lists added tokens */

/* No file can be asked; what some are and how to mend it, weights_open says. */
static int refuse_file(const char *path, struct err *err)
{
    struct weights *weights;

    if (weights_open(&weights, path, err) < 0)
        return err_wrap(err, "--model");
    weights_close(weights);
    return err_set(err, ERR_INVALID, "--model: '%s' is a projector alone", path);
}

/* A folder with config.json and no checkpoint.json is Hugging Face's; the others are
 * checkpoints or hold some. */
static int find_path(struct model_folder *out, const char *path, struct err *err)
{
    char file[FS_PATH_MAX];
    bool is_checkpoint;

    if (fs_must_exist(path, err) < 0)
        return err_wrap(err, "--model");
    if (!fs_is_dir(path))
        return refuse_file(path, err);
    if (fs_path(file, err, "%s/checkpoint.json", path) < 0)
        return -1;
    is_checkpoint = fs_exists(file);
    if (fs_path(file, err, "%s/config.json", path) < 0)
        return -1;
    if (!is_checkpoint && fs_exists(file))
        return fs_path(out->path, err, "%s", path);
    if (checkpoints_find(out->path, path, err) < 0)
        return err_wrap(err, "--model");
    return checkpoint_read_meta(&out->meta, out->path, err);
}

static int read_spec(struct model_folder *out, struct err *err)
{
    const struct json *tree = json_get(out->meta, "spec");
    struct frame_config frames;
    struct buf text = BUF_INIT;
    int rc;

    if (!tree)
        return 0;
    json_write(&text, tree, 0);
    rc = buf_check(&text, err);
    if (rc == 0)
        rc = spec_from_json(&out->spec, buf_str(&text), text.n_bytes, err);
    buf_fini(&text);
    if (rc < 0 || config_frames(&frames, out->spec, NULL, err) < 0)
        return err_wrap(err, "cannot read the spec in '%s'", out->path);
    out->num_frames = frames.num_frames;
    out->splice = frames.splice;
    out->aspect = frames.aspect;
    return 0;
}

/* ---- words ---- */

static int read_prompt(struct model_folder *out, const struct json *prompt,
                       struct err *err)
{
    const struct json *extra = json_get(prompt, "extra_tokens");
    const char *template = json_get_string(prompt, "template");

    if (!template || !conv_template_find(template))
        return err_set(
            err, ERR_UNSUPPORTED,
            "'%s' was trained with template '%s', which is not to be had here: "
            "give --template, one of %s",
            out->path, template ? template : "", conv_template_names());
    out->template = template;
    out->use_im_start_end = json_bool(json_get(prompt, "use_im_start_end"), false);
    out->media_first = json_bool(json_get(prompt, "media_first"), false);
    out->extra_tokens = calloc(json_count(extra) + 1, sizeof(*out->extra_tokens));
    if (!out->extra_tokens)
        return err_set(err, ERR_NOMEM, "cannot allocate the extra tokens");
    for (size_t i = 0; i < json_count(extra); i++) {
        const char *text = json_string(json_at(extra, i));

        if (!text)
            return err_set(err, ERR_FORMAT, "'%s': an extra token is no text", out->path);
        out->extra_tokens[out->n_extra_tokens++] = text;
    }
    return 0;
}

/* Hugging Face's tokenizers put a begin of sentence in front unless told otherwise. */
static int read_begin(struct model_folder *out, struct err *err)
{
    struct json *config = NULL;

    if (json_file_find(&config, out->path, "tokenizer_config.json", CONFIG_MAX, err) < 0)
        return -1;
    out->has_begin = json_bool(json_get(config, "add_bos_token"), true);
    json_free(config);
    return 0;
}

static int find_words(struct model_folder *out, const char *wanted, struct err *err)
{
    const struct json *prompt = json_get(out->meta, "prompt");

    if (!prompt && read_begin(out, err) < 0)
        return -1;
    if (prompt && read_prompt(out, prompt, err) < 0 && !wanted)
        return -1;
    err_clear(err);
    if (wanted)
        out->template = wanted;
    if (out->template)
        return 0;
    if (guess_template(&out->guess, out->path, err) < 0)
        return -1;
    out->template = out->guess.template;
    return 0;
}

static int find_tokenizer(struct model_folder *out, const char *wanted, struct err *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model"};

    if (wanted)
        return fs_path(out->tokenizer, err, "%s", wanted);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (fs_path(out->tokenizer, err, "%s/%s", out->path, names[i]) < 0)
            return -1;
        if (fs_exists(out->tokenizer)) /* the folder is the tokenizer */
            return fs_path(out->tokenizer, err, "%s", out->path);
    }
    return err_set(
        err, ERR_NOT_FOUND,
        "no tokenizer in '%s' (looked for tokenizer.json and tokenizer.model): "
        "copy it there, or give --tokenizer",
        out->path);
}

int model_folder_open(struct model_folder *out, const struct options *options,
                      struct err *err)
{
    *out = (struct model_folder){.num_frames = MODEL_FOLDER_NUM_FRAMES};
    if (find_path(out, options->model, err) < 0 || read_spec(out, err) < 0 ||
        find_words(out, options->template, err) < 0 ||
        find_tokenizer(out, options->tokenizer, err) < 0)
        return -1;
    if (options->num_frames) {
        out->num_frames = options->num_frames;
        out->splice = MEDIA_SPLICE_NONE;
    }
    return 0;
}

void model_folder_close(struct model_folder *folder)
{
    spec_free(folder->spec);
    json_free(folder->meta);
    free(folder->extra_tokens);
    *folder = (struct model_folder){0};
}
