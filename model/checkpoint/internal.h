/* internal.h - what saving and loading share */
#ifndef VNEVA_MODEL_CHECKPOINT_INTERNAL_H
#define VNEVA_MODEL_CHECKPOINT_INTERNAL_H

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/slice.h"
#include "model/neva/internal.h"

#define CHECKPOINT_FORMAT "vneva-checkpoint"
#define CHECKPOINT_VERSION 1
#define CHECKPOINT_JSON_MAX ((size_t)16 << 20)

/* What is kept of a parameter: the weights and the two moments. */
enum checkpoint_part { CHECKPOINT_WEIGHT, CHECKPOINT_M, CHECKPOINT_V, CHECKPOINT_PARTS };

extern const char *const checkpoint_suffix[CHECKPOINT_PARTS];

/* Master weights where there are any, else the weights in their own type. */
const struct tensor *checkpoint_tensor(const struct param *param,
                                       enum checkpoint_part part);

/* 0 when every rank of the group says 0; else -1 on all of them, the text on those that
 * did not fail saying that another did. COLLECTIVE */
int checkpoint_agree(struct neva *model, int rc, struct err *err);

#endif
