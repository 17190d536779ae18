/* vneva export: weights become a folder that transformers loads. */
#include "model/tools/export.h"

#include "common/base/json_file.h"
#include "model/checkpoint/checkpoint.h"
#include "model/tools/find.h"
#include "model/tools/text_files.h"
#include "model/tools/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARD_SIZE_DEFAULT "5GB"         /* as transformers' max_shard_size */
#define SMALL_BYTES ((uint64_t)64 << 20) /* room for the files beside the tensors */

static const char help[] =
    "usage: vneva export [options] FOLDER OUT\n"
    "\n"
    "Writes the weights in FOLDER (a checkpoint, a job's folder: its newest checkpoint, "
    "or\n"
    "an imported model) as a LlavaForConditionalGeneration folder that transformers and\n"
    "the servers built on it load: config.json, model.safetensors or shards with their\n"
    "index, generation_config.json, the tokenizer's and the processor's files.\n"
    "\n"
    "  --dtype TYPE       bf16, fp16 or fp32 (default: each tensor as it is stored)\n"
    "  --shard-size SIZE  largest file, as 5GB or 500MB (default 5GB)\n"
    "  --force            replace OUT\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage or what cannot be expressed there, 5 an error "
    "of\n"
    "the system (nothing is left half written).\n"
    "\n"
    "Example:\n"
    "  vneva export --dtype bf16 ~/.vneva/jobs/2 my-llava\n";

/* ---- what is asked for ---- */

/* "5GB", powers of ten as transformers has them; a bare number is bytes. NULL: as there. */
static int parse_size(uint64_t *out, const char *text, struct err *err)
{
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}};
    char *end;
    double value = strtod(text ? text : SHARD_SIZE_DEFAULT, &end);

    for (size_t i = 0; end != text && i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(end, units[i].name) == 0 && value * units[i].factor >= 1 &&
            value * units[i].factor < 1e18) {
            *out = (uint64_t)(value * units[i].factor);
            return 0;
        }
    return err_set(err, ERR_INVALID, "--shard-size must be like 5GB or 500MB, not '%s'",
                   text);
}

static int find_dtype(struct export *export, const char *name, struct err *err)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } known[] = {{"bf16", DTYPE_BF16}, {"fp16", DTYPE_F16}, {"fp32", DTYPE_F32}};

    export->dtype = weights_info(export->weights)->dtype;
    if (!name)
        return 0;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].name, name) == 0) {
            export->dtype = known[i].dtype;
            export->has_dtype = true;
            return 0;
        }
    return err_set(err, ERR_INVALID, "--dtype must be bf16, fp16 or fp32, not '%s'",
                   name);
}

/* ---- the placeholder token ---- */

/* Tokens of the training that its tokenizer's files do not have follow them in order. */
static int add_extra_tokens(struct export *export, struct err *err)
{
    const struct json *extra = json_get(json_get(export->meta, "prompt"), "extra_tokens");
    int64_t id;

    for (size_t i = 0; i < json_count(extra); i++) {
        const char *text = json_string(json_at(extra, i));

        if (!text)
            return err_set(err, ERR_FORMAT, "'%s': an extra token is no text",
                           export->from);
        if (words_add(&export->words, text, &id, err) < 0)
            return -1;
    }
    return 0;
}

/* The one of config.json. Hugging Face's folders leave it out where it is their class's
 * default; our own runs leave it out because they have none. */
static int64_t said_image_token(const struct export *export)
{
    const char *kind = json_get_string(export->meta, "kind");
    bool is_foreign = !export->meta || (kind && strcmp(kind, "import") == 0);

    if (is_foreign || json_get(export->config, "image_token_index") ||
        json_get(export->config, "image_token_id"))
        return weights_info(export->weights)->image_token;
    return -1;
}

/* A processor looks for the placeholder's text. */
static int name_image_token(struct export *export, struct err *err)
{
    const char *text =
        export->has_words ? words_text(&export->words, export->image_token) : NULL;

    if (text)
        export->image_text = text;
    else if (export->has_words && words_find(&export->words, EXPORT_IMAGE) < 0)
        return words_put(&export->words, EXPORT_IMAGE, export->image_token, err);
    return 0;
}

/* The one that config.json says; else the tokenizer's <image>; else a new one, with a row
 * of the embeddings where there is none to spare. */
static int find_image_token(struct export *export, struct err *err)
{
    export->vocab = weights_info(export->weights)->config.llm.vocab;
    export->image_token = said_image_token(export);
    if (text_files_tokenizer(export->from)) {
        export->has_words = words_read(&export->words, export->from, err) == 0;
        /* of another kind than those we can add to: its own files say what is needed */
        if (!export->has_words &&
            (export->image_token < 0 || err->code != ERR_UNSUPPORTED))
            return -1;
        err_clear(err);
        if (export->has_words && add_extra_tokens(export, err) < 0)
            return -1;
    }
    export->image_text = EXPORT_IMAGE;
    if (export->image_token >= 0)
        return name_image_token(export, err);
    if (!export->has_words)
        return err_set(
            err, ERR_NOT_FOUND,
            "'%s' has neither image_token_index in its config.json nor a "
            "tokenizer (tokenizer.json or tokenizer.model): copy the tokenizer "
            "there, so that <image> can be given a number",
            export->from);
    if (words_add(&export->words, EXPORT_IMAGE, &export->image_token, err) < 0)
        return -1;
    if (export->image_token > export->vocab)
        return err_set(err, ERR_INVALID,
                       "the tokenizer in '%s' has more tokens (%" PRId64
                       ") than the model knows (%" PRId64 "): it is another model's",
                       export->from, export->image_token, export->vocab);
    if (export->image_token == export->vocab)
        export->vocab++;
    return 0;
}

/* ---- the folder ---- */

static int check_target(const struct export *export, bool is_forced, struct err *err)
{
    if (fs_exists(export->to) && !is_forced)
        return err_set(err, ERR_EXISTS, "'%s' is there already; --force replaces it",
                       export->to);
    return 0;
}

static int check_space(const struct export *export, struct err *err)
{
    uint64_t free_bytes, needed = export_bytes(export) + SMALL_BYTES;
    char wanted[32], there[32];

    if (fs_free_bytes(&free_bytes, export->temporary, err) < 0)
        return -1;
    if (needed <= free_bytes)
        return 0;
    return err_set(err, ERR_IO, "'%s' needs %s, its disk has %s", export->to,
                   tool_size(wanted, (double)needed),
                   tool_size(there, (double)free_bytes));
}

static int write_folder(struct export *export, struct err *err)
{
    if (fs_remove_tree(export->temporary, err) < 0 ||
        fs_make_dirs(export->temporary, 0777, err) < 0 || check_space(export, err) < 0 ||
        export_tensors(export, err) < 0 || export_files(export, err) < 0 ||
        fs_sync_dir(export->temporary, err) < 0)
        return -1;
    return fs_put_dir(export->temporary, export->to, err);
}

static int export_open(struct export *export, const struct args *args, struct err *err)
{
    const struct weights_info *info;
    char path[FS_PATH_MAX];

    export->to = args->words[1];
    if (parse_size(&export->shard_bytes, args_value(args, "shard-size"), err) < 0 ||
        check_target(export, args_has(args, "force"), err) < 0 ||
        fs_path(export->temporary, err, "%s.tmp", export->to) < 0 ||
        find_weights(export->from, args->words[0], err) < 0 ||
        weights_open(&export->weights, export->from, err) < 0)
        return -1;
    info = weights_info(export->weights);
    if (info->parts != WEIGHTS_ALL)
        return err_set(err, ERR_UNSUPPORTED,
                       "'%s' (%s) is not a whole model: encoder, projector and decoder",
                       export->from, info->architecture);
    if (export_refuse(&info->config, err) < 0 ||
        find_dtype(export, args_value(args, "dtype"), err) < 0 ||
        json_file_find(&export->config, export->from, "config.json", TOOL_JSON_MAX, err) <
            0 ||
        fs_path(path, err, "%s/checkpoint.json", export->from) < 0)
        return -1;
    if (fs_exists(path) && checkpoint_read_meta(&export->meta, export->from, err) < 0)
        return -1;
    return find_image_token(export, err);
}

static void export_close(struct export *export)
{
    weights_close(export->weights);
    json_free(export->meta);
    json_free(export->config);
    words_fini(&export->words);
}

static int run(const struct args *args, struct err *err)
{
    struct export export = {.image_token = -1};
    char size[32];
    int rc = -1;

    if (export_open(&export, args, err) == 0) {
        rc = write_folder(&export, err);
        if (rc < 0)
            (void)fs_remove_tree(export.temporary, NULL);
    }
    if (rc == 0)
        printf("%s: LlavaForConditionalGeneration, %s, image token %" PRId64 "%s\n",
               export.to, tool_size(size, (double)export_bytes(&export)),
               export.image_token,
               export.vocab > weights_info(export.weights)->config.llm.vocab
                   ? " (new, one row of the embeddings added)"
                   : "");
    export_close(&export);
    return rc;
}

static const struct args_option options[] = {{.name = "dtype", .value = "TYPE"},
                                             {.name = "shard-size", .value = "SIZE"},
                                             {.name = "force"},
                                             {0}};

const struct program_command tool_export = {
    "export", "vneva export", help, options, "FOLDER OUT", 2, 2, run};
