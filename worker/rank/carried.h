/* carried.h - the files that a run's checkpoints carry beside their tensors
 *
 * Those of the data's tokenizer, so that a checkpoint can be asked and exported by itself.
 * They are read when the run begins: a checkpoint is written whatever becomes of the
 * dataset meanwhile. Owns: the files' bytes. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_CARRIED_H
#define VNEVA_WORKER_RANK_CARRIED_H

#include "dataprep/dataset/dataset.h"
#include "model/checkpoint/checkpoint.h"

struct carried;

/* dataset: the folder `data` is of. */
int carried_read(struct carried **out, const char *dataset,
                 const struct dataset_info *data, struct err *err);
void carried_free(struct carried *carried); /* NULL is fine */

/* checkpoint_save and the files. NULL (ranks but the first): tensors alone. COLLECTIVE in
 * the tensor group */
int carried_save(const struct carried *carried, struct neva *model, const char *folder,
                 const struct json *meta, struct err *err);

#endif
