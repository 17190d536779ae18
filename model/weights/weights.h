/* weights.h - the weights of a folder, whoever wrote it
 *
 * A folder is one of these, told apart by what is in it:
 *   Hugging Face   config.json with model.safetensors, its sharded form with
 *                  model.safetensors.index.json, or pytorch_model*.bin; a LLaVA
 *                  (LlavaForConditionalGeneration), an encoder (CLIPModel,
 *                  CLIPVisionModel, SiglipModel, SiglipVisionModel) or a decoder alone
 *                  (Llama, Mistral, Qwen2, StableLm, Nemotron ForCausalLM)
 *   vneva          checkpoint.json with tensors-*.safetensors, config.json beside it
 *   a projector    mm_projector.bin or model.safetensors without config.json; or one file
 * Tensors are mapped, never copied as a whole, whatever layout wrote them; names are
 * those of the parameter table (model/neva/param.h).
 * Owns: the mappings, until weights_close. Threads: one caller.
 */
#ifndef VNEVA_MODEL_WEIGHTS_WEIGHTS_H
#define VNEVA_MODEL_WEIGHTS_WEIGHTS_H

#include "model/neva/neva.h"

/* Parts of a model, to be joined with |. */
enum weights_part {
    WEIGHTS_VISION = 1 << PARAM_VISION,
    WEIGHTS_PROJECTOR = 1 << PARAM_PROJECTOR,
    WEIGHTS_LLM = 1 << PARAM_LLM,
    WEIGHTS_ALL = WEIGHTS_VISION | WEIGHTS_PROJECTOR | WEIGHTS_LLM
};

struct weights;

struct weights_info {
    const char *architecture; /* as in config.json: "LlavaForConditionalGeneration" */
    unsigned parts;           /* what is there */
    /* Sizes and kinds of the parts that are there; the rest is zero, and so is what no
     * folder says (freeze, recompute, seed, dtype of the computation). */
    struct neva_config config; /* max_tokens: the longest row it was made for */
    enum dtype dtype;          /* that most weights are stored in */
    int64_t n_params;          /* of the parts that are there */
    int64_t sliding_window;    /* the decoder's, bounds max_tokens; 0: none */
    int64_t image_token;       /* LLaVA's image_token_index; -1: not said */
};

/* A projector alone (pretrain_mm_mlp_adapter: mm_projector.bin or a .safetensors file, or a
 * folder with one) has architecture "projector", and vision.width and llm.width of its
 * input and output.
 * Reads config.json and the files' headers; checks that every tensor the configuration
 * asks for is there, once, in its shape, and that there is no other. Errors name the
 * tensor, the file and what was wanted: missing, extra, wrongly shaped, cut off.
 * ERR_UNSUPPORTED: a .nemo file, an architecture or a setting we do not have, by name. */
int weights_open(struct weights **out, const char *folder, struct err *err);
void weights_close(struct weights *weights);
const struct weights_info *weights_info(const struct weights *weights);

/* The parameters of the parts that are there, whole (one rank); value.dtype is the one
 * they are stored in, value.data is NULL. Borrowed. */
const struct param_table *weights_params(const struct weights *weights);
/* Copies parameter i of that table, whole, in its stored dtype, to out. A checksum that
 * does not fit is refused by name. */
int weights_read(struct weights *weights, int i, void *out, struct err *err);

/* Writes these parts into the model: this rank's slices, converted to its type. Shapes
 * must be the model's, but for a larger vocabulary of the model: the rows that the folder
 * does not have keep their fresh values. A checksum that does not fit is refused by name.
 * COLLECTIVE in the model's tensor group */
int weights_load(struct neva *model, struct weights *weights, unsigned parts,
                 struct err *err);

#endif
