/* Where weights come from: which keys name a place, and what is no place we can read. */
#include "common/base/fs.h"
#include "jobs/spec/spec_schema.h"

#include <stdio.h>
#include <string.h>

#define ADAPTER "model.mm_cfg.pretrain_mm_mlp_adapter"
#define ENCODER "model.mm_cfg.vision_encoder.from_pretrained"
#define LLM "model.mm_cfg.llm.from_pretrained"
#define RESTORE "model.restore_from_path"
#define RESUME "exp_manager.resume_from_checkpoint"

static bool is_given(const struct json *tree, const char *path)
{
    const char *text = json_string(spec_tree_get(tree, path));

    return text && *text;
}

unsigned spec_in_weights(const struct json *tree, enum spec_kind kind)
{
    unsigned parts = 0;

    if (!spec_kind_is_training(kind))
        return 0;
    if (is_given(tree, "restore_from_path") || is_given(tree, RESTORE) ||
        is_given(tree, "model.resume_from_checkpoint") || is_given(tree, RESUME))
        return SPEC_OF_LLM | SPEC_OF_VISION;
    if (is_given(tree, LLM))
        parts |= SPEC_OF_LLM;
    if (is_given(tree, ENCODER))
        parts |= SPEC_OF_VISION;
    return parts;
}

static int refuse(struct spec_notes *notes, const char *key, const char *path,
                  const char *why, struct err *err)
{
    char text[ERR_TEXT_MAX];

    snprintf(text, sizeof(text), "%s: '%s' %s", key, path, why);
    return spec_list_add(&notes->refused, text, err);
}

/* NeMo's and Lightning's archives hold pickled Python objects. */
static int check_format(struct spec_notes *notes, const char *key, const char *path,
                        struct err *err)
{
    if (path && fs_ends(path, ".nemo"))
        return refuse(notes, key, path,
                      "is a NeMo archive, which is not read: make a Hugging Face folder "
                      "of it with NeMo's scripts/checkpoint_converters (for example "
                      "convert_llama_nemo_to_hf.py, convert_mistral_7b_nemo_to_hf.py, "
                      "convert_nemotron_nemo_to_hf.py) and give that folder",
                      err);
    if (path && fs_ends(path, ".ckpt"))
        return refuse(notes, key, path,
                      "is a checkpoint of PyTorch Lightning, which is not read: let NeMo "
                      "make a .nemo archive of it, and its scripts/checkpoint_converters "
                      "a Hugging Face folder of that",
                      err);
    return 0;
}

int spec_check_sources(const struct spec *spec, struct spec_notes *notes, struct err *err)
{
    const struct {
        const char *key, *path;
    } sources[] = {
        {LLM, spec->mm_cfg.llm_from_pretrained},
        {ENCODER, spec->vision.from_pretrained},
        {ADAPTER, spec->mm_cfg.pretrain_mm_mlp_adapter},
        {RESTORE, spec->model.restore_from_path},
        {RESUME, spec->exp_manager.resume_from_checkpoint},
        {"neva_model_file", spec->evaluate.neva_model_file},
    };
    const char *top = spec->restore_from_path, *own = spec->model.restore_from_path;

    if (top && own && strcmp(top, own) != 0)
        return err_set(err, ERR_INVALID,
                       "restore_from_path ('%s') and " RESTORE " ('%s') name two models: "
                       "set one of them",
                       top, own);
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
        if (check_format(notes, sources[i].key, sources[i].path, err) < 0)
            return -1;
    return 0;
}
