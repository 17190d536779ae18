#include "tests/integration/media_linear.h"

#include "dataprep/media/picture.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <stdlib.h>
#include <string.h>

struct linear {
    AVFormatContext *format;
    AVCodecContext *codec;
    AVFrame *frame;
    AVPacket *packet;
    AVStream *stream;
    const int32_t *matrix;
    struct converter converter;
    struct picture picture;
    int64_t capacity, first_pts;
};

void linear_fini(struct linear_video *video)
{
    free(video->frames);
    free(video->times);
    *video = (struct linear_video){0};
}

static const int32_t *stream_matrix(const AVStream *stream)
{
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102)
    const AVPacketSideData *side = av_packet_side_data_get(
        stream->codecpar->coded_side_data, stream->codecpar->nb_coded_side_data,
        AV_PKT_DATA_DISPLAYMATRIX);
    return side ? (const int32_t *)side->data : NULL;
#else
    return (const int32_t *)av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX,
                                                    NULL);
#endif
}

static int linear_open(struct linear *linear, const char *path, struct err *err)
{
    const AVCodec *codec = NULL;
    int best;

    av_log_set_level(AV_LOG_QUIET);
    if (avformat_open_input(&linear->format, path, NULL, NULL) < 0 ||
        avformat_find_stream_info(linear->format, NULL) < 0)
        return err_set(err, ERR_FORMAT, "cannot open '%s'", path);
    best = av_find_best_stream(linear->format, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (best < 0 || !codec)
        return err_set(err, ERR_FORMAT, "no video in '%s'", path);
    linear->stream = linear->format->streams[best];
    linear->matrix = stream_matrix(linear->stream);
    linear->codec = avcodec_alloc_context3(codec);
    linear->frame = av_frame_alloc();
    linear->packet = av_packet_alloc();
    if (!linear->codec || !linear->frame || !linear->packet ||
        avcodec_parameters_to_context(linear->codec, linear->stream->codecpar) < 0)
        return err_set(err, ERR_NOMEM, "cannot allocate a decoder");
    linear->codec->thread_count = 1;
    return avcodec_open2(linear->codec, codec, NULL) < 0
               ? err_set(err, ERR_FORMAT, "cannot open the decoder")
               : 0;
}

static void linear_close(struct linear *linear)
{
    converter_fini(&linear->converter);
    picture_fini(&linear->picture);
    av_frame_free(&linear->frame);
    av_packet_free(&linear->packet);
    avcodec_free_context(&linear->codec);
    avformat_close_input(&linear->format);
}

static int linear_grow(struct linear_video *out, struct linear *linear)
{
    size_t frame_bytes = (size_t)(out->size * out->size * 3);

    if (out->n < linear->capacity)
        return 0;
    linear->capacity = linear->capacity ? linear->capacity * 2 : 64;
    out->frames = realloc(out->frames, (size_t)linear->capacity * frame_bytes);
    out->times = realloc(out->times, (size_t)linear->capacity * sizeof(double));
    return out->frames && out->times ? 0 : -1;
}

static int linear_keep(struct linear_video *out, struct linear *linear, struct err *err)
{
    int64_t pts = linear->frame->best_effort_timestamp;
    AVRational base = linear->stream->time_base;

    if (linear_grow(out, linear) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the frames");
    if (converter_run(&linear->converter, &linear->picture, linear->frame, linear->matrix,
                      err) < 0 ||
        picture_prepare(&out->frames[out->n * out->size * out->size * 3],
                        &linear->picture, out->size, MEDIA_PROCESSOR_SIGLIP,
                        MEDIA_ASPECT_SQUARE, err) < 0)
        return -1;
    if (out->n == 0)
        linear->first_pts = pts;
    if (pts != AV_NOPTS_VALUE && linear->first_pts != AV_NOPTS_VALUE)
        out->times[out->n] = (double)((pts - linear->first_pts) * base.num) / base.den;
    else /* as at the end of some AVI files: one frame later */
        out->times[out->n] =
            out->n ? out->times[out->n - 1] + 1 / av_q2d(linear->stream->avg_frame_rate)
                   : 0;
    out->n++;
    return 0;
}

static int linear_run(struct linear_video *out, struct linear *linear, struct err *err)
{
    bool is_end = false;

    while (!is_end) {
        is_end = av_read_frame(linear->format, linear->packet) < 0;
        if (!is_end && linear->packet->stream_index != linear->stream->index) {
            av_packet_unref(linear->packet);
            continue;
        }
        (void)avcodec_send_packet(linear->codec, is_end ? NULL : linear->packet);
        av_packet_unref(linear->packet);
        for (;;) {
            int rc = avcodec_receive_frame(linear->codec, linear->frame);

            if (rc < 0)
                break;
            if (linear_keep(out, linear, err) < 0)
                return -1;
        }
    }
    return 0;
}

int linear_decode(struct linear_video *out, const char *path, int64_t size,
                  struct err *err)
{
    struct linear linear = {0};
    int rc;

    *out = (struct linear_video){.size = size};
    rc = linear_open(&linear, path, err);
    if (rc == 0)
        rc = linear_run(out, &linear, err);
    linear_close(&linear);
    if (rc < 0)
        linear_fini(out);
    return rc;
}
