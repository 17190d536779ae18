#include "worker/rank/run_model.h"

#include "common/base/log.h"
#include "jobs/spec/spec_tree.h"
#include "model/checkpoint/checkpoint.h"
#include "worker/rank/pictures.h"
#include "worker/rank/sources.h"

#include <string.h>

const char *run_model_resumes(const struct rank *rank, const struct begin *begin)
{
    if (rank->start->resume[0])
        return rank->start->resume;
    return begin->how == BEGIN_RESUME ? begin->from : NULL;
}

/* The one folder with everything, or NULL: a checkpoint from before there was a config.json
 * says nothing of itself, and its spec has to be whole. */
static const char *whole_folder(const struct rank *rank, const struct begin *begin)
{
    const char *resume = run_model_resumes(rank, begin);
    const char *folder = resume                        ? resume
                         : begin->how == BEGIN_RESTORE ? begin->from
                                                       : NULL;
    char config[FS_PATH_MAX], checkpoint[FS_PATH_MAX];

    if (folder && fs_path(config, NULL, "%s/config.json", folder) == 0 &&
        fs_path(checkpoint, NULL, "%s/checkpoint.json", folder) == 0 &&
        fs_exists(checkpoint) && !fs_exists(config))
        return NULL;
    return folder;
}

static int open_sources(struct sources *sources, const struct rank *rank,
                        const struct begin *begin, struct err *err)
{
    const char *whole = whole_folder(rank, begin);

    if (whole)
        return sources_add(sources,
                           begin->how == BEGIN_RESTORE ? "model.restore_from_path"
                                                       : "checkpoint",
                           whole, WEIGHTS_ALL, err);
    if (begin->how != BEGIN_FRESH || rank->start->resume[0])
        return 0;
    for (int i = 0; i < PARAM_GROUP_COUNT; i++)
        if (begin->parts[i][0] &&
            sources_add(sources, begin_part_keys[i], begin->parts[i], 1u << i, err) < 0)
            return -1;
    return 0;
}

static int set_size(struct spec *spec, const char *path, int64_t *field, int64_t value,
                    struct err *err)
{
    *field = value;
    return spec_tree_set(spec->tree, path, json_new_int(value), err);
}

static int set_encoder(struct spec *spec, enum neva_encoder encoder, struct err *err)
{
    const char *name = encoder == NEVA_ENCODER_SIGLIP ? "siglip" : "clip";

    if (spec->vision.model_type)
        return 0;
    spec->vision.model_type = strdup(name);
    if (!spec->vision.model_type)
        return err_set(err, ERR_NOMEM, "cannot copy a word");
    return spec_tree_set(spec->tree, "model.mm_cfg.vision_encoder.model_type",
                         json_new_string(name), err);
}

/* What the folder said of frames: datasets, bindings and checkpoints' specs look at it. */
static int complete_spec(struct spec *spec, const struct neva_config *config,
                         struct err *err)
{
    if (set_size(spec, "model.mm_cfg.vision_encoder.crop_size", &spec->vision.crop_size,
                 config->vision.image_size, err) < 0 ||
        set_encoder(spec, config->vision.encoder, err) < 0)
        return -1;
    return set_size(spec, "model.mm_cfg.vision_encoder.patch_dim",
                    &spec->vision.patch_dim, config->vision.patch, err);
}

/* The spec decides how frames are made; that an encoder knew others is worth a word. */
static void warn_of_pictures(const struct sources *sources, const struct engine *engine,
                             const struct neva_config *config)
{
    for (int i = 0; i < sources->n; i++) {
        const struct source *source = &sources->list[i];
        struct frame_config wanted;
        struct err err;

        if (!(source->parts & WEIGHTS_VISION) || !fs_is_dir(source->path))
            continue;
        if (pictures_read(&wanted, source->path, config, &err) < 0)
            log_warn("%s; the encoder of '%s' sees other pictures than it knows",
                     err.text, source->path);
        else if (wanted.processor != engine->frames.processor)
            log_warn("'%s' was made for pictures as %s's processor gives them, "
                     "model.mm_cfg.vision_encoder.model_type says otherwise",
                     source->path,
                     wanted.processor == MEDIA_PROCESSOR_SIGLIP ? "SigLIP" : "CLIP");
    }
}

static int fill(struct engine *engine, const struct sources *sources,
                const struct rank *rank, const struct begin *begin, struct err *err)
{
    if (run_model_resumes(rank, begin))
        return 0;
    if (begin->how == BEGIN_RESTORE && !sources->n)
        return checkpoint_load(engine->model, begin->from, false, err);
    return sources_load(sources, engine->model, err);
}

int run_model_open(struct engine *engine, struct rank *rank, const struct begin *begin,
                   int64_t data_vocab, struct err *err)
{
    struct sources sources = {0};
    struct neva_config config;
    int rc = open_sources(&sources, rank, begin, err);

    if (rc == 0)
        rc = config_model(&config, rank->spec, sources_vocab(&sources, data_vocab), err);
    if (rc == 0)
        rc = sources_config(&sources, rank->spec, &config, err);
    if (rc == 0)
        rc = complete_spec(rank->spec, &config, err);
    if (rc == 0)
        rc = config_frames(&engine->frames, rank->spec, &config, err);
    if (rc == 0 && rank->layout.rank == 0)
        warn_of_pictures(&sources, engine, &config);
    if (rc == 0)
        rc = engine_open(engine, rank, &config, err);
    if (rc == 0)
        rc = fill(engine, &sources, rank, begin, err);
    sources_close(&sources);
    return rc;
}
