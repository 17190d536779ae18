/* kern_level.c - one level's table, from the tables of its files */
#include "model/backend/cpu/kern/kern_level.h"

#define KERN_TEXT(x) #x
#define KERN_NAME(level) KERN_TEXT(level)

extern const struct kern_convert KERN(convert);
extern const struct kern_pointwise KERN(pointwise);
extern const struct kern_norm KERN(norm);
extern const struct kern_attention KERN(attention);
extern const struct kern_matmul KERN(matmul);
extern const struct kern_loss KERN(loss);
extern const struct kern_optim KERN(optim);

const struct kern KERN(level) = {
    .name = KERN_NAME(KERN_LEVEL),
    .convert = &KERN(convert),
    .pointwise = &KERN(pointwise),
    .norm = &KERN(norm),
    .attention = &KERN(attention),
    .matmul = &KERN(matmul),
    .loss = &KERN(loss),
    .optim = &KERN(optim),
};
