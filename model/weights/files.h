/* files.h - the tensors of a folder's files, mapped, under the parameter table's names
 *
 * Owns the mappings. Threads: one caller to open and close; different tensors may be used
 * by different threads.
 */
#ifndef VNEVA_MODEL_WEIGHTS_FILES_H
#define VNEVA_MODEL_WEIGHTS_FILES_H

#include "model/checkpoint/slice.h"
#include "model/weights/hf_names.h"

/* A tensor of a file: the whole of a parameter or a slice of it. */
struct stored {
    char name[SAFETENSORS_NAME_MAX]; /* the table's; moments end in "#m", "#v" */
    const char *own_name;            /* in the file */
    const char *file;                /* its path */
    struct tensor tensor;            /* points into the file */
    const char *foreign;             /* its dtype where that is none of ours, else "" */
    struct slice_note place;         /* axis -1: whole */
    bool has_hash, is_verified;
    bool is_known; /* its name is one that the layout has */
};

struct files {
    struct safetensors *maps;
    char **paths; /* of maps */
    int n_maps;
    struct stored *tensors; /* sorted by name, then place */
    int n_tensors;
};

/* model.safetensors, its shards, or pytorch_model.bin and its shards. */
int files_open_folder(struct files *out, const char *folder, enum hf_layout layout,
                      struct err *err);
/* One file alone, by its ending. */
int files_open_one(struct files *out, const char *path, enum hf_layout layout,
                   struct err *err);
/* The files that checkpoint.json lists. */
int files_open_checkpoint(struct files *out, const char *folder,
                          const struct json *manifest, enum hf_layout layout,
                          struct err *err);
void files_close(struct files *files); /* a zeroed one is fine */

/* Tensors of this name: how many, *first being the first. */
int files_find(const struct files *files, const char *name, struct stored **first);

/* ERR_UNSUPPORTED: numbers of a type that we do not have. */
int files_check_type(const struct stored *stored, struct err *err);

/* The tensors of one parameter: of a type we have, of its shape (or, with has_fewer_rows,
 * of fewer rows), tiling it without gaps or overlaps. */
int files_check(const struct stored *first, int n, const struct param *param,
                bool has_fewer_rows, struct err *err);

/* Compares the bytes with the checksum that was written with them, once. */
int files_verify(struct stored *stored, struct err *err);

/* What a range of a mapping is wanted for: read now, or not again. */
void files_need(const struct tensor *tensor);
void files_drop(const struct tensor *tensor);

#endif
