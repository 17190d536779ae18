#include "dataprep/media/media.h"

static int64_t pick_spliced(enum media_splice splice, int64_t n)
{
    switch (splice) {
    case MEDIA_SPLICE_MIDDLE:
        return n / 2;
    case MEDIA_SPLICE_LAST:
        return n - 1;
    default:
        return 0;
    }
}

/* numpy.linspace(0, n - 1, k, dtype=int): i * step in double, truncated; the last is
 * exact; one alone is 0. */
static int64_t pick_linspace(int64_t i, int64_t n, int64_t k)
{
    if (k > 1 && i == k - 1)
        return n - 1;
    return k > 1 ? (int64_t)((double)i * ((double)(n - 1) / (double)(k - 1))) : 0;
}

int64_t media_pick_frames(int64_t *out, const struct frame_request *request, int64_t n)
{
    int64_t wanted = request->num_frames;
    int64_t k;

    if (n <= 0)
        return 0;
    if (request->media.kind == MEDIA_IMAGE) {
        out[0] = 0;
        return 1;
    }
    if (request->splice != MEDIA_SPLICE_NONE) {
        out[0] = pick_spliced(request->splice, n);
        return 1;
    }
    if (wanted < 0)
        wanted = n;
    k = wanted < n ? wanted : n;
    for (int64_t i = 0; i < k; i++)
        out[i] = pick_linspace(i, n, k);
    for (int64_t i = k; i < wanted; i++)
        out[i] = n - 1;
    return wanted;
}
