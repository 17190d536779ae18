/* spec_tree.h - a specification as a JSON tree, with where each of its keys came from
 *
 * A path names a member: "model.optim.betas.0"; list members by number. Places are kept
 * by path ("train.yaml:12", "override 'a=1'") so that every error can name one.
 * Owns: both trees.
 */
#ifndef VNEVA_JOBS_SPEC_SPEC_TREE_H
#define VNEVA_JOBS_SPEC_SPEC_TREE_H

#include "common/base/err.h"
#include "common/base/json.h"

#define SPEC_PATH_MAX 256        /* bytes of a path, with the NUL */
#define SPEC_NODES_MAX 20000     /* values in a tree, also after aliases and references */
#define SPEC_FILE_MAX (1u << 20) /* bytes of a file */
#define SPEC_DEPTH_MAX 32        /* groups in groups; the JSON reader allows more */

struct spec_tree {
    struct json *root;  /* an object */
    struct json *where; /* an object: path -> place */
};

int spec_tree_init(struct spec_tree *tree, struct err *err);
void spec_tree_fini(struct spec_tree *tree);

/* Borrowed; NULL when nothing is there. "" is the root. */
struct json *spec_tree_get(const struct json *root, const char *path);

/* Puts value at path, making the groups on the way; value is taken in every case. A value
 * that is no group on the way is ERR_INVALID, unless it is null. */
int spec_tree_set(struct json *root, const char *path, struct json *value,
                  struct err *err);
/* -1 when it was not there. */
int spec_tree_remove(struct json *root, const char *path);

/* "train.yaml:12: " for the path or the nearest group above it; "" when not known. */
const char *spec_tree_where(const struct spec_tree *tree, const char *path);
int spec_tree_note_where(struct spec_tree *tree, const char *path, const char *place,
                         struct err *err);

/* out[SPEC_PATH_MAX] = parent.key; too long is ERR_LIMIT. */
int spec_path_join(char *out, const char *parent, const char *key, struct err *err);

/* Reads YAML text into an empty tree (spec_yaml.c). file: its name for errors. */
int spec_yaml_read(struct spec_tree *tree, const char *file, const char *text,
                   size_t n_bytes, struct err *err);

/* Applies one Hydra override (spec_override.c): key=value, +key=value (must be new),
 * ++key=value, ~key and ~key=value (remove; must be there). */
int spec_override_apply(struct spec_tree *tree, const char *override, struct err *err);

/* Replaces every reference by what it names (spec_resolve.c). Keys that are not in the
 * tree are taken from the schema's defaults. */
int spec_resolve(struct spec_tree *tree, struct err *err);
/* The value of one text, as if it stood at path; the caller owns it. */
int spec_resolve_text(struct json **out, const struct spec_tree *tree, const char *path,
                      const char *text, struct err *err);

/* Plain scalars (spec_scalar.c). NULL only when out of memory.
 * YAML: as PyYAML with OmegaConf's number pattern reads them (YAML 1.1: yes and on are
 * true, 010 is eight, 1e-5 is a number), but without dates and base 60; what is not finite
 * stays a string, for no key takes it.
 * Hydra: null, true, false in any case; numbers; else a string. */
struct json *spec_scalar_yaml(const char *text);
struct json *spec_scalar_hydra(const char *text);

#endif
