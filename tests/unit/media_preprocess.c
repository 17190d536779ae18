/* Preprocessing and the choice of frames against what Pillow, Hugging Face and numpy give
 * (tests/golden/make_media.py). */
#include "common/base/fs.h"
#include "dataprep/media/picture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct buf read_golden(const char *name)
{
    struct buf out = BUF_INIT;
    char path[FS_PATH_MAX];

    assert_int_equal(
        fs_path(path, NULL, "%s/tests/golden/%s", getenv("VNEVA_SOURCE"), name), 0);
    assert_int_equal(fs_read_file(&out, path, 1 << 24, NULL), 0);
    return out;
}

static int32_t take_int(const char **at)
{
    int32_t value;

    memcpy(&value, *at, sizeof(value));
    *at += sizeof(value);
    return value;
}

struct difference {
    int64_t n_values, n_different;
    int largest;
};

static void compare(struct difference *difference, const uint8_t *got,
                    const uint8_t *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int away = abs(got[i] - expected[i]);

        difference->n_values++;
        difference->n_different += away != 0;
        if (away > difference->largest)
            difference->largest = away;
    }
}

static void compare_picture(struct difference *difference, const char **at)
{
    struct picture picture = {0};
    int32_t size;
    uint8_t *got;

    picture.width = take_int(at);
    picture.height = take_int(at);
    size = take_int(at);
    picture.rgb = (uint8_t *)*at;
    *at += picture.width * picture.height * 3;
    got = malloc((size_t)size * (size_t)size * 3);
    for (int aspect = MEDIA_ASPECT_SQUARE; aspect <= MEDIA_ASPECT_KEEP; aspect++) {
        assert_int_equal(
            picture_prepare(got, &picture, size, (enum media_aspect)aspect, NULL), 0);
        compare(difference, got, (const uint8_t *)*at, (size_t)size * (size_t)size * 3);
        *at += size * size * 3;
    }
    free(got);
}

static void pictures_come_out_as_from_the_clip_image_processor(void **state)
{
    struct buf golden = read_golden("preprocess.bin");
    const char *at = golden.data;
    int32_t n = take_int(&at);
    struct difference difference = {0};

    (void)state;
    assert_true(n > 0);
    for (int32_t i = 0; i < n; i++)
        compare_picture(&difference, &at);
    assert_ptr_equal(at, golden.data + golden.n_bytes);
    print_message("    %lld of %lld values differ, by at most %d\n",
                  (long long)difference.n_different, (long long)difference.n_values,
                  difference.largest);
    assert_true(difference.n_different * 1000 <= difference.n_values);
    assert_true(difference.largest <= 1);
    buf_fini(&golden);
}

static void frames_are_picked_as_numpy_linspace_does(void **state)
{
    struct buf golden = read_golden("picks.txt");
    const char *at = golden.data;
    int n_lines = 0;

    (void)state;
    while (*at) {
        char *end;
        int64_t n = strtoll(at, &end, 10);
        struct frame_request request = {.num_frames = strtoll(end, &end, 10)};
        int64_t *picks = malloc((size_t)(n + request.num_frames) * sizeof(*picks));

        assert_int_equal(*end++, ':');
        assert_int_equal(media_pick_frames(picks, &request, n), request.num_frames);
        for (int64_t i = 0; i < request.num_frames; i++)
            assert_int_equal(picks[i], strtoll(end, &end, 10));
        assert_int_equal(*end, '\n');
        at = end + 1;
        free(picks);
        n_lines++;
    }
    assert_true(n_lines > 400);
    buf_fini(&golden);
}

static void all_frames_are_all_and_a_splice_is_one(void **state)
{
    struct frame_request request = {.num_frames = -1};
    int64_t picks[7];

    (void)state;
    assert_int_equal(media_pick_frames(picks, &request, 7), 7);
    for (int i = 0; i < 7; i++)
        assert_int_equal(picks[i], i);
    assert_int_equal(media_pick_frames(picks, &request, 0), 0);
    request.num_frames = 4;
    request.splice = MEDIA_SPLICE_FIRST;
    assert_int_equal(media_pick_frames(picks, &request, 7), 1);
    assert_int_equal(picks[0], 0);
    request.splice = MEDIA_SPLICE_MIDDLE; /* n / 2, as NeMo takes it */
    assert_int_equal(media_pick_frames(picks, &request, 7), 1);
    assert_int_equal(picks[0], 3);
    assert_int_equal(media_pick_frames(picks, &request, 8), 1);
    assert_int_equal(picks[0], 4);
    request.splice = MEDIA_SPLICE_LAST;
    assert_int_equal(media_pick_frames(picks, &request, 7), 1);
    assert_int_equal(picks[0], 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_come_out_as_from_the_clip_image_processor),
        cmocka_unit_test(frames_are_picked_as_numpy_linspace_does),
        cmocka_unit_test(all_frames_are_all_and_a_splice_is_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
