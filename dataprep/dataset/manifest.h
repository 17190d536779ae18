/* manifest.h - manifest.json: what a prepared dataset is made of and was made with
 *
 * Owns: a struct manifest owns all its pointers reach; free it with manifest_fini.
 */
#ifndef VNEVA_DATAPREP_DATASET_MANIFEST_H
#define VNEVA_DATAPREP_DATASET_MANIFEST_H

#include "common/base/err.h"
#include "common/base/json.h"
#include "dataprep/dataset/dataset.h"

#define MANIFEST_FILE "manifest.json"
#define MANIFEST_REJECTS "rejects.jsonl"
#define MANIFEST_TOKENIZER "tokenizer.model"
#define MANIFEST_TOKENIZER_FOLDER "tokenizer"    /* Hugging Face's, as in its folders */
#define MANIFEST_FORMAT "vneva prepared dataset" /* its "format" */
#define MANIFEST_VERSION 1
#define MANIFEST_MAX_BYTES (256u << 20)

struct manifest_shard {
    char *file; /* in the dataset's folder */
    int64_t first_sample, n_samples;
    int64_t n_bytes;
    uint64_t hash; /* hash64 of the file */
};

struct manifest {
    struct json *tree; /* what info and the texts below borrow from */
    struct dataset_info info;
    const char **extra_tokens;
    struct {
        const char *path; /* absolute; a folder, or a tar */
        bool is_tar;
    } roots[2]; /* by enum media_kind */
    struct manifest_shard *shards;
    int64_t n_shards;
};

/* Names as they stand in manifest.json. */
const char *manifest_aspect_name(enum media_aspect aspect);
const char *manifest_splice_name(enum media_splice splice);
const char *manifest_processor_name(enum media_processor processor);
/* false, and *out as it was: there is no such name (NULL is none). */
bool manifest_aspect_find(enum media_aspect *out, const char *name);
bool manifest_splice_find(enum media_splice *out, const char *name);
bool manifest_processor_find(enum media_processor *out, const char *name);

/* hash64 of a whole file. */
int manifest_hash_file(uint64_t *out, const char *path, struct err *err);

/* Writes folder/manifest.json. tree: "settings" and "n_rejects" are there; the counts,
 * "shards", "longest_tokens" and "fingerprint" are added. */
int manifest_add_shards(struct json *tree, const struct manifest_shard *shards,
                        int64_t n_shards, struct err *err);

/* Reads and checks; errors name what is missing or does not fit. */
int manifest_load(struct manifest *out, const char *folder, struct err *err);
void manifest_fini(struct manifest *manifest);

#endif
