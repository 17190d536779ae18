/* Preprocessing and the choice of frames against what Pillow, Hugging Face and numpy give
 * (tests/golden/make_media.py). */
#include "common/base/fs.h"
#include "dataprep/media/picture.h"
#include "dataprep/media/preprocessor.h"

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
    int64_t n_pixels, n_different;
    int largest;
};

/* Pixels 0, step, 2 step... of a picture [., 3] with those expected [n, 3]. */
static void compare(struct difference *difference, const uint8_t *got, int32_t step,
                    const uint8_t *expected, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        bool is_different = false;

        for (int c = 0; c < 3; c++) {
            int away = abs(got[(int64_t)i * step * 3 + c] - expected[i * 3 + c]);

            is_different |= away != 0;
            if (away > difference->largest)
                difference->largest = away;
        }
        difference->n_pixels++;
        difference->n_different += is_different;
    }
}

static const char *const photos[] = {"astronaut.png", "chelsea.jpg", "coffee_cmyk.jpg",
                                     "coffee.webp"};
static const struct {
    enum media_processor processor;
    enum media_aspect aspect;
    const char *name;
} ways[] = {
    {MEDIA_PROCESSOR_CLIP, MEDIA_ASPECT_SQUARE, "clip square"},
    {MEDIA_PROCESSOR_CLIP, MEDIA_ASPECT_PAD, "clip pad"},
    {MEDIA_PROCESSOR_SIGLIP, MEDIA_ASPECT_SQUARE, "siglip square"},
    {MEDIA_PROCESSOR_SIGLIP, MEDIA_ASPECT_PAD, "siglip pad"},
};
enum { N_WAYS = sizeof(ways) / sizeof(*ways) };

struct golden_case {
    int32_t photo, width, height, size, n, step;
    const uint8_t *rgb; /* without a photo */
};

/* A photo goes the whole way from its file, a picture of its own is prepared only. */
static void prepare(uint8_t *out, const struct golden_case *of, int way)
{
    struct picture picture = {.width = of->width, .height = of->height};
    struct frame_request request = {.media.kind = MEDIA_IMAGE,
                                    .num_frames = 8,
                                    .image_size = of->size,
                                    .aspect = ways[way].aspect,
                                    .processor = ways[way].processor};
    struct media_limits limits = {.max_pixels = 1 << 20, .max_frames = 1};
    struct media_info info;
    struct err err;

    if (of->photo < 0) {
        picture.rgb = (uint8_t *)of->rgb;
        if (picture_prepare(out, &picture, of->size, ways[way].processor,
                            ways[way].aspect, &err) < 0)
            fail_msg("%s", err.text);
        return;
    }
    snprintf(request.media.path, sizeof(request.media.path), "%s/tests/golden/photo_%s",
             getenv("VNEVA_SOURCE"), photos[of->photo]);
    if (media_frames(out, (size_t)of->size * (size_t)of->size * 3, &info, &request,
                     &limits, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(info.width, of->width);
    assert_int_equal(info.height, of->height);
}

static void compare_case(struct difference differences[N_WAYS], const char **at)
{
    struct golden_case of;
    uint8_t *got;

    of.photo = take_int(at);
    of.width = take_int(at);
    of.height = take_int(at);
    of.size = take_int(at);
    of.n = take_int(at);
    of.step = take_int(at);
    got = malloc((size_t)of.size * (size_t)of.size * 3);
    of.rgb = (const uint8_t *)*at;
    if (of.photo < 0)
        *at += (int64_t)of.width * of.height * 3;
    for (int way = 0; way < N_WAYS; way++) {
        prepare(got, &of, way);
        compare(&differences[way], got, of.step, (const uint8_t *)*at, of.n);
        *at += (int64_t)of.n * 3;
    }
    free(got);
}

static void pictures_come_out_as_from_hugging_faces_processors(void **state)
{
    struct buf golden = read_golden("preprocess.bin");
    const char *at = golden.data;
    int32_t n = take_int(&at);
    struct difference differences[N_WAYS] = {0};

    (void)state;
    assert_int_equal(n, 57);
    for (int32_t i = 0; i < n; i++)
        compare_case(differences, &at);
    assert_ptr_equal(at, golden.data + golden.n_bytes);
    for (int way = 0; way < N_WAYS; way++) {
        const struct difference *difference = &differences[way];

        print_message("    %s: %lld of %lld pixels differ, by at most %d\n",
                      ways[way].name, (long long)difference->n_different,
                      (long long)difference->n_pixels, difference->largest);
        assert_true(difference->n_different * 1000 <= difference->n_pixels);
        assert_true(difference->largest <= 1);
    }
    buf_fini(&golden);
}

/* What is not computed is not there: a long picture's cut takes the memory of the cut. */
static void a_long_picture_is_cut_without_scaling_all_of_it(void **state)
{
    enum { LENGTH = 1 << 20, SIZE = 64 };
    struct picture picture = {.width = LENGTH, .height = 1};
    static uint8_t out[SIZE * SIZE * 3];
    struct err err = {0};

    (void)state;
    picture.rgb = malloc((size_t)LENGTH * 3);
    assert_non_null(picture.rgb);
    for (int64_t i = 0; i < LENGTH; i++)
        memset(&picture.rgb[i * 3], i == LENGTH / 2 ? 255 : 0, 3);
    assert_int_equal(picture_prepare(out, &picture, SIZE, MEDIA_PROCESSOR_CLIP,
                                     MEDIA_ASPECT_SQUARE, &err),
                     0);
    /* the one white pixel, 64 wide, lies half in the cut, to its right */
    assert_true(out[0] <= 1);
    assert_int_equal(out[(SIZE - 1) * 3], 255);
    assert_int_equal(picture_prepare(out, &picture, SIZE, MEDIA_PROCESSOR_CLIP,
                                     MEDIA_ASPECT_PAD, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(picture_prepare(out, &picture, SIZE, MEDIA_PROCESSOR_SIGLIP,
                                     MEDIA_ASPECT_KEEP, &err),
                     -1);
    assert_non_null(strstr(err.text, "square or pad"));
    free(picture.rgb);
}

static void clip_keeps_what_it_can_take(void **state)
{
    enum { W = 9, H = 5, SIZE = 12 };
    uint8_t rgb[W * H * 3], square[SIZE * SIZE * 3], keep[SIZE * SIZE * 3];
    struct picture picture = {.rgb = rgb, .width = W, .height = H};

    (void)state;
    for (int i = 0; i < W * H * 3; i++)
        rgb[i] = (uint8_t)(i * 37);
    assert_int_equal(picture_prepare(square, &picture, SIZE, MEDIA_PROCESSOR_CLIP,
                                     MEDIA_ASPECT_SQUARE, NULL),
                     0);
    assert_int_equal(picture_prepare(keep, &picture, SIZE, MEDIA_PROCESSOR_CLIP,
                                     MEDIA_ASPECT_KEEP, NULL),
                     0);
    assert_memory_equal(square, keep, sizeof(keep));
}

static void settings_of_a_file_choose_the_processor(void **state)
{
    struct preprocessor settings;
    enum media_processor processor;
    int64_t size = 0;
    struct err err;

    (void)state;
    preprocessor_init(&settings, MEDIA_PROCESSOR_CLIP);
    settings.shortest_edge = settings.crop_height = settings.crop_width = 336;
    assert_int_equal(preprocessor_choose(&processor, &size, &settings, &err), 0);
    assert_int_equal(processor, MEDIA_PROCESSOR_CLIP);
    assert_int_equal(size, 336);
    settings.image_mean[1] = 0.5; /* the model's, unless pictures are padded with it */
    assert_int_equal(preprocessor_choose(&processor, &size, &settings, &err), 0);
    preprocessor_init(&settings, MEDIA_PROCESSOR_SIGLIP);
    settings.size_height = settings.size_width = 384;
    assert_int_equal(preprocessor_choose(&processor, &size, &settings, &err), 0);
    assert_int_equal(processor, MEDIA_PROCESSOR_SIGLIP);
    assert_int_equal(size, 384);
}

static void expect_unbuilt(const struct preprocessor *settings, const char *says)
{
    enum media_processor processor;
    int64_t size;
    struct err err = {0};

    assert_int_equal(preprocessor_choose(&processor, &size, settings, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
}

static void settings_that_are_not_built_are_refused_by_name(void **state)
{
    struct preprocessor clip, s;

    (void)state;
    preprocessor_init(&clip, MEDIA_PROCESSOR_CLIP);
    s = clip;
    s.resample = 2;
    expect_unbuilt(&s, "resample 2");
    s = clip;
    s.do_resize = false;
    expect_unbuilt(&s, "do_resize false");
    s = clip;
    s.do_center_crop = false; /* pictures of any shape */
    expect_unbuilt(&s, "shortest_edge 224");
    s = clip;
    s.shortest_edge = 256; /* then cut to 224 */
    expect_unbuilt(&s, "shortest_edge 256");
    s = clip;
    s.shortest_edge = 0;
    s.size_height = 224;
    s.size_width = 336;
    expect_unbuilt(&s, "width 336");
    s = clip;
    s.do_pad = true;
    s.image_mean[1] = 0.5;
    expect_unbuilt(&s, "image_mean [0.481455, 0.5");
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
        cmocka_unit_test(pictures_come_out_as_from_hugging_faces_processors),
        cmocka_unit_test(a_long_picture_is_cut_without_scaling_all_of_it),
        cmocka_unit_test(clip_keeps_what_it_can_take),
        cmocka_unit_test(settings_of_a_file_choose_the_processor),
        cmocka_unit_test(settings_that_are_not_built_are_refused_by_name),
        cmocka_unit_test(frames_are_picked_as_numpy_linspace_does),
        cmocka_unit_test(all_frames_are_all_and_a_splice_is_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
