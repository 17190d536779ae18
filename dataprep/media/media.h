/* media.h - from a video or image to the frames a model sees
 *
 * Opens a file or a member of a tar, finds the frames a sample wants, decodes exactly
 * those, and preprocesses them as Hugging Face's CLIPImageProcessor or
 * SiglipImageProcessor do (bicubic with antialias on uint8); normalisation is left to the
 * model. FFmpeg stays in this folder.
 * These calls open hostile files: outside of tests only vneva-decode makes them, in a
 * process that can be killed. Everybody else asks through a frame_service.
 *
 * Frame i is the i-th in presentation order (frames an edit list hides are not counted),
 * the display matrix applied. Within [start_s, end_s) of a media_ref the frames counted
 * are those whose presentation time, from the beginning of the video, lies in it.
 * Threads: one caller per object. Units: seconds as double, bytes, pixels.
 */
#ifndef VNEVA_DATAPREP_MEDIA_MEDIA_H
#define VNEVA_DATAPREP_MEDIA_MEDIA_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEDIA_PATH_MAX 1024

enum media_kind { MEDIA_VIDEO, MEDIA_IMAGE };
enum media_splice {
    MEDIA_SPLICE_NONE,
    MEDIA_SPLICE_FIRST,
    MEDIA_SPLICE_MIDDLE,
    MEDIA_SPLICE_LAST
};
enum media_aspect { MEDIA_ASPECT_SQUARE, MEDIA_ASPECT_PAD, MEDIA_ASPECT_KEEP };
/* Who decodes videos: the CPU; whatever is faster; a GPU wherever it can. */
enum media_decode { MEDIA_DECODE_CPU, MEDIA_DECODE_AUTO, MEDIA_DECODE_CUDA };
enum media_processor { MEDIA_PROCESSOR_CLIP, MEDIA_PROCESSOR_SIGLIP };

/* Where the bytes are. A plain file: offset 0, n_bytes 0. A tar member: its place. */
struct media_ref {
    enum media_kind kind;
    char path[MEDIA_PATH_MAX];
    uint64_t offset, n_bytes;
    double start_s, end_s; /* end_s 0: to the end */
};

struct frame_request {
    struct media_ref media;
    int64_t
        num_frames; /* as NeMo: linspace(0, n-1, num_frames) truncated to integers, the
                           last repeated when there are fewer; -1: all */
    enum media_splice splice; /* one frame instead */
    int64_t image_size;       /* S: frames come out [S,S,3] RGB */
    enum media_aspect aspect;
    enum media_processor processor;
};

struct media_limits {
    int64_t max_pixels; /* per frame, before scaling */
    int64_t max_frames; /* of the whole segment (for num_frames -1) */
};

struct media_info {
    int64_t n_source_frames; /* in the segment */
    int64_t n_frames;        /* that the request gives */
    int64_t width, height;   /* upright, before scaling */
    double fps, duration_s;
    char codec[32];
    uint8_t on_gpu;     /* 1: a GPU decoded these frames */
    uint8_t gpu_failed; /* 1: it should have, and the CPU did */
};

/* Numbers of the frames a request picks of n source frames: out[at most max(num_frames,n)].
 * An image is one, whatever the request says. Pure. Returns how many. */
int64_t media_pick_frames(int64_t *out, const struct frame_request *request, int64_t n);

/* ERR_UNSUPPORTED: the two do not go together; says what does. */
int media_check_processor(enum media_processor processor, enum media_aspect aspect,
                          struct err *err);

/* out [n_frames of the request, S, S, 3] RGB, capacity_bytes checked. Decodes exactly.
 * out NULL: only says what the file is: opens, reads the packet index, decodes one frame. The
 * reason of a reject stands in err: empty, truncated, not a video, over the pixel cap... */
int media_frames(uint8_t *out, size_t capacity_bytes, struct media_info *info,
                 const struct frame_request *request, const struct media_limits *limits,
                 struct err *err);

/* PNG of an RGB picture [height, width, 3], for reports. Free *png with free(). */
int media_encode_png(uint8_t **png, size_t *n_bytes, const uint8_t *rgb, int64_t width,
                     int64_t height, struct err *err);

/* How the rest of the system asks for frames: worker/decode's pool of killable processes,
 * or media_direct_service in tests. */
struct frame_service {
    void *state;
    /* Queues a request; *ticket names it. ERR_LIMIT when the queue is full. only_probe: no
     * frames are wanted, just the media_info. */
    int (*submit)(void *state, const struct frame_request *request, bool only_probe,
                  int64_t *ticket, struct err *err);
    /* Waits for a ticket, in any order. *frames is borrowed until release(ticket).
     * ERR_TIMEOUT: the decoder hung and was killed; ERR_LIMIT: memory or pixel cap;
     * ERR_PEER: the decoder died; ERR_FORMAT, ERR_IO: the file. */
    int (*wait)(void *state, int64_t ticket, const uint8_t **frames,
                struct media_info *info, struct err *err);
    /* Must be called once for every ticket, waited for or not. */
    void (*release)(void *state, int64_t ticket);
    /* True when wait would return at once. NULL: it never would. */
    bool (*is_ready)(void *state, int64_t ticket);
};

/* A service that decodes in this very process, when waited for. For tests and tools. */
int media_direct_service(struct frame_service *out, const struct media_limits *limits,
                         struct err *err);
void media_direct_service_close(struct frame_service *service);

#endif
