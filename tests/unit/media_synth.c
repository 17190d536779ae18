/* The drawn clips are what jobs/quickstart/SYNTH.md says. */
#include "common/base/fs.h"
#include "common/base/json.h"
#include "dataprep/media/media.h"
#include "dataprep/synth/synth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_BYTES (SYNTH_SIZE * SYNTH_SIZE * 3)

/* Where the pixels are that are not background: the mean of their places. */
static void find_shape(const uint8_t *rgb, double *x, double *y)
{
    const uint8_t *corner = rgb;
    double n = 0, sum_x = 0, sum_y = 0;

    for (int i = 0; i < SYNTH_SIZE * SYNTH_SIZE; i++) {
        int away = 0, row = i / SYNTH_SIZE;

        for (int c = 0; c < 3; c++)
            away += abs(rgb[i * 3 + c] - corner[c]);
        if (away < 80)
            continue;
        n++;
        sum_x += i % SYNTH_SIZE;
        sum_y += row;
    }
    assert_true(n > 20);
    *x = sum_x / n;
    *y = sum_y / n;
}

static void a_clip_depends_on_seed_and_number_alone(void **state)
{
    static uint8_t once[FRAME_BYTES], again[FRAME_BYTES], other[FRAME_BYTES];
    struct synth_clip a, b, c;

    (void)state;
    synth_plan(&a, 7, 12);
    synth_plan(&b, 7, 12);
    synth_plan(&c, 8, 12);
    synth_draw(once, &a, 4);
    synth_draw(again, &b, 4);
    synth_draw(other, &c, 4);
    assert_memory_equal(once, again, FRAME_BYTES);
    assert_memory_not_equal(once, other, FRAME_BYTES);
}

static void directions_and_last_colours_are_balanced(void **state)
{
    int directions[SYNTH_N_DIRECTIONS] = {0}, colours[SYNTH_N_COLOURS] = {0};

    (void)state;
    for (uint64_t i = 0; i < 72; i++) {
        struct synth_clip clip;

        synth_plan(&clip, 1, i);
        if (clip.kind == SYNTH_MOVE)
            directions[clip.direction]++;
        else
            colours[clip.colours[2]]++;
    }
    for (int i = 0; i < SYNTH_N_DIRECTIONS; i++)
        assert_int_equal(directions[i], 12);
    for (int i = 0; i < SYNTH_N_COLOURS; i++)
        assert_int_equal(colours[i], 4);
}

static void a_shape_moves_the_way_its_answer_says(void **state)
{
    static uint8_t rgb[FRAME_BYTES];

    (void)state;
    for (uint64_t i = 0; i < 48; i++) {
        struct synth_clip clip;
        struct synth_question asked;
        double x0, y0, x1, y1;
        const char *seen;

        synth_plan(&clip, 5, i);
        if (clip.kind != SYNTH_MOVE)
            continue;
        synth_draw(rgb, &clip, 0);
        find_shape(rgb, &x0, &y0);
        synth_draw(rgb, &clip, 6);
        find_shape(rgb, &x1, &y1);
        if (fabs(x1 - x0) > fabs(y1 - y0))
            seen = x1 > x0 ? "Right." : "Left.";
        else
            seen = y1 > y0 ? "Down." : "Up.";
        asked = synth_ask(&clip, 0);
        assert_string_equal(asked.answer, seen);
        assert_string_equal(asked.category, "motion-direction");
    }
}

static void a_colour_clip_has_three_colours(void **state)
{
    (void)state;
    for (uint64_t i = 2; i < 300; i += 3) {
        struct synth_clip clip;

        synth_plan(&clip, 3, i);
        assert_int_equal(clip.kind, SYNTH_COLOUR);
        assert_int_not_equal(clip.colours[0], clip.colours[1]);
        assert_int_not_equal(clip.colours[0], clip.colours[2]);
        assert_int_not_equal(clip.colours[1], clip.colours[2]);
    }
}

static void noise_has_the_mean_and_deviation_it_should(void **state)
{
    static uint8_t rgb[FRAME_BYTES];
    struct synth_clip clip;
    double sum = 0, squares = 0;
    int n = 0;

    (void)state;
    synth_plan(&clip, 11, 2); /* a colour clip: the shape stays 2 pixels from the rim */
    clip.background = 1;      /* grey: no clipping */
    for (int frame = 0; frame < SYNTH_FRAMES; frame++) {
        synth_draw(rgb, &clip, frame);
        for (int i = 0; i < SYNTH_SIZE * 3; i++, n++) { /* the uppermost row */
            double away = rgb[i] - 96 - clip.background_shift[i % 3];

            sum += away;
            squares += away * away;
        }
    }
    assert_true(fabs(sum / n) < 0.2);
    assert_true(fabs(sqrt(squares / n) - 2.0) < 0.2);
}

static struct json *read_line(const char **at)
{
    const char *end = strchr(*at, '\n');
    struct json *line;

    assert_non_null(end);
    assert_int_equal(json_parse(&line, *at, (size_t)(end - *at), NULL), 0);
    *at = end + 1;
    return line;
}

/* The line's clip can be decoded and has ten frames. */
static void check_line(const char *folder, const struct json *line)
{
    const struct media_limits limits = {.max_pixels = 1 << 20, .max_frames = 100};
    struct frame_request request = {.num_frames = 4, .image_size = SYNTH_SIZE};
    static uint8_t frames[4 * FRAME_BYTES];
    const struct json *said = json_get(line, "conversations");
    struct media_info info;
    struct err err = {0};

    assert_non_null(json_get_string(line, "id"));
    assert_non_null(json_get_string(line, "category"));
    assert_string_equal(json_get_string(json_at(said, 0), "from"), "human");
    assert_memory_equal(json_get_string(json_at(said, 0), "value"), "<video>\n", 8);
    assert_string_equal(json_get_string(json_at(said, 1), "from"), "gpt");
    snprintf(request.media.path, sizeof(request.media.path), "%s/%s", folder,
             json_get_string(line, "video"));
    if (media_frames(frames, sizeof(frames), &info, &request, &limits, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(info.n_source_frames, SYNTH_FRAMES);
    assert_int_equal(info.width, SYNTH_SIZE);
    assert_string_equal(info.codec, "h264");
}

static void a_run_writes_clips_and_two_questions_each(void **state)
{
    char folder[] = "/tmp/vneva-synth-XXXXXX", path[FS_PATH_MAX];
    struct synth_config config = {.output = folder, .n_clips = 6, .seed = 1};
    struct buf lines = BUF_INIT;
    struct err err = {0};
    const char *at;

    (void)state;
    assert_non_null(mkdtemp(folder));
    if (synth_run(&config, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(fs_path(path, NULL, "%s/annotations.jsonl", folder), 0);
    assert_int_equal(fs_read_file(&lines, path, 1 << 20, NULL), 0);
    at = buf_str(&lines);
    for (int i = 0; i < 12; i++) {
        struct json *line = read_line(&at);

        check_line(folder, line);
        json_free(line);
    }
    assert_string_equal(at, "");
    buf_fini(&lines);
    fs_remove_tree(folder, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clip_depends_on_seed_and_number_alone),
        cmocka_unit_test(directions_and_last_colours_are_balanced),
        cmocka_unit_test(a_shape_moves_the_way_its_answer_says),
        cmocka_unit_test(a_colour_clip_has_three_colours),
        cmocka_unit_test(noise_has_the_mean_and_deviation_it_should),
        cmocka_unit_test(a_run_writes_clips_and_two_questions_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
