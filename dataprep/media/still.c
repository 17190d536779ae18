#include "dataprep/media/still.h"

#include <stdlib.h>
#include <string.h>
#include <webp/decode.h>

#define HEAD_BYTES 64 /* enough for WebP's features */

enum still_kind still_find_kind(const struct source *source)
{
    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff};
    uint8_t head[HEAD_BYTES];
    int64_t n = source_read_at(source, 0, head, sizeof(head));
    WebPBitstreamFeatures features;

    if (n >= (int64_t)sizeof(jpeg) && memcmp(head, jpeg, sizeof(jpeg)) == 0)
        return STILL_JPEG;
    if (n >= 12 && memcmp(head, "RIFF", 4) == 0 && memcmp(head + 8, "WEBP", 4) == 0 &&
        WebPGetFeatures(head, (size_t)n, &features) == VP8_STATUS_OK &&
        !features.has_animation)
        return STILL_WEBP;
    return STILL_NONE;
}

const char *still_codec(enum still_kind kind)
{
    return kind == STILL_JPEG ? "mjpeg" : "webp";
}

static int webp_decode(struct picture *out, const uint8_t *bytes, size_t n_bytes,
                       const struct media_limits *limits, struct err *err)
{
    int width = 0, height = 0;

    if (!WebPGetInfo(bytes, n_bytes, &width, &height))
        return err_set(err, ERR_FORMAT, "damaged WebP");
    if ((int64_t)width * height > limits->max_pixels)
        return err_set(err, ERR_LIMIT,
                       "frames of %d x %d are over the cap of %lld pixels", width, height,
                       (long long)limits->max_pixels);
    if (picture_reserve(out, width, height, err) < 0)
        return -1;
    if (!WebPDecodeRGBInto(bytes, n_bytes, out->rgb, (size_t)width * (size_t)height * 3,
                           width * 3))
        return err_set(err, ERR_FORMAT,
                       "damaged or truncated WebP, or it takes more memory than there "
                       "is");
    return 0;
}

static int read_bytes(uint8_t **out, const struct source *source, struct err *err)
{
    if (source->n_bytes > STILL_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "a picture of %llu bytes, at most %u are read",
                       (unsigned long long)source->n_bytes, STILL_MAX_BYTES);
    *out = malloc((size_t)source->n_bytes);
    if (!*out)
        return err_set(err, ERR_LIMIT, "no memory for a file of %llu bytes",
                       (unsigned long long)source->n_bytes);
    if (source_read_at(source, 0, *out, (size_t)source->n_bytes) !=
        (int64_t)source->n_bytes)
        return err_set(err, ERR_IO, "cannot read all of it");
    return 0;
}

int still_decode(struct picture *out, enum still_kind kind, const struct source *source,
                 const struct media_limits *limits, struct err *err)
{
    uint8_t *bytes = NULL;
    int rc = read_bytes(&bytes, source, err);

    if (rc == 0 && kind == STILL_JPEG)
        rc = jpeg_decode(out, bytes, (size_t)source->n_bytes, limits, err);
    else if (rc == 0)
        rc = webp_decode(out, bytes, (size_t)source->n_bytes, limits, err);
    free(bytes);
    return rc;
}
