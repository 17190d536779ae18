/* pictures.h - how the encoder of a folder of weights wants its pictures
 *
 * A folder's preprocessor_config.json says it; without one, the encoder's class does.
 * What is to be normalised by is in the model's configuration already (model/weights).
 * Threads: none.
 */
#ifndef VNEVA_WORKER_RANK_PICTURES_H
#define VNEVA_WORKER_RANK_PICTURES_H

#include "worker/rank/config.h"

/* frames->processor and aspect. config: of the folder's model. ERR_UNSUPPORTED names the
 * setting that is not built, ERR_INVALID a size that is not the encoder's. */
int pictures_read(struct frame_config *frames, const char *folder,
                  const struct neva_config *config, struct err *err);

#endif
