#include "jobs/client/preflight_weights.h"

#include "common/base/fs.h"
#include "jobs/client/weights_peek.h"
#include "jobs/spec/spec_schema.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct look {
    struct spec *spec;
    struct json *list; /* of the report */
    struct spec_notes *notes;
    struct err *err;
};

enum part { PART_VISION = 1, PART_PROJECTOR = 2, PART_LLM = 4 };
#define PART_ALL (PART_VISION | PART_PROJECTOR | PART_LLM)

#define ENCODER "model.mm_cfg.vision_encoder."

/* Sizes of a spec, and what a folder has for them. */
static const struct size {
    const char *key;
    enum part part;
    size_t spec, peek; /* offsets */
} sizes[] = {
#define SIZE(key, part, name, there)                                                     \
    {                                                                                    \
        key, part, offsetof(struct spec, name), offsetof(struct weights_peek, there)     \
    }
    SIZE(ENCODER "crop_size", PART_VISION, vision.crop_size, vision.image_size),
    SIZE(ENCODER "patch_dim", PART_VISION, vision.patch_dim, vision.patch),
    SIZE(ENCODER "hidden_size", PART_VISION, vision.hidden_size, vision.width),
    SIZE(ENCODER "ffn_hidden_size", PART_VISION, vision.ffn_hidden_size,
         vision.ffn_width),
    SIZE(ENCODER "num_layers", PART_VISION, vision.num_layers, vision.n_layers),
    SIZE(ENCODER "num_attention_heads", PART_VISION, vision.num_attention_heads,
         vision.n_heads),
    SIZE("model.hidden_size", PART_LLM, model.hidden_size, llm.width),
    SIZE("model.ffn_hidden_size", PART_LLM, model.ffn_hidden_size, llm.ffn_width),
    SIZE("model.num_layers", PART_LLM, model.num_layers, llm.n_layers),
    SIZE("model.num_attention_heads", PART_LLM, model.num_attention_heads, llm.n_heads),
    SIZE("model.num_query_groups", PART_LLM, model.num_query_groups, llm.n_kv_heads),
#undef SIZE
};
#define N_SIZES (sizeof(sizes) / sizeof(sizes[0]))

static int64_t *size_in(struct spec *spec, const struct size *size)
{
    return (int64_t *)(void *)((char *)spec + size->spec);
}

static int refuse(struct look *l, const char *key, const char *path, const char *why)
{
    char text[ERR_TEXT_MAX];

    snprintf(text, sizeof(text), "%s: '%s' %s", key, path, why);
    return spec_list_add(&l->notes->refused, text, l->err);
}

static int refuse_size(struct look *l, const struct size *size, int64_t is,
                       const char *path, int64_t has)
{
    char text[ERR_TEXT_MAX];

    snprintf(text, sizeof(text),
             "%s is %" PRId64 ", but the weights in '%s' have %" PRId64, size->key, is,
             path, has);
    return spec_list_add(&l->notes->refused, text, l->err);
}

static int take_sizes(struct look *l, const struct weights_peek *peek, unsigned parts,
                      const char *path)
{
    for (size_t i = 0; i < N_SIZES; i++) {
        int64_t *ours = size_in(l->spec, &sizes[i]);
        int64_t theirs =
            *(const int64_t *)(const void *)((const char *)peek + sizes[i].peek);

        if (!(sizes[i].part & parts) || !theirs)
            continue;
        if (!*ours)
            *ours = theirs;
        else if (*ours != theirs && refuse_size(l, &sizes[i], *ours, path, theirs) < 0)
            return -1;
    }
    return 0;
}

/* Kinds that parameters are counted by. */
static void take_kinds(struct spec *spec, const struct weights_peek *peek, unsigned parts)
{
    static char gated[] = "swiglu", plain[] = "squared-relu", norm[] = "rmsnorm";
    static char clip[] = "clip", siglip[] = "siglip";

    if ((parts & PART_VISION) && !spec->vision.model_type)
        spec->vision.model_type = peek->vision.is_siglip ? siglip : clip;
    if (!(parts & PART_LLM))
        return;
    if (!spec->model.activation)
        spec->model.activation = peek->llm.is_gated ? gated : plain;
    if (!spec->model.normalization)
        spec->model.normalization = norm;
    if (!spec_is_set(spec, "model.share_embeddings_and_output_weights"))
        spec->model.share_embeddings_and_output_weights = peek->llm.is_tied;
}

/* ---- the report ---- */

static int add_entry(struct look *l, const char *part, const char *path, const char *what)
{
    struct json *entry = json_new(JSON_OBJECT);

    if (json_append(l->list, entry, l->err) < 0 ||
        json_set(entry, "part", json_new_string(part), l->err) < 0)
        return -1;
    if (!path)
        return 0;
    if (json_set(entry, "from", json_new_string(path), l->err) < 0)
        return -1;
    return json_set(entry, "what", json_new_string(what), l->err);
}

/* A folder here, or a name on a hub, which nobody downloads. */
static int look_at(struct look *l, struct weights_peek *peek, const char *key,
                   const char *part, const char *path)
{
    *peek = (struct weights_peek){.is_weights = false};
    if (!path)
        return add_entry(l, part, NULL, NULL);
    if (!fs_exists(path)) {
        if (*path == '/' && fs_must_exist(path, l->err) < 0)
            return err_wrap(l->err, "%s", key);
        if (refuse(l, key, path,
                   "is no file here, and nothing is downloaded: give the path of a "
                   "folder") < 0)
            return -1;
        return add_entry(l, part, path, "not here");
    }
    if (weights_peek(peek, path, l->err) < 0)
        return err_wrap(l->err, "%s", key);
    if (!peek->is_weights) {
        char why[PEEK_WHAT_MAX + 4];

        snprintf(why, sizeof(why), "is %s", peek->what);
        if (refuse(l, key, path, why) < 0)
            return -1;
    }
    return add_entry(l, part, path, peek->what);
}

static int look_at_part(struct look *l, const char *key, const char *name, unsigned parts,
                        const char *path, int64_t *vocab)
{
    struct weights_peek peek;

    if (look_at(l, &peek, key, name, path) < 0)
        return -1;
    if (!peek.has_sizes)
        return 0;
    if ((parts & PART_LLM) && peek.llm.vocab > *vocab)
        *vocab = peek.llm.vocab;
    take_kinds(l->spec, &peek, parts);
    return take_sizes(l, &peek, parts, path);
}

/* ---- the folder of the run ---- */

static int refuse_folder(struct look *l, const char *why)
{
    return refuse(l, "exp_manager.explicit_log_dir",
                  l->spec->exp_manager.explicit_log_dir, why);
}

/* Only a folder that is named; the job's own is new. 1: the job goes on from it. */
static int look_at_folder(struct look *l)
{
    const char *folder = l->spec->exp_manager.explicit_log_dir;
    bool resumes = l->spec->exp_manager.resume_if_exists;

    if (!folder)
        return 0;
    if (weights_peek_run(folder)) {
        if (resumes)
            return 1;
        return refuse_folder(l, "has checkpoints of an earlier run: set "
                                "exp_manager.resume_if_exists to go on from it, or "
                                "another folder");
    }
    if (resumes && !l->spec->exp_manager.resume_ignore_no_checkpoint)
        return refuse_folder(l, "has no checkpoint to go on from, as "
                                "exp_manager.resume_if_exists asks: for a first run set "
                                "resume_ignore_no_checkpoint");
    return 0;
}

/* ---- all ---- */

static int look_at_sources(struct look *l, int64_t *vocab)
{
    const struct spec *spec = l->spec;
    const char *resume = spec->exp_manager.resume_from_checkpoint;
    struct weights_peek peek;
    int goes_on;

    if (spec->kind == SPEC_EVALUATE)
        return look_at(l, &peek, "neva_model_file", "all",
                       spec->evaluate.neva_model_file);
    goes_on = look_at_folder(l);
    if (goes_on < 0)
        return -1;
    if (goes_on)
        return add_entry(l, "all", spec->exp_manager.explicit_log_dir,
                         "the run in it: goes on from its newest checkpoint");
    if (resume)
        return look_at_part(l, "exp_manager.resume_from_checkpoint",
                            "all, with optimizer and step", PART_ALL, resume, vocab);
    if (spec->model.restore_from_path)
        return look_at_part(l, "model.restore_from_path", "all", PART_ALL,
                            spec->model.restore_from_path, vocab);
    if (look_at_part(l, ENCODER "from_pretrained", "vision encoder", PART_VISION,
                     spec->vision.from_pretrained, vocab) < 0 ||
        look_at_part(l, "model.mm_cfg.pretrain_mm_mlp_adapter", "projector",
                     PART_PROJECTOR, spec->mm_cfg.pretrain_mm_mlp_adapter, vocab) < 0)
        return -1;
    return look_at_part(l, "model.mm_cfg.llm.from_pretrained", "LLM", PART_LLM,
                        spec->mm_cfg.llm_from_pretrained, vocab);
}

int preflight_weights(struct spec *spec, int64_t *vocab, struct json *report,
                      struct spec_notes *notes, struct err *err)
{
    struct look l = {spec, json_new(JSON_ARRAY), notes, err};

    if (json_set(report, "weights", l.list, err) < 0)
        return -1;
    return look_at_sources(&l, vocab);
}

bool preflight_has_sizes(const struct spec *spec)
{
    for (size_t i = 0; i < N_SIZES; i++)
        if (!*(const int64_t *)(const void *)((const char *)spec + sizes[i].spec))
            return false;
    return spec->model.activation && spec->model.normalization;
}
