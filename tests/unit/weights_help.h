/* weights_help.h - copies of the golden folders, edited, for the tests of model/weights */
#ifndef VNEVA_TESTS_UNIT_WEIGHTS_HELP_H
#define VNEVA_TESTS_UNIT_WEIGHTS_HELP_H

#include "common/base/json.h"
#include "model/checkpoint/safetensors.h"
#include "model/weights/weights.h"

#include <stdbool.h>

#define HELP_PATH_MAX 512
#define HELP_TENSORS_MAX 512

/* A folder of this run, made by help_begin and removed by help_end. */
void help_begin(void);
void help_end(void);

/* PATH = this run's folder / NAME */
void help_path(char *path, const char *name);
/* A fresh copy of tests/golden/weights/GOLDEN under this name. */
void help_copy(const char *name, const char *golden);

void help_write(const char *name, const void *bytes, size_t n_bytes);
void help_read(struct buf *out, const char *name);
void help_flip(const char *name, long at, int whence, int mask);

/* Element i of a golden tensor, by its name in the parameter table. */
float help_golden(const char *param_name, int64_t i);

/* Rewrites a .safetensors file: `edit` changes, adds (with memory of its own) or removes
 * tensors and returns how many there are. */
typedef int (*help_edit)(struct safetensor *tensors, int n);
void help_rewrite(const char *name, help_edit edit);
int help_find(const struct safetensor *tensors, int n, const char *name);

/* Opening must fail, and say all of these texts (NULL: none). */
void help_refused(const char *name, const char *says, const char *and_says);
/* Opening must work. */
struct weights *help_opened(const char *name);

#endif
