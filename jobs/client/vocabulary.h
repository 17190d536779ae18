/* vocabulary.h - how many tokens a tokenizer has, without reading it as one
 *
 * A .model, a tokenizer.json, or a folder with one of them. The client links no library
 * for them: it counts pieces, or takes the largest number that the JSON gives a token.
 */
#ifndef VNEVA_JOBS_CLIENT_VOCABULARY_H
#define VNEVA_JOBS_CLIENT_VOCABULARY_H

#include "jobs/spec/spec.h"

#include <stdint.h>

/* With the extra tokens that it does not have, as far as the files tell. 0: path is NULL,
 * or nothing that is known. */
int64_t vocabulary_count(const char *path, const struct spec_list *extra_tokens);

#endif
