/* model_folder.h - what a folder says about how its model is to be asked
 *
 * A checkpoint of a run says template, tokens and frames itself (its meta); a Hugging Face
 * folder, or one imported from it, lets them be guessed from its files.
 * Owns: what its pointers reach. Threads: one caller.
 */
#ifndef VNEVA_WORKER_GENERATE_MODEL_FOLDER_H
#define VNEVA_WORKER_GENERATE_MODEL_FOLDER_H

#include "common/base/fs.h"
#include "common/base/json.h"
#include "jobs/spec/spec.h"
#include "worker/generate/guess.h"
#include "worker/generate/options.h"
#include "worker/rank/config.h"

#define MODEL_FOLDER_NUM_FRAMES 8 /* where nothing says how many */

struct model_folder {
    char path[FS_PATH_MAX];      /* the checkpoint, or the folder itself */
    char tokenizer[FS_PATH_MAX]; /* for tokenizer_open */
    struct json *meta;           /* a checkpoint's, or NULL */
    struct spec *spec;           /* of the run that wrote it, or NULL */
    const char *template;
    struct guess guess; /* template NULL: it was not guessed */
    bool use_im_start_end;
    bool media_first; /* sep_image_conv_front */
    bool has_begin;   /* a begin of sentence opens the prompt, as Hugging Face's has it */
    const char **extra_tokens; /* for tokenizer_open */
    int n_extra_tokens;
    int64_t num_frames;
    enum media_splice splice;
    enum media_aspect aspect; /* of the spec; without one see pictures.h */
};

/* options: what is given there wins. Errors name what was looked for. */
int model_folder_open(struct model_folder *out, const struct options *options,
                      struct err *err);
void model_folder_close(struct model_folder *folder);

#endif
