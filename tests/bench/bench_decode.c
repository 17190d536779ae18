/* bench_decode FILE... - seconds to take 8 frames of each video, prepared at 224 x 224
 *
 * One line a file: path, seconds of the first request, seconds of a second one, whose
 * index is kept, seconds of such a second one on the GPU ("-": not measured, standard error
 * says why). bench_decode.py puts them beside PyAV and decord.
 */
#include "common/base/clock.h"
#include "dataprep/media/session.h"

#include <stdio.h>
#include <stdlib.h>

#define SIZE 224
#define N_FRAMES 8

/* *on_gpu: whether a GPU decoded; NULL: nobody asks. -1: failed. */
static double seconds_of_request(struct media_session *session, const char *path,
                                 uint8_t *frames, bool *on_gpu, struct err *err)
{
    const struct media_limits limits = {.max_pixels = INT64_C(1) << 28,
                                        .max_frames = INT64_C(1) << 20};
    struct frame_request request = {.num_frames = N_FRAMES, .image_size = SIZE};
    struct media_info info;
    int64_t start_ns = clock_mono_ns();

    snprintf(request.media.path, sizeof(request.media.path), "%s", path);
    if (media_session_frames(session, frames, (size_t)N_FRAMES * SIZE * SIZE * 3, &info,
                             &request, &limits, err) < 0)
        return -1;
    if (on_gpu)
        *on_gpu = info.on_gpu;
    return (double)(clock_mono_ns() - start_ns) * 1e-9;
}

/* The first request tries the GPU, and tells what it decided; a second one is timed. */
static double seconds_on_gpu(const char *path, uint8_t *frames)
{
    struct media_session *session = NULL;
    struct err err = {0};
    bool on_gpu = false;
    double seconds = -1;
    const char *note;

    if (media_session_create(&session, &err) < 0 ||
        media_session_open_gpu(session, MEDIA_DECODE_CUDA, 0, &err) < 0) {
        fprintf(stderr, "cuda: not measured: no NVDEC: %s\n", err.text);
        media_session_destroy(session);
        return -1;
    }
    if (seconds_of_request(session, path, frames, NULL, &err) >= 0)
        seconds = seconds_of_request(session, path, frames, &on_gpu, &err);
    while ((note = media_session_take_note(session)))
        fprintf(stderr, "cuda: %s\n", note);
    media_session_destroy(session);
    return on_gpu ? seconds : -1;
}

static int bench_file(const char *path, uint8_t *frames)
{
    struct media_session *session;
    struct err err = {0};
    double first, second, gpu;

    if (media_session_create(&session, &err) < 0)
        return -1;
    first = seconds_of_request(session, path, frames, NULL, &err);
    second = first < 0 ? -1 : seconds_of_request(session, path, frames, NULL, &err);
    media_session_destroy(session);
    if (second < 0) {
        fprintf(stderr, "bench_decode: %s\n", err.text);
        return -1;
    }
    gpu = seconds_on_gpu(path, frames);
    printf("%s\t%.6f\t%.6f\t", path, first, second);
    if (gpu < 0)
        puts("-");
    else
        printf("%.6f\n", gpu);
    return 0;
}

int main(int argc, char **argv)
{
    uint8_t *frames = malloc((size_t)N_FRAMES * SIZE * SIZE * 3);
    int rc = 0;

    if (argc < 2 || !frames) {
        fprintf(stderr, "usage: bench_decode FILE...\n");
        free(frames);
        return 2;
    }
    for (int i = 1; i < argc; i++)
        if (bench_file(argv[i], frames) < 0)
            rc = 1;
    free(frames);
    return rc;
}
