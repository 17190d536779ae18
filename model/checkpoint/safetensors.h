/* safetensors.h - files of named tensors
 *
 * Layout: 8 bytes little endian n, n bytes of JSON, then the data. The JSON gives every
 * tensor's dtype, shape and place; "__metadata__" maps strings to strings.
 * Strict: the header has at most SAFETENSORS_HEADER_MAX bytes, tensors fill the data
 * without gaps or overlaps, sizes agree with shapes.
 * Source: https://github.com/huggingface/safetensors (README, "Format").
 * Owns: an open file is mapped until safetensors_close; tensors point into it.
 * Threads: one caller; several may read different files.
 */
#ifndef VNEVA_MODEL_CHECKPOINT_SAFETENSORS_H
#define VNEVA_MODEL_CHECKPOINT_SAFETENSORS_H

#include "common/base/err.h"
#include "model/tensor.h"

#define SAFETENSORS_HEADER_MAX ((size_t)100 << 20) /* as the reference implementation */
#define SAFETENSORS_NAME_MAX 160

struct safetensor {
    char name[SAFETENSORS_NAME_MAX];
    struct tensor tensor; /* reading: points into the file. writing: no data needed */
    char note[160];       /* its entry of __metadata__, "" when there is none */
    /* The name of a dtype that enum dtype does not have ("I64", "F64"...), when reading;
     * the tensor is then U8, its bytes. Else "". */
    char foreign[8];
};

/* ---- writing ---- */

struct safetensors_source {
    void *state;
    /* Puts the bytes of tensor i into out; called twice a tensor, for its checksum and to
     * write it. */
    int (*fill)(void *state, int i, void *out, struct err *err);
};

/* Writes and syncs the file. Each tensor's note gets " xxh64=..." of its bytes appended.
 * *header_hash = hash64 of the first 8 + n bytes, *n_bytes = the file's size. */
int safetensors_write(const char *path, struct safetensor *tensors, int n_tensors,
                      const struct safetensors_source *source, uint64_t *header_hash,
                      uint64_t *n_bytes, struct err *err);

/* The same for other programs: "__metadata__" says {"format": format} ("pt" is wanted by
 * transformers) and nothing else, notes and checksums are left out; fill is called once a
 * tensor. */
int safetensors_write_plain(const char *path, const struct safetensor *tensors,
                            int n_tensors, const struct safetensors_source *source,
                            const char *format, struct err *err);

/* ---- reading ---- */

struct safetensors {
    struct safetensor *tensors; /* in the order of their data */
    int n_tensors;
    uint64_t header_hash, n_bytes; /* as safetensors_write gave them */
    void *map;                     /* read-only, private: of the whole file */
};

int safetensors_open(struct safetensors *out, const char *path, struct err *err);
/* The mapping alone, for readers of other formats with the same result. */
int safetensors_map(struct safetensors *out, const char *path, struct err *err);
void safetensors_close(struct safetensors *file); /* a zeroed one is fine */

#endif
