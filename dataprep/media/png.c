#include "dataprep/media/media.h"

#include <libavcodec/avcodec.h>
#include <stdlib.h>
#include <string.h>

static AVCodecContext *png_open(int64_t width, int64_t height)
{
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
    AVCodecContext *context = codec ? avcodec_alloc_context3(codec) : NULL;

    if (!context)
        return NULL;
    context->width = (int)width;
    context->height = (int)height;
    context->pix_fmt = AV_PIX_FMT_RGB24;
    context->time_base = (AVRational){1, 25};
    context->thread_count = 1;
    if (avcodec_open2(context, codec, NULL) < 0)
        avcodec_free_context(&context);
    return context;
}

static AVFrame *png_frame(const uint8_t *rgb, int64_t width, int64_t height)
{
    AVFrame *frame = av_frame_alloc();

    if (!frame)
        return NULL;
    frame->width = (int)width;
    frame->height = (int)height;
    frame->format = AV_PIX_FMT_RGB24;
    if (av_frame_get_buffer(frame, 0) < 0) {
        av_frame_free(&frame);
        return NULL;
    }
    for (int64_t y = 0; y < height; y++)
        memcpy(frame->data[0] + y * frame->linesize[0], rgb + y * width * 3,
               (size_t)(width * 3));
    return frame;
}

int media_encode_png(uint8_t **png, size_t *n_bytes, const uint8_t *rgb, int64_t width,
                     int64_t height, struct err *err)
{
    AVCodecContext *codec;
    AVFrame *frame;
    AVPacket *packet;
    int rc = -1;

    if (width < 1 || height < 1 || width > INT16_MAX || height > INT16_MAX)
        return err_set(err, ERR_INVALID, "no PNG of %lld x %lld", (long long)width,
                       (long long)height);
    codec = png_open(width, height);
    frame = png_frame(rgb, width, height);
    packet = av_packet_alloc();
    if (codec && frame && packet && avcodec_send_frame(codec, frame) == 0 &&
        avcodec_receive_packet(codec, packet) == 0 &&
        (*png = malloc((size_t)packet->size)) != NULL) {
        memcpy(*png, packet->data, (size_t)packet->size);
        *n_bytes = (size_t)packet->size;
        rc = 0;
    } else {
        err_set(err, ERR_UNSUPPORTED, "cannot encode a PNG of %lld x %lld",
                (long long)width, (long long)height);
    }
    av_packet_free(&packet);
    av_frame_free(&frame);
    avcodec_free_context(&codec);
    return rc;
}
