#include "dataprep/media/decoder.h"

#include "dataprep/media/reader.h"

#include <stdlib.h>

struct decoder {
    AVCodecContext *codec;
    AVFrame *frame;
    AVFrame *host;   /* a wanted frame that came from the GPU */
    struct gpu *gpu; /* NULL: the CPU decodes */
    struct reader reader;
    struct gpu_guard guard; /* against frames over the cap, on either */
    bool is_primed;         /* has seen the first packet of the file */
};

/* A frame that is wanted: its packet, its place in the caller's list. */
struct wanted_frame {
    int64_t packet, which;
    bool is_done;
};

struct decode_job {
    struct decoder decoder;
    struct packet_index *index;
    struct wanted_frame *frames; /* by packet */
    int64_t n_frames, n_done;
    int64_t n_output; /* frames that came out so far, for a linear decode */
    decoder_take take;
    void *state;
};

/* Refuses a frame over the cap before its memory is allocated. */
static int get_buffer(AVCodecContext *codec, AVFrame *frame, int flags)
{
    struct gpu_guard *guard = codec->opaque;

    if ((int64_t)frame->width * frame->height > guard->max_pixels) {
        guard->is_over_pixels = true;
        return AVERROR(EINVAL);
    }
    return avcodec_default_get_buffer2(codec, frame, flags);
}

static void decoder_fini(struct decoder *decoder)
{
    reader_fini(&decoder->reader);
    av_frame_free(&decoder->frame);
    av_frame_free(&decoder->host);
    avcodec_free_context(&decoder->codec);
}

static const AVCodec *decoder_find(enum AVCodecID id, const struct gpu *gpu,
                                   struct err *err)
{
    const AVCodec *codec;

    if (gpu)
        return gpu_find_decoder(id, err);
    codec = avcodec_find_decoder(id);
    if (!codec)
        err_set(err, ERR_UNSUPPORTED, "no decoder for %s in this FFmpeg",
                avcodec_get_name(id));
    return codec;
}

static int decoder_allocate(struct decoder *decoder, const AVCodec *codec,
                            const AVCodecParameters *parameters, struct err *err)
{
    decoder->codec = avcodec_alloc_context3(codec);
    decoder->frame = av_frame_alloc();
    decoder->host = av_frame_alloc();
    if (!decoder->codec || !decoder->frame || !decoder->host ||
        avcodec_parameters_to_context(decoder->codec, parameters) < 0)
        return err_set(err, ERR_NOMEM, "cannot allocate a decoder");
    /* videos are decoded side by side, not slices */
    decoder->codec->thread_count = 1;
    decoder->codec->thread_type = FF_THREAD_SLICE; /* FFmpeg warns of the other kind */
    decoder->codec->opaque = &decoder->guard;
    decoder->codec->get_buffer2 = get_buffer;
    return decoder->gpu ? gpu_attach(decoder->gpu, decoder->codec, &decoder->guard, err)
                        : 0;
}

/* out stays where it is: the codec refers to it. */
static int decoder_init(struct decoder *out, struct packet_index *index,
                        struct source *source, const struct media_limits *limits,
                        struct gpu *gpu, struct err *err)
{
    const AVCodec *codec = decoder_find(index->codec->codec_id, gpu, err);

    *out = (struct decoder){.gpu = gpu, .guard = {.max_pixels = limits->max_pixels}};
    if (!codec || reader_init(&out->reader, index, source, err) < 0)
        return -1;
    if (decoder_allocate(out, codec, index->codec, err) < 0) {
        decoder_fini(out);
        return -1;
    }
    if (avcodec_open2(out->codec, codec, NULL) < 0) {
        decoder_fini(out);
        err_set(err, ERR_FORMAT, "the %s decoder does not take this stream", codec->name);
        return -1;
    }
    return 0;
}

/* 0: go on (damaged data shows as a missing frame; a GPU's decoder must not fail at all). */
static int decoder_check(const struct decoder *decoder, int rc, struct err *err)
{
    if (decoder->guard.is_over_pixels)
        return err_set(err, ERR_LIMIT, "frames are larger than %lld pixels",
                       (long long)decoder->guard.max_pixels);
    if (decoder->gpu && rc < 0)
        return err_set(err, ERR_UNSUPPORTED, "the GPU's decoder failed: %s",
                       av_err2str(rc));
    if (rc == AVERROR(ENOMEM))
        return err_set(err, ERR_LIMIT, "decoding needs more memory than it may use");
    return 0;
}

/* packet NULL drains. Frames are to be received after each call. */
static int decoder_send(struct decoder *decoder, AVPacket *packet, int64_t tag,
                        struct err *err)
{
    if (packet) {
        packet->pts = tag;
        packet->dts = tag;
    }
    if (packet && packet->size == 0)
        return 0;
    return decoder_check(decoder, avcodec_send_packet(decoder->codec, packet), err);
}

/* 1: decoder->frame holds the next frame; 0: none now. */
static int decoder_receive(struct decoder *decoder, struct err *err)
{
    int rc = avcodec_receive_frame(decoder->codec, decoder->frame);

    if (rc == AVERROR(EAGAIN) || rc == AVERROR_EOF)
        return 0;
    if (rc < 0)
        return decoder_check(decoder, rc, err);
    return 1;
}

/* Some encoders say in the file's first packet only which faults of theirs a decoder has
 * to allow for (x264's version, needed for its early 4:4:4 streams). */
static int decoder_prime(struct decoder *decoder, int64_t start, struct err *err)
{
    if (!decoder->is_primed && start > 0) {
        int got;

        if (reader_read(&decoder->reader, 0, err) < 0 ||
            decoder_send(decoder, decoder->reader.packet, -1, err) < 0)
            return -1;
        while ((got = decoder_receive(decoder, err)) != 0)
            if (got < 0)
                return -1;
    }
    decoder->is_primed = true;
    avcodec_flush_buffers(decoder->codec);
    return 0;
}

/* The frame that came out, in the host's memory. NULL: it cannot be had. */
static const AVFrame *decoder_host_frame(struct decoder *decoder, struct err *err)
{
    if (!decoder->gpu)
        return decoder->frame;
    if (gpu_download(decoder->gpu, decoder->host, decoder->frame, decoder->codec, err) <
        0)
        return NULL;
    return decoder->host;
}

static bool frame_is_damaged(const AVFrame *frame)
{
    return frame->flags & AV_FRAME_FLAG_CORRUPT || frame->decode_error_flags;
}

/* The wanted frame of a packet (or, in a linear decode, the n-th frame that came out). */
static struct wanted_frame *job_find(struct decode_job *job, int64_t packet)
{
    int64_t low = 0, high = job->n_frames;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (job->frames[middle].packet < packet)
            low = middle + 1;
        else
            high = middle;
    }
    return low < job->n_frames && job->frames[low].packet == packet ? &job->frames[low]
                                                                    : NULL;
}

static int job_receive(struct decode_job *job, struct err *err)
{
    struct decoder *decoder = &job->decoder;
    int got;

    while ((got = decoder_receive(decoder, err)) > 0) {
        int64_t name = job->index->is_linear ? job->n_output : decoder->frame->pts;
        struct wanted_frame *wanted = job_find(job, name);
        const AVFrame *frame;

        job->n_output++;
        if (!wanted || wanted->is_done || frame_is_damaged(decoder->frame))
            continue;
        frame = decoder_host_frame(decoder, err);
        if (!frame || job->take(job->state, wanted->which, frame, err) < 0)
            return -1;
        wanted->is_done = true;
        job->n_done++;
    }
    return got;
}

/* Sends packets [start, end) and takes what is wanted; drains at the end. */
static int job_decode_range(struct decode_job *job, int64_t start, int64_t end,
                            struct err *err)
{
    struct decoder *decoder = &job->decoder;

    if (decoder_prime(decoder, start, err) < 0)
        return -1;
    job->n_output = 0;
    for (int64_t k = start; k < end && job->n_done < job->n_frames; k++) {
        bool may_skip =
            job->index->may_skip && !job->index->is_linear && !job_find(job, k);

        if (reader_read(&decoder->reader, k, err) < 0)
            return -1;
        decoder->codec->skip_frame = may_skip ? AVDISCARD_NONREF : AVDISCARD_DEFAULT;
        if (decoder_send(decoder, decoder->reader.packet, k, err) < 0 ||
            job_receive(job, err) < 0)
            return -1;
    }
    decoder->codec->skip_frame = AVDISCARD_DEFAULT;
    if (job->n_done < job->n_frames &&
        (decoder_send(decoder, NULL, 0, err) < 0 || job_receive(job, err) < 0))
        return -1;
    avcodec_flush_buffers(decoder->codec);
    return 0;
}

/* The key frame to start from for packet p: the last one that is neither later in the
 * file nor shown later (a frame shown before the key frame it follows in the file may
 * refer to what came before: an open GOP). `least` when there is none after it. */
static int64_t key_before(const struct packet_index *index, int64_t p, int64_t least)
{
    for (int64_t k = p; k > least; k--)
        if (index->packets[k].is_key &&
            index->packets[k].place <= index->packets[p].place)
            return k;
    return least;
}

static bool run_is_done(const struct decode_job *job, int64_t first, int64_t last)
{
    for (int64_t i = first; i <= last; i++)
        if (!job->frames[i].is_done)
            return false;
    return true;
}

/* Frames first..last lie in one stretch of packets. When some do not come out, tries one
 * key frame earlier, then the start of the file. */
static int job_decode_run(struct decode_job *job, int64_t first, int64_t last,
                          struct err *err)
{
    int64_t start = key_before(job->index, job->frames[first].packet, 0);

    for (int try = 0; try < 3; try++) {
        if (job_decode_range(job, start, job->frames[last].packet + 1, err) < 0)
            return -1;
        if (run_is_done(job, first, last) || start == 0)
            break;
        start = try == 0 ? key_before(job->index, start - 1, 0) : 0;
    }
    return 0;
}

static int job_decode(struct decode_job *job, struct err *err)
{
    if (job->index->is_linear)
        return job_decode_range(job, 0, job->index->n_packets, err);
    for (int64_t i = 0; i < job->n_frames;) {
        int64_t last = i;

        while (last + 1 < job->n_frames &&
               key_before(job->index, job->frames[last + 1].packet,
                          job->frames[last].packet) == job->frames[last].packet)
            last++;
        if (job_decode_run(job, i, last, err) < 0)
            return -1;
        i = last + 1;
    }
    return 0;
}

static int wanted_compare(const void *a, const void *b)
{
    const struct wanted_frame *x = a, *y = b;

    return x->packet < y->packet ? -1 : x->packet > y->packet;
}

static void job_set_frames(struct decode_job *job, const int64_t *wanted, int64_t n)
{
    bool is_linear = job->index->is_linear;

    for (int64_t i = 0; i < n; i++)
        job->frames[i] = (struct wanted_frame){
            is_linear ? wanted[i] : job->index->shown[wanted[i]], i, false};
    qsort(job->frames, (size_t)n, sizeof(*job->frames), wanted_compare);
    job->n_frames = n;
}

/* Some frames did not come out. Of a GPU that says nothing of the video. */
static enum decode_outcome job_explain_missing(const struct decode_job *job,
                                               struct source *source,
                                               const struct media_limits *limits,
                                               struct err *err)
{
    struct packet_index *index = job->index;

    if (job->decoder.gpu || index->is_linear) {
        err_set(err, job->decoder.gpu ? ERR_UNSUPPORTED : ERR_FORMAT,
                "%lld of %lld frames cannot be decoded: %s",
                (long long)(job->n_frames - job->n_done), (long long)job->n_frames,
                job->decoder.gpu ? "they did not come out of the GPU" : "damaged data");
        return DECODE_FAILED;
    }
    if (index_measure(index, source, limits, err) < 0)
        return DECODE_FAILED;
    index->is_linear = true; /* seeking has failed here */
    return DECODE_REMEASURED;
}

enum decode_outcome decoder_frames(struct packet_index *index, struct source *source,
                                   const struct media_limits *limits, struct gpu *gpu,
                                   const int64_t *wanted, int64_t n, decoder_take take,
                                   void *state, struct err *err)
{
    struct decode_job job = {.index = index, .take = take, .state = state};
    enum decode_outcome outcome = DECODE_FAILED;

    if (decoder_init(&job.decoder, index, source, limits, gpu, err) < 0)
        return DECODE_FAILED;
    job.frames = malloc((size_t)n * sizeof(*job.frames));
    if (!job.frames) {
        err_set(err, ERR_NOMEM, "cannot allocate a list of %lld frames", (long long)n);
        goto out;
    }
    job_set_frames(&job, wanted, n);
    if (job_decode(&job, err) == 0)
        outcome = job.n_done == n ? DECODE_DONE
                                  : job_explain_missing(&job, source, limits, err);
out:
    free(job.frames);
    decoder_fini(&job.decoder);
    return outcome;
}

/* Sends one packet (NULL: drains) and notes the tags of what comes out. */
static int decoder_note_tags(struct decoder *decoder, AVPacket *packet, int64_t tag,
                             int64_t *tags, int64_t room, int64_t *n_tags,
                             struct err *err)
{
    AVFrame *frame = decoder->frame;
    int got = decoder_send(decoder, packet, tag, err);

    if (got < 0)
        return -1;
    while ((got = decoder_receive(decoder, err)) > 0)
        if (*n_tags < room)
            tags[(*n_tags)++] = frame->pts;
    return got;
}

int decoder_list_tags(struct packet_index *index, struct source *source,
                      const struct media_limits *limits, int64_t n_packets, int64_t *tags,
                      int64_t room, int64_t *n_tags, struct err *err)
{
    struct decoder decoder;
    int rc = 0;

    if (decoder_init(&decoder, index, source, limits, NULL, err) < 0)
        return -1;
    *n_tags = 0;
    for (int64_t k = 0; k < n_packets && rc == 0; k++) {
        rc = reader_read(&decoder.reader, k, err);
        if (rc == 0)
            rc = decoder_note_tags(&decoder, decoder.reader.packet, k, tags, room, n_tags,
                                   err);
    }
    if (rc == 0)
        rc = decoder_note_tags(&decoder, NULL, 0, tags, room, n_tags, err);
    decoder_fini(&decoder);
    return rc;
}
