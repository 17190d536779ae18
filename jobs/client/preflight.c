#include "jobs/client/preflight.h"

#include "common/base/fs.h"
#include "jobs/client/preflight_weights.h"
#include "jobs/client/vocabulary.h"
#include "jobs/spec/spec_estimate.h"
#include "jobs/spec/spec_fit.h"
#include "jobs/spec/spec_schema.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB_ASSUMED 32000 /* LLaMA's, where nothing says more */
#define MANIFEST_MAX (16u << 20)
#define MANIFEST_READ 1 /* the version ranks read: MANIFEST_VERSION of dataprep/dataset */

struct look {
    const struct spec *spec;
    const struct device *device;
    struct spec_notes *notes;
    struct json *report;
    int64_t vocab, longest; /* of the datasets; 0: not known */
    int64_t weights_vocab;  /* of the LLM's folder; 0: not known */
    struct json *learnt;    /* annotation files of the datasets that are trained on */
    const char *key;        /* that named the path being looked at */
    struct err *err;
};

static int put(struct look *l, struct json *object, const char *key, struct json *value)
{
    return json_set(object, key, value, l->err);
}

static int refuse(struct look *l, const char *key, const char *path, const char *why)
{
    struct buf text = BUF_INIT;
    int rc;

    buf_printf(&text, "%s: '%s' %s", key, path, why);
    rc = spec_list_add(&l->notes->refused, buf_str(&text), l->err);
    buf_fini(&text);
    return rc;
}

static int must_exist(struct look *l, const char *key, const char *path)
{
    if (!path || fs_must_exist(path, l->err) == 0)
        return 0;
    return err_wrap(l->err, "%s", key);
}

/* A file or folder; NeMo has a name on a hub as model.tokenizer.type. */
static int check_tokenizer(struct look *l)
{
    const char *key, *path = spec_tokenizer(l->spec, &key);

    if (!path || fs_exists(path) || *path == '/' ||
        strcmp(key, "model.tokenizer.type") != 0)
        return must_exist(l, key, path);
    return refuse(l, key, path,
                  "is no file here, and nothing is downloaded: give the path of a folder "
                  "with a tokenizer.json");
}

static int check_files(struct look *l)
{
    const struct spec *spec = l->spec;
    bool is_prepare = spec->kind == SPEC_PREPARE;

    if (is_prepare && check_tokenizer(l) < 0)
        return -1;
    if (is_prepare &&
        (must_exist(l, "model.data.video_folder", spec->data.video_folder) < 0 ||
         must_exist(l, "model.data.image_folder", spec->data.image_folder) < 0))
        return -1;
    return 0;
}

/* ---- data ---- */

static int refuse_other(struct look *l, const char *path, const char *what, int64_t has,
                        int64_t wanted)
{
    char why[128];

    snprintf(why, sizeof(why), "was prepared for %s %" PRId64 ", not %" PRId64, what, has,
             wanted);
    return refuse(l, l->key, path, why);
}

/* Patches on a side of a frame; 0: only a folder that is not here says. */
static int64_t frame_side(const struct spec *spec)
{
    return spec->vision.patch_dim ? spec->vision.crop_size / spec->vision.patch_dim : 0;
}

static int check_frame_tokens(struct look *l, const char *path, int64_t has)
{
    int64_t wanted = spec_frame_tokens(l->spec);
    char why[256];

    if (!has || !wanted || has == wanted)
        return 0;
    snprintf(why, sizeof(why),
             "was prepared for %" PRId64 " tokens a frame, not %" PRId64
             ": model.mm_cfg.mm_mlp_adapter_type and vision_select_feature of both must "
             "agree",
             has, wanted);
    return refuse(l, l->key, path, why);
}

/* Fewer frames than a dataset was prepared for always fit. More do when its longest
 * sample has room for them; all frames only if it was prepared with all. */
static int check_frames(struct look *l, const char *path, const struct json *settings,
                        int64_t longest)
{
    const struct spec *spec = l->spec;
    const char *splice = json_get_string(settings, "splice");
    int64_t has = json_get_int(settings, "num_frames", 0);
    int64_t wanted = spec->data.splice_single_frame ? 1 : spec->data.num_frames;

    if (splice && strcmp(splice, "none") != 0)
        has = 1;
    if (has == 0 || wanted == has || strcmp(spec->data.media_type, "image") == 0)
        return 0;
    if (wanted < 0 || (has > 0 && longest + (wanted - has) * spec_frame_tokens(spec) >
                                      spec->model.encoder_seq_length))
        return refuse_other(l, path, "num_frames", has, wanted);
    return 0;
}

/* A dataset's numbers beside those of the model that is to learn from it. */
static int check_settings(struct look *l, const char *path, const struct json *settings,
                          int64_t longest)
{
    const struct spec *spec = l->spec;
    int64_t image = json_get_int(settings, "image_size", 0);
    int64_t patch = json_get_int(settings, "patch", 0);

    if (json_bool(json_get(settings, "prompts_only"), false) &&
        refuse(l, l->key, path,
               "was prepared with prompts_only: there is nothing to learn in it") < 0)
        return -1;
    if (image && spec->vision.crop_size && image != spec->vision.crop_size &&
        refuse_other(l, path, "crop_size", image, spec->vision.crop_size) < 0)
        return -1;
    if (patch && spec->vision.patch_dim && patch != spec->vision.patch_dim &&
        refuse_other(l, path, "patch_dim", patch, spec->vision.patch_dim) < 0)
        return -1;
    if (check_frame_tokens(l, path, json_get_int(settings, "frame_tokens", 0)) < 0)
        return -1;
    if (longest > spec->model.encoder_seq_length)
        return refuse_other(l, path, "encoder_seq_length of at least", longest,
                            spec->model.encoder_seq_length);
    return check_frames(l, path, settings, longest);
}

static int check_version(struct look *l, const char *path, const struct json *manifest)
{
    int64_t version = json_get_int(manifest, "version", 0);
    char why[128];

    if (version == MANIFEST_READ)
        return 0;
    snprintf(why, sizeof(why),
             "is of version %" PRId64 ", this program reads version %d: prepare the "
             "dataset again",
             version, MANIFEST_READ);
    return refuse(l, l->key, path, why);
}

/* All datasets of a job must have the tokens of one tokenizer. */
static int check_vocab(struct look *l, const char *path, const struct json *settings)
{
    int64_t vocab = json_get_int(settings, "vocab", l->vocab);
    int64_t first = l->vocab ? l->vocab : vocab;

    l->vocab = first;
    return vocab == first ? 0 : refuse_other(l, path, "a vocabulary of", vocab, first);
}

static bool is_learnt(const struct look *l, const char *file)
{
    for (size_t i = 0; i < json_count(l->learnt); i++)
        if (strcmp(json_string(json_at(l->learnt, i)), file) == 0)
            return true;
    return false;
}

/* Keeps the files of what is trained on; of a validation, says which was among these. */
static int note_files(struct look *l, struct json *entry, const struct json *files)
{
    bool is_validation = strcmp(l->key, "model.data.validation_data_path") == 0;

    for (size_t i = 0; i < json_count(files); i++) {
        const char *file = json_string(json_at(files, i));

        if (!file)
            continue;
        if (!is_validation && json_append(l->learnt, json_new_string(file), l->err) < 0)
            return -1;
        if (is_validation && is_learnt(l, file))
            return put(l, entry, "trained_on", json_new_string(file));
    }
    return 0;
}

/* What the manifest says, beside what the specification wants. */
static int add_manifest(struct look *l, struct json *entry, const char *path,
                        const struct json *manifest)
{
    const struct spec *spec = l->spec;
    int64_t longest = json_get_int(manifest, "longest_tokens", 0);
    const struct json *settings = json_get(manifest, "settings");

    if (longest > l->longest)
        l->longest = longest;
    if (check_version(l, path, manifest) < 0 || check_vocab(l, path, settings) < 0 ||
        note_files(l, entry, json_get(settings, "data_paths")) < 0)
        return -1;
    if (spec_kind_is_training(spec->kind) &&
        check_settings(l, path, settings, longest) < 0)
        return -1;
    if (put(l, entry, "samples", json_new_int(json_get_int(manifest, "n_samples", 0))) <
        0)
        return -1;
    return put(l, entry, "longest_tokens", json_new_int(longest));
}

static int add_dataset(struct look *l, struct json *entry, const char *path,
                       const char *manifest_path)
{
    struct buf text = BUF_INIT;
    struct json *manifest = NULL;
    int rc = fs_read_file(&text, manifest_path, MANIFEST_MAX, l->err);

    if (rc == 0)
        rc = json_parse(&manifest, buf_str(&text), text.n_bytes, l->err);
    if (rc == 0)
        rc = add_manifest(l, entry, path, manifest);
    else
        err_wrap(l->err, "'%s'", manifest_path);
    json_free(manifest);
    buf_fini(&text);
    return rc;
}

static int add_data(struct look *l, struct json *list, const char *key, const char *path)
{
    char manifest[FS_PATH_MAX];
    struct json *entry = json_new(JSON_OBJECT);
    bool is_dataset;

    l->key = key;
    if (json_append(list, entry, l->err) < 0 || must_exist(l, key, path) < 0 ||
        fs_path(manifest, l->err, "%s/manifest.json", path) < 0)
        return -1;
    is_dataset = fs_exists(manifest);
    if (put(l, entry, "path", json_new_string(path)) < 0 ||
        put(l, entry, "kind", json_new_string(is_dataset ? "dataset" : "annotations")) <
            0)
        return -1;
    if (is_dataset && l->spec->kind == SPEC_PREPARE)
        return refuse(l, key, path, "is prepared already");
    if (is_dataset)
        return add_dataset(l, entry, path, manifest);
    if (l->spec->kind == SPEC_PREPARE && !fs_is_dir(path))
        return 0;
    return refuse(l, key, path,
                  l->spec->kind == SPEC_PREPARE
                      ? "is a folder, not a .json or .jsonl file"
                      : "is no prepared dataset: a job of kind prepare makes one");
}

static int look_at_data(struct look *l)
{
    const struct spec *spec = l->spec;
    struct json *list = json_new(JSON_ARRAY);

    if (put(l, l->report, "data", list) < 0)
        return -1;
    for (int64_t i = 0; i < spec->data.data_path.count; i++)
        if (add_data(l, list, "model.data.data_path", spec->data.data_path.items[i]) < 0)
            return -1;
    for (int64_t i = 0; i < spec->data.validation_data_path.count; i++)
        if (add_data(l, list, "model.data.validation_data_path",
                     spec->data.validation_data_path.items[i]) < 0)
            return -1;
    if (spec->evaluate.prompt_file)
        return add_data(l, list, "prompt_file", spec->evaluate.prompt_file);
    return 0;
}

/* ---- numbers ---- */

static int add_numbers(struct look *l, const char *group, const char *const *keys,
                       const int64_t *values, int n)
{
    struct json *object = json_new(JSON_OBJECT);

    if (put(l, l->report, group, object) < 0)
        return -1;
    for (int i = 0; i < n; i++)
        if (put(l, object, keys[i], json_new_int(values[i])) < 0)
            return -1;
    return 0;
}

/* Tokens of the data's tokenizer, or rows of the weights where there are more; 0: nothing
 * says. */
static int64_t find_vocab(const struct look *l)
{
    const struct spec *spec = l->spec;
    const char *key, *path = spec_tokenizer(spec, &key);
    int64_t vocab =
        l->vocab ? l->vocab
                 : vocabulary_count(path, &spec->tokenizer.additional_special_tokens);

    return vocab > l->weights_vocab ? vocab : l->weights_vocab;
}

static int add_estimate(struct look *l, const struct spec_estimate *e)
{
    static const char *const parameter_keys[] = {"vision", "projector", "llm", "total",
                                                 "trained"};
    static const char *const memory_keys[] = {"weights",     "gradients", "optimizer",
                                              "activations", "logits",    "backend",
                                              "total",       "device"};
    const int64_t parameters[] = {e->n_vision, e->n_projector, e->n_llm,
                                  e->n_vision + e->n_projector + e->n_llm, e->n_trained};
    const int64_t memory[] = {
        (int64_t)e->weight_bytes,        (int64_t)e->gradient_bytes,
        (int64_t)e->optimizer_bytes,     (int64_t)e->activation_bytes,
        (int64_t)e->logit_bytes,         (int64_t)e->backend_bytes,
        (int64_t)spec_estimate_bytes(e), (int64_t)l->device->memory_bytes};

    if (add_numbers(l, "parameters", parameter_keys, parameters, 5) < 0)
        return -1;
    return add_numbers(l, "memory_bytes", memory_keys, memory,
                       l->device->memory_bytes ? 8 : 7);
}

/* Refused with what would fit, in the words of an override. */
static int check_fit(struct look *l, int64_t vocab, int64_t longest)
{
    const struct spec_fit fit = {.spec = l->spec,
                                 .vocab = vocab,
                                 .n_tokens = longest,
                                 .is_on_gpu = l->device->is_gpu,
                                 .memory_bytes = l->device->memory_bytes,
                                 .kept_bytes =
                                     l->device->is_gpu ? spec_fit_gpu_kept(l->spec) : 0};
    struct buf text = BUF_INIT;
    int rc;

    if (!spec_fit_is_too_much(&fit))
        return 0;
    buf_printf(&text, "memory (%s): ", l->device->where);
    spec_fit_describe(&text, &fit);
    rc = spec_list_add(&l->notes->refused, buf_str(&text), l->err);
    buf_fini(&text);
    return rc;
}

static int look_at_training(struct look *l)
{
    static const char *const plan_keys[] = {"steps",         "global_batch",
                                            "micro_batch",   "micro_batches",
                                            "data_parallel", "vocab"};
    const struct spec *spec = l->spec;
    int64_t vocab = find_vocab(l);
    int64_t longest = l->longest ? l->longest : spec->model.encoder_seq_length;
    bool has_sizes = preflight_has_sizes(spec);
    struct spec_estimate e = {.n_ranks = spec_n_ranks(spec)};

    e.n_data_parallel = e.n_ranks / spec->model.tensor_model_parallel_size;
    e.n_micro_batches = spec->model.global_batch_size /
                        (spec->model.micro_batch_size * e.n_data_parallel);
    if (has_sizes)
        spec_estimate(&e, spec, vocab ? vocab : VOCAB_ASSUMED, longest,
                      l->device->is_gpu);
    const int64_t plan[] = {spec->trainer.max_steps,
                            spec->model.global_batch_size,
                            spec->model.micro_batch_size,
                            e.n_micro_batches,
                            e.n_data_parallel,
                            vocab ? vocab : VOCAB_ASSUMED};

    if (add_numbers(l, "training", plan_keys, plan, 6) < 0 ||
        (has_sizes && (add_estimate(l, &e) < 0 ||
                       check_fit(l, vocab ? vocab : VOCAB_ASSUMED, longest) < 0)))
        return -1;
    return put(l, json_get(l->report, "training"), "is_vocab_assumed",
               json_new_bool(vocab == 0));
}

static int look_at_sample(struct look *l)
{
    static const char *const keys[] = {"frames", "patches", "frame_tokens",
                                       "media_tokens", "most_tokens"};
    const struct spec *spec = l->spec;
    int64_t side = frame_side(spec);
    int64_t frames = spec->data.splice_single_frame ? 1 : spec->data.num_frames;
    int64_t n_each = spec_frame_tokens(spec);
    const int64_t values[] = {frames, side * side, n_each,
                              frames > 0 ? frames * n_each : 0,
                              spec->model.encoder_seq_length};

    return add_numbers(l, "sample", keys, values, 5);
}

static int look_at_layout(struct look *l)
{
    const struct spec *spec = l->spec;

    if (put(l, l->report, "kind", json_new_string(spec_kind_name(spec->kind))) < 0 ||
        put(l, l->report, "name", json_new_string(spec->name)) < 0 ||
        put(l, l->report, "ranks", json_new_int(spec_n_ranks(spec))) < 0)
        return -1;
    return put(l, l->report, "tensor_parallel",
               json_new_int(spec->kind == SPEC_PREPARE
                                ? 1
                                : spec->model.tensor_model_parallel_size));
}

static int add_list(struct look *l, const char *key, const struct spec_list *list)
{
    struct json *array = json_new(JSON_ARRAY);

    if (put(l, l->report, key, array) < 0)
        return -1;
    for (int64_t i = 0; i < list->count; i++)
        if (json_append(array, json_new_string(list->items[i]), l->err) < 0)
            return -1;
    return 0;
}

int preflight(struct json **out, const struct spec *spec, const struct device *device,
              struct spec_notes *notes, struct err *err)
{
    struct spec sized =
        *spec; /* borrows all of it; folders fill in what it leaves open */
    struct look l = {.spec = &sized, .device = device, .notes = notes, .err = err};

    l.report = json_new(JSON_OBJECT);
    l.learnt = json_new(JSON_ARRAY);
    if (look_at_layout(&l) < 0 || check_files(&l) < 0 ||
        (spec->kind != SPEC_PREPARE &&
         preflight_weights(&sized, &l.weights_vocab, l.report, notes, err) < 0) ||
        look_at_data(&l) < 0 || (spec->kind != SPEC_EVALUATE && look_at_sample(&l) < 0) ||
        (spec_kind_is_training(spec->kind) && look_at_training(&l) < 0) ||
        add_list(&l, "ignored", &notes->ignored) < 0 ||
        add_list(&l, "refused", &notes->refused) < 0) {
        json_free(l.report);
        l.report = NULL;
    }
    json_free(l.learnt);
    *out = l.report;
    return l.report ? 0 : -1;
}
