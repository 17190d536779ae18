#include "dataprep/vneva_data.h"

#include "common/base/json.h"
#include "dataprep/dataset/manifest.h"
#include "dataprep/prepare/prepare.h"
#include "jobs/spec/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: vneva data prepare SPEC.yaml [key=value ...]\n"
    "\n"
    "Prepares a dataset in this very process, without a coordinator: what a prepare job\n"
    "does, with the same spec and the same result, one medium after the other. A broken\n"
    "video may end this program; `vneva submit` decodes in processes that may be "
    "killed.\n"
    "The last line is one JSON object: samples, rejects, reasons.\n"
    "\n"
    "Exit status: 0 done, 1 too many rejects, 2 wrong usage, spec or input, 5 an error "
    "of\n"
    "the system.\n"
    "\n"
    "Example:\n"
    "  vneva data prepare jobs/quickstart/prepare.yaml \\\n"
    "      model.data.data_path=motion/annotations.jsonl model.data.video_folder=motion "
    "\\\n"
    "      model.data.output=datasets/motion model.tokenizer.model=tokenizer.model\n";

static int read_splice(enum media_splice *out, const char *name, struct err *err)
{
    *out = MEDIA_SPLICE_NONE;
    if (!name || !*name)
        return 0;
    for (int i = MEDIA_SPLICE_NONE; i <= MEDIA_SPLICE_LAST; i++)
        if (strcmp(name, manifest_splice_name((enum media_splice)i)) == 0) {
            *out = (enum media_splice)i;
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "model.data.splice_single_frame is '%s', not first, middle or last",
                   name);
}

static int read_aspect(enum media_aspect *out, const char *name, struct err *err)
{
    *out = MEDIA_ASPECT_SQUARE;
    if (!name || !*name)
        return 0;
    for (int i = MEDIA_ASPECT_SQUARE; i <= MEDIA_ASPECT_KEEP; i++)
        if (strcmp(name, manifest_aspect_name((enum media_aspect)i)) == 0) {
            *out = (enum media_aspect)i;
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "model.data.image_aspect_ratio is '%s', not square, pad or keep",
                   name);
}

/* Borrows from the spec. */
static int read_config(struct prepare_config *out, const struct spec *spec,
                       struct err *err)
{
    const char *tokenizer_key;

    *out = (struct prepare_config){
        .data_paths = (const char *const *)spec->data.data_path.items,
        .n_data_paths = (int)spec->data.data_path.count,
        .video_root = spec->data.video_folder,
        .image_root = spec->data.image_folder,
        .output = spec->data.output,
        .tokenizer = spec_tokenizer(spec, &tokenizer_key),
        .conv_template = spec->data.conv_template,
        .extra_tokens =
            (const char *const *)spec->tokenizer.additional_special_tokens.items,
        .n_extra_tokens = (int)spec->tokenizer.additional_special_tokens.count,
        .use_im_start_end = spec->mm_cfg.use_im_start_end,
        .media_first = spec->data.sep_image_conv_front,
        .num_frames = spec->data.num_frames,
        .image_size = spec->vision.crop_size,
        .patch = spec->vision.patch_dim,
        .frame_tokens = spec_frame_tokens(spec),
        .max_tokens = spec->model.encoder_seq_length,
        .shard_size = spec->data.shard_size,
        .store_frames = spec->data.store_frames,
        .prompts_only = spec->data.prompts_only,
        .max_reject_fraction = spec->data.max_reject_fraction,
    };
    if (spec->vision.model_type && strcmp(spec->vision.model_type, "siglip") == 0)
        out->processor = MEDIA_PROCESSOR_SIGLIP; /* the spec allows no third */
    if (read_splice(&out->splice, spec->data.splice_single_frame, err) < 0)
        return -1;
    return read_aspect(&out->aspect, spec->data.image_aspect_ratio, err);
}

struct progress {
    int64_t first, n_samples;
};

static int report(void *state, int64_t done, int64_t total, struct err *err)
{
    const struct progress *progress = state;

    (void)total;
    (void)err;
    data_progress("records checked", progress->first + done, progress->n_samples);
    return 0;
}

static int prepare_ranges(const struct prepare_config *config,
                          struct frame_service *frames, struct err *err)
{
    struct progress progress = {0};
    const struct prepare_progress callback = {&progress, report};

    if (prepare_plan(config, &progress.n_samples, err) < 0)
        return -1;
    for (; progress.first < progress.n_samples; progress.first += config->shard_size) {
        int64_t left = progress.n_samples - progress.first, n_rejects;

        if (prepare_range(config, frames, progress.first,
                          left < config->shard_size ? left : config->shard_size,
                          &callback, &n_rejects, err) < 0)
            return -1;
    }
    return 0;
}

static int prepare(const struct spec *spec)
{
    struct media_limits limits = {.max_pixels = spec->data.decode_max_pixels,
                                  .max_frames = 1 << 20};
    struct prepare_config config;
    struct frame_service frames;
    struct json *summary = NULL;
    struct buf text = BUF_INIT;
    struct err err = {0};
    int rc;

    if (read_config(&config, spec, &err) < 0 ||
        media_direct_service(&frames, &limits, &err) < 0)
        return data_fail(&err);
    rc = prepare_ranges(&config, &frames, &err);
    media_direct_service_close(&frames);
    if (rc < 0)
        return data_fail(&err);
    if (prepare_finish(&config, &summary, &err) < 0) {
        data_fail(&err);
        return err.code == ERR_FORMAT ? DATA_FAILED : DATA_SYSTEM;
    }
    json_write(&text, summary, 0);
    puts(buf_str(&text));
    buf_fini(&text);
    json_free(summary);
    return DATA_DONE;
}

static int run(int argc, char **argv)
{
    struct spec *spec = NULL;
    struct spec_notes notes = {0};
    struct err err = {0};
    int status;

    if (argc < 2 || argv[1][0] == '-')
        return data_usage(&data_prepare, "a SPEC.yaml is expected");
    if (spec_read(&spec, &notes, argv[1], SPEC_PREPARE, (const char *const *)(argv + 2),
                  argc - 2, &err) < 0)
        return data_fail(&err);
    for (int64_t i = 0; i < notes.ignored.count; i++)
        fprintf(stderr, "vneva data: ignored: %s\n", notes.ignored.items[i]);
    for (int64_t i = 0; i < notes.refused.count; i++)
        fprintf(stderr, "vneva data: refused: %s\n", notes.refused.items[i]);
    status = notes.refused.count ? DATA_USAGE : prepare(spec);
    spec_notes_fini(&notes);
    spec_free(spec);
    return status;
}

const struct data_command data_prepare = {
    "prepare", "prepare a dataset here, without a coordinator", help, run};
