/* nal.h - what the packets of H.264 and HEVC say about how they may be decoded
 *
 * Sources: ITU-T H.264 (7.3.1 NAL units, D.1.8 recovery point), ITU-T H.265 (7.3.1.2),
 * ISO/IEC 14496-15 (length-prefixed units). Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_NAL_H
#define VNEVA_DATAPREP_MEDIA_NAL_H

#include <libavcodec/avcodec.h>
#include <stdbool.h>

/* Whether a packet flagged as key frame is one from which everything shown later decodes
 * exactly. Not so: the start of a periodic intra refresh, which needs frames to recover.
 * True for codecs without such a thing. */
bool nal_is_clean_start(const AVCodecParameters *codec, const AVPacket *packet);

/* Highest temporal layer of an HEVC packet's slices; 0 for other codecs. */
int nal_temporal_layer(const AVCodecParameters *codec, const AVPacket *packet);

#endif
