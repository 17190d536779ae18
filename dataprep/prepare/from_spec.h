/* from_spec.h - what a job specification asks of frames and of a preparation
 *
 * For who has read and checked a specification: `vneva data prepare` and the rank. The rest
 * of dataprep knows no specifications.
 * Pure. Strings and lists in the results are borrowed from the spec.
 */
#ifndef VNEVA_DATAPREP_PREPARE_FROM_SPEC_H
#define VNEVA_DATAPREP_PREPARE_FROM_SPEC_H

#include "dataprep/prepare/prepare.h"
#include "jobs/spec/spec.h"

/* ERR_INVALID where a path is not set. */
int prepare_from_spec(struct prepare_config *out, const struct spec *spec,
                      struct err *err);

/* Words of a specification; NULL: none, a square, CLIP's. ERR_UNSUPPORTED names the key. */
int splice_from_spec(enum media_splice *out, const char *text, struct err *err);
int aspect_from_spec(enum media_aspect *out, const char *text, struct err *err);
int processor_from_spec(enum media_processor *out, const char *text, struct err *err);

#endif
