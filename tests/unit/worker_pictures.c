/* What a folder's preprocessor_config.json asks for, and what is refused of it. */
#include "common/base/fs.h"
#include "worker/rank/pictures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE 336

static char folder[] = "/tmp/vneva-pictures-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

static int read_text(struct frame_config *frames, const char *text,
                     enum neva_encoder encoder, struct err *err)
{
    const struct neva_config config = {
        .vision = {.encoder = encoder, .image_size = SIZE}};
    char path[FS_PATH_MAX];

    assert_int_equal(fs_path(path, NULL, "%s/preprocessor_config.json", folder), 0);
    (void)remove(path);
    if (text)
        assert_int_equal(fs_write_file_atomic(path, text, strlen(text), err), 0);
    *frames = (struct frame_config){.aspect = MEDIA_ASPECT_KEEP};
    return pictures_read(frames, folder, &config, err);
}

static void assert_read(const char *text, enum neva_encoder encoder,
                        enum media_processor processor, enum media_aspect aspect)
{
    struct frame_config frames;
    struct err err = {0};

    if (read_text(&frames, text, encoder, &err) < 0)
        fail_msg("%s: %s", text ? text : "no file", err.text);
    assert_int_equal(frames.processor, processor);
    assert_int_equal(frames.aspect, aspect);
}

static void the_encoders_class_decides_where_nothing_is_said(void **state)
{
    (void)state;
    assert_read(NULL, NEVA_ENCODER_CLIP, MEDIA_PROCESSOR_CLIP, MEDIA_ASPECT_SQUARE);
    assert_read(NULL, NEVA_ENCODER_SIGLIP, MEDIA_PROCESSOR_SIGLIP, MEDIA_ASPECT_SQUARE);
    assert_read("{\"size\": 336, \"crop_size\": 336}", NEVA_ENCODER_CLIP,
                MEDIA_PROCESSOR_CLIP, MEDIA_ASPECT_SQUARE);
}

static void the_file_decides_over_the_encoders_class(void **state)
{
    (void)state;
    assert_read(
        "{\"image_processor_type\": \"CLIPImageProcessor\","
        " \"do_center_crop\": false, \"size\": {\"height\": 336, \"width\": 336}}",
        NEVA_ENCODER_CLIP, MEDIA_PROCESSOR_SIGLIP, MEDIA_ASPECT_SQUARE);
    assert_read("{\"image_processor_type\": \"CLIPImageProcessor\","
                " \"size\": {\"shortest_edge\": 336},"
                " \"crop_size\": {\"height\": 336, \"width\": 336},"
                " \"image_mean\": [0.5, 0.5, 0.5]}",
                NEVA_ENCODER_SIGLIP, MEDIA_PROCESSOR_CLIP, MEDIA_ASPECT_SQUARE);
    assert_read("{\"image_processor_type\": \"SiglipImageProcessor\", \"do_pad\": true,"
                " \"size\": {\"height\": 336, \"width\": 336}}",
                NEVA_ENCODER_SIGLIP, MEDIA_PROCESSOR_SIGLIP, MEDIA_ASPECT_PAD);
}

static void assert_refused(const char *text, enum err_code code, const char *says)
{
    struct frame_config frames;
    struct err err = {0};

    assert_int_equal(read_text(&frames, text, NEVA_ENCODER_CLIP, &err), -1);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
}

static void what_is_not_built_is_refused_by_name(void **state)
{
    (void)state;
    assert_refused("{\"size\": 224, \"crop_size\": 224}", ERR_INVALID,
                   "pictures of 224 x 224, but the encoder takes 336 x 336");
    assert_refused("{\"size\": 336, \"crop_size\": 336, \"resample\": 2}",
                   ERR_UNSUPPORTED, "resample 2");
    assert_refused("{\"size\": 384, \"crop_size\": 336}", ERR_UNSUPPORTED,
                   "shortest_edge 384");
    assert_refused("{\"size\": 336, \"crop_size\": 336, \"do_pad\": true,"
                   " \"image_mean\": [0.5, 0.5, 0.5]}",
                   ERR_UNSUPPORTED, "image_mean");
    assert_refused("{\"size\": ", ERR_FORMAT, "preprocessor_config.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_encoders_class_decides_where_nothing_is_said),
        cmocka_unit_test(the_file_decides_over_the_encoders_class),
        cmocka_unit_test(what_is_not_built_is_refused_by_name),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
