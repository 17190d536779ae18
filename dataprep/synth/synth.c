#include "dataprep/synth/synth.h"

#include "common/base/fs.h"
#include "dataprep/media/encode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FRAMES_PER_S 10

static const struct encode_settings settings = {
    .codec = "libx264",
    .format = "mp4",
    .width = SYNTH_SIZE,
    .height = SYNTH_SIZE,
    .ticks_per_s = FRAMES_PER_S,
    .b_frames = 2,
    .options = "crf=18:preset=ultrafast",
};

static int clip_write(const struct synth_clip *clip, const char *path, struct err *err)
{
    uint8_t rgb[SYNTH_SIZE * SYNTH_SIZE * 3];
    struct media_encoder *encoder;

    if (media_encoder_open(&encoder, path, &settings, err) < 0)
        return -1;
    for (int frame = 0; frame < SYNTH_FRAMES; frame++) {
        synth_draw(rgb, clip, frame);
        if (media_encoder_add(encoder, rgb, frame, err) < 0) {
            media_encoder_abort(encoder);
            return -1;
        }
    }
    return media_encoder_close(encoder, err);
}

/* Under another name first, so that a clip that stands there is whole. */
static int clip_put(const struct synth_clip *clip, const char *folder, const char *name,
                    struct err *err)
{
    char path[FS_PATH_MAX], part[FS_PATH_MAX];

    if (fs_path(path, err, "%s/%s", folder, name) < 0 ||
        fs_path(part, err, "%s/%s.part", folder, name) < 0 ||
        clip_write(clip, part, err) < 0)
        return -1;
    if (rename(part, path) < 0)
        return err_set(err, ERR_IO, "cannot rename '%s': %s", part, strerror(errno));
    return 0;
}

static void add_field(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, "\"%s\": \"%s\", ", key, value);
}

/* Nothing in these texts needs an escape but the line's end after <video>. */
static void annotate(struct buf *out, const struct synth_clip *clip, const char *name)
{
    for (int which = 0; which < 2; which++) {
        struct synth_question asked = synth_ask(clip, which);

        buf_printf(out, "{\"id\": \"clip_%05llu-%s\", ", (unsigned long long)clip->number,
                   asked.category);
        add_field(out, "video", name);
        add_field(out, "category", asked.category);
        buf_printf(
            out,
            "\"conversations\": [{\"from\": \"human\", \"value\": \"<video>\\n%s\"}, "
            "{\"from\": \"gpt\", \"value\": \"%s\"}]}\n",
            asked.question, asked.answer);
    }
}

static int synth_make(const struct synth_config *config, struct buf *lines,
                      struct err *err)
{
    for (int64_t i = 0; i < config->n_clips; i++) {
        struct synth_clip clip;
        char name[32];

        synth_plan(&clip, config->seed, (uint64_t)i);
        snprintf(name, sizeof(name), "clip_%05d.mp4", (int)i);
        if (clip_put(&clip, config->output, name, err) < 0)
            return -1;
        annotate(lines, &clip, name);
        if (config->progress)
            config->progress(config->progress_state, i + 1, config->n_clips);
    }
    return buf_check(lines, err);
}

int synth_run(const struct synth_config *config, struct err *err)
{
    struct buf lines = BUF_INIT;
    char path[FS_PATH_MAX];
    int rc = -1;

    if (config->n_clips < 1 || config->n_clips > SYNTH_CLIPS_MAX)
        return err_set(err, ERR_INVALID, "%lld clips are not from 1 to %d",
                       (long long)config->n_clips, SYNTH_CLIPS_MAX);
    if (fs_make_dirs(config->output, 0777, err) == 0 &&
        fs_path(path, err, "%s/annotations.jsonl", config->output) == 0 &&
        synth_make(config, &lines, err) == 0)
        rc = fs_write_file_atomic(path, lines.data, lines.n_bytes, err);
    buf_fini(&lines);
    return rc < 0 ? err_wrap(err, "cannot draw clips into '%s'", config->output) : 0;
}
