/* config.h - from a job's spec to the settings of model, optimizer, batches and decoders
 *
 * The one place where NeMo's keys become ours, beside dataprep/prepare/from_spec.h. What
 * the spec's reader accepts but this model cannot do is refused here, with the key and
 * what would do.
 * Pure. Strings in the results are borrowed from the spec.
 */
#ifndef VNEVA_WORKER_RANK_CONFIG_H
#define VNEVA_WORKER_RANK_CONFIG_H

#include "dataprep/media/media.h"
#include "jobs/spec/spec.h"
#include "model/optim/optim.h"
#include "model/weights/weights.h"
#include "worker/decode/pool.h"

/* How frames are asked for, the same for training, validation and evaluation. */
struct frame_config {
    int64_t num_frames; /* of a video; -1: all */
    enum media_splice splice;
    enum media_aspect aspect;
    enum media_processor processor;
    int64_t image_size;
    int64_t frame_tokens; /* a frame takes in a sample: neva_features */
    int64_t max_tokens;   /* of a sample, expanded */
};

/* How the samples of a step are divided. */
struct batch_config {
    int64_t micro, global; /* samples */
    int64_t n_micro;       /* micro batches of a step on one data rank */
};

/* vocab: entries of the vocabulary. What the spec leaves to a folder of weights is 0. */
int config_model(struct neva_config *out, const struct spec *spec, int64_t vocab,
                 struct err *err);
/* Takes from a folder of weights (at path, for messages) what the spec leaves open of these
 * parts and what no key says; ERR_INVALID names a key that says otherwise than the folder. */
int config_from_weights(struct neva_config *config, const struct spec *spec,
                        const struct weights_info *info, unsigned parts, const char *path,
                        struct err *err);
/* trainer.precision; tf32 is F32 with backend_allow_tf32 */
int config_dtype(enum dtype *out, const struct spec *spec, struct err *err);
int config_optim(struct optim_config *out, const struct spec *spec, struct err *err);
/* model: says what it makes of a frame; NULL: the spec does, of a job without a model. */
int config_frames(struct frame_config *out, const struct spec *spec,
                  const struct neva_config *model, struct err *err);
/* n_data: data-parallel ranks. */
int config_batch(struct batch_config *out, const struct spec *spec, int64_t n_data,
                 struct err *err);

/* Most frames one request can give. */
int64_t config_request_frames(const struct frame_config *frames);
/* program: path of vneva-decode. n_cpus: that this rank may use. n_requests: how many are
 * wanted ahead; fewer when their frames would be more than memory allows. */
void config_pool(struct decode_pool_config *out, const struct spec *spec,
                 const struct frame_config *frames, const char *program, int n_cpus,
                 int64_t n_requests);
/* Who decodes videos (model.data.decode_device). gpu: number of the GPU that the rank computes
 * on, -1 for none; "auto" is the CPU then. */
void config_decode(struct decode_pool_config *out, const struct spec *spec, int gpu);

#endif
