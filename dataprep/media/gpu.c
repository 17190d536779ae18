#include "dataprep/media/gpu.h"

#include <libavutil/hwcontext.h>
#include <libavutil/log.h>
#include <libavutil/pixdesc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPLAINT_MAX 160

struct gpu {
    AVBufferRef *device;
    AVFrame *raw; /* scratch: as it comes from the GPU */
    char complaint[COMPLAINT_MAX];
    bool is_complete; /* the complaint, up to its end of line */
    int n_errors;     /* messages of level ERROR */
};

/* FFmpeg tells why hardware decoding failed in its log alone, and its log goes to one
 * function of the process; who listens is known by the thread. */
static _Thread_local struct gpu *listener;

/* Messages that say why are errors, but for the lack of capabilities: what exactly lacks is
 * told before, at level VERBOSE, which is full of other things. */
static bool is_telling(int level, const char *text)
{
    return level <= AV_LOG_ERROR ||
           (level == AV_LOG_VERBOSE &&
            (strstr(text, "not supported") || strstr(text, "not within range") ||
             strstr(text, "exceeds maximum")));
}

/* Keeps the first line that is telling; one line may come in several calls. */
static void keep_complaint(void *context, int level, const char *format,
                           va_list arguments)
{
    struct gpu *gpu = listener;
    size_t n = gpu ? strlen(gpu->complaint) : 0;
    char text[COMPLAINT_MAX];

    if (!gpu) {
        av_log_default_callback(context, level, format, arguments);
        return;
    }
    gpu->n_errors += level <= AV_LOG_ERROR;
    vsnprintf(text, sizeof(text), format, arguments);
    if (gpu->is_complete || !is_telling(level, text))
        return;
    gpu->is_complete = strchr(text, '\n');
    text[strcspn(text, "\r\n")] = '\0';
    snprintf(gpu->complaint + n, sizeof(gpu->complaint) - n, "%s", text);
}

void gpu_listen(struct gpu *gpu)
{
    gpu->complaint[0] = '\0';
    gpu->is_complete = false;
    listener = gpu;
}

const char *gpu_complaint(struct gpu *gpu)
{
    listener = NULL;
    return gpu->complaint;
}

int gpu_open(struct gpu **out, int device, struct err *err)
{
    struct gpu *gpu = calloc(1, sizeof(*gpu));
    char number[16];
    int rc;

    if (!gpu)
        return err_set(err, ERR_NOMEM, "cannot allocate a GPU's decoder");
    av_log_set_callback(keep_complaint);
    snprintf(number, sizeof(number), "%d", device);
    gpu_listen(gpu);
    rc = av_hwdevice_ctx_create(&gpu->device, AV_HWDEVICE_TYPE_CUDA, number, NULL, 0);
    gpu_complaint(gpu);
    gpu->raw = av_frame_alloc();
    if (rc < 0 || !gpu->raw) {
        err_set(err, ERR_UNSUPPORTED, "cannot open GPU %d for decoding: %s", device,
                gpu->complaint[0] ? gpu->complaint : av_err2str(rc));
        gpu_close(gpu);
        return -1;
    }
    *out = gpu;
    return 0;
}

void gpu_close(struct gpu *gpu)
{
    if (!gpu)
        return;
    av_frame_free(&gpu->raw);
    av_buffer_unref(&gpu->device);
    free(gpu);
}

static bool decodes_to_cuda(const AVCodec *codec)
{
    const AVCodecHWConfig *config;

    for (int i = 0; (config = avcodec_get_hw_config(codec, i)); i++)
        if (config->device_type == AV_HWDEVICE_TYPE_CUDA &&
            config->pix_fmt == AV_PIX_FMT_CUDA &&
            config->methods & AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX)
            return true;
    return false;
}

/* What these give is defined to the bit. MPEG-1, 2 and 4, VC-1 and JPEG leave the inverse
 * transform's rounding open: frames differ a little, and more with every frame that refers
 * to them. (Film grain of AV1 is taken to be the standard's on both sides.) */
static bool is_exact(enum AVCodecID id)
{
    return id == AV_CODEC_ID_H264 || id == AV_CODEC_ID_HEVC || id == AV_CODEC_ID_VP8 ||
           id == AV_CODEC_ID_VP9 || id == AV_CODEC_ID_AV1;
}

/* FFmpeg's own decoders with NVDEC beneath, not the *_cuvid wrappers: those parse and
 * reorder by themselves, so frames would not carry the tags of their packets. */
static const AVCodec *find_hardware(enum AVCodecID id)
{
    const AVCodec *codec;
    void *at = NULL;

    while ((codec = av_codec_iterate(&at)))
        if (codec->id == id && av_codec_is_decoder(codec) &&
            !(codec->capabilities & AV_CODEC_CAP_HARDWARE) && decodes_to_cuda(codec))
            return codec;
    return NULL;
}

const AVCodec *gpu_find_decoder(enum AVCodecID id, struct err *err)
{
    const AVCodec *codec = find_hardware(id);

    if (codec && is_exact(id))
        return codec;
    if (codec)
        err_set(err, ERR_UNSUPPORTED, "decoders of %s differ in rounding",
                avcodec_get_name(id));
    else
        err_set(err, ERR_UNSUPPORTED, "this FFmpeg decodes %s on no GPU",
                avcodec_get_name(id));
    return NULL;
}

/* Asked again, without CUDA in the list, when the GPU's decoder could not be made. */
static enum AVPixelFormat choose_format(AVCodecContext *codec,
                                        const enum AVPixelFormat *formats)
{
    struct gpu_guard *guard = codec->opaque;

    if ((int64_t)codec->coded_width * codec->coded_height > guard->max_pixels) {
        guard->is_over_pixels = true;
        return AV_PIX_FMT_NONE;
    }
    for (; *formats != AV_PIX_FMT_NONE; formats++)
        if (*formats == AV_PIX_FMT_CUDA)
            return AV_PIX_FMT_CUDA;
    return AV_PIX_FMT_NONE;
}

int gpu_attach(struct gpu *gpu, AVCodecContext *codec, struct gpu_guard *guard,
               struct err *err)
{
    codec->hw_device_ctx = av_buffer_ref(gpu->device);
    codec->get_format = choose_format;
    codec->opaque = guard;
    return codec->hw_device_ctx ? 0 : err_set(err, ERR_NOMEM, "cannot refer to a GPU");
}

/* Which samples of the GPU's make a planar 4:2:0 frame of the stream. P010 and P016 have
 * them in the upper bits. */
static bool may_split(enum AVPixelFormat gpu_format, enum AVPixelFormat format)
{
    const AVPixFmtDescriptor *to = av_pix_fmt_desc_get(format);

    if (!to || to->nb_components != 3 || to->log2_chroma_w != 1 ||
        to->log2_chroma_h != 1 || !(to->flags & AV_PIX_FMT_FLAG_PLANAR) ||
        to->flags & AV_PIX_FMT_FLAG_BE)
        return false;
    if (to->comp[0].depth == 8)
        return gpu_format == AV_PIX_FMT_NV12;
    return to->comp[0].depth <= 12 &&
           (gpu_format == AV_PIX_FMT_P010LE || gpu_format == AV_PIX_FMT_P016LE);
}

/* `step` samples apart in `from`, `shift` bits too high */
static void copy_row8(uint8_t *to, const uint8_t *from, int n, int step)
{
    if (step == 1)
        memcpy(to, from, (size_t)n);
    else
        for (int x = 0; x < n; x++)
            to[x] = from[x * step];
}

static void copy_row16(uint8_t *to, const uint8_t *from, int n, int step, int shift)
{
    for (int x = 0; x < n; x++) {
        const uint8_t *at = &from[2 * x * step];
        unsigned value = (unsigned)(at[0] | at[1] << 8) >> shift;

        to[2 * x] = (uint8_t)value;
        to[2 * x + 1] = (uint8_t)(value >> 8);
    }
}

/* out [3 planes] = luma, and the two kinds of chroma taken apart */
static void split(AVFrame *out, const AVFrame *raw)
{
    int depth = av_pix_fmt_desc_get(out->format)->comp[0].depth;

    for (int plane = 0; plane < 3; plane++) {
        int half = plane > 0, step = plane ? 2 : 1;
        int width = (out->width + half) >> half, height = (out->height + half) >> half;
        const uint8_t *from = raw->data[half];

        if (plane == 2)
            from += depth > 8 ? 2 : 1;
        for (int y = 0; y < height; y++) {
            uint8_t *to = out->data[plane] + (ptrdiff_t)y * out->linesize[plane];
            const uint8_t *row = from + (ptrdiff_t)y * raw->linesize[half];

            if (depth > 8)
                copy_row16(to, row, width, step, 16 - depth);
            else
                copy_row8(to, row, width, step);
        }
    }
}

/* FFmpeg 5.1 reports a copy that failed in its log only, and gives the frame for good. */
static int copy_from_gpu(struct gpu *gpu, const AVFrame *frame, struct err *err)
{
    int n_errors = gpu->n_errors;

    av_frame_unref(gpu->raw);
    if (av_hwframe_transfer_data(gpu->raw, frame, 0) < 0 || gpu->n_errors != n_errors)
        return err_set(err, ERR_UNSUPPORTED, "cannot copy a frame from the GPU");
    return 0;
}

int gpu_download(struct gpu *gpu, AVFrame *out, const AVFrame *frame,
                 const AVCodecContext *codec, struct err *err)
{
    AVFrame *raw = gpu->raw;

    if (frame->format != AV_PIX_FMT_CUDA)
        return err_set(err, ERR_UNSUPPORTED, "a frame was not decoded on the GPU");
    /* of a frame on the GPU FFmpeg cuts off what lies to the right and below only */
    if (frame->crop_left || frame->crop_top)
        return err_set(err, ERR_UNSUPPORTED, "frames are cropped at the left or the top");
    if (copy_from_gpu(gpu, frame, err) < 0)
        return -1;
    if (!may_split(raw->format, codec->sw_pix_fmt))
        return err_set(err, ERR_UNSUPPORTED, "pixels of format %s come as %s",
                       av_get_pix_fmt_name(codec->sw_pix_fmt),
                       av_get_pix_fmt_name(raw->format));
    av_frame_unref(out);
    out->format = codec->sw_pix_fmt;
    out->width = frame->width;
    out->height = frame->height;
    if (av_frame_get_buffer(out, 0) < 0 || av_frame_copy_props(out, frame) < 0)
        return err_set(err, ERR_NOMEM, "cannot allocate a frame");
    split(out, raw);
    return 0;
}
