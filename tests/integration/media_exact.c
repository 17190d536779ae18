/* Compares media_frames with a plain decode of the whole file, bit for bit.
 *
 *     media_exact FILE...
 *
 * Without a FILE it is a skip (77): the real videos are not part of the project; fetch
 * them with jobs/quickstart/fetch_videos.sh.
 */
#include "common/base/clock.h"
#include "common/base/rng.h"
#include "dataprep/media/session.h"
#include "tests/integration/media_linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 48
#define FRAME_BYTES ((size_t)SIZE * SIZE * 3)
#define N_SEGMENTS 25

static const struct media_limits limits = {.max_pixels = INT64_C(1) << 26,
                                           .max_frames = 1 << 20};

struct tally {
    int64_t n_requests, n_frames, n_wrong, n_failed;
    double seconds;
};

/* One request against the frames [begin, end) of the linear decode. */
static void compare_request(struct tally *tally, struct media_session *session,
                            const struct linear_video *video,
                            const struct frame_request *request, int64_t begin,
                            int64_t end)
{
    int64_t n = end - begin;
    int64_t *picks = malloc((size_t)(request->num_frames > n ? request->num_frames : n) *
                            sizeof(*picks));
    int64_t n_picks = media_pick_frames(picks, request, n);
    uint8_t *frames = malloc((size_t)n_picks * FRAME_BYTES);
    struct media_info info;
    struct err err = {0};
    int64_t start_ns = clock_mono_ns();

    tally->n_requests++;
    if (media_session_frames(session, frames, (size_t)n_picks * FRAME_BYTES, &info,
                             request, &limits, &err) < 0) {
        printf("  [%g, %g): %s\n", request->media.start_s, request->media.end_s,
               err.text);
        tally->n_failed++;
        n_picks = 0;
    } else if (info.n_source_frames != n) {
        printf("  [%g, %g): %lld frames, not %lld\n", request->media.start_s,
               request->media.end_s, (long long)info.n_source_frames, (long long)n);
        tally->n_failed++;
    }
    tally->seconds += (double)(clock_mono_ns() - start_ns) * 1e-9;
    for (int64_t i = 0; i < n_picks; i++)
        if (memcmp(&frames[(size_t)i * FRAME_BYTES],
                   &video->frames[(size_t)(begin + picks[i]) * FRAME_BYTES],
                   FRAME_BYTES) != 0)
            tally->n_wrong++;
    tally->n_frames += n_picks;
    free(picks);
    free(frames);
}

/* A segment from the middle between two frames to the middle between two later ones. */
static void compare_segment(struct tally *tally, struct media_session *session,
                            const struct linear_video *video,
                            struct frame_request *request, uint64_t number)
{
    struct rng_key key = {number, rng_stream("media-exact")};
    int64_t begin = (int64_t)rng_below(key, 0, (uint64_t)video->n);
    int64_t end = begin + 1 +
                  (int64_t)rng_below(
                      key, 1, (uint64_t)(video->n - begin < 60 ? video->n - begin : 60));

    request->media.start_s =
        begin ? (video->times[begin - 1] + video->times[begin]) / 2 : 0;
    request->media.end_s =
        end < video->n ? (video->times[end - 1] + video->times[end]) / 2 : 0;
    compare_request(tally, session, video, request, begin, end);
}

static int compare_file(const char *path)
{
    struct frame_request request = {.image_size = SIZE,
                                    .processor = MEDIA_PROCESSOR_SIGLIP};
    struct linear_video video;
    struct media_session *session = NULL;
    struct tally whole = {0}, segments = {0};
    struct err err = {0};
    int64_t start_ns = clock_mono_ns();
    double linear_s;

    if (linear_decode(&video, path, SIZE, &err) < 0 ||
        media_session_create(&session, &err) < 0) {
        printf("%s: %s\n", path, err.text);
        return -1;
    }
    linear_s = (double)(clock_mono_ns() - start_ns) * 1e-9;
    snprintf(request.media.path, sizeof(request.media.path), "%s", path);
    for (int i = 0; i < 4; i++) {
        request.num_frames = (const int64_t[]){1, 4, 8, 33}[i];
        compare_request(&whole, session, &video, &request, 0, video.n);
    }
    request.num_frames = 4;
    for (int i = 0; i < N_SEGMENTS; i++)
        compare_segment(&segments, session, &video, &request, (uint64_t)i);
    printf(
        "%-34.34s %6lld frames linear %7.3f s; whole %lld of %lld right; segments %lld "
        "of %lld right, %.4f s each; failed %lld\n",
        strrchr(path, '/') ? strrchr(path, '/') + 1 : path, (long long)video.n, linear_s,
        (long long)(whole.n_frames - whole.n_wrong), (long long)whole.n_frames,
        (long long)(segments.n_frames - segments.n_wrong), (long long)segments.n_frames,
        segments.seconds / N_SEGMENTS, (long long)(whole.n_failed + segments.n_failed));
    linear_fini(&video);
    media_session_destroy(session);
    return whole.n_wrong + segments.n_wrong + whole.n_failed + segments.n_failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    int rc = 0;

    if (argc < 2) {
        printf("skip: no video named\n");
        return 77;
    }
    for (int i = 1; i < argc; i++)
        if (compare_file(argv[i]) < 0)
            rc = 1;
    return rc;
}
