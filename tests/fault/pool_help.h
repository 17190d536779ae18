/* pool_help.h - a pool of decoder processes and one clip for it, for tests of what happens
 * to them (cmocka)
 */
#ifndef VNEVA_TESTS_FAULT_POOL_HELP_H
#define VNEVA_TESTS_FAULT_POOL_HELP_H

#include "tests/integration/media_clips.h"
#include "worker/decode/pool.h"

#define POOL_CLIP_FRAMES 40
#define POOL_SIZE 64 /* of the frames asked for */
#define POOL_FRAME_BYTES (POOL_SIZE * POOL_SIZE * 3)

struct pool_fixture {
    char clip[CLIP_PATH_BYTES], program[512];
    struct decode_pool_config config; /* what pool_start makes; tests change it before */
    struct decode_pool *pool;
    struct frame_service service;
};

/* A folder with the clip, encoded so; a configuration of one process with a deadline of a
 * minute. Sets *state; returns 1 or -1 where the clip cannot be written. */
int pool_setup(void **state, const struct encode_settings *settings);
/* Ends the pool, removes the folder, and forgets faults that a test has set. */
int pool_teardown(void **state);

void pool_start(struct pool_fixture *f);
/* A ticket; the request must be taken. */
int64_t pool_submit(struct pool_fixture *f, const struct frame_request *request);
/* Waits for a ticket that must fail, says how and returns its code. */
enum err_code pool_expect_failure(struct pool_fixture *f, int64_t ticket);

/* Files beside the clip that cannot be decoded, and requests for them: a text; a sound PNG
 * of 6000 x 6000 pixels, small as a file, 108 MB as RGB. */
struct frame_request pool_make_text(void);
struct frame_request pool_make_bomb(void);

#endif
