/* What a job's specification asks of the nodes: paths, and room. */
#include "slurm/node/preflight.h"

#include "jobs/spec/spec_estimate.h"

#include <string.h>

#define ASK_BYTES_MAX 12000 /* of all paths together: they travel as one value */
#define VOCAB_ASSUMED 32000 /* LLaMA's */
#define TOKENS_ASSUMED 4096 /* of a sample, where the specification is silent */
#define CHECKPOINTS 2       /* the last one, and the one that is being written */
#define VALUE_BYTES 4       /* fp32, as checkpoints are written */
#define MOMENTS 2           /* of the optimizer, for each that is trained */
#define RUN_BYTES ((uint64_t)256 << 20) /* database and logs */
#define RUN_INODES 1000
#define TMP_BYTES ((uint64_t)16 << 20)
#define SHM_BYTES ((uint64_t)16 << 20)     /* for every rank: slots of two groups */
#define MEMORY_BYTES ((uint64_t)256 << 20) /* of the smallest rank, with its decoders */
#define OPEN_FILES 1024

struct list {
    struct json *paths;
    size_t n_bytes;
    struct err *err;
};

static int add(struct list *list, const char *key, const char *path, bool is_made)
{
    struct json *one;

    if (!path || !*path || json_count(list->paths) >= PREFLIGHT_PATHS_MAX)
        return 0;
    list->n_bytes += strlen(key) + strlen(path) + 64; /* with JSON around them */
    if (list->n_bytes > ASK_BYTES_MAX)
        return 0;
    one = json_new(JSON_OBJECT);
    if (json_set(one, "key", json_new_string(key), list->err) < 0 ||
        json_set(one, "path", json_new_string(path), list->err) < 0 ||
        json_set(one, "is_made", json_new_bool(is_made), list->err) < 0) {
        json_free(one);
        return -1;
    }
    return json_append(list->paths, one, list->err);
}

static int add_data(struct list *list, const struct spec *spec)
{
    for (int64_t i = 0; i < spec->data.data_path.count; i++)
        if (add(list, "model.data.data_path", spec->data.data_path.items[i], false) < 0)
            return -1;
    for (int64_t i = 0; i < spec->data.validation_data_path.count; i++)
        if (add(list, "model.data.validation_data_path",
                spec->data.validation_data_path.items[i], false) < 0)
            return -1;
    return 0;
}

/* A tokenizer may be a name on a hub, which is no path. */
static int add_tokenizer(struct list *list, const struct spec *spec)
{
    const char *key, *path = spec_tokenizer(spec, &key);

    return path && *path == '/' ? add(list, key, path, false) : 0;
}

int preflight_paths(struct json **out, const struct spec *spec, struct err *err)
{
    struct list list = {json_new(JSON_ARRAY), 0, err};
    const struct {
        const char *key, *path;
    } read[] = {
        {"model.data.video_folder", spec->data.video_folder},
        {"model.data.image_folder", spec->data.image_folder},
        {"model.mm_cfg.llm.from_pretrained", spec->mm_cfg.llm_from_pretrained},
        {"model.mm_cfg.vision_encoder.from_pretrained", spec->vision.from_pretrained},
        {"model.mm_cfg.pretrain_mm_mlp_adapter", spec->mm_cfg.pretrain_mm_mlp_adapter},
        {"restore_from_path", spec->restore_from_path},
        {"model.restore_from_path", spec->model.restore_from_path},
        {"model.resume_from_checkpoint", spec->model.resume_from_checkpoint},
        {"exp_manager.resume_from_checkpoint", spec->exp_manager.resume_from_checkpoint},
        {"neva_model_file", spec->evaluate.neva_model_file},
        {"prompt_file", spec->evaluate.prompt_file},
    };
    int rc = add_data(&list, spec);

    for (size_t i = 0; rc == 0 && i < sizeof(read) / sizeof(read[0]); i++)
        rc = add(&list, read[i].key, read[i].path, false);
    if (rc == 0)
        rc = add_tokenizer(&list, spec);
    if (rc == 0 && spec->kind == SPEC_PREPARE)
        rc = add(&list, "model.data.output", spec->data.output, true);
    if (rc == 0 && spec_kind_is_training(spec->kind))
        rc = add(&list, "exp_manager.explicit_log_dir",
                 spec->exp_manager.explicit_log_dir, true);
    if (rc == 0 && spec->kind == SPEC_EVALUATE)
        rc = add(&list, "output_file", spec->evaluate.output_file, true);
    if (rc < 0)
        json_free(list.paths);
    else
        *out = list.paths;
    return rc;
}

static bool has_sizes(const struct spec *spec)
{
    return spec && spec_kind_is_training(spec->kind) && spec->model.hidden_size > 0 &&
           spec->model.num_layers > 0 && spec->model.num_attention_heads > 0 &&
           spec->vision.hidden_size > 0 && spec->vision.num_layers > 0 &&
           spec->vision.num_attention_heads > 0;
}

void preflight_need(struct preflight_need *out, const struct spec *spec,
                    int64_t n_devices, bool wants_gpus)
{
    uint64_t n = n_devices > 0 ? (uint64_t)n_devices : 1, memory = MEMORY_BYTES;
    struct spec_estimate size;

    *out = (struct preflight_need){.run_bytes = RUN_BYTES,
                                   .run_inodes = RUN_INODES,
                                   .tmp_bytes = TMP_BYTES,
                                   .shm_bytes = n * SHM_BYTES,
                                   .open_files = OPEN_FILES};
    if (has_sizes(spec)) {
        int64_t tokens = spec->model.encoder_seq_length;
        uint64_t values;

        spec_estimate(&size, spec, VOCAB_ASSUMED, tokens > 0 ? tokens : TOKENS_ASSUMED,
                      wants_gpus);
        values = (uint64_t)(size.n_vision + size.n_projector + size.n_llm +
                            MOMENTS * size.n_trained);
        out->run_bytes += CHECKPOINTS * VALUE_BYTES * values;
        if (!wants_gpus) /* what fp32 and its moments take, surely; the rest varies */
            memory += size.weight_bytes + size.gradient_bytes + size.optimizer_bytes;
    }
    out->memory_bytes = n * memory;
}
