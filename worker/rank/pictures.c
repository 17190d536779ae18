#include "worker/rank/pictures.h"

#include "common/base/json_file.h"
#include "dataprep/media/preprocessor.h"

#include <inttypes.h>
#include <string.h>

#define PICTURES_FILE "preprocessor_config.json"
#define PICTURES_JSON_MAX ((size_t)1 << 20)

/* A file may name another class than the encoder's own: its defaults count. */
static enum media_processor class_of(const struct json *json,
                                     const struct neva_config *config)
{
    const char *name = json_get_string(json, "image_processor_type");

    if (name && strstr(name, "Siglip"))
        return MEDIA_PROCESSOR_SIGLIP;
    if (name && strstr(name, "CLIP"))
        return MEDIA_PROCESSOR_CLIP;
    return config->vision.encoder == NEVA_ENCODER_SIGLIP ? MEDIA_PROCESSOR_SIGLIP
                                                         : MEDIA_PROCESSOR_CLIP;
}

/* "size" and "crop_size" are numbers in old files. */
static void read_sizes(struct preprocessor *s, const struct json *json)
{
    const struct json *size = json_get(json, "size"), *crop = json_get(json, "crop_size");
    int64_t side = json_int(crop, 0);

    if (json_type(size) == JSON_INT || json_type(size) == JSON_OBJECT) {
        s->shortest_edge = json_int(size, json_get_int(size, "shortest_edge", 0));
        s->size_height = json_get_int(size, "height", 0);
        s->size_width = json_get_int(size, "width", 0);
    }
    if (json_type(crop) == JSON_INT || json_type(crop) == JSON_OBJECT) {
        s->crop_height = json_get_int(crop, "height", side);
        s->crop_width = json_get_int(crop, "width", side);
    }
}

static void read_settings(struct preprocessor *s, const struct json *json)
{
    const struct json *mean = json_get(json, "image_mean");

    read_sizes(s, json);
    s->do_resize = json_bool(json_get(json, "do_resize"), s->do_resize);
    s->do_center_crop = json_bool(json_get(json, "do_center_crop"), s->do_center_crop);
    s->do_pad = json_bool(json_get(json, "do_pad"), false);
    s->resample = (int)json_get_int(json, "resample", s->resample);
    for (size_t i = 0; i < 3 && json_count(mean) == 3; i++)
        s->image_mean[i] = json_double(json_at(mean, i), -1);
}

static int choose(struct frame_config *frames, const struct json *json,
                  const struct neva_config *config, struct err *err)
{
    struct preprocessor settings;
    int64_t size;

    preprocessor_init(&settings, class_of(json, config));
    read_settings(&settings, json);
    if (preprocessor_choose(&frames->processor, &size, &settings, err) < 0)
        return -1;
    if (size != config->vision.image_size)
        return err_set(err, ERR_INVALID,
                       PICTURES_FILE ": pictures of %" PRId64 " x %" PRId64
                                     ", but the encoder takes %" PRId64 " x %" PRId64,
                       size, size, config->vision.image_size, config->vision.image_size);
    if (settings.do_pad)
        frames->aspect = MEDIA_ASPECT_PAD;
    return 0;
}

int pictures_read(struct frame_config *frames, const char *folder,
                  const struct neva_config *config, struct err *err)
{
    struct json *json;
    int rc;

    frames->aspect = MEDIA_ASPECT_SQUARE;
    frames->processor = class_of(NULL, config);
    if (json_file_find(&json, folder, PICTURES_FILE, PICTURES_JSON_MAX, err) < 0)
        return -1;
    if (!json)
        return 0;
    rc = choose(frames, json, config, err);
    json_free(json);
    return rc < 0 ? err_wrap(err, "'%s'", folder) : 0;
}
