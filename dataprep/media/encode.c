#include "dataprep/media/encode.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct media_encoder {
    char *path;
    AVFormatContext *format;
    AVStream *stream;
    AVCodecContext *codec;
    AVFrame *frame;
    AVPacket *packet;
    struct SwsContext *sws;
};

static void encoder_free(struct media_encoder *encoder)
{
    sws_freeContext(encoder->sws);
    av_packet_free(&encoder->packet);
    av_frame_free(&encoder->frame);
    avcodec_free_context(&encoder->codec);
    if (encoder->format)
        avio_closep(&encoder->format->pb);
    avformat_free_context(encoder->format);
    free(encoder->path);
    free(encoder);
}

void media_encoder_abort(struct media_encoder *encoder)
{
    if (!encoder)
        return;
    if (encoder->format && encoder->format->pb)
        unlink(encoder->path);
    encoder_free(encoder);
}

static int encoder_set_codec(struct media_encoder *encoder, const AVCodec *codec,
                             const struct encode_settings *settings, struct err *err)
{
    AVCodecContext *context = avcodec_alloc_context3(codec);
    AVDictionary *options = NULL;
    int rc;

    encoder->codec = context;
    if (!context)
        return err_set(err, ERR_NOMEM, "cannot allocate an encoder");
    context->width = settings->width;
    context->height = settings->height;
    context->time_base = (AVRational){1, settings->ticks_per_s};
    context->pix_fmt = settings->pixel_format ? av_get_pix_fmt(settings->pixel_format)
                                              : AV_PIX_FMT_YUV420P;
    context->thread_count = 1; /* the same bytes on every machine */
    if (context->pix_fmt == AV_PIX_FMT_YUVJ420P)
        context->color_range = AVCOL_RANGE_JPEG;
    if (settings->gop_frames)
        context->gop_size = settings->gop_frames;
    if (settings->b_frames >= 0)
        context->max_b_frames = settings->b_frames;
    if (encoder->format->oformat->flags & AVFMT_GLOBALHEADER)
        context->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    av_dict_parse_string(&options, settings->options ? settings->options : "", "=", ":",
                         0);
    rc = avcodec_open2(context, codec, &options);
    av_dict_free(&options);
    return rc < 0 ? err_set(err, ERR_UNSUPPORTED, "%s does not take these settings",
                            codec->name)
                  : 0;
}

static int stream_set_rotation(AVStream *stream, int degrees, struct err *err)
{
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102) /* FFmpeg 6.1 */
    AVPacketSideData *side = av_packet_side_data_new(
        &stream->codecpar->coded_side_data, &stream->codecpar->nb_coded_side_data,
        AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t), 0);
    int32_t *matrix = side ? (int32_t *)side->data : NULL;
#else
    int32_t *matrix = (int32_t *)av_stream_new_side_data(
        stream, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t));
#endif

    if (!matrix)
        return err_set(err, ERR_NOMEM, "cannot allocate a display matrix");
    av_display_rotation_set(matrix, -degrees); /* it takes degrees clockwise */
    return 0;
}

static int encoder_set_stream(struct media_encoder *encoder,
                              const struct encode_settings *settings, struct err *err)
{
    AVDictionary *options = NULL;
    int rc;

    encoder->stream = avformat_new_stream(encoder->format, NULL);
    if (!encoder->stream ||
        avcodec_parameters_from_context(encoder->stream->codecpar, encoder->codec) < 0)
        return err_set(err, ERR_NOMEM, "cannot allocate a stream");
    encoder->stream->time_base = encoder->codec->time_base;
    if (settings->rotation_degrees &&
        stream_set_rotation(encoder->stream, settings->rotation_degrees, err) < 0)
        return -1;
    if (avio_open(&encoder->format->pb, encoder->path, AVIO_FLAG_WRITE) < 0)
        return err_set(err, ERR_IO, "cannot write '%s'", encoder->path);
    encoder->format->flags |= AVFMT_FLAG_BITEXACT; /* no dates, no versions */
    av_dict_parse_string(&options, settings->mux_options ? settings->mux_options : "",
                         "=", ":", 0);
    rc = avformat_write_header(encoder->format, &options);
    av_dict_free(&options);
    if (rc == AVERROR(EINVAL))
        return err_set(err, ERR_UNSUPPORTED, "%s does not go into this container",
                       encoder->codec->codec->name);
    return rc < 0 ? err_set(err, ERR_IO, "cannot write '%s': %s", encoder->path,
                            av_err2str(rc))
                  : 0;
}

static int encoder_set_frame(struct media_encoder *encoder, struct err *err)
{
    const AVCodecContext *codec = encoder->codec;

    encoder->frame = av_frame_alloc();
    encoder->packet = av_packet_alloc();
    encoder->sws = sws_getContext(codec->width, codec->height, AV_PIX_FMT_RGB24,
                                  codec->width, codec->height, codec->pix_fmt,
                                  SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP,
                                  NULL, NULL, NULL);
    if (!encoder->frame || !encoder->packet || !encoder->sws)
        return err_set(err, ERR_NOMEM, "cannot allocate an encoder's frame");
    encoder->frame->width = codec->width;
    encoder->frame->height = codec->height;
    encoder->frame->format = codec->pix_fmt;
    encoder->frame->color_range = codec->color_range;
    return av_frame_get_buffer(encoder->frame, 0) < 0
               ? err_set(err, ERR_NOMEM, "cannot allocate a frame")
               : 0;
}

int media_encoder_open(struct media_encoder **out, const char *path,
                       const struct encode_settings *settings, struct err *err)
{
    const AVCodec *codec = avcodec_find_encoder_by_name(settings->codec);
    struct media_encoder *encoder;

    if (!codec)
        return err_set(err, ERR_UNSUPPORTED, "this FFmpeg has no encoder %s",
                       settings->codec);
    encoder = calloc(1, sizeof(*encoder));
    if (!encoder)
        return err_set(err, ERR_NOMEM, "cannot allocate an encoder");
    encoder->path = strdup(path);
    av_log_set_level(AV_LOG_QUIET);
    if (!encoder->path || avformat_alloc_output_context2(&encoder->format, NULL,
                                                         settings->format, path) < 0) {
        err_set(err, ERR_UNSUPPORTED, "no container for '%s'", path);
        goto failed;
    }
    if (encoder_set_codec(encoder, codec, settings, err) < 0 ||
        encoder_set_stream(encoder, settings, err) < 0 ||
        encoder_set_frame(encoder, err) < 0)
        goto failed;
    *out = encoder;
    return 0;
failed:
    media_encoder_abort(encoder);
    return -1;
}

/* frame NULL: the rest. */
static int encoder_send(struct media_encoder *encoder, AVFrame *frame, struct err *err)
{
    int rc = avcodec_send_frame(encoder->codec, frame);

    while (rc >= 0) {
        rc = avcodec_receive_packet(encoder->codec, encoder->packet);
        if (rc == AVERROR(EAGAIN) || rc == AVERROR_EOF)
            return 0;
        if (rc < 0)
            break;
        /* for containers that keep durations; 1 is what a constant rate has */
        if (encoder->packet->duration == 0)
            encoder->packet->duration = 1;
        av_packet_rescale_ts(encoder->packet, encoder->codec->time_base,
                             encoder->stream->time_base);
        rc = av_interleaved_write_frame(encoder->format, encoder->packet);
    }
    return err_set(err, ERR_IO, "cannot encode a frame of '%s': %s", encoder->path,
                   av_err2str(rc));
}

int media_encoder_add(struct media_encoder *encoder, const uint8_t *rgb, int64_t pts,
                      struct err *err)
{
    AVFrame *frame = encoder->frame;
    int stride = frame->width * 3;

    if (av_frame_make_writable(frame) < 0)
        return err_set(err, ERR_NOMEM, "cannot allocate a frame");
    sws_scale(encoder->sws, &rgb, &stride, 0, frame->height, frame->data,
              frame->linesize);
    frame->pts = pts;
    return encoder_send(encoder, frame, err);
}

int media_encoder_close(struct media_encoder *encoder, struct err *err)
{
    int rc = encoder_send(encoder, NULL, err);

    if (rc == 0) {
        rc = av_write_trailer(encoder->format);
        if (rc < 0)
            err_set(err, ERR_IO, "cannot finish '%s': %s", encoder->path, av_err2str(rc));
    }
    if (rc < 0) {
        media_encoder_abort(encoder);
        return -1;
    }
    encoder_free(encoder);
    return 0;
}
