/* torch_file.h - pytorch_model.bin: tensors in a zip, named by a pickle
 *
 * Written by torch.save of torch 1.6 and later: data.pkl, and one stored entry for each
 * storage. Tensors must be contiguous. Nothing of the pickle is run (pickle.h).
 * Source: torch/serialization.py of https://github.com/pytorch/pytorch.
 */
#ifndef VNEVA_MODEL_WEIGHTS_TORCH_FILE_H
#define VNEVA_MODEL_WEIGHTS_TORCH_FILE_H

#include "model/checkpoint/safetensors.h"

/* As safetensors_open; close with safetensors_close. Tensors that share a storage overlap.
 * header_hash: of the pickle and the zip's directory. */
int torch_file_open(struct safetensors *out, const char *path, struct err *err);

#endif
