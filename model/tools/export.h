/* export.h - the parts of vneva export
 *
 * Writes what transformers' LlavaForConditionalGeneration.save_pretrained writes, with the
 * tensor names of its version 4.57 (which every version reads).
 * Threads: one.
 */
#ifndef VNEVA_MODEL_TOOLS_EXPORT_H
#define VNEVA_MODEL_TOOLS_EXPORT_H

#include "common/base/fs.h"
#include "common/base/json.h"
#include "model/tools/words.h"
#include "model/weights/weights.h"

#define EXPORT_IMAGE "<image>" /* the placeholder's text where nothing else is said */

struct export
{
    char from[FS_PATH_MAX];
    const char *to;
    char temporary[FS_PATH_MAX]; /* OUT.tmp */
    struct weights *weights;
    struct json *meta;   /* a checkpoint's, or NULL */
    struct json *config; /* config.json of `from`, or NULL */
    struct words words;
    bool has_words;
    int64_t image_token;
    const char *image_text; /* its text */
    int64_t vocab;    /* rows of the embeddings in OUT: those there are, or one more */
    bool has_dtype;   /* all tensors become dtype */
    enum dtype dtype; /* that most tensors have in OUT */
    uint64_t shard_bytes;
};

/* ERR_UNSUPPORTED: LLaVA's class cannot compute what this model does; says what of it, and
 * what would do. */
int export_refuse(const struct neva_config *config, struct err *err);

/* Bytes of all tensors as they are written. */
uint64_t export_bytes(const struct export *export);
/* model.safetensors, or shards and their index, into the temporary folder. */
int export_tensors(struct export *export, struct err *err);
/* Everything else. */
int export_files(struct export *export, struct err *err);

#endif
