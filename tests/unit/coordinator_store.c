/* The store alone: what is committed stays, what is not goes, and wrong databases are
 * refused. */
#include "common/base/fs.h"
#include "coordinator/store/store.h"

#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct place {
    char folder[64], path[96];
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    if (!place)
        return -1;
    strcpy(place->folder, "/tmp/vneva-store-XXXXXX");
    if (!mkdtemp(place->folder))
        return -1;
    snprintf(place->path, sizeof(place->path), "%s/c.db", place->folder);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    fs_remove_tree(((struct place *)*state)->folder, NULL);
    free(*state);
    return 0;
}

static struct store *open_store(const char *path)
{
    struct err err = {ERR_NONE, ""};
    struct store *store;

    if (store_open(&store, path, &err) < 0)
        fail_msg("%s", err.text);
    return store;
}

static void insert_job(struct store *store, int64_t id, const char *request_id)
{
    struct job_row row = {.id = id,
                          .n_ranks = 1,
                          .group_size = 1,
                          .n_samples = -1,
                          .submitted_ms = 5,
                          .request_id = request_id,
                          .name = "n",
                          .kind = "prepare",
                          .spec = "{}",
                          .state = "queued",
                          .goal = "run",
                          .reason = "",
                          .folder = "/f"};

    store_job_insert(store, &row);
}

static void commit(struct store *store)
{
    struct err err = {ERR_NONE, ""};

    if (store_commit(store, &err) < 0)
        fail_msg("%s", err.text);
}

static int64_t find(struct store *store, const char *request_id)
{
    struct err err;
    int64_t job = -1;

    assert_int_equal(store_find_request(store, request_id, &job, &err), 0);
    return job;
}

static void committed_rows_are_there_after_reopening(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);

    insert_job(store, 1, "a");
    commit(store);
    insert_job(store, 2, "b"); /* never committed */
    store_close(store);
    store = open_store(place->path);
    assert_int_equal(find(store, "a"), 1);
    assert_int_equal(find(store, "b"), 0);
    store_close(store);
}

static void one_failed_write_undoes_the_whole_turn(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct err err;

    insert_job(store, 1, "a");
    insert_job(store, 1, "b"); /* the same id */
    insert_job(store, 2, "c");
    assert_int_equal(store_commit(store, &err), -1);
    assert_true(err.text[0]);
    assert_int_equal(find(store, "a"), 0);
    insert_job(store, 1, "d"); /* the next turn is a new one */
    commit(store);
    assert_int_equal(find(store, "d"), 1);
    store_close(store);
}

static void store_fail_keeps_a_turn_from_being_committed(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct err why, err;

    insert_job(store, 1, "a");
    err_set(&why, ERR_STATE, "illegal");
    store_fail(store, &why);
    assert_int_equal(store_commit(store, &err), -1);
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(find(store, "a"), 0);
    store_close(store);
}

static void newer_database_is_refused(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct err err;
    sqlite3 *db;

    store_close(store);
    assert_int_equal(sqlite3_open(place->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(store_open(&store, place->path, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "newer release"));
}

/* As the first release left it, with a row in what has changed since. */
static void make_old(const char *path)
{
    static const char sql[] =
        "DROP TABLE rank_stages; ALTER TABLE jobs DROP COLUMN state_ms;"
        "ALTER TABLE metrics DROP COLUMN ms;"
        "DROP TABLE pools; DROP TABLE allocations; DROP INDEX workers_of_pool;"
        "ALTER TABLE workers DROP COLUMN pool; ALTER TABLE workers DROP COLUMN "
        "allocation;"
        "ALTER TABLE jobs DROP COLUMN pool;"
        "INSERT INTO metrics (job, step, rank, json) VALUES (1, 1, 0, '{\"loss\": 2}');"
        "PRAGMA user_version = 1";
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void database_of_the_first_release_is_brought_up_to_date(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct stage_row stage = {.job = 1, .attempt = 1, .stage = "forward"};

    insert_job(store, 1, "a");
    commit(store);
    store_close(store);
    make_old(place->path);
    store = open_store(place->path);
    assert_int_equal(find(store, "a"), 1);
    store_stage_put(store, &stage);
    store_metric_put(store, 1, 1, 0, "{\"lr\": 1}", 9);
    commit(store);
    store_close(store);
}

/* Its socket may be elsewhere. */
static void second_coordinator_on_a_database_is_refused(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path), *second;
    struct err err;

    assert_int_equal(store_open(&second, place->path, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    store_close(store);
    store = open_store(place->path); /* the lock went with the first */
    store_close(store);
}

static void file_that_is_no_database_is_refused(void **state)
{
    struct place *place = *state;
    struct store *store;
    struct err err;

    assert_int_equal(
        fs_write_file_atomic(place->path, "this is not a database, not at all", 34, &err),
        0);
    assert_int_equal(store_open(&store, place->path, &err), -1);
    assert_int_equal(err.code, ERR_FORMAT);
}

static void every_view_is_json_also_when_empty(void **state)
{
    static const char *const views[] = {"jobs",        "tasks",    "attempts", "workers",
                                        "checkpoints", "datasets", "metrics",  "events"};
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct buf json = BUF_INIT;
    struct err err;

    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        buf_reset(&json);
        assert_int_equal(store_view(store, &json, views[i], 0, 0, 0, &err), 0);
        assert_string_equal(buf_str(&json), "[]");
    }
    buf_reset(&json);
    assert_int_equal(store_view(store, &json, "job", 7, 0, 0, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(store_view(store, &json, "secrets", 0, 0, 0, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    buf_fini(&json);
    store_close(store);
}

/* SQLite forgets that a text is JSON on its way through a sort. */
static void ranks_of_a_job_are_a_list_after_a_second_attempt_too(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct buf json = BUF_INIT;
    struct err err;

    insert_job(store, 1, "a");
    for (int64_t number = 1; number <= 2; number++) {
        struct attempt_row row = {.id = number,
                                  .job = 1,
                                  .number = number,
                                  .n_ranks = 1,
                                  .state = "running",
                                  .cause = "",
                                  .reason = "",
                                  .ranks = "[{\"rank\": 0, \"pid\": 7}]"};

        store_attempt_insert(store, &row);
    }
    commit(store);
    assert_int_equal(store_view(store, &json, "job", 1, 0, 0, &err), 0);
    assert_non_null(strstr(buf_str(&json), "\"ranks\":[{\"rank\":0,\"pid\":7}]"));
    buf_fini(&json);
    store_close(store);
}

static void list_of_jobs_without_since_ends_with_the_newest(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct buf json = BUF_INIT;
    char request_id[8];
    struct err err;

    for (int i = 1; i <= 5; i++) {
        snprintf(request_id, sizeof(request_id), "r%d", i);
        insert_job(store, i, request_id);
    }
    commit(store);
    assert_int_equal(store_view(store, &json, "jobs", 0, 0, 2, &err), 0);
    assert_null(strstr(buf_str(&json), "\"id\":3,"));
    assert_true(strstr(buf_str(&json), "\"id\":4,") <
                strstr(buf_str(&json), "\"id\":5,"));
    buf_reset(&json);
    assert_int_equal(store_view(store, &json, "jobs", 0, 1, 2, &err), 0);
    assert_non_null(strstr(buf_str(&json), "\"id\":2,"));
    assert_non_null(strstr(buf_str(&json), "\"id\":3,"));
    assert_null(strstr(buf_str(&json), "\"id\":4,"));
    buf_fini(&json);
    store_close(store);
}

static void metric_of_the_same_step_is_merged_under_a_new_id(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct buf json = BUF_INIT;
    struct err err;

    store_metric_put(store, 1, 10, 0, "{\"loss\": 2.5}", 7);
    store_metric_put(store, 1, 11, 0, "{\"loss\": 2.4}", 7);
    store_metric_put(store, 1, 10, 0, "{\"val_loss\": 3.5}", 7);
    commit(store);
    assert_int_equal(store_view(store, &json, "metrics", 1, 2, 0, &err), 0);
    assert_string_equal(buf_str(&json), "[{\"id\":3,\"job\":1,\"step\":10,\"rank\":0,"
                                        "\"json\":{\"loss\":2.5,\"val_loss\":3.5}}]");
    buf_fini(&json);
    store_close(store);
}

static void only_the_last_checkpoints_are_kept(void **state)
{
    struct place *place = *state;
    struct store *store = open_store(place->path);
    struct buf json = BUF_INIT;
    struct err err;

    insert_job(store, 1, "a");
    for (int64_t step = 10; step <= 40; step += 10) {
        struct checkpoint_row row = {.job = 1, .step = step, .path = "p"};
        char path[16];

        snprintf(path, sizeof(path), "/c/%d", (int)step);
        row.path = path;
        store_checkpoint_insert(store, &row, 2);
    }
    commit(store);
    assert_int_equal(store_checkpoints_kept(store, 1, &json, &err), 0);
    assert_string_equal(buf_str(&json),
                        "{\"keep\":[\"/c/30\",\"/c/40\"],\"newest_step\":40}");
    buf_fini(&json);
    store_close(store);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(committed_rows_are_there_after_reopening),
        TEST(one_failed_write_undoes_the_whole_turn),
        TEST(store_fail_keeps_a_turn_from_being_committed),
        TEST(newer_database_is_refused),
        TEST(database_of_the_first_release_is_brought_up_to_date),
        TEST(second_coordinator_on_a_database_is_refused),
        TEST(file_that_is_no_database_is_refused),
        TEST(every_view_is_json_also_when_empty),
        TEST(ranks_of_a_job_are_a_list_after_a_second_attempt_too),
        TEST(list_of_jobs_without_since_ends_with_the_newest),
        TEST(metric_of_the_same_step_is_merged_under_a_new_id),
        TEST(only_the_last_checkpoints_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
