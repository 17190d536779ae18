#include "dataprep/media/source.h"

#include <errno.h>
#include <fcntl.h>
#include <libavutil/opt.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IO_BUFFER_BYTES (64 << 10)
#define SNIFF_BYTES 512

/* Containers we read. Playlists and devices are left out: they name other files. */
static const char formats[] =
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,av1,ivf,ogg,flv,"
    "asf,"
    "nut,mxf,mxf_opatom,dv,gif,apng,mjpeg,mpjpeg,rm,yuv4mpegpipe,png_pipe,jpeg_pipe,"
    "webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,pgm_pipe,pam_pipe,tga_pipe,jpegxl_pipe,"
    "j2k_pipe,jpegls_pipe";

int64_t source_read_at(const struct source *source, uint64_t at, void *bytes,
                       size_t n_bytes)
{
    size_t done = 0;

    if (at >= source->n_bytes)
        return 0;
    if (n_bytes > source->n_bytes - at)
        n_bytes = (size_t)(source->n_bytes - at);
    while (done < n_bytes) {
        ssize_t n = pread(source->fd, (char *)bytes + done, n_bytes - done,
                          (off_t)(source->offset + at + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

static int io_read(void *opaque, uint8_t *bytes, int n_bytes)
{
    struct source *source = opaque;
    int64_t n = source_read_at(source, source->at, bytes, (size_t)n_bytes);

    if (n < 0)
        return AVERROR(EIO);
    source->at += (uint64_t)n;
    return n ? (int)n : AVERROR_EOF;
}

static int64_t io_seek(void *opaque, int64_t to, int whence)
{
    struct source *source = opaque;

    if (whence & AVSEEK_SIZE)
        return (int64_t)source->n_bytes;
    whence &= ~AVSEEK_FORCE;
    if (whence == SEEK_CUR)
        to += (int64_t)source->at;
    else if (whence == SEEK_END)
        to += (int64_t)source->n_bytes;
    if (to < 0)
        return AVERROR(EINVAL);
    source->at = (uint64_t)to;
    return to;
}

/* A file may name others; they are not ours to open. */
static int io_open_refused(AVFormatContext *format, AVIOContext **io, const char *url,
                           int flags, AVDictionary **options)
{
    (void)format, (void)io, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

static int source_set_range(struct source *source, const struct media_ref *ref,
                            const struct stat *st, struct err *err)
{
    uint64_t size = (uint64_t)st->st_size;

    if (!S_ISREG(st->st_mode))
        return err_set(err, ERR_FORMAT, "not a regular file: '%s'", ref->path);
    if (size == 0)
        return err_set(err, ERR_FORMAT, "file is empty: '%s'", ref->path);
    if (ref->offset >= size || ref->n_bytes > size - ref->offset)
        return err_set(err, ERR_FORMAT,
                       "'%s' ends before its member at byte %llu does: truncated",
                       ref->path, (unsigned long long)ref->offset);
    source->offset = ref->offset;
    source->n_bytes = ref->n_bytes ? ref->n_bytes : size - ref->offset;
    source->mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    return 0;
}

int source_open(struct source *out, const struct media_ref *ref, struct err *err)
{
    struct stat st;

    *out = (struct source){.stream = -1};
    av_log_set_level(AV_LOG_QUIET); /* what matters comes back as an err */
    /* O_NONBLOCK: opening a FIFO must not wait for a writer */
    out->fd = open(ref->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (out->fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot open '%s': %s", ref->path, strerror(errno));
    if (fstat(out->fd, &st) < 0) {
        err_set(err, ERR_IO, "cannot stat '%s': %s", ref->path, strerror(errno));
        source_close(out);
        return -1;
    }
    if (source_set_range(out, ref, &st, err) < 0) {
        source_close(out);
        return -1;
    }
    return 0;
}

static void source_close_demuxer(struct source *source)
{
    avformat_close_input(&source->format);
    if (source->io)
        av_freep((void *)&source->io->buffer);
    avio_context_free(&source->io);
}

void source_close(struct source *source)
{
    source_close_demuxer(source);
    if (source->fd >= 0)
        close(source->fd);
    source->fd = -1;
}

static bool looks_like_text(const uint8_t *bytes, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (bytes[i] < 32 && !strchr("\t\n\r\f\033", bytes[i]))
            return false;
    return n > 0;
}

/* Why libavformat would not have it, in words. */
static int source_explain(struct source *source, int code, struct err *err)
{
    uint8_t head[SNIFF_BYTES] = {0};
    int64_t n = source_read_at(source, 0, head, sizeof(head));
    char text[AV_ERROR_MAX_STRING_SIZE];

    if (code == AVERROR(ENOMEM))
        return err_set(err, ERR_LIMIT, "opening it needs more memory than it may use");
    if (n >= 8 && (memcmp(head + 4, "ftyp", 4) == 0 || memcmp(head + 4, "mdat", 4) == 0))
        return err_set(err, ERR_FORMAT, "truncated: the moov box, its index, is missing");
    if (source_promised_bytes(source) > source->n_bytes)
        return err_set(err, ERR_FORMAT,
                       "truncated: %llu bytes are there, it says it has %llu",
                       (unsigned long long)source->n_bytes,
                       (unsigned long long)source_promised_bytes(source));
    if (looks_like_text(head, n))
        return err_set(err, ERR_FORMAT, "not a media file: its bytes are text");
    if (code == AVERROR(EINVAL)) /* recognized, and not among `formats` */
        return err_set(err, ERR_FORMAT,
                       "neither a video nor an image in a format that "
                       "is read: sound alone, perhaps");
    return err_set(err, ERR_FORMAT, "not a media file that can be read: %s",
                   av_make_error_string(text, sizeof(text), code));
}

static int source_make_io(struct source *source, struct err *err)
{
    uint8_t *buffer = av_malloc(IO_BUFFER_BYTES);

    source->at = 0;
    if (buffer)
        source->io = avio_alloc_context(buffer, IO_BUFFER_BYTES, 0, source, io_read, NULL,
                                        io_seek);
    if (!source->io) {
        av_free(buffer);
        return err_set(err, ERR_NOMEM, "cannot allocate a read buffer");
    }
    source->format = avformat_alloc_context();
    if (!source->format)
        return err_set(err, ERR_NOMEM, "cannot allocate a demuxer");
    source->format->pb = source->io;
    source->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    source->format->io_open = io_open_refused;
    return 0;
}

int source_demux(struct source *source, struct err *err)
{
    AVDictionary *options = NULL;
    int rc;

    if (source_make_io(source, err) < 0)
        return -1;
    av_dict_set(&options, "format_whitelist", formats, 0);
    rc = avformat_open_input(&source->format, "", NULL,
                             &options); /* frees it on failure */
    av_dict_free(&options);
    return rc < 0 ? source_explain(source, rc, err) : 0;
}

int source_rewind(struct source *source, struct err *err)
{
    int stream = source->stream;

    source_close_demuxer(source);
    if (source_demux(source, err) < 0)
        return -1;
    source->stream = stream;
    return 0;
}

/* avformat_find_stream_info opens decoders: one thread each, and none over the cap. */
static int source_probe_streams(struct source *source, const struct media_limits *limits)
{
    unsigned n = source->format->nb_streams;
    AVDictionary **options = n ? av_calloc(n, sizeof(AVDictionary *)) : NULL;
    /* a decoder refuses more, is not opened then, and the format of pixels stays unknown */
    int64_t max_pixels = limits->max_pixels < INT_MAX ? limits->max_pixels : INT_MAX;
    int rc;

    for (unsigned i = 0; options && i < n; i++) {
        av_dict_set(&options[i], "threads", "1", 0);
        av_dict_set_int(&options[i], "max_pixels", max_pixels, 0);
    }
    rc = avformat_find_stream_info(source->format, options);
    for (unsigned i = 0; options && i < n; i++)
        av_dict_free(&options[i]);
    av_free(options);
    return rc;
}

int source_find_video(struct source *source, const struct media_limits *limits,
                      struct err *err)
{
    int rc = source_probe_streams(source, limits);

    if (rc < 0)
        return source_explain(source, rc, err);
    source->stream =
        av_find_best_stream(source->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (source->stream < 0)
        return source->format->nb_streams
                   ? err_set(err, ERR_FORMAT, "no video stream in it")
                   : source_explain(source, AVERROR_INVALIDDATA, err);
    if (source->format->streams[source->stream]->disposition &
        AV_DISPOSITION_ATTACHED_PIC)
        return err_set(err, ERR_FORMAT, "no video stream in it, only a cover picture");
    return 0;
}
