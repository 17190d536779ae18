/* internal.h - what saving and loading share */
#ifndef VNEVA_MODEL_CHECKPOINT_INTERNAL_H
#define VNEVA_MODEL_CHECKPOINT_INTERNAL_H

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/slice.h"
#include "model/neva/internal.h"

/* What is kept of a parameter: the weights and the two moments. */
enum checkpoint_part { CHECKPOINT_WEIGHT, CHECKPOINT_M, CHECKPOINT_V, CHECKPOINT_PARTS };

extern const char *const checkpoint_suffix[CHECKPOINT_PARTS];

/* Master weights where there are any, else the weights in their own type. */
const struct tensor *checkpoint_tensor(const struct param *param,
                                       enum checkpoint_part part);

#endif
