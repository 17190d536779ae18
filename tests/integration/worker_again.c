/* One run over several jobs: explicit_log_dir, resume_if_exists, resume_from_checkpoint. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "tests/integration/worker_home.h"

#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KEYS_MAX 16

struct again {
    struct home home;
    char dataset[128];
};

/* The same for all: a rate that does not depend on max_steps, checkpoints at 4, 8 and at
 * the end. */
static const char *const common[] = {
    "trainer.devices=1",
    "model.tensor_model_parallel_size=1",
    "model.optim.lr=1e-3",
    "model.optim.sched.min_lr=1e-3",
    "model.optim.sched.warmup_steps=0",
    "trainer.val_check_interval=100",
    "exp_manager.resume_if_exists=false",
};
#define N_COMMON (sizeof(common) / sizeof(common[0]))

/* dir: below the home's folder; more: overrides, ended by NULL. */
static int64_t submit(struct again *again, const char *dir, const char *const *more)
{
    const char *keys[KEYS_MAX + 1];
    char log_dir[256];
    size_t n = 0;

    for (; n < N_COMMON; n++)
        keys[n] = common[n];
    snprintf(log_dir, sizeof(log_dir), "exp_manager.explicit_log_dir=%s/%s",
             again->home.folder, dir);
    keys[n++] = log_dir;
    for (; *more && n < KEYS_MAX; more++)
        keys[n++] = *more;
    assert_null(*more);
    keys[n] = NULL;
    return home_submit_training(&again->home, again->dataset, keys);
}

#define SUBMIT(again, dir, ...) submit(again, dir, (const char *[]){__VA_ARGS__, NULL})
#define GO_ON "exp_manager.resume_if_exists=true"
#define OR_BEGIN "exp_manager.resume_ignore_no_checkpoint=true"

static void read_file(struct buf *out, const struct again *again, const char *name)
{
    char path[FS_PATH_MAX];
    struct err err;

    assert_int_equal(fs_path(path, &err, "%s/%s", again->home.folder, name), 0);
    if (fs_read_file(out, path, 1 << 26, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(out->n_bytes > 0);
}

/* Those of the runs in "alone" and "both". */
static void expect_same_samples(const struct again *again)
{
    char a[FS_PATH_MAX], b[FS_PATH_MAX];

    assert_int_equal(fs_path(a, NULL, "%s/alone/samples.log", again->home.folder), 0);
    assert_int_equal(fs_path(b, NULL, "%s/both/samples.log", again->home.folder), 0);
    home_expect_same_file(a, b);
}

static bool is_there(const struct again *again, const char *name)
{
    char path[FS_PATH_MAX];

    assert_int_equal(fs_path(path, NULL, "%s/%s", again->home.folder, name), 0);
    return fs_exists(path);
}

/* Whether dir/checkpoints holds checkpoints of just these two steps. */
static bool has_steps(const struct again *again, const char *dir, int64_t a, int64_t b)
{
    char path[FS_PATH_MAX];
    struct dirent *entry;
    int n = 0, n_other = 0;
    DIR *list;

    snprintf(path, sizeof(path), "%s/%s/checkpoints", again->home.folder, dir);
    list = opendir(path);
    while (list && (entry = readdir(list))) {
        long long step;

        if (strncmp(entry->d_name, "step-", 5) != 0)
            continue;
        step = strtoll(entry->d_name + 5, NULL, 10);
        n += step == a || step == b;
        n_other += step != a && step != b;
    }
    if (list)
        closedir(list);
    return n == 2 && n_other == 0;
}

/* The rank clears up after the job is done. */
static void wait_for_steps(const struct again *again, const char *dir, int64_t a,
                           int64_t b)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;

    while (!has_steps(again, dir, a, b) && clock_mono_ms() < end_ms)
        poll(NULL, 0, 5);
    assert_true(has_steps(again, dir, a, b));
}

static int setup(void **state)
{
    struct again *again = calloc(1, sizeof(*again));

    *state = again;
    home_init(&again->home, 2);
    home_prepare(&again->home, NULL, again->dataset, sizeof(again->dataset));
    return 0;
}

static int teardown(void **state)
{
    struct again *again = *state;

    home_fini(&again->home);
    free(again);
    return 0;
}

/* The last checkpoints of both jobs are of the step, and have the same bits. */
static void expect_same_end(struct again *again, int64_t job, int64_t other, int64_t step)
{
    char one[256], two[256], a[300], b[300], name[32];

    home_last_checkpoint(&again->home, job, one, sizeof(one));
    home_last_checkpoint(&again->home, other, two, sizeof(two));
    snprintf(name, sizeof(name), "step-%08lld", (long long)step);
    assert_non_null(strstr(one, name));
    assert_non_null(strstr(two, name));
    snprintf(a, sizeof(a), "%s/tensors-0000.safetensors", one);
    snprintf(b, sizeof(b), "%s/tensors-0000.safetensors", two);
    home_expect_same_file(a, b);
}

static int64_t run(struct again *again, int64_t job)
{
    home_wait_done(&again->home, job);
    return job;
}

/* Job 1 ends at step 6, inside the second job's lease of steps 4 to 7. */
static void two_jobs_in_one_folder_are_one_run(void **state)
{
    struct again *again = *state;
    char link[64];
    int64_t alone, first, second;

    alone = run(again, SUBMIT(again, "alone", "trainer.max_steps=10"));
    first = run(again, SUBMIT(again, "both", "trainer.max_steps=6", GO_ON, OR_BEGIN));
    wait_for_steps(again, "both", 4, 6);
    second = run(again, SUBMIT(again, "both", "trainer.max_steps=10", GO_ON));
    expect_same_samples(again);
    expect_same_end(again, second, alone, 10);
    wait_for_steps(again, "both", 8, 10); /* the last two stay */
    snprintf(link, sizeof(link), "jobs/%lld/checkpoints", (long long)first);
    assert_true(is_there(again, link));
}

/* Waits until the job has come to the step; its rank's process, 0 when it has ended. */
static pid_t wait_for_step(struct again *again, int64_t job, int64_t step)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;
    pid_t pid = 0;

    while (!pid && clock_mono_ms() < end_ms) {
        struct json *row = home_job(&again->home, job);
        struct json *attempt = home_attempt(&again->home, job);
        const char *state = json_get_string(attempt, "state");
        bool is_done = strcmp(json_get_string(row, "state"), "done") == 0;

        if (json_get_int(row, "done", 0) >= step && state &&
            strcmp(state, "running") == 0)
            pid = (pid_t)json_get_int(json_at(json_get(attempt, "ranks"), 0), "pid", 0);
        json_free(attempt);
        json_free(row);
        if (is_done)
            return 0;
        poll(NULL, 0, 2);
    }
    assert_true(pid > 0);
    return pid;
}

/* Before its first checkpoint and behind it: the job goes on from what it began with, then
 * from its own. */
static void killed_second_job_is_still_the_same_run(void **state)
{
    static const int64_t kills[] = {7, 30};
    struct again *again = *state;
    int n_killed = 0;
    int64_t alone, job;

    alone = run(again, SUBMIT(again, "alone", "trainer.max_steps=60"));
    home_wait_done(&again->home, SUBMIT(again, "both", "trainer.max_steps=6"));
    job = SUBMIT(again, "both", "trainer.max_steps=60", GO_ON);
    for (size_t i = 0; i < sizeof(kills) / sizeof(kills[0]); i++) {
        pid_t pid = wait_for_step(again, job, kills[i]);

        if (pid)
            n_killed += kill(pid, SIGKILL) == 0;
    }
    home_wait_done(&again->home, job);
    assert_true(n_killed > 0);
    expect_same_samples(again);
    expect_same_end(again, job, alone, 60);
}

static void folder_of_an_earlier_run_is_refused_unless_meant(void **state)
{
    struct again *again = *state;

    home_wait_done(&again->home, SUBMIT(again, "run", "trainer.max_steps=4"));
    home_expect_failed(&again->home, SUBMIT(again, "run", "trainer.max_steps=8"),
                       "has checkpoints of an earlier run");
    home_expect_failed(
        &again->home, SUBMIT(again, "run", "trainer.max_steps=8", GO_ON, "model.seed=99"),
        "model.seed was 1234 when the checkpoint was written and is 99");
    home_expect_failed(&again->home, SUBMIT(again, "run", "trainer.max_steps=4", GO_ON),
                       "it has done 4 steps already: trainer.max_steps (4)");
    home_expect_failed(&again->home, SUBMIT(again, "new", "trainer.max_steps=4", GO_ON),
                       "has no checkpoint to go on from");
    home_wait_done(&again->home, SUBMIT(again, "run", "trainer.max_steps=8", GO_ON));
}

/* What the config.json of a checkpoint says agrees with the keys that made it. */
static void every_kind_of_model_goes_on_from_its_checkpoint(void **state)
{
    static const char *const kinds[][4] = {
        {"model.normalization=layernorm1p", "model.activation=squared-relu",
         "model.rotary_percentage=0.5", "model.num_query_groups=1"},
        {"model.normalization=layernorm", "model.activation=gelu", "model.bias=true",
         "model.share_embeddings_and_output_weights=true"},
        {"model.qkv_bias=true", "model.seq_len_interpolation_factor=3",
         "model.layernorm_epsilon=3e-6", "model.rotary_base=12345.6"},
        {"model.scale_positional_embedding=true",
         "model.mm_cfg.vision_encoder.activation=gelu",
         "model.mm_cfg.vision_encoder.layernorm_epsilon=1e-6",
         "model.mm_cfg.mm_mlp_adapter_type=linear"},
    };
    struct again *again = *state;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const char *const *k = kinds[i];
        char dir[16];

        snprintf(dir, sizeof(dir), "kind-%zu", i);
        home_wait_done(&again->home,
                       SUBMIT(again, dir, "trainer.max_steps=1", k[0], k[1], k[2], k[3]));
        home_wait_done(&again->home, SUBMIT(again, dir, "trainer.max_steps=2", GO_ON,
                                            k[0], k[1], k[2], k[3]));
    }
}

static void checkpoint_of_another_folder_is_gone_on_from(void **state)
{
    struct again *again = *state;
    char from[512], checkpoint[256];
    struct buf log = BUF_INIT;
    int64_t part, whole, rest;

    part = run(again, SUBMIT(again, "part", "trainer.max_steps=8"));
    whole = run(again, SUBMIT(again, "whole", "trainer.max_steps=10"));
    home_last_checkpoint(&again->home, part, checkpoint, sizeof(checkpoint));
    snprintf(from, sizeof(from), "model.resume_from_checkpoint=%s", checkpoint);
    rest = run(again, SUBMIT(again, "rest", "trainer.max_steps=10", from));
    expect_same_end(again, rest, whole, 10);
    read_file(&log, again, "rest/samples.log");
    assert_int_equal(strncmp(buf_str(&log), "8 ", 2), 0); /* its first step */
    buf_fini(&log);
    home_expect_failed(
        &again->home,
        SUBMIT(again, "other", "trainer.max_steps=10", from, "model.global_batch_size=4"),
        "model.global_batch_size was 8");
}

static void folder_in_use_is_refused_by_the_job_in_it(void **state)
{
    struct again *again = *state;
    int64_t job = SUBMIT(again, "used", "trainer.max_steps=1000000");
    char says[128];

    (void)wait_for_step(again, job, 1);
    snprintf(says, sizeof(says), "job %lld (%s/jobs/%lld) works in '%s/used'",
             (long long)job, again->home.folder, (long long)job, again->home.folder);
    home_expect_failed(&again->home, SUBMIT(again, "used", "trainer.max_steps=10", GO_ON),
                       says);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_jobs_in_one_folder_are_one_run),
        TEST(killed_second_job_is_still_the_same_run),
        TEST(folder_of_an_earlier_run_is_refused_unless_meant),
        TEST(every_kind_of_model_goes_on_from_its_checkpoint),
        TEST(checkpoint_of_another_folder_is_gone_on_from),
        TEST(folder_in_use_is_refused_by_the_job_in_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
