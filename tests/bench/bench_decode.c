/* bench_decode FILE... - seconds to take 8 frames of each video, prepared at 224 x 224
 *
 * One line a file: path, seconds of the first request, seconds of a second one, whose
 * index is kept. bench_decode.py puts them beside PyAV and decord.
 */
#include "common/base/clock.h"
#include "dataprep/media/session.h"

#include <stdio.h>
#include <stdlib.h>

#define SIZE 224
#define N_FRAMES 8

static double seconds_of_request(struct media_session *session, const char *path,
                                 uint8_t *frames, struct err *err)
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
    return (double)(clock_mono_ns() - start_ns) * 1e-9;
}

static int bench_file(const char *path, uint8_t *frames)
{
    struct media_session *session;
    struct err err = {0};
    double first, second;

    if (media_session_create(&session, &err) < 0)
        return -1;
    first = seconds_of_request(session, path, frames, &err);
    second = first < 0 ? -1 : seconds_of_request(session, path, frames, &err);
    media_session_destroy(session);
    if (second < 0) {
        fprintf(stderr, "bench_decode: %s\n", err.text);
        return -1;
    }
    printf("%s\t%.6f\t%.6f\n", path, first, second);
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
