/* candidate.h - an annotation on its way to being a sample, or a reject with a reason
 *
 * candidate_check does all that needs no decoder; the media are left to range.c.
 * Threads: one caller per object.
 */
#ifndef VNEVA_DATAPREP_PREPARE_CANDIDATE_H
#define VNEVA_DATAPREP_PREPARE_CANDIDATE_H

#include "dataprep/dataset/dataset.h"
#include "dataprep/dataset/plan.h"
#include "dataprep/prepare/settings.h"

struct candidate {
    int64_t file, line; /* where it stands */
    char *id;
    char *record; /* JSON text */
    struct conv_tokens tokens;
    struct dataset_media media[DATASET_MEDIA_MAX]; /* names below the media root */
    int64_t items[DATASET_MEDIA_MAX];              /* of the fetch */
    const char *reject_kind;                       /* NULL: fine so far */
    char *reject_reason;
};

/* What candidates are checked against; borrowed. */
struct candidate_context {
    const struct prepare_config *config;
    const struct media_roots *roots;
    const struct conv_encoder *encoder;
    struct plan *plan;
    int *files; /* the annotation files, open */
};

/* Reads record `number` of the plan and checks it. 0 also when it is rejected; -1: not
 * the record's fault. */
int candidate_check(struct candidate *out, const struct candidate_context *context,
                    int64_t number, struct err *err);
void candidate_fini(struct candidate *candidate);

/* Marks it as rejected; returns 0, or -1 out of memory. */
int candidate_reject(struct candidate *candidate, const char *kind, const char *reason,
                     struct err *err);

/* Where the bytes of its media item i are, for a decoder. */
int candidate_place_media(struct media_ref *out, const struct candidate *candidate,
                          const struct media_roots *roots, int64_t i, struct err *err);

#endif
