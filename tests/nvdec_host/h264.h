/* h264.h - the parameter sets that a hardware decoder's picture parameters were read from
 *
 * A driver is given the slices of a picture and what the sets before them say as numbers; a
 * software decoder wants them as bits again. Covered is what x264 writes: order counts of
 * type 0 and 2, flat scaling matrices, one slice group, sets of number 0.
 * Source: ITU-T H.264, 7.3.2.
 */
#ifndef VNEVA_TESTS_NVDEC_HOST_H264_H
#define VNEVA_TESTS_NVDEC_HOST_H264_H

#include <ffnvcodec/dynlink_cuda.h>

#include <ffnvcodec/dynlink_cuviddec.h>
#include <stddef.h>
#include <stdint.h>

#define H264_HEADERS_MAX 256

/* Returns bytes written to out, two NAL units with start codes. */
size_t h264_write_headers(uint8_t *out, size_t capacity, const CUVIDPICPARAMS *picture);

#endif
