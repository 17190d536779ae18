/* Damaged, cut and wrongly named files are rejected with a reason, and cost nothing. */
#include "common/base/fs.h"
#include "dataprep/media/session.h"
#include "tests/integration/media_clips.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_FRAMES 60
#define N_CUTS 10

static struct frame_request write_file(const char *name, const void *bytes,
                                       size_t n_bytes)
{
    char path[CLIP_PATH_BYTES];

    clip_path(path, name);
    assert_int_equal(fs_write_file_atomic(path, bytes, n_bytes, NULL), 0);
    return clip_request(path, 8);
}

static struct frame_request write_clip(const char *name, struct encode_settings settings,
                                       struct buf *bytes)
{
    struct frame_request request;
    char path[CLIP_PATH_BYTES];

    clip_path(path, name);
    assert_int_equal(clip_write(path, &settings, N_FRAMES, false), 0);
    request = clip_request(path, 8);
    if (bytes)
        assert_int_equal(fs_read_file(bytes, path, 1 << 24, NULL), 0);
    return request;
}

/* 0 when all frames came, else -1 and the reason in *err. */
static int extract(const struct frame_request *request, struct err *err)
{
    static uint8_t frames[8 * 64 * 64 * 3];
    struct media_info info;

    *err = (struct err){0};
    return media_frames(frames, sizeof(frames), &info, request, &clip_limits, err);
}

static void expect_reject(const struct frame_request *request, const char *reason)
{
    struct err err;

    assert_int_equal(extract(request, &err), -1);
    assert_int_equal(err.code, ERR_FORMAT);
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
}

static void a_file_cut_anywhere_is_rejected(void **state)
{
    static const struct {
        const char *name;
        struct encode_settings settings;
    } clips[] = {
        {"cut.mp4", {.codec = "mpeg4", .b_frames = 2, .options = "b=1000000"}},
        {"cutfast.mp4",
         {.codec = "libx264",
          .gop_frames = 12,
          .b_frames = 2,
          .options = "preset=ultrafast",
          .mux_options = "movflags=faststart"}},
        {"cut.avi", {.codec = "mpeg4", .b_frames = 0, .options = "b=1000000"}},
        {"cut.mkv", {.codec = "mpeg4", .b_frames = 2, .options = "b=1000000"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(clips) / sizeof(*clips); i++) {
        struct buf bytes = BUF_INIT;
        struct frame_request request =
            write_clip(clips[i].name, clips[i].settings, &bytes);
        struct err err;

        assert_int_equal(extract(&request, &err), 0);
        for (size_t cut = 1; cut <= N_CUTS; cut++) {
            request =
                write_file(clips[i].name, bytes.data, bytes.n_bytes * cut / (N_CUTS + 1));
            assert_int_equal(extract(&request, &err), -1);
            assert_int_equal(err.code, ERR_FORMAT);
            if (!strstr(err.text, "truncated"))
                fail_msg("cut %zu of %s: '%s'", cut, clips[i].name, err.text);
        }
        buf_fini(&bytes);
    }
}

static void frames_before_a_cut_can_still_be_had(void **state)
{
    struct encode_settings settings = {.codec = "mpeg4",
                                       .gop_frames = 6,
                                       .b_frames = 0,
                                       .options = "b=1000000",
                                       .mux_options = "movflags=faststart"};
    struct buf bytes = BUF_INIT;
    struct frame_request request = write_clip("half.mp4", settings, &bytes);
    struct err err;

    (void)state;
    request = write_file("half.mp4", bytes.data, bytes.n_bytes / 2);
    request.media.end_s = 0.5;
    assert_int_equal(extract(&request, &err), 0);
    request.media.end_s = 2.3;
    expect_reject(&request, "truncated");
    buf_fini(&bytes);
}

static void what_is_no_video_is_rejected_with_its_reason(void **state)
{
    static const char text[] = "a caption\nand another\n";
    /* a WAV file: 8,000 samples a second of silence */
    uint8_t wav[44 + 800] =
        "RIFF\x44\x03\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40"
        "\x1f\0\0\x01\0\x08\0data\x20\x03\0\0";
    uint8_t noise[4096];
    struct frame_request request;

    (void)state;
    request = write_file("empty.mp4", "", 0);
    expect_reject(&request, "empty");
    request = write_file("text.mp4", text, sizeof(text) - 1);
    expect_reject(&request, "text");
    request = write_file("sound.mp4", wav, sizeof(wav));
    expect_reject(&request, "neither a video nor an image");
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)(i * i * 7 + i / 3);
    request = write_file("noise.mp4", noise, sizeof(noise));
    expect_reject(&request, "not a media file");
    clip_path(request.media.path, "."); /* the folder itself */
    expect_reject(&request, "not a regular file");
}

static void a_segment_without_frames_is_rejected(void **state)
{
    struct encode_settings settings = {
        .codec = "mpeg4", .b_frames = 0, .options = "b=1000000"};
    struct frame_request request = write_clip("short.mp4", settings, NULL);

    (void)state;
    request.media.start_s = 100;
    request.media.end_s = 101;
    expect_reject(&request, "no frame between");
}

static void limits_hold_before_anything_is_decoded(void **state)
{
    struct encode_settings settings = {
        .codec = "mpeg4", .b_frames = 0, .options = "b=1000000"};
    struct frame_request request = write_clip("limits.mp4", settings, NULL);
    struct media_limits limits = {.max_pixels = CLIP_WIDTH * CLIP_HEIGHT - 1,
                                  .max_frames = N_FRAMES};
    uint8_t frames[8 * 64 * 64 * 3];
    struct media_info info;
    struct err err = {0};

    (void)state;
    assert_int_equal(media_frames(frames, sizeof(frames), &info, &request, &limits, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT);
    limits = (struct media_limits){.max_pixels = 1 << 20, .max_frames = N_FRAMES - 1};
    request.num_frames = -1;
    assert_int_equal(media_frames(frames, sizeof(frames), &info, &request, &limits, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT);
    limits.max_frames = N_FRAMES;
    assert_int_equal(media_frames(frames, sizeof(frames), &info, &request, &limits, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT); /* they do not fit in the buffer */
}

static void flip(struct buf *bytes, size_t i)
{
    for (size_t k = 0; k < 4; k++)
        bytes->data[(i * 7919 + k * 104729) % bytes->n_bytes] ^= (char)(1 << (i % 8));
}

/* Bytes changed here and there: anything may come out but a crash. */
static void flipped_bytes_crash_nothing(void **state)
{
    struct encode_settings settings = {.codec = "libx264",
                                       .gop_frames = 12,
                                       .b_frames = 2,
                                       .options = "preset=ultrafast"};
    struct buf bytes = BUF_INIT;
    struct frame_request request = write_clip("flip.mp4", settings, &bytes);
    int n_rejected = 0;

    (void)state;
    for (size_t i = 0; i < 60; i++) {
        struct err err;

        flip(&bytes, i);
        request = write_file("flip.mp4", bytes.data, bytes.n_bytes);
        n_rejected += extract(&request, &err) < 0;
        flip(&bytes, i); /* back */
    }
    print_message("    %d of 60 rejected\n", n_rejected);
    assert_true(n_rejected > 0);
    buf_fini(&bytes);
}

static long resident_kb(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    char line[128] = "", *second;

    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    fclose(file);
    second = strchr(line, ' '); /* the resident pages (proc(5)) */
    assert_non_null(second);
    return strtol(second, NULL, 10) * (sysconf(_SC_PAGESIZE) / 1024);
}

static void a_thousand_opens_leave_no_memory_behind(void **state)
{
    struct encode_settings settings = {
        .codec = "mpeg4", .b_frames = 2, .options = "b=1000000"};
    struct frame_request good = write_clip("often.mp4", settings, NULL);
    struct frame_request bad = write_file("often.txt", "text", 4);
    long before_kb = 0, grown_kb;
    struct err err;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(extract(i % 10 == 9 ? &bad : &good, &err), i % 10 == 9 ? -1 : 0);
        if (i == 20) /* what stays is loaded by now */
            before_kb = resident_kb();
    }
    grown_kb = resident_kb() - before_kb;
    print_message("    grown by %ld kB\n", grown_kb);
#ifdef __SANITIZE_ADDRESS__
    print_message("    skip: AddressSanitizer keeps what is freed\n");
#else
    assert_true(grown_kb < 20 << 10);
#endif
}

static const char *const photos[] = {"chelsea.jpg", "coffee_cmyk.jpg", "coffee.webp"};

static void read_photo(struct buf *out, const char *name)
{
    char path[FS_PATH_MAX];
    struct err err;

    if (fs_path(path, &err, "%s/tests/golden/photo_%s", getenv("VNEVA_SOURCE"), name) <
            0 ||
        fs_read_file(out, path, 1 << 20, &err) < 0)
        fail_msg("%s", err.text);
}

static struct frame_request write_photo(const char *bytes, size_t n_bytes)
{
    struct frame_request request = write_file("photo", bytes, n_bytes);

    request.media.kind = MEDIA_IMAGE;
    return request;
}

/* Their libraries would fill what is missing with grey and go on. */
static void a_photograph_cut_anywhere_is_rejected(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(photos) / sizeof(*photos); i++) {
        struct buf bytes = BUF_INIT;
        struct frame_request request;
        struct err err;

        read_photo(&bytes, photos[i]);
        for (size_t cut = 1; cut <= N_CUTS; cut++) {
            request = write_photo(bytes.data, bytes.n_bytes * cut / (N_CUTS + 1));
            assert_int_equal(extract(&request, &err), -1);
            assert_int_equal(err.code, ERR_FORMAT);
        }
        /* what stands behind the end is no part of the picture */
        buf_add_str(&bytes, "and a thumbnail");
        request = write_photo(bytes.data, bytes.n_bytes);
        assert_int_equal(extract(&request, &err), 0);
        buf_fini(&bytes);
    }
}

static void flipped_bytes_of_photographs_crash_nothing(void **state)
{
    int n_rejected = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(photos) / sizeof(*photos); i++) {
        struct buf bytes = BUF_INIT;

        read_photo(&bytes, photos[i]);
        for (size_t at = 3; at < bytes.n_bytes; at += 1 + at / 8) {
            struct frame_request request;
            struct err err;

            bytes.data[at] ^= 0x55;
            request = write_photo(bytes.data, bytes.n_bytes);
            n_rejected += extract(&request, &err) < 0;
            bytes.data[at] ^= 0x55;
        }
        buf_fini(&bytes);
    }
    assert_true(n_rejected > 0);
}

static void a_photograph_over_the_cap_is_rejected(void **state)
{
    const struct media_limits limits = {.max_pixels = 100 * 100, .max_frames = 1};

    (void)state;
    for (size_t i = 0; i < sizeof(photos) / sizeof(*photos); i++) {
        struct buf bytes = BUF_INIT;
        struct frame_request request;
        struct media_info info;
        struct err err = {0};

        read_photo(&bytes, photos[i]);
        request = write_photo(bytes.data, bytes.n_bytes);
        assert_int_equal(media_frames(NULL, 0, &info, &request, &limits, &err), -1);
        assert_int_equal(err.code, ERR_LIMIT);
        assert_non_null(strstr(err.text, "over the cap of 10000 pixels"));
        buf_fini(&bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_cut_anywhere_is_rejected),
        cmocka_unit_test(frames_before_a_cut_can_still_be_had),
        cmocka_unit_test(what_is_no_video_is_rejected_with_its_reason),
        cmocka_unit_test(a_segment_without_frames_is_rejected),
        cmocka_unit_test(limits_hold_before_anything_is_decoded),
        cmocka_unit_test(flipped_bytes_crash_nothing),
        cmocka_unit_test(a_thousand_opens_leave_no_memory_behind),
        cmocka_unit_test(a_photograph_cut_anywhere_is_rejected),
        cmocka_unit_test(flipped_bytes_of_photographs_crash_nothing),
        cmocka_unit_test(a_photograph_over_the_cap_is_rejected),
    };

    return cmocka_run_group_tests(tests, clip_folder_make, clip_folder_remove);
}
