/* vneva import: a Hugging Face folder becomes a checkpoint of ours. */
#include "model/checkpoint/checkpoint.h"

#include "model/tools/find.h"
#include "model/tools/text_files.h"
#include "model/tools/tool.h"
#include "model/weights/weights.h"

#include <inttypes.h>
#include <stdio.h>

static const char help[] =
    "usage: vneva import [--copy] [--force] HF_FOLDER OUT\n"
    "\n"
    "Checks a folder of Hugging Face's (config.json; model.safetensors, its shards, or\n"
    "pytorch_model.bin) and makes a checkpoint of it: every tensor is there, once, in "
    "its\n"
    "shape, and gets a checksum. The weights are the same files, linked where the file\n"
    "system can and copied where not; the tokenizer and the other files come along.\n"
    "A LLaVA folder can be asked and trained from; one of an encoder or a decoder alone "
    "is\n"
    "for from_pretrained.\n"
    "\n"
    "  --copy    copy the weights, so that the folder may be changed afterwards\n"
    "  --force   replace OUT\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage or bad input, 5 an error of the system.\n"
    "\n"
    "Example:\n"
    "  vneva import llava-1.5-7b-hf ~/models/llava\n";

struct import {
    bool is_forced, wants_copies;
    const char *from, *to;
    struct weights *weights;
};

static int write_extra(void *state, const char *folder, struct err *err)
{
    const struct import *import = state;

    return text_files_copy(folder, import->from, err);
}

static int refuse(const struct import *import, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_must_exist(import->from, err) < 0 ||
        fs_path(path, err, "%s/checkpoint.json", import->from) < 0)
        return -1;
    if (fs_exists(path))
        return err_set(err, ERR_INVALID,
                       "'%s' is a checkpoint of vneva already: use it as it is",
                       import->from);
    if (fs_exists(import->to) && !import->is_forced)
        return err_set(err, ERR_EXISTS, "'%s' is there already; --force replaces it",
                       import->to);
    return 0;
}

static int adopt(struct import *import, struct err *err)
{
    const struct checkpoint_extra extra = {import, write_extra};
    struct json *meta = json_new(JSON_OBJECT);
    int rc = -1;

    if (json_set(meta, "kind", json_new_string("import"), err) == 0 &&
        json_set(meta, "source", json_new_string(import->from), err) == 0)
        rc = checkpoint_adopt(import->to, import->weights, import->wants_copies, meta,
                              &extra, err);
    json_free(meta);
    return rc;
}

static void print_found(const struct import *import)
{
    static const char *const names[PARAM_GROUP_COUNT] = {"vision", "projector", "llm"};
    const struct weights_info *info = weights_info(import->weights);
    const char *tokenizer = text_files_tokenizer(import->to);

    printf("%s: %s, %" PRId64 " parameters, mostly %s, parts:", import->to,
           info->architecture, info->n_params, dtype_name(info->dtype));
    for (int group = 0; group < PARAM_GROUP_COUNT; group++)
        if (info->parts & 1u << group)
            printf(" %s", names[group]);
    printf("; tokenizer: %s\n", tokenizer ? tokenizer : "none");
    if (!tokenizer && info->parts & WEIGHTS_LLM)
        fprintf(
            stderr,
            "vneva import: '%s' has no tokenizer (tokenizer.json or tokenizer.model): "
            "put one there before you ask the model\n",
            import->from);
}

static int run(const struct args *args, struct err *err)
{
    struct import import = {.is_forced = args_has(args, "force"),
                            .wants_copies = args_has(args, "copy"),
                            .from = args->words[0],
                            .to = args->words[1]};
    int rc = -1;

    if (refuse(&import, err) == 0 && weights_open(&import.weights, import.from, err) == 0)
        rc = adopt(&import, err);
    if (rc == 0)
        print_found(&import);
    weights_close(import.weights);
    return rc;
}

static const struct args_option options[] = {{.name = "force"}, {.name = "copy"}, {0}};

const struct program_command tool_import = {
    "import", "vneva import", help, options, "HF_FOLDER OUT", 2, 2, run};
