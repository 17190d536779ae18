/* gpu.h - a GPU's video decoder (NVDEC), as FFmpeg drives it
 *
 * FFmpeg parses the stream and keeps the reference frames; the driver decodes one picture
 * after another into the GPU's memory. Frames that are wanted are brought to the host and
 * laid out as the CPU's decoder would have given them, so that what follows (matrix, range,
 * scaling) is the same code on the same samples. Nothing of this falls back in secret: what
 * the GPU cannot do is an error, with the cause as FFmpeg's log tells it.
 * Owns: the CUDA context. Threads: one caller. Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_GPU_H
#define VNEVA_DATAPREP_MEDIA_GPU_H

#include "common/base/err.h"

#include <libavcodec/avcodec.h>
#include <stdbool.h>
#include <stdint.h>

struct gpu;

/* device: its number as CUDA counts, CUDA_VISIBLE_DEVICES applied. ERR_UNSUPPORTED: no
 * driver, no such device, no memory for a context. */
int gpu_open(struct gpu **out, int device, struct err *err);
void gpu_close(struct gpu *gpu); /* NULL is fine */

/* The decoder of this FFmpeg that hands a codec's pictures to the GPU. ERR_UNSUPPORTED: there
 * is none, or the codec's standard leaves rounding open, so that no two decoders agree. */
const AVCodec *gpu_find_decoder(enum AVCodecID codec, struct err *err);

/* Makes a context, not yet opened, decode on the GPU, or fail. frames with more pixels than
 * max_pixels are refused and *is_over_pixels set; it must live as long as the context, whose
 * get_format is taken. */
struct gpu_guard {
    int64_t max_pixels;
    bool is_over_pixels;
};
int gpu_attach(struct gpu *gpu, AVCodecContext *codec, struct gpu_guard *guard,
               struct err *err);

/* out = the frame in the host's memory, in the planar format of the stream. ERR_UNSUPPORTED:
 * it lies elsewhere than the CPU's would (format, cropping), or the copy failed. */
int gpu_download(struct gpu *gpu, AVFrame *out, const AVFrame *frame,
                 const AVCodecContext *codec, struct err *err);

/* Between the two what FFmpeg complains of is kept, and not printed. Frames are downloaded
 * in between only. */
void gpu_listen(struct gpu *gpu);
/* Stops; the first complaint, "" if there was none. Valid until the next gpu_listen. */
const char *gpu_complaint(struct gpu *gpu);

#endif
