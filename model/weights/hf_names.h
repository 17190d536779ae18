/* hf_names.h - tensor names of Hugging Face's folders and of the parameter table
 *
 * Pure. The table has the names of LlavaForConditionalGeneration.state_dict(); folders
 * have those of save_pretrained, which are older (language_model.model.*), those of an
 * encoder or decoder alone, or those of LLaVA's own mm_projector.bin.
 */
#ifndef VNEVA_MODEL_WEIGHTS_HF_NAMES_H
#define VNEVA_MODEL_WEIGHTS_HF_NAMES_H

#include "model/weights/hf_config.h"

enum hf_name {
    HF_NAME_PARAM,   /* out: the table's name, if it has it */
    HF_NAME_PASSED,  /* known and of no use: a buffer, CLIP's text tower */
    HF_NAME_UNKNOWN, /* out: as it is */
};

/* The table's name of a folder's tensor, into out[PARAM_NAME_MAX]. */
enum hf_name hf_name_read(char *out, const char *name, enum hf_layout layout);

/* The name under which save_pretrained writes a parameter of a whole LLaVA: every version
 * of transformers reads it. */
void hf_name_write(char *out, const char *param_name);

#endif
