#include "tests/fault/pool_help.h"

#include "common/base/fs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int pool_setup(void **state, const struct encode_settings *settings)
{
    struct pool_fixture *f = calloc(1, sizeof(*f));

    if (!f || clip_folder_make(state) < 0)
        return -1;
    *state = f;
    clip_path(f->clip, "clip.mp4");
    snprintf(f->program, sizeof(f->program), "%s/vneva-decode", getenv("VNEVA_BIN"));
    f->config = (struct decode_pool_config){.n_processes = 1,
                                            .n_slots = 16,
                                            .slot_bytes = 8 * POOL_FRAME_BYTES,
                                            .deadline_ms = 60000,
                                            .memory_bytes = 1 << 30,
                                            .limits = clip_limits,
                                            .program = f->program};
    return clip_write(f->clip, settings, POOL_CLIP_FRAMES, false);
}

int pool_teardown(void **state)
{
    struct pool_fixture *f = *state;

    decode_pool_destroy(f->pool);
    free(f);
    unsetenv("VNEVA_FAULT");
    unsetenv("NVDEC_HOST_FAULT");
    return clip_folder_remove(state);
}

void pool_start(struct pool_fixture *f)
{
    struct err err = {0};

    if (decode_pool_create(&f->pool, &f->config, &err) < 0)
        fail_msg("%s", err.text);
    f->service = decode_pool_service(f->pool);
}

int64_t pool_submit(struct pool_fixture *f, const struct frame_request *request)
{
    struct err err = {0};
    int64_t ticket = 0;

    if (f->service.submit(f->service.state, request, false, &ticket, &err) < 0)
        fail_msg("%s", err.text);
    return ticket;
}

enum err_code pool_expect_failure(struct pool_fixture *f, int64_t ticket)
{
    const uint8_t *frames;
    struct media_info info;
    struct err err = {0};

    assert_int_equal(f->service.wait(f->service.state, ticket, &frames, &info, &err), -1);
    print_message("    %s\n", err.text);
    f->service.release(f->service.state, ticket);
    return err.code;
}

struct frame_request pool_make_text(void)
{
    char path[CLIP_PATH_BYTES];

    clip_path(path, "text.mp4");
    assert_int_equal(fs_write_file_atomic(path, "hello, world\n", 13, NULL), 0);
    return clip_request(path, 4);
}

struct frame_request pool_make_bomb(void)
{
    uint8_t *rgb = calloc(6000 * 6000, 3), *png;
    char path[CLIP_PATH_BYTES];
    struct frame_request request;
    size_t n_png;

    clip_path(path, "bomb.png");
    assert_non_null(rgb);
    assert_int_equal(media_encode_png(&png, &n_png, rgb, 6000, 6000, NULL), 0);
    assert_int_equal(fs_write_file_atomic(path, png, n_png, NULL), 0);
    free(rgb);
    free(png);
    request = clip_request(path, 1);
    request.media.kind = MEDIA_IMAGE;
    return request;
}
