/* preprocessor.h - what a preprocessor_config.json asks for, and whether we do that
 *
 * Hugging Face's image processors resize, cut, rescale and normalise as their settings
 * say; the last two are the model's. Two ways of the others are built (enum
 * media_processor): CLIP's, the shorter edge to S and the centre S x S cut out, and
 * SigLIP's, straight to S x S. Whoever reads the file fills in a struct and asks; what is
 * not built is refused by the file's own name for it.
 * Pure: no file is opened, FFmpeg is not needed. Threads: none.
 */
#ifndef VNEVA_DATAPREP_MEDIA_PREPROCESSOR_H
#define VNEVA_DATAPREP_MEDIA_PREPROCESSOR_H

#include "dataprep/media/media.h"

#define PREPROCESSOR_BICUBIC 3 /* PIL.Image.Resampling.BICUBIC, "resample" */

/* The settings by their names in the file; begin with preprocessor_init. Sizes of 0 are
 * not given. */
struct preprocessor {
    bool do_resize, do_center_crop;
    bool do_pad; /* to a square of the mean colour, before anything else */
    int resample;
    int64_t shortest_edge;           /* "size": a number, or {"shortest_edge"} */
    int64_t size_height, size_width; /* "size": {"height", "width"} */
    int64_t crop_height, crop_width; /* "crop_size": a number, or both */
    double image_mean[3];            /* red, green, blue; looked at with do_pad */
};

/* The defaults of CLIPImageProcessor or SiglipImageProcessor; both have S = 224. */
void preprocessor_init(struct preprocessor *out, enum media_processor type);

/* The way of our two that does what the settings ask for, and its S. ERR_UNSUPPORTED:
 * neither does; names the setting, its value and what would do. */
int preprocessor_choose(enum media_processor *out, int64_t *image_size,
                        const struct preprocessor *settings, struct err *err);

/* The colour that pictures are padded with. Sources: OPENAI_CLIP_MEAN and
 * IMAGENET_STANDARD_MEAN of transformers. */
const double *preprocessor_mean(enum media_processor processor);

#endif
