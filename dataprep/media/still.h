/* still.h - photographs as Pillow decodes them: JPEG by libjpeg, WebP by libwebp
 *
 * FFmpeg makes the missing colours between those that such files hold by another filter
 * than these libraries, which is how the reference sees them; at edges the difference is
 * up to a third of the range. PNG and the like hold every pixel and stay FFmpeg's. As in
 * Pillow and NeMo, Exif's orientation is not applied and transparency is dropped.
 * Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_STILL_H
#define VNEVA_DATAPREP_MEDIA_STILL_H

#include "dataprep/media/picture.h"
#include "dataprep/media/source.h"

#define STILL_MAX_BYTES (256u << 20)

enum still_kind { STILL_NONE, STILL_JPEG, STILL_WEBP };

/* By its first bytes. An animated WebP is none. */
enum still_kind still_find_kind(const struct source *source);
const char *still_codec(enum still_kind kind); /* as FFmpeg names it */

/* ERR_FORMAT: truncated, damaged or of a kind that the library does not know; ERR_LIMIT:
 * over the cap of pixels or bytes, or out of the memory it may use. */
int still_decode(struct picture *out, enum still_kind kind, const struct source *source,
                 const struct media_limits *limits, struct err *err);

/* The whole file in memory; called by still_decode. */
int jpeg_decode(struct picture *out, const uint8_t *bytes, size_t n_bytes,
                const struct media_limits *limits, struct err *err);

#endif
