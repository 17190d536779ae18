/* media_gpu_help.h - clips for the NVDEC path over its stand-ins (tests/nvdec_host, found
 * through LD_LIBRARY_PATH), and sessions that are compared with the CPU (cmocka)
 */
#ifndef VNEVA_TESTS_MEDIA_GPU_HELP_H
#define VNEVA_TESTS_MEDIA_GPU_HELP_H

#include "dataprep/media/session.h"
#include "tests/integration/media_clips.h"

#define GPU_CLIP_FRAMES 120 /* of each clip */
#define GPU_GOP 20
#define GPU_FRAME_BYTES (64 * 64 * 3)

struct gpu_clip {
    const char *name, *file;
    struct encode_settings settings;
};

/* What a GPU can decode. */
#define GPU_CLIPS 9
#define GPU_VP9 6
#define GPU_VP9_10_BITS 7
extern const struct gpu_clip gpu_clips[GPU_CLIPS];

/* Setup of a group of tests, for clip_folder_remove: a folder, and the stand-ins' log. */
int gpu_folder_make(void **state);
/* Setup and teardown of a test: no fault is set, and the log is empty. */
int gpu_forget(void **state);

struct media_session *gpu_session_open(enum media_decode mode);
/* For the clip, which is written when it is first asked for. */
struct frame_request gpu_request(const struct gpu_clip *clip, int64_t num_frames);
void gpu_expect_note(struct media_session *session, const char *part);
void gpu_expect_no_note(struct media_session *session);
/* Asks the session, and compares with what the CPU alone gives: every byte. */
struct media_info gpu_expect_same(struct media_session *session,
                                  const struct frame_request *request);
/* The kind of this clip is the GPU's from now on. */
void gpu_take(struct media_session *session, const struct gpu_clip *clip);

#endif
