/* text_files.h - the files beside the weights: tokenizer, preprocessing, generation
 *
 * As Hugging Face's folders have them; import and export carry them along.
 */
#ifndef VNEVA_MODEL_TOOLS_TEXT_FILES_H
#define VNEVA_MODEL_TOOLS_TEXT_FILES_H

#include "common/base/err.h"

/* Ends with NULL. */
extern const char *const text_files_names[];

/* "tokenizer.json" or "tokenizer.model", whichever is there; NULL: neither. */
const char *text_files_tokenizer(const char *folder);

/* Copies those of the files that are there, synced. */
int text_files_copy(const char *to, const char *from, struct err *err);

#endif
