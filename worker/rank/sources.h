/* sources.h - the folders that a model's weights come from
 *
 * One folder for the whole model, or one for each part; a part without one begins fresh.
 * What a folder's config.json says holds where the spec is silent; where both speak they
 * must agree. The vocabulary is that of the weights, or the data's where that is larger.
 * Owns: the opened folders. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_SOURCES_H
#define VNEVA_WORKER_RANK_SOURCES_H

#include "jobs/spec/spec.h"
#include "model/weights/weights.h"

#define SOURCES_MAX 3 /* vision, projector, LLM */

struct source {
    const char *key; /* of the spec, that named it */
    const char *path;
    unsigned parts; /* WEIGHTS_: what is taken of it */
    struct weights *weights;
};

struct sources {
    int n;
    struct source list[SOURCES_MAX];
};

/* key and path are borrowed until sources_close. ERR_INVALID: a part is not in it. */
int sources_add(struct sources *sources, const char *key, const char *path,
                unsigned parts, struct err *err);
void sources_close(struct sources *sources);

/* Entries of the vocabulary of a model for data of this one. */
int64_t sources_vocab(const struct sources *sources, int64_t data_vocab);

/* Puts what the folders say into a configuration that config_model made of spec. ERR_INVALID
 * names the key, its value, the folder and the folder's value. */
int sources_config(const struct sources *sources, const struct spec *spec,
                   struct neva_config *config, struct err *err);

/* Fills a model of neva_create_bare: parts from their folders, the rest, and rows of the
 * vocabulary that no folder has, fresh. COLLECTIVE in the tensor group */
int sources_load(const struct sources *sources, struct neva *model, struct err *err);

#endif
