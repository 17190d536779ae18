/* internal.h - what saving and loading share */
#ifndef VNEVA_MODEL_CHECKPOINT_INTERNAL_H
#define VNEVA_MODEL_CHECKPOINT_INTERNAL_H

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/slice.h"
#include "model/neva/internal.h"

/* What is kept of a parameter: the weights and the two moments. */
enum checkpoint_part { CHECKPOINT_WEIGHT, CHECKPOINT_M, CHECKPOINT_V, CHECKPOINT_PARTS };

extern const char *const checkpoint_suffix[CHECKPOINT_PARTS];

/* ---- the folder ---- */

/* FOLDER/NAME = json, synced; takes json. */
int checkpoint_write_file(const char *folder, const char *name, struct json *json,
                          struct err *err);
/* checkpoint.json (model/weights/manifest.h), the last file of a folder; takes `files`. */
int checkpoint_write_manifest(const char *folder, int version, struct json *files,
                              const struct json *meta, struct err *err);
/* Puts the folder under its final name. */
int checkpoint_rename(const char *from, const char *to, struct err *err);

#endif
