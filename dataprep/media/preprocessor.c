#include "dataprep/media/preprocessor.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define DEFAULT_SIZE 224
#define SAME 1e-4 /* between two means that are meant to be equal */

static const double means[][3] = {
    [MEDIA_PROCESSOR_CLIP] = {0.48145466, 0.4578275, 0.40821073},
    [MEDIA_PROCESSOR_SIGLIP] = {0.5, 0.5, 0.5},
};
const double *preprocessor_mean(enum media_processor processor)
{
    return means[processor];
}

void preprocessor_init(struct preprocessor *out, enum media_processor type)
{
    *out = (struct preprocessor){
        .do_resize = true,
        .do_center_crop = type == MEDIA_PROCESSOR_CLIP,
        .resample = PREPROCESSOR_BICUBIC,
    };
    if (type == MEDIA_PROCESSOR_CLIP)
        out->shortest_edge = out->crop_height = out->crop_width = DEFAULT_SIZE;
    else
        out->size_height = out->size_width = DEFAULT_SIZE;
    memcpy(out->image_mean, means[type], sizeof(out->image_mean));
}

static int refuse(struct err *err, const char *setting, const char *what)
{
    return err_set(err, ERR_UNSUPPORTED, "preprocessor_config.json: %s %s", setting,
                   what);
}

static int check_steps(const struct preprocessor *s, struct err *err)
{
    if (!s->do_resize)
        return refuse(err, "do_resize false", "is not built: pictures are resized");
    if (s->resample != PREPROCESSOR_BICUBIC)
        return err_set(err, ERR_UNSUPPORTED,
                       "preprocessor_config.json: resample %d is not built: 3 (bicubic) "
                       "is",
                       s->resample);
    return 0;
}

static int check_colour(const struct preprocessor *s, enum media_processor processor,
                        struct err *err)
{
    const double *mean = means[processor];

    for (int i = 0; i < 3; i++)
        if (s->do_pad && fabs(s->image_mean[i] - mean[i]) > SAME)
            return err_set(
                err, ERR_UNSUPPORTED,
                "preprocessor_config.json: do_pad with image_mean [%g, %g, %g] "
                "is not built: [%g, %g, %g] is",
                s->image_mean[0], s->image_mean[1], s->image_mean[2], mean[0], mean[1],
                mean[2]);
    return 0;
}

static int refuse_size(const struct preprocessor *s, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED,
                   "preprocessor_config.json: size (shortest_edge %" PRId64
                   ", height %" PRId64 ", width %" PRId64 ") with %s crop_size %" PRId64
                   " x %" PRId64
                   " is not built: a shortest edge with a crop of the same size is, or a "
                   "height and the same width",
                   s->shortest_edge, s->size_height, s->size_width,
                   s->do_center_crop ? "a" : "no", s->crop_height, s->crop_width);
}

/* A crop that cuts nothing off is none. */
static int find_way(enum media_processor *out, int64_t *size,
                    const struct preprocessor *s, struct err *err)
{
    int64_t edge = s->shortest_edge;
    bool is_square = s->size_height > 0 && s->size_height == s->size_width;

    if (edge > 0 && s->do_center_crop && s->crop_height == edge &&
        s->crop_width == edge) {
        *out = MEDIA_PROCESSOR_CLIP;
        *size = edge;
    } else if (edge == 0 && is_square &&
               (!s->do_center_crop ||
                (s->crop_height == s->size_height && s->crop_width == s->size_width))) {
        *out = MEDIA_PROCESSOR_SIGLIP;
        *size = s->size_height;
    } else {
        return refuse_size(s, err);
    }
    return 0;
}

int preprocessor_choose(enum media_processor *out, int64_t *image_size,
                        const struct preprocessor *settings, struct err *err)
{
    if (check_steps(settings, err) < 0 || find_way(out, image_size, settings, err) < 0)
        return -1;
    return check_colour(settings, *out, err);
}

int media_check_processor(enum media_processor processor, enum media_aspect aspect,
                          struct err *err)
{
    if (processor == MEDIA_PROCESSOR_SIGLIP && aspect == MEDIA_ASPECT_KEEP)
        return err_set(err, ERR_UNSUPPORTED,
                       "image_aspect_ratio keep has no meaning for SigLIP, whose "
                       "processor resizes to a square; take square or pad");
    return 0;
}
