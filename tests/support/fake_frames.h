/* fake_frames.h - a frame_service for tests of prepare: no decoder, the same refusals
 *
 * A medium is a small text: "frames N" is a video of N frames, all pixels of frame i have
 * the value i + N; anything else does not decode. Its queue is short, so that callers
 * meet ERR_LIMIT. Fault point test.media lies in every wait.
 */
#ifndef VNEVA_TESTS_SUPPORT_FAKE_FRAMES_H
#define VNEVA_TESTS_SUPPORT_FAKE_FRAMES_H

#include "dataprep/media/media.h"

#define FAKE_SLOTS 4

struct fake_frames {
    struct {
        bool is_used, only_probe;
        struct frame_request request;
        uint8_t *frames;
    } slots[FAKE_SLOTS];
    int n_requests;          /* so far */
    int n_taken, most_taken; /* slots now, and at most at any time */
};

struct frame_service fake_frames_service(struct fake_frames *fake);

#endif
