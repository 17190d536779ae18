/* internal.h - what the files of model/weights share, and checkpoint */
#ifndef VNEVA_MODEL_WEIGHTS_INTERNAL_H
#define VNEVA_MODEL_WEIGHTS_INTERNAL_H

#include "common/base/fs.h"
#include "model/neva/internal.h"
#include "model/weights/files.h"

struct weights {
    char path[FS_PATH_MAX]; /* as weights_open got it */
    struct hf_config config;
    struct weights_info info;
    struct param_table table; /* of the parts that are there, whole */
    struct files files;
    bool is_checkpoint;
    bool has_own_names; /* of the table: all files are checkpoint_save's */
};

/* Opens a checkpoint for a model whose configuration is known: config.json need not be
 * there, and moments are left where they are. */
int weights_open_checkpoint(struct weights **out, const char *folder,
                            const struct neva_config *model, struct err *err);

/* Where the numbers of a parameter go: host memory for param's local_dims. */
struct fill_target {
    void *data;
    enum dtype type;
};
#define FILL_TARGETS_MAX 2 /* master and value */

/* This rank's slice of a parameter, padding 0, from its stored tensors, which files_check
 * has seen. Rows of its first axis that the tensors do not have are fresh, as
 * neva_init_fresh makes them. Threads: several may do different parameters. */
int weights_fill(const struct fill_target *targets, int n_targets,
                 const struct param *param, struct stored *first, int n,
                 const struct neva_config *config, struct err *err);

#endif
