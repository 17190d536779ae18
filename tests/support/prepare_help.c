#include "tests/support/prepare_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/vneva-prepare-XXXXXX";
static char tokenizer_path[FS_PATH_MAX];

const char *test_folder(void)
{
    return folder;
}

const char *in_folder(const char *name)
{
    static char paths[600][256];
    static int n;

    assert_true(n < 600);
    snprintf(paths[n], sizeof(paths[n]), "%s/%s", folder, name);
    return paths[n++];
}

void write_text(const char *name, const char *text)
{
    struct err err;

    if (fs_write_file_atomic(in_folder(name), text, strlen(text), &err) < 0)
        fail_msg("%s", err.text);
}

void run_command(const char *command)
{
    if (system(command) != 0) /* NOLINT(cert-env33-c): tar, in the test's folder */
        fail_msg("%s", command);
}

struct prepare_config config_for(const char *const *data, int n_data, const char *media,
                                 const char *output)
{
    return (struct prepare_config){.data_paths = data,
                                   .n_data_paths = n_data,
                                   .video_root = media,
                                   .output = output,
                                   .tokenizer = tokenizer_path,
                                   .conv_template = "v1",
                                   .num_frames = 2,
                                   .image_size = 4,
                                   .patch = 2,
                                   .frame_tokens = 4,
                                   .max_tokens = 400,
                                   .shard_size = 16,
                                   .max_reject_fraction = 1};
}

int prepare(const struct prepare_config *config, struct json **summary, int *n_requests,
            struct err *err)
{
    struct fake_frames fake;
    struct frame_service service = fake_frames_service(&fake);
    int64_t n = 0, n_rejects;

    *summary = NULL;
    if (prepare_plan(config, &n, err) < 0)
        return -1;
    for (int64_t first = 0; first < n; first += config->shard_size) {
        int64_t left = n - first;

        if (prepare_range(config, &service, first,
                          left < config->shard_size ? left : config->shard_size, NULL,
                          &n_rejects, err) < 0)
            fail_msg("%s", err->text);
    }
    assert_int_equal(fake.n_taken, 0); /* every ticket was released */
    if (fake.n_requests >= FAKE_SLOTS) /* and the decoders were all busy */
        assert_int_equal(fake.most_taken, FAKE_SLOTS);
    if (n_requests)
        *n_requests = fake.n_requests;
    return prepare_finish(config, summary, err);
}

struct dataset *prepare_and_open(const struct prepare_config *config)
{
    struct dataset *dataset = NULL;
    struct json *summary = NULL;
    struct err err;

    if (prepare(config, &summary, NULL, &err) < 0 ||
        dataset_open(&dataset, config->output, &err) < 0)
        fail_msg("%s", err.text);
    json_free(summary);
    return dataset;
}

static void make_media(void)
{
    struct err err;

    assert_int_equal(fs_make_dirs(in_folder("media/sub"), 0777, &err), 0);
    write_text("media/good.mp4", "frames 5");
    write_text("media/sub/other.mp4", "frames 3");
    write_text("media/junk.mp4", "junk");
    write_text("media/long.mp4", "frames 90");
}

struct json *read_lines(const char *path)
{
    struct buf text = BUF_INIT;
    struct json *list = json_new(JSON_ARRAY), *line;
    char *save = NULL;
    struct err err;

    if (fs_read_file(&text, path, 1 << 22, &err) < 0)
        fail_msg("%s", err.text);
    for (char *at = text.data ? strtok_r(text.data, "\n", &save) : NULL; at;
         at = strtok_r(NULL, "\n", &save))
        if (json_parse(&line, at, strlen(at), &err) < 0 ||
            json_append(list, line, &err) < 0)
            fail_msg("%s", err.text);
    buf_fini(&text);
    return list;
}

int run_prepare_tests(const char *name, const struct CMUnitTest *tests, size_t n)
{
    int failed;

    if (!mkdtemp(folder))
        return 1;
    snprintf(tokenizer_path, sizeof(tokenizer_path), "%s/tests/golden/tiny_llama.model",
             getenv("VNEVA_SOURCE"));
    make_media();
    failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
    fs_remove_tree(folder, NULL);
    return failed;
}
