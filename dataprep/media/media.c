#include "dataprep/media/media.h"

#include "common/base/clock.h"
#include "dataprep/media/choice.h"
#include "dataprep/media/decoder.h"
#include "dataprep/media/kept.h"
#include "dataprep/media/picture.h"
#include "dataprep/media/session.h"
#include "dataprep/media/still.h"

#include <libavutil/pixdesc.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE_SIZE_MAX 4096
#define STILL_FPS 25 /* what FFmpeg says of a picture */
/* A GPU's first decode pays for the driver's start; a second one is timed unless the first
 * took longer than this. */
#define TRIAL_AGAIN_MAX_NS INT64_C(3000000000)

struct media_session {
    struct kept_indexes kept;
    struct gpu *gpu; /* NULL: the CPU decodes everything */
    bool may_use_gpu;
    struct choices choices;
};

/* One request under way. */
struct extraction {
    const struct frame_request *request;
    const struct media_limits *limits;
    struct source source;
    struct packet_index *index;
    int64_t begin, end; /* the segment, in frames of the video */
    int64_t *picks;     /* [n_picks], of the segment */
    int64_t n_picks;
    int64_t *wanted; /* [n_wanted], of the video, ascending, each once */
    int64_t n_wanted;
    uint8_t *frames; /* NULL: probing */
    struct converter converter;
    struct picture picture;
    struct media_info *info;
};

int media_session_create(struct media_session **out, struct err *err)
{
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : err_set(err, ERR_NOMEM, "cannot allocate a media session");
}

void media_session_destroy(struct media_session *session)
{
    if (!session)
        return;
    kept_fini(&session->kept);
    gpu_close(session->gpu);
    free(session);
}

int media_session_open_gpu(struct media_session *session, enum media_decode mode,
                           int device, struct err *err)
{
    if (gpu_open(&session->gpu, device, err) < 0)
        return -1;
    session->choices.mode = mode;
    session->may_use_gpu = true;
    return 0;
}

void media_session_allow_gpu(struct media_session *session, bool is_allowed)
{
    session->may_use_gpu = is_allowed;
}

const char *media_session_take_note(struct media_session *session)
{
    return choices_take_note(&session->choices);
}

static int check_pixels(const struct extraction *x, const AVCodecParameters *codec,
                        struct err *err)
{
    if ((int64_t)codec->width * codec->height > x->limits->max_pixels)
        return err_set(err, ERR_LIMIT,
                       "frames of %d x %d are over the cap of %lld pixels", codec->width,
                       codec->height, (long long)x->limits->max_pixels);
    return 0;
}

static int session_make_index(struct media_session *session, struct extraction *x,
                              struct err *err)
{
    struct kept_index *kept = kept_make_room(&session->kept);
    const AVStream *stream;

    if (source_demux(&x->source, err) < 0 ||
        source_find_video(&x->source, x->limits, err) < 0)
        return -1;
    stream = x->source.format->streams[x->source.stream];
    if (check_pixels(x, stream->codecpar, err) < 0 ||
        index_build(&kept->index, &x->source, x->limits, err) < 0)
        return -1;
    kept_take(&session->kept, kept, &x->source, x->request->media.path);
    x->index = &kept->index;
    return 0;
}

static int session_get_index(struct media_session *session, struct extraction *x,
                             struct err *err)
{
    x->index = kept_find(&session->kept, &x->source, x->request->media.path);
    if (!x->index)
        return session_make_index(session, x, err);
    x->source.stream = x->index->stream;
    return source_demux(&x->source, err);
}

/* The frames whose time lies in [start_s, end_s). */
static int extraction_find_segment(struct extraction *x, struct err *err)
{
    const struct media_ref *media = &x->request->media;
    int64_t n = x->index->n_shown;

    if (n == 0)
        return err_set(err, ERR_FORMAT,
                       "none of its frames can be decoded: damaged data");
    x->begin = 0;
    x->end = x->request->media.kind == MEDIA_IMAGE && n > 1 ? 1 : n;
    if (media->kind == MEDIA_VIDEO) {
        while (x->begin < n && index_time(x->index, x->begin) < media->start_s)
            x->begin++;
        while (media->end_s > 0 && x->end > x->begin &&
               index_time(x->index, x->end - 1) >= media->end_s)
            x->end--;
    }
    if (x->index->is_truncated && (media->end_s <= 0 || x->end == n))
        return err_set(err, ERR_FORMAT,
                       "truncated: the file ends within the frames asked for");
    if (x->begin >= x->end)
        return err_set(err, ERR_FORMAT,
                       "no frame between %g s and %g s: the video lasts %g s",
                       media->start_s, media->end_s,
                       index_time(x->index, n - 1) + 1 / index_fps(x->index));
    return 0;
}

/* Picks frames; `wanted` are their numbers without repetition. */
static int extraction_pick(struct extraction *x, struct err *err)
{
    int64_t n = x->end - x->begin;
    int64_t room = x->request->num_frames > n ? x->request->num_frames : n;

    if (x->request->splice == MEDIA_SPLICE_NONE &&
        x->request->media.kind == MEDIA_VIDEO &&
        (x->request->num_frames < 0 ? n : x->request->num_frames) > x->limits->max_frames)
        return err_set(err, ERR_LIMIT, "%lld frames are over the cap of %lld",
                       (long long)room, (long long)x->limits->max_frames);
    free(x->picks);
    free(x->wanted);
    x->picks = malloc((size_t)room * sizeof(*x->picks));
    x->wanted = malloc((size_t)room * sizeof(*x->wanted));
    if (!x->picks || !x->wanted)
        return err_set(err, ERR_NOMEM, "cannot allocate a list of %lld frames",
                       (long long)room);
    x->n_picks = media_pick_frames(x->picks, x->request, n);
    x->n_wanted = 0;
    for (int64_t i = 0; i < x->n_picks; i++)
        if (i == 0 || x->picks[i] != x->picks[i - 1])
            x->wanted[x->n_wanted++] = x->begin + x->picks[i];
    if (!x->frames && x->n_wanted > 1) { /* a probe decodes the last: it fails first */
        x->wanted[0] = x->wanted[x->n_wanted - 1];
        x->n_wanted = 1;
    }
    return 0;
}

/* The picture at hand goes to every pick of this frame of the video. */
static int extraction_prepare(struct extraction *x, int64_t number, struct err *err)
{
    int64_t size = x->request->image_size;
    size_t frame_bytes = (size_t)(size * size * 3);
    const uint8_t *first = NULL;

    x->info->width = x->picture.width;
    x->info->height = x->picture.height;
    for (int64_t i = 0; x->frames && i < x->n_picks; i++) {
        uint8_t *out = &x->frames[(size_t)i * frame_bytes];

        if (x->begin + x->picks[i] != number)
            continue;
        if (first)
            memcpy(out, first, frame_bytes);
        else if (picture_prepare(out, &x->picture, size, x->request->processor,
                                 x->request->aspect, err) < 0)
            return -1;
        first = out;
    }
    return 0;
}

/* decoder_take: frame `which` of `wanted`. */
static int extraction_take(void *state, int64_t which, const AVFrame *frame,
                           struct err *err)
{
    struct extraction *x = state;
    const int32_t *matrix = x->index->has_matrix ? x->index->matrix : NULL;

    if (converter_run(&x->converter, &x->picture, frame, matrix, err) < 0)
        return -1;
    return extraction_prepare(x, x->wanted[which], err);
}

static int extraction_check_room(const struct extraction *x, size_t capacity_bytes,
                                 struct err *err)
{
    size_t frame_bytes = (size_t)(x->request->image_size * x->request->image_size * 3);

    if (x->frames && (size_t)x->n_picks > capacity_bytes / frame_bytes)
        return err_set(err, ERR_LIMIT,
                       "%lld frames of %lld x %lld do not fit in %zu bytes",
                       (long long)x->n_picks, (long long)x->request->image_size,
                       (long long)x->request->image_size, capacity_bytes);
    return 0;
}

static int extraction_decode(struct extraction *x, size_t capacity_bytes, struct err *err)
{
    enum decode_outcome outcome = DECODE_REMEASURED;

    /* at most twice: an index is remeasured once */
    while (outcome == DECODE_REMEASURED) {
        if (extraction_find_segment(x, err) < 0 || extraction_pick(x, err) < 0 ||
            extraction_check_room(x, capacity_bytes, err) < 0)
            return -1;
        outcome = decoder_frames(x->index, &x->source, x->limits, NULL, x->wanted,
                                 x->n_wanted, extraction_take, x, err);
    }
    return outcome == DECODE_DONE ? 0 : -1;
}

/* The same frames by the GPU; -1 with the cause. */
static int extraction_decode_on_gpu(struct extraction *x, struct gpu *gpu,
                                    size_t capacity_bytes, struct err *err)
{
    const char *complaint;
    int rc = -1;

    gpu_listen(gpu);
    if (extraction_find_segment(x, err) == 0 && extraction_pick(x, err) == 0 &&
        extraction_check_room(x, capacity_bytes, err) == 0 &&
        decoder_frames(x->index, &x->source, x->limits, gpu, x->wanted, x->n_wanted,
                       extraction_take, x, err) == DECODE_DONE)
        rc = 0;
    complaint = gpu_complaint(gpu);
    if (rc < 0 && complaint[0])
        err_set(err, ERR_UNSUPPORTED, "%s", complaint);
    return rc;
}

static int largest_difference(const uint8_t *a, const uint8_t *b, size_t n)
{
    int largest = 0;

    for (size_t i = 0; i < n; i++) {
        int difference = abs(a[i] - b[i]);

        if (difference > largest)
            largest = difference;
    }
    return largest;
}

/* Once more by the GPU, into `frames`, and how that compares with what is in x->frames. */
static int extraction_time_gpu(struct extraction *x, struct gpu *gpu, uint8_t *frames,
                               size_t n_bytes, struct choice_trial *trial,
                               struct err *err)
{
    uint8_t *cpu_frames = x->frames;
    int64_t start_ns = clock_mono_ns(), ns;
    int difference, rc;

    x->frames = frames;
    rc = extraction_decode_on_gpu(x, gpu, n_bytes, err);
    x->frames = cpu_frames;
    ns = clock_mono_ns() - start_ns;
    if (rc < 0)
        return -1;
    difference = largest_difference(cpu_frames, frames, n_bytes);
    if (difference > trial->difference)
        trial->difference = difference;
    if (trial->gpu_ns == 0 || ns < trial->gpu_ns)
        trial->gpu_ns = ns;
    return 0;
}

/* x->frames hold what the CPU made of the video in trial->cpu_ns; the GPU's turn. */
static int extraction_try_gpu(struct extraction *x, struct gpu *gpu,
                              struct choice_trial *trial, struct err *err)
{
    int64_t size = x->request->image_size;
    size_t n_bytes = (size_t)x->n_picks * (size_t)(size * size * 3);
    uint8_t *frames = malloc(n_bytes);
    int rc;

    if (!frames)
        return err_set(err, ERR_NOMEM, "no memory for frames to compare");
    rc = extraction_time_gpu(x, gpu, frames, n_bytes, trial, err);
    if (rc == 0 && trial->gpu_ns >= trial->cpu_ns && trial->gpu_ns < TRIAL_AGAIN_MAX_NS)
        rc = extraction_time_gpu(x, gpu, frames, n_bytes, trial, err);
    free(frames);
    return rc;
}

/* Decodes both ways and chooses for all videos of the kind; the frames are the CPU's. */
static int extraction_decide(struct extraction *x, struct media_session *session,
                             struct choice *choice, size_t capacity_bytes,
                             struct err *err)
{
    int64_t start_ns = clock_mono_ns();
    struct choice_trial trial = {0};
    struct err why = {0};

    if (extraction_decode(x, capacity_bytes, err) < 0)
        return -1;
    trial.cpu_ns = clock_mono_ns() - start_ns;
    if (x->index->is_linear)
        return 0;
    if (extraction_try_gpu(x, session->gpu, &trial, &why) == 0) {
        choices_decide(&session->choices, choice, &trial);
        return 0;
    }
    choices_fail(&session->choices, choice, why.text);
    x->info->gpu_failed = 1;
    return 0;
}

/* NULL: the CPU decodes it. Probes are the CPU's, which tells damage best; so are videos
 * whose frames must be counted from the first on. */
static struct choice *extraction_choice(const struct extraction *x,
                                        struct media_session *session)
{
    const AVCodecParameters *codec = x->index->codec;
    const char *format = av_get_pix_fmt_name(codec->format);
    struct choice_kind kind = {.width = codec->width, .height = codec->height};
    struct choice *choice;
    struct err why = {0};

    if (!session->gpu || !session->may_use_gpu || !x->frames || !format ||
        x->request->media.kind != MEDIA_VIDEO || x->index->is_linear)
        return NULL;
    snprintf(kind.format, sizeof(kind.format), "%s", format);
    snprintf(kind.codec, sizeof(kind.codec), "%s", avcodec_get_name(codec->codec_id));
    choice = choices_find(&session->choices, &kind);
    if (choice && choice->state == CHOICE_OPEN &&
        !gpu_find_decoder(codec->codec_id, &why))
        choices_exclude(&session->choices, choice, why.text);
    return choice;
}

static int extraction_decode_anywhere(struct extraction *x, struct media_session *session,
                                      size_t capacity_bytes, struct err *err)
{
    struct choice *choice = extraction_choice(x, session);
    struct err why = {0};

    if (!choice || choice->state == CHOICE_CPU)
        return extraction_decode(x, capacity_bytes, err);
    if (choice->state == CHOICE_OPEN)
        return extraction_decide(x, session, choice, capacity_bytes, err);
    if (extraction_decode_on_gpu(x, session->gpu, capacity_bytes, &why) == 0) {
        choices_succeed(choice);
        x->info->on_gpu = 1;
        return 0;
    }
    if (extraction_decode(x, capacity_bytes, err) < 0)
        return -1; /* the video's fault, not the GPU's */
    choices_fail(&session->choices, choice, why.text);
    x->info->gpu_failed = 1;
    return 0;
}

static void extraction_describe(const struct extraction *x)
{
    struct media_info *info = x->info;
    int64_t n = x->index->n_shown;

    info->n_source_frames = x->end - x->begin;
    info->n_frames = x->n_picks;
    info->fps = index_fps(x->index);
    info->duration_s = index_time(x->index, n - 1) + 1 / info->fps;
    snprintf(info->codec, sizeof(info->codec), "%s",
             avcodec_get_name(x->index->codec->codec_id));
}

/* A still picture has one frame, and no time. */
static int extraction_run_still(struct extraction *x, enum still_kind kind,
                                size_t capacity_bytes, struct err *err)
{
    x->begin = 0;
    x->end = 1;
    if (extraction_pick(x, err) < 0 ||
        extraction_check_room(x, capacity_bytes, err) < 0 ||
        still_decode(&x->picture, kind, &x->source, x->limits, err) < 0)
        return -1;
    x->info->n_source_frames = x->info->n_frames = 1;
    x->info->fps = STILL_FPS;
    x->info->duration_s = 1 / x->info->fps;
    snprintf(x->info->codec, sizeof(x->info->codec), "%s", still_codec(kind));
    return extraction_prepare(x, 0, err);
}

static int extraction_run(struct extraction *x, struct media_session *session,
                          size_t capacity_bytes, struct err *err)
{
    enum still_kind kind =
        x->request->media.kind == MEDIA_IMAGE ? still_find_kind(&x->source) : STILL_NONE;

    if (kind != STILL_NONE)
        return extraction_run_still(x, kind, capacity_bytes, err);
    if (session_get_index(session, x, err) < 0 ||
        check_pixels(x, x->index->codec, err) < 0 ||
        extraction_decode_anywhere(x, session, capacity_bytes, err) < 0)
        return -1;
    extraction_describe(x);
    return 0;
}

static int check_request(const struct frame_request *request, struct err *err)
{
    if (request->image_size < 1 || request->image_size > IMAGE_SIZE_MAX)
        return err_set(err, ERR_INVALID, "image_size %lld is not from 1 to %d",
                       (long long)request->image_size, IMAGE_SIZE_MAX);
    if (request->num_frames < -1 || request->num_frames == 0)
        return err_set(err, ERR_INVALID, "num_frames %lld is neither positive nor -1",
                       (long long)request->num_frames);
    return media_check_processor(request->processor, request->aspect, err);
}

int media_session_frames(struct media_session *session, uint8_t *frames,
                         size_t capacity_bytes, struct media_info *info,
                         const struct frame_request *request,
                         const struct media_limits *limits, struct err *err)
{
    struct extraction x = {
        .request = request, .limits = limits, .frames = frames, .info = info};
    int rc;

    memset(info, 0, sizeof(*info));
    if (check_request(request, err) < 0 ||
        source_open(&x.source, &request->media, err) < 0)
        return -1;
    rc = extraction_run(&x, session, capacity_bytes, err);
    if (rc < 0)
        err_wrap(err, "'%s'", request->media.path);
    picture_fini(&x.picture);
    converter_fini(&x.converter);
    free(x.picks);
    free(x.wanted);
    source_close(&x.source);
    return rc;
}

int media_frames(uint8_t *out, size_t capacity_bytes, struct media_info *info,
                 const struct frame_request *request, const struct media_limits *limits,
                 struct err *err)
{
    struct media_session *session;
    int rc;

    if (media_session_create(&session, err) < 0)
        return -1;
    rc = media_session_frames(session, out, capacity_bytes, info, request, limits, err);
    media_session_destroy(session);
    return rc;
}
