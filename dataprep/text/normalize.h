/* normalize.h - the "normalizer" of a tokenizer.json
 *
 * NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, and Sequences.
 * Owns: a struct normalizer its parts; normalizer_fini frees them.
 */
#ifndef VNEVA_DATAPREP_TEXT_NORMALIZE_H
#define VNEVA_DATAPREP_TEXT_NORMALIZE_H

#include "common/base/json.h"
#include "dataprep/text/aligned.h"
#include "dataprep/text/pattern.h"

struct normalizer {
    struct buf steps; /* struct normalizer_step */
};

/* json: NULL or null is none. ERR_UNSUPPORTED names a part that is not had. */
int normalizer_read(struct normalizer *out, const struct json *json, struct err *err);
void normalizer_fini(struct normalizer *normalizer);

/* Changes text in place; other: a second buffer. */
int normalizer_apply(const struct normalizer *normalizer, struct aligned *text,
                     struct aligned *other, struct regex_work *work, struct err *err);

#endif
