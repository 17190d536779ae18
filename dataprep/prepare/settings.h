/* settings.h - what the three calls of prepare share: checks, names, settings
 *
 * Only this folder includes it. Threads: none.
 */
#ifndef VNEVA_DATAPREP_PREPARE_SETTINGS_H
#define VNEVA_DATAPREP_PREPARE_SETTINGS_H

#include "common/base/fs.h"
#include "common/base/json.h"
#include "dataprep/dataset/manifest.h"
#include "dataprep/prepare/prepare.h"
#include "dataprep/text/conversation.h"

/* Where media are, resolved once a call. */
struct media_root {
    char path[FS_PATH_MAX]; /* absolute; "" when there is none (text only) */
    bool is_tar;
};

/* Of each kind. The same place for both is one member index. */
struct media_roots {
    struct media_root of[2]; /* by enum media_kind */
    bool are_same;
};

int settings_check(const struct prepare_config *config, struct err *err);
int settings_find_roots(struct media_roots *out, const struct prepare_config *config,
                        struct err *err);
/* Number of the member index that media of this kind are in. */
int settings_root_index(const struct media_roots *roots, enum media_kind kind);

/* The tokenizer of this path and the encoder for it. */
struct settings_encoder {
    struct tokenizer *tokenizer;
    struct conv_encoder encoder;
    const char *name; /* of the tokenizer's copy in the dataset */
};
int settings_open_encoder(struct settings_encoder *out,
                          const struct prepare_config *config, const char *path,
                          struct err *err);
void settings_close_encoder(struct settings_encoder *encoder);

/* The manifest's "settings"; the caller frees them. */
struct json *settings_tree(const struct prepare_config *config,
                           const struct media_roots *roots,
                           const struct settings_encoder *encoder, struct err *err);
/* The tokenizer's copy in the dataset. */
int settings_tokenizer(char out[FS_PATH_MAX], const struct prepare_config *config,
                       struct err *err);
/* hash64 of the settings that change samples (not where things stand). */
uint64_t settings_hash(const struct json *settings, uint64_t tokenizer_hash);

int settings_path(char out[FS_PATH_MAX], const struct prepare_config *config,
                  const char *file, struct err *err);
int settings_shard_name(char *out, size_t n, int64_t number);

#endif
