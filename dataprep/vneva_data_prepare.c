#include "dataprep/vneva_data.h"

#include "common/base/json.h"
#include "dataprep/prepare/from_spec.h"

#include <stdio.h>
#include <stdlib.h>

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

static int prepare(const struct spec *spec, struct err *err)
{
    struct media_limits limits = {.max_pixels = spec->data.decode_max_pixels,
                                  .max_frames = 1 << 20};
    struct prepare_config config;
    struct frame_service frames;
    struct json *summary = NULL;
    struct buf text = BUF_INIT;
    int rc;

    if (prepare_from_spec(&config, spec, err) < 0 ||
        media_direct_service(&frames, &limits, err) < 0)
        return -1;
    rc = prepare_ranges(&config, &frames, err);
    media_direct_service_close(&frames);
    if (rc < 0)
        return -1;
    if (prepare_finish(&config, &summary, err) < 0) {
        if (err->code != ERR_FORMAT)
            return -1;
        fprintf(stderr, "vneva data prepare: %s\n", err->text);
        return DATA_FAILED;
    }
    json_write(&text, summary, 0);
    puts(buf_str(&text));
    buf_fini(&text);
    json_free(summary);
    return DATA_DONE;
}

static int run(const struct args *args, struct err *err)
{
    struct spec *spec = NULL;
    struct spec_notes notes = {0};
    int status;

    if (spec_read(&spec, &notes, args->words[0], SPEC_PREPARE, args->words + 1,
                  args->n_words - 1, err) < 0)
        return -1;
    for (int64_t i = 0; i < notes.ignored.count; i++)
        fprintf(stderr, "vneva data: ignored: %s\n", notes.ignored.items[i]);
    for (int64_t i = 0; i < notes.refused.count; i++)
        fprintf(stderr, "vneva data: refused: %s\n", notes.refused.items[i]);
    status = notes.refused.count ? DATA_USAGE : prepare(spec, err);
    spec_notes_fini(&notes);
    spec_free(spec);
    return status;
}

const struct program_command data_prepare = {
    "prepare", "vneva data prepare", help, NULL, "a SPEC.yaml", 1, ARGS_WORDS_MAX, run};
