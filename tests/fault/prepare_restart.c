/* Prepare killed at any point and started again gives the very same files. */
#include "common/base/fs.h"
#include "dataprep/dataset/dataset.h"
#include "dataprep/dataset/manifest.h"
#include "dataprep/prepare/prepare.h"
#include "tests/support/fake_frames.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define N_RECORDS 40
#define SHARD_SIZE 8
#define N_FILES 6 /* five shards and the manifest */

static char folder[] = "/tmp/vneva-restart-XXXXXX";
static const char *program;

/* What is prepared; of make_input's files. */
static struct prepare_config config_for(const char *output)
{
    static char data[FS_PATH_MAX], media[FS_PATH_MAX], tokenizer[FS_PATH_MAX];
    static const char *const paths[] = {data};

    snprintf(data, sizeof(data), "%s/data.jsonl", folder);
    snprintf(media, sizeof(media), "%s/media", folder);
    snprintf(tokenizer, sizeof(tokenizer), "%s/tests/golden/tiny_llama.model",
             getenv("VNEVA_SOURCE"));
    return (struct prepare_config){.data_paths = paths,
                                   .n_data_paths = 1,
                                   .video_root = media,
                                   .output = output,
                                   .tokenizer = tokenizer,
                                   .conv_template = "v1",
                                   .num_frames = 2,
                                   .image_size = 8,
                                   .patch = 4,
                                   .frame_tokens = 4,
                                   .max_tokens = 1000,
                                   .shard_size = SHARD_SIZE,
                                   .store_frames = true,
                                   .max_reject_fraction = 0.5};
}

/* What a killed worker's successor does: everything from the plan on. */
static int prepare_all(const char *output, struct err *err)
{
    struct prepare_config config = config_for(output);
    struct fake_frames fake;
    struct frame_service service = fake_frames_service(&fake);
    struct json *summary = NULL;
    int64_t n = 0, n_rejects;
    int rc = prepare_plan(&config, &n, err);

    for (int64_t first = 0; rc == 0 && first < n; first += SHARD_SIZE)
        rc = prepare_range(&config, &service, first, SHARD_SIZE, NULL, &n_rejects, err);
    if (rc == 0)
        rc = prepare_finish(&config, &summary, err);
    json_free(summary);
    return rc;
}

/* This program again, as a process that dies at the fault point. */
static int run_child(const char *output, const char *fault)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        setenv("VNEVA_FAULT", fault, 1);
        setenv("VNEVA_RESTART_FOLDER", folder, 1);
        execl(program, program, output, (char *)NULL);
        _exit(99);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void hash_files(uint64_t out[N_FILES], const char *output)
{
    char path[FS_PATH_MAX];
    struct err err;

    for (int i = 0; i < N_FILES; i++) {
        if (i < N_FILES - 1)
            snprintf(path, sizeof(path), "%s/shard-%05d.sqlite", output, i);
        else
            snprintf(path, sizeof(path), "%s/%s", output, MANIFEST_FILE);
        if (manifest_hash_file(&out[i], path, &err) < 0)
            fail_msg("%s", err.text);
    }
}

static int make_input(void **state)
{
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX], content[30];
    struct err err;
    int rc = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s/media", folder);
    rc |= fs_make_dirs(path, 0777, &err);
    for (int i = 0; i < N_RECORDS; i++) {
        snprintf(path, sizeof(path), "%s/media/%d.mp4", folder, i);
        snprintf(content, sizeof(content), i % 9 == 5 ? "junk" : "frames %d", i + 1);
        rc |= fs_write_file_atomic(path, content, strlen(content), &err);
        buf_printf(&text,
                   "{\"id\": %d, \"video\": \"%d.mp4\", \"conversations\": [{\"from\": "
                   "\"human\", \"value\": \"<video>?\"}, {\"from\": \"gpt\", \"value\": "
                   "\"answer %d\"}]}\n",
                   i, i, i);
    }
    snprintf(path, sizeof(path), "%s/data.jsonl", folder);
    rc |= fs_write_file_atomic(path, text.data, text.n_bytes, &err);
    buf_fini(&text);
    return rc;
}

static void killed_anywhere_it_ends_with_the_same_files(void **state)
{
    static const char *const points[] = {
        "prepare.shard:kill@%d", "prepare.manifest:kill@%d", "test.media:kill@%d"};
    static const int passages[] = {5, 1, N_RECORDS};
    char whole[FS_PATH_MAX], killed[FS_PATH_MAX], fault[60];
    uint64_t want[N_FILES], got[N_FILES];
    struct dataset *dataset = NULL;
    struct err err;

    (void)state;
    snprintf(whole, sizeof(whole), "%s/whole", folder);
    snprintf(killed, sizeof(killed), "%s/killed", folder);
    assert_int_equal(run_child(whole, ""), 0);
    hash_files(want, whole);
    for (int p = 0; p < 3; p++)
        for (int n = 1; n <= passages[p]; n += p == 2 ? 7 : 1) {
            int status;

            snprintf(fault, sizeof(fault), points[p], n);
            status = run_child(killed, fault);
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            /* half a dataset is no dataset */
            assert_int_equal(dataset_open(&dataset, killed, &err), -1);
            assert_int_equal(run_child(killed, ""), 0);
            hash_files(got, killed);
            assert_memory_equal(got, want, sizeof(want));
        }
    assert_int_equal(dataset_open(&dataset, killed, &err), 0);
    assert_int_equal(dataset_info(dataset)->n_rejects, 4);
    dataset_close(dataset);
}

static void a_failing_write_leaves_no_manifest_and_names_the_point(void **state)
{
    static const char *const faults[] = {"prepare.shard:fail@3", "prepare.manifest:fail"};
    char output[FS_PATH_MAX];
    struct dataset *dataset = NULL;
    struct err err;

    (void)state;
    snprintf(output, sizeof(output), "%s/failing", folder);
    for (int i = 0; i < 2; i++) {
        int status = run_child(output, faults[i]);

        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
        assert_int_equal(dataset_open(&dataset, output, &err), -1);
        assert_int_equal(err.code, ERR_NOT_FOUND);
    }
}

/* A shard made under other settings is not taken for one of this dataset. */
static void a_shard_of_another_plan_is_refused(void **state)
{
    char whole[FS_PATH_MAX] = "";
    struct prepare_config config = config_for(whole);
    struct json *summary = NULL;
    struct err err;
    int64_t n;

    (void)state;
    snprintf(whole, sizeof(whole), "%s/whole", folder);
    config.num_frames = 3;
    assert_int_equal(prepare_plan(&config, &n, &err), 0);
    assert_int_equal(prepare_finish(&config, &summary, &err), -1);
    if (!strstr(err.text, "shard-00000") || !strstr(err.text, "other settings"))
        fail_msg("%s", err.text);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_anywhere_it_ends_with_the_same_files),
        cmocka_unit_test(a_failing_write_leaves_no_manifest_and_names_the_point),
        cmocka_unit_test(a_shard_of_another_plan_is_refused),
    };
    struct err err = {0};
    int failed;

    program = argv[0];
    if (argc > 1) { /* the child */
        snprintf(folder, sizeof(folder), "%s", getenv("VNEVA_RESTART_FOLDER"));
        if (prepare_all(argv[1], &err) == 0)
            return 0;
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (!mkdtemp(folder))
        return 1;
    failed = cmocka_run_group_tests(tests, make_input, NULL);
    fs_remove_tree(folder, NULL);
    return failed;
}
