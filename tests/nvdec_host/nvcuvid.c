/* nvcuvid.c - libnvcuvid.so.1's stand-in: a "hardware" decoder that decodes in software
 *
 * FFmpeg's nvdec parses the stream, keeps the reference frames and the order, and hands one
 * picture after another to the driver; the driver decodes it into a surface of a number
 * that FFmpeg chose, and maps it. Here libavcodec's own decoder does that: the memory it
 * takes for a picture (get_buffer2) is what the picture is in once the packet is sent,
 * shown or not, in whatever order. Surfaces are NV12, or P016 above 8 bits, as the device's.
 * Codecs: H.264 (see h264.h), VP8, VP9.
 *
 * Environment: NVDEC_HOST_FAULT, one of
 *   caps        the codec is not supported      size       at most 64 x 64 pixels are
 *   create[:K]  the K-th decoder is not made (out of sessions)
 *   picture:K   the K-th picture fails          map:K      its surface cannot be mapped
 *   hang:K      it never comes back             crash:K    the process dies
 *   wrong       pictures are decoded, 8 of 255 too bright
 *   slow        a picture takes 100 ms longer
 * NVDEC_HOST_LOG: a file that gets a line for every decoder made and picture decoded.
 */
#include "fault.h"
#include "h264.h"

#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavutil/pixdesc.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* as the header has them: a wrong signature does not compile */
tcuvidGetDecoderCaps cuvidGetDecoderCaps;
tcuvidDestroyDecoder cuvidDestroyDecoder;
tcuvidCreateDecoder cuvidCreateDecoder;
tcuvidDecodePicture cuvidDecodePicture;
tcuvidMapVideoFrame64 cuvidMapVideoFrame64;
tcuvidUnmapVideoFrame64 cuvidUnmapVideoFrame64;

#define OUT_OF_MEMORY ((CUresult)2)
#define INVALID_VALUE ((CUresult)1)
#define SURFACES_MAX 64
#define PITCH_ALIGNMENT 256
#define SLOW_NS 100000000

struct surface {
    uint8_t *samples;
    bool is_mapped;
};

struct decoder {
    CUVIDDECODECREATEINFO info;
    AVCodecContext *codec;
    AVFrame *current; /* the picture being decoded */
    AVFrame *shown;
    AVPacket *packet;
    uint8_t headers[H264_HEADERS_MAX];
    size_t n_headers;
    size_t pitch, height;
    unsigned n_mapped;
    struct surface surfaces[SURFACES_MAX];
};

/* One write, so that lines of several processes do not mix. */
static void note(const char *what)
{
    const char *path = getenv("NVDEC_HOST_LOG");
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;

    if (fd < 0)
        return;
    if (write(fd, what, strlen(what)) < 0)
        abort();
    close(fd);
}

static enum AVCodecID codec_of(cudaVideoCodec codec)
{
    switch (codec) {
    case cudaVideoCodec_H264:
        return AV_CODEC_ID_H264;
    case cudaVideoCodec_VP8:
        return AV_CODEC_ID_VP8;
    case cudaVideoCodec_VP9:
        return AV_CODEC_ID_VP9;
    default:
        return AV_CODEC_ID_NONE;
    }
}

CUresult cuvidGetDecoderCaps(CUVIDDECODECAPS *caps)
{
    caps->bIsSupported = codec_of(caps->eCodecType) != AV_CODEC_ID_NONE &&
                         caps->eChromaFormat == cudaVideoChromaFormat_420 &&
                         !host_fault("caps");
    caps->nNumNVDECs = 1;
    caps->nOutputFormatMask = caps->nBitDepthMinus8 ? 2 : 1;
    caps->nMaxWidth = caps->nMaxHeight = host_fault("size") ? 64 : 4096;
    caps->nMaxMBCount = 65536;
    caps->nMinWidth = caps->nMinHeight = 48;
    return CUDA_SUCCESS;
}

static int get_buffer(AVCodecContext *codec, AVFrame *frame, int flags)
{
    struct decoder *decoder = codec->opaque;
    int rc = avcodec_default_get_buffer2(codec, frame, flags);

    av_frame_unref(decoder->current);
    return rc < 0 ? rc : av_frame_ref(decoder->current, frame);
}

CUresult cuvidDestroyDecoder(CUvideodecoder handle)
{
    struct decoder *decoder = handle;

    avcodec_free_context(&decoder->codec);
    av_frame_free(&decoder->current);
    av_frame_free(&decoder->shown);
    av_packet_free(&decoder->packet);
    for (int i = 0; i < SURFACES_MAX; i++)
        free(decoder->surfaces[i].samples);
    free(decoder);
    return CUDA_SUCCESS;
}

static bool decoder_open(struct decoder *decoder)
{
    const AVCodec *codec = avcodec_find_decoder(codec_of(decoder->info.CodecType));

    decoder->codec = avcodec_alloc_context3(codec);
    decoder->current = av_frame_alloc();
    decoder->shown = av_frame_alloc();
    decoder->packet = av_packet_alloc();
    if (!decoder->codec || !decoder->current || !decoder->shown || !decoder->packet)
        return false;
    decoder->codec->thread_count = 1;
    decoder->codec->thread_type = FF_THREAD_SLICE;
    decoder->codec->opaque = decoder;
    decoder->codec->get_buffer2 = get_buffer;
    return avcodec_open2(decoder->codec, codec, NULL) == 0;
}

static bool decoder_make_surfaces(struct decoder *decoder)
{
    size_t sample = decoder->info.bitDepthMinus8 ? 2 : 1;

    decoder->pitch = (decoder->info.ulTargetWidth * sample + PITCH_ALIGNMENT - 1) /
                     PITCH_ALIGNMENT * PITCH_ALIGNMENT;
    decoder->height = (decoder->info.ulTargetHeight + 1) & ~1ul;
    for (size_t i = 0; i < decoder->info.ulNumDecodeSurfaces; i++) {
        decoder->surfaces[i].samples = calloc(decoder->pitch, decoder->height * 3 / 2);
        if (!decoder->surfaces[i].samples)
            return false;
    }
    return true;
}

CUresult cuvidCreateDecoder(CUvideodecoder *out, CUVIDDECODECREATEINFO *info)
{
    struct decoder *decoder;

    if (host_fault_counts("create") || info->ulNumDecodeSurfaces > SURFACES_MAX)
        return OUT_OF_MEMORY;
    if (codec_of(info->CodecType) == AV_CODEC_ID_NONE)
        return NOT_SUPPORTED;
    decoder = calloc(1, sizeof(*decoder));
    if (!decoder)
        return OUT_OF_MEMORY;
    decoder->info = *info;
    if (!decoder_open(decoder) || !decoder_make_surfaces(decoder)) {
        cuvidDestroyDecoder(decoder);
        return OUT_OF_MEMORY;
    }
    note("decoder\n");
    *out = decoder;
    return CUDA_SUCCESS;
}

/* Sends what FFmpeg gave, behind the parameter sets where those are new. */
static bool decoder_send(struct decoder *decoder, const CUVIDPICPARAMS *picture)
{
    uint8_t headers[H264_HEADERS_MAX];
    size_t n_headers = 0, n_new = 0;
    int rc;

    if (decoder->info.CodecType == cudaVideoCodec_H264)
        n_headers = h264_write_headers(headers, sizeof(headers), picture);
    if (n_headers != decoder->n_headers ||
        memcmp(headers, decoder->headers, n_headers) != 0) {
        memcpy(decoder->headers, headers, n_headers);
        decoder->n_headers = n_new = n_headers;
    }
    if (av_new_packet(decoder->packet, (int)(n_new + picture->nBitstreamDataLen)) < 0)
        return false;
    memcpy(decoder->packet->data, headers, n_new);
    memcpy(decoder->packet->data + n_new, picture->pBitstreamData,
           picture->nBitstreamDataLen);
    rc = avcodec_send_packet(decoder->codec, decoder->packet);
    av_packet_unref(decoder->packet);
    while (rc == 0 && avcodec_receive_frame(decoder->codec, decoder->shown) == 0)
        av_frame_unref(decoder->shown);
    return rc == 0;
}

static void store8(uint8_t *to, const AVFrame *from, size_t y, int plane, size_t width)
{
    const uint8_t *row = from->data[plane] + (ptrdiff_t)y * from->linesize[plane];
    size_t step = plane ? 2 : 1;
    int more = !plane && host_fault("wrong") ? 8 : 0;

    for (size_t x = 0; x < width; x++) {
        int value = row[x] + more;

        to[x * step + (plane == 2)] = (uint8_t)(value > 255 ? 255 : value);
    }
}

/* P016: the samples in the upper bits */
static void store16(uint8_t *to, const AVFrame *from, size_t y, int plane, size_t width,
                    int shift)
{
    const uint8_t *row = from->data[plane] + (ptrdiff_t)y * from->linesize[plane];
    size_t step = plane ? 2 : 1;

    for (size_t x = 0; x < width; x++) {
        unsigned value = (unsigned)(row[2 * x] | row[2 * x + 1] << 8) << shift;
        uint8_t *at = to + 2 * (x * step + (plane == 2));

        at[0] = (uint8_t)value;
        at[1] = (uint8_t)(value >> 8);
    }
}

static void decoder_store(const struct decoder *decoder, uint8_t *samples)
{
    const AVFrame *from = decoder->current;
    int depth = av_pix_fmt_desc_get(from->format)->comp[0].depth;

    for (int plane = 0; plane < 3; plane++) {
        size_t half = plane ? 1 : 0;
        size_t width = (size_t)(from->width + (int)half) >> half;
        size_t height = (size_t)(from->height + (int)half) >> half;
        uint8_t *to = samples + (plane ? decoder->pitch * decoder->height : 0);

        for (size_t y = 0; y < height && y < decoder->height >> half; y++) {
            if (depth > 8)
                store16(to + y * decoder->pitch, from, y, plane, width, 16 - depth);
            else
                store8(to + y * decoder->pitch, from, y, plane, width);
        }
    }
}

static void misbehave(void)
{
    const struct timespec pause = {0, SLOW_NS};

    if (host_fault("slow"))
        nanosleep(&pause, NULL);
    if (host_fault_counts("crash"))
        kill(getpid(), SIGKILL);
    while (host_fault_counts("hang"))
        nanosleep(&pause, NULL);
}

CUresult cuvidDecodePicture(CUvideodecoder handle, CUVIDPICPARAMS *picture)
{
    struct decoder *decoder = handle;
    int i = picture->CurrPicIdx;

    misbehave();
    if (host_fault_counts("picture"))
        return CUDA_ERROR_UNKNOWN;
    if (i < 0 || (tcu_ulong)i >= decoder->info.ulNumDecodeSurfaces)
        return INVALID_VALUE;
    if (!decoder_send(decoder, picture) || !decoder->current->data[0])
        return CUDA_ERROR_UNKNOWN;
    decoder_store(decoder, decoder->surfaces[i].samples);
    note("picture\n");
    return CUDA_SUCCESS;
}

CUresult cuvidMapVideoFrame64(CUvideodecoder handle, int i, unsigned long long *at,
                              unsigned *pitch, CUVIDPROCPARAMS *how)
{
    struct decoder *decoder = handle;

    (void)how;
    if (host_fault_counts("map"))
        return CUDA_ERROR_UNKNOWN;
    if (i < 0 || (tcu_ulong)i >= decoder->info.ulNumDecodeSurfaces ||
        decoder->n_mapped >= decoder->info.ulNumOutputSurfaces)
        return INVALID_VALUE;
    decoder->n_mapped++;
    *at = (unsigned long long)decoder->surfaces[i].samples;
    *pitch = (unsigned)decoder->pitch;
    return CUDA_SUCCESS;
}

CUresult cuvidUnmapVideoFrame64(CUvideodecoder handle, unsigned long long at)
{
    struct decoder *decoder = handle;

    (void)at;
    decoder->n_mapped--;
    return CUDA_SUCCESS;
}

/* looked up, never called by FFmpeg's nvdec */
ABSENT(cuvidGetDecodeStatus)
ABSENT(cuvidReconfigureDecoder)
ABSENT(cuvidCtxLockCreate)
ABSENT(cuvidCtxLockDestroy)
ABSENT(cuvidCtxLock)
ABSENT(cuvidCtxUnlock)
ABSENT(cuvidCreateVideoSource)
ABSENT(cuvidCreateVideoSourceW)
ABSENT(cuvidDestroyVideoSource)
ABSENT(cuvidSetVideoSourceState)
ABSENT(cuvidGetVideoSourceState)
ABSENT(cuvidGetSourceVideoFormat)
ABSENT(cuvidGetSourceAudioFormat)
ABSENT(cuvidCreateVideoParser)
ABSENT(cuvidParseVideoData)
ABSENT(cuvidDestroyVideoParser)
