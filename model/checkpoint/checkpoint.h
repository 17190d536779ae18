/* checkpoint.h - weights and optimizer state on disk, readable by any layout
 *
 * A checkpoint is a folder:
 *     tensors-RRRR.safetensors   one per tensor-parallel rank: its slices
 *     config.json, preprocessor_config.json   as Hugging Face has them: what model it is
 *     other files                what makes it complete for people, as the tokenizer's
 *     checkpoint.json            written last: what is inside, sizes and checksums
 * A slice is a tensor named as in the parameter table ("NAME", "NAME#m", "NAME#v", F32
 * masters); the safetensors metadata gives its place in the whole: axis, first, whole
 * shape. Replicated tensors are in rank 0's file only.
 * It is written under FOLDER.tmp, synced, renamed: a folder under its final name is
 * complete. Checksums are verified on load; damage is refused and named.
 * Source of the format: https://github.com/huggingface/safetensors (README, "Format").
 */
#ifndef VNEVA_MODEL_CHECKPOINT_CHECKPOINT_H
#define VNEVA_MODEL_CHECKPOINT_CHECKPOINT_H

#include "common/base/json.h"
#include "model/weights/weights.h"

/* Writes the model (rank 0 of the data group of each tensor rank calls; the others only
 * meet at the caller's barrier). `meta` (rank 0's counts) goes into checkpoint.json under
 * "meta": step, epoch, consumed_samples, spec... COLLECTIVE in the tensor group: returns 0
 * on every rank only when the renamed folder is durable. */
int checkpoint_save(struct neva *model, const char *folder, const struct json *meta,
                    struct err *err);

/* Puts further files into a folder that is not there under its final name yet, synced. */
struct checkpoint_extra {
    void *state;
    int (*write)(void *state, const char *folder, struct err *err);
};
/* checkpoint_save; rank 0 calls `extra` as well, before the folder is renamed. NULL: there
 * is nothing else. COLLECTIVE */
int checkpoint_save_with(struct neva *model, const char *folder, const struct json *meta,
                         const struct checkpoint_extra *extra, struct err *err);

/* Makes a checkpoint of a Hugging Face folder that weights_open has read: its files are
 * linked (copied where the file system cannot link, or with wants_copies: what changes a
 * file in place would change both), config.json and preprocessor_config.json copied, the checksum of every tensor is taken, in one pass, and
 * checkpoint.json lists the files as they are. One process alone; the folder appears under
 * its name at the end, as with checkpoint_save_with. ERR_INVALID: weights of a checkpoint
 * or of a projector alone. */
int checkpoint_adopt(const char *folder, struct weights *weights, bool wants_copies,
                     const struct json *meta, const struct checkpoint_extra *extra,
                     struct err *err);

/* Reads parameters (and moments when with_optim and present) written by any layout.
 * Missing, extra, wrongly shaped or damaged tensors are refused by name. COLLECTIVE */
int checkpoint_load(struct neva *model, const char *folder, bool with_optim,
                    struct err *err);

/* checkpoint.json's "meta"; the caller frees it. Says quickly whether the folder is a
 * complete checkpoint. */
int checkpoint_read_meta(struct json **out, const char *folder, struct err *err);

/* ---- checkpoints of a run: RUN/checkpoints/step-SSSSSSSS-aA (names.c) ---- */

/* Of the steps done and the attempt that writes it. out[FS_PATH_MAX] */
int checkpoint_path(char *out, const char *run, int64_t step, int64_t attempt,
                    struct err *err);
/* The step in such a name, or -1. Half-written folders have the same name with more behind
 * it and are not meant unless asked for. */
int64_t checkpoint_name_step(const char *name, bool with_unfinished);
/* The newest complete one in a folder of them. out[FS_PATH_MAX]; 1: there is one; 0 also
 * where there is no such folder. */
int checkpoint_find_newest(char *out, const char *folder, struct err *err);

#endif
