/* Questions about the views: what they give, and all that must be refused. */
#include "common/base/fs.h"
#include "common/base/json.h"
#include "coordinator/store/query.h"
#include "coordinator/store/store.h"

#include <ctype.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS 1800000000000 /* when the questions are asked */
#define HOUR_MS 3600000

struct place {
    char folder[64], path[96];
    struct store *store;
    atomic_bool stop;
    struct query_bounds bounds;
};

static void insert_job(struct store *store, int64_t id, const char *kind,
                       const char *state, const char *name, int64_t age_ms,
                       const char *spec)
{
    char request_id[16];
    struct job_row row = {.id = id,
                          .n_ranks = 2,
                          .submitted_ms = NOW_MS - age_ms,
                          .request_id = request_id,
                          .name = name,
                          .kind = kind,
                          .spec = spec,
                          .state = state,
                          .goal = "run",
                          .reason = "needs 2 devices, 1 free",
                          .folder = "/f"};

    snprintf(request_id, sizeof(request_id), "r%lld", (long long)id);
    store_job_insert(store, &row);
}

static void insert_ranks(struct store *store)
{
    struct worker_row worker = {.agent = "a1",
                                .host = "n1",
                                .device_kind = "cpu",
                                .version = "0",
                                .state = "up",
                                .n_devices = 2};
    struct attempt_row attempt = {
        .id = 5,
        .job = 2,
        .number = 1,
        .n_ranks = 2,
        .state = "running",
        .cause = "",
        .reason = "",
        .ranks = "[{\"rank\": 0, \"device\": 0, \"pid\": 70, \"agent\": \"a1\"},"
                 " {\"rank\": 1, \"device\": 1, \"pid\": 71, \"agent\": \"a1\"}]"};
    struct stage_row stage = {.job = 2,
                              .attempt = 1,
                              .rank = 1,
                              .since_ms = NOW_MS - 90000,
                              .limit_ms = 300000,
                              .step = 40,
                              .memory_bytes = 1 << 20,
                              .seen_ms = NOW_MS,
                              .stage = "forward"};

    store_worker_put(store, &worker);
    store_attempt_insert(store, &attempt);
    store_stage_put(store, &stage);
}

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    struct err err;

    *state = place;
    place->bounds = query_bounds_usual;
    strcpy(place->folder, "/tmp/vneva-query-XXXXXX");
    if (!mkdtemp(place->folder))
        return -1;
    snprintf(place->path, sizeof(place->path), "%s/c.db", place->folder);
    if (store_open(&place->store, place->path, &err) < 0)
        return -1;
    insert_job(place->store, 1, "prepare", "done", "data", 5 * HOUR_MS, "{}");
    insert_job(place->store, 2, "pretrain", "running", "first run", HOUR_MS,
               "{\"a\": 1}");
    insert_job(place->store, 3, "pretrain", "queued", "second", 1000, "{}");
    insert_ranks(place->store);
    for (int64_t step = 1; step <= 4; step++) {
        char json[64];

        snprintf(json, sizeof(json), "{\"loss\": %d.5, \"lr\": 0.001}", 5 - (int)step);
        store_metric_put(place->store, 2, step, 0, json, NOW_MS);
    }
    return store_commit(place->store, &err);
}

static int tear_down(void **state)
{
    struct place *place = *state;

    store_close(place->store);
    fs_remove_tree(place->folder, NULL);
    free(place);
    return 0;
}

/* ---- asking ---- */

static int ask(struct place *place, struct buf *out, const struct query_request *request,
               struct err *err)
{
    struct query_answer answer;
    int rc = query_run(&answer, place->path, request, &place->bounds, &place->stop,
                       NOW_MS, err);

    buf_reset(out);
    for (size_t i = 0; rc == 0 && i < answer.n_parts; i++)
        buf_add_str(out, answer.parts[i]);
    if (rc == 0)
        query_answer_fini(&answer);
    return rc;
}

static struct query_request of_view(const char *view, const char *where,
                                    const char *columns, const char *sort)
{
    return (struct query_request){.sql = "",
                                  .view = view,
                                  .where = where,
                                  .columns = columns,
                                  .sort = sort,
                                  .utc_offset_s = 3600};
}

static struct query_request of_sql(const char *sql)
{
    return (struct query_request){
        .sql = sql, .view = "", .where = "[]", .columns = "", .sort = ""};
}

/* The rows alone must be as given. */
static void assert_rows(struct place *place, struct query_request request,
                        const char *rows)
{
    struct buf out = BUF_INIT;
    struct err err;
    const char *at;

    if (ask(place, &out, &request, &err) < 0)
        fail_msg("%s%s %s: %s", request.sql, request.view, request.where, err.text);
    at = strstr(buf_str(&out), "\"rows\":");
    assert_non_null(at);
    if (strncmp(at + 7, rows, strlen(rows)) != 0 ||
        strcmp(at + 7 + strlen(rows), "}") != 0)
        fail_msg("%s%s %s:\n%s, not\n%s", request.sql, request.view, request.where,
                 at + 7, rows);
    buf_fini(&out);
}

static void assert_where(struct place *place, const char *where, const char *ids)
{
    assert_rows(place, of_view("jobs", where, "id", ""), ids);
}

static void assert_refused(struct place *place, struct query_request request,
                           enum err_code code, const char *text)
{
    struct buf out = BUF_INIT;
    struct err err = {ERR_NONE, ""};

    if (ask(place, &out, &request, &err) == 0)
        fail_msg("%s%s %s gives %s", request.sql, request.view, request.where,
                 buf_str(&out));
    if (err.code != code || !strstr(err.text, text))
        fail_msg("%s: %s, not %s", request.sql, err.text, text);
    buf_fini(&out);
}

/* ---- views ---- */

static void conditions_choose_rows(void **state)
{
    struct place *place = *state;

    assert_where(place, "[]", "[[1],[2],[3]]");
    assert_where(place, "[\"state=running\"]", "[[2]]");
    assert_where(place, "[\"state\", \"=\", \"running\"]", "[[2]]");
    assert_where(place, "[\"state=running,queued\"]", "[[2],[3]]");
    assert_where(place, "[\"state!=running\"]", "[[1],[3]]");
    assert_where(place, "[\"state!=running,done\"]", "[[3]]");
    assert_where(place, "[\"kind=pretrain\", \"and\", \"state=queued\"]", "[[3]]");
    assert_where(place, "[\"kind=pretrain\", \"state=queued\"]", "[[3]]");
    assert_where(place, "[\"name~FIRST\"]", "[[2]]");
    assert_where(place, "[\"name=first run\"]", "[[2]]");
    assert_where(place, "[\"name\", \"=\", \"first\", \"run\"]", "[[2]]");
    assert_where(place, "[\"name!~s\"]", "[[1]]");
    assert_where(place, "[\"id>=2\", \"id<3\"]", "[[2]]");
    assert_where(place, "[\"started=null\"]", "[[1],[2],[3]]");
    assert_where(place, "[\"started!=null\"]", "[]");
}

static void times_are_read_as_ago_or_as_dates(void **state)
{
    struct place *place = *state;

    assert_where(place, "[\"submitted>2h\"]", "[[2],[3]]"); /* in the last two hours */
    assert_where(place, "[\"submitted<2h\"]", "[[1]]");
    assert_where(place, "[\"submitted_ms>90s\"]", "[[3]]");
    /* 1800000000 is 2027-01-15T08:00:00Z, and the asker is an hour ahead */
    assert_where(place, "[\"submitted<2027-01-15T07:30\"]", "[[1]]");
    assert_where(place, "[\"submitted>2027-01-15T07:30Z\"]", "[[3]]");
    assert_where(place, "[\"submitted>2027-01-16\"]", "[]");
    assert_refused(place, of_view("jobs", "[\"submitted>soon\"]", "", ""), ERR_INVALID,
                   "is no time for submitted_ms");
}

static void units_are_read_as_they_are_written(void **state)
{
    struct place *place = *state;

    assert_rows(place, of_view("ranks", "[\"memory>=1MiB\"]", "rank", ""), "[[1]]");
    assert_rows(place, of_view("ranks", "[\"memory>1MiB\"]", "rank", ""), "[]");
    assert_rows(place, of_view("ranks", "[\"limit=5m\"]", "rank", ""), "[[1]]");
    assert_refused(place, of_view("jobs", "[\"id>two\"]", "", ""), ERR_INVALID,
                   "id is a number, 'two' is none");
    assert_refused(place, of_view("checkpoints", "[\"is_kept=maybe\"]", "", ""),
                   ERR_INVALID, "true or false");
}

static void columns_order_and_limit_are_the_askers(void **state)
{
    struct place *place = *state;
    struct query_request request =
        of_view("metrics", "[\"loss<4\"]", "step,loss", "-loss");

    assert_rows(place, request, "[[2,3.5],[3,2.5],[4,1.5]]");
    request.sort = "loss";
    request.limit = 1;
    assert_rows(place, request, "[[4,1.5]]");
    request = of_view("jobs", "[]", "name", "");
    request.after = 2;
    request.has_id = true;
    assert_rows(place, request, "[[\"second\",3]]");
    assert_rows(place, of_view("jobs", "[\"id=2\"]", "spec,submitted", ""),
                "[[{\"a\": 1},1799996400000]]");
}

static void ranks_say_what_they_do_where(void **state)
{
    assert_rows(*state,
                of_view("ranks", "[]", "job,attempt,rank,host,device,pid,stage,step", ""),
                "[[2,1,0,\"n1\",0,70,null,null],[2,1,1,\"n1\",1,71,\"forward\",40]]");
}

static void wrong_names_get_the_nearest_right_one(void **state)
{
    struct place *place = *state;

    assert_refused(place, of_view("job", "[]", "", ""), ERR_INVALID,
                   "did you mean 'jobs'?");
    assert_refused(place, of_view("zebra", "[]", "", ""), ERR_INVALID, "there are jobs,");
    assert_refused(place, of_view("jobs", "[\"stat=done\"]", "", ""), ERR_INVALID,
                   "did you mean 'state'?");
    assert_refused(place, of_view("jobs", "[]", "id,nam", ""), ERR_INVALID,
                   "did you mean 'name'?");
    assert_refused(place, of_view("metrics", "[]", "", "-los"), ERR_INVALID,
                   "did you mean 'loss'?");
    assert_refused(place, of_view("jobs", "[\"colour=1\"]", "", ""), ERR_INVALID,
                   "`vneva query views where view=jobs`");
    assert_refused(place, of_view("jobs", "[\"state\"]", "", ""), ERR_INVALID,
                   "is no condition");
    assert_refused(place, of_sql("select * from jbos"), ERR_INVALID,
                   "did you mean 'jobs'?");
    assert_refused(place, of_sql("select j.submited_ms from jobs j"), ERR_INVALID,
                   "did you mean 'submitted_ms'?");
    assert_refused(place, of_sql("select colour from jobs"), ERR_INVALID,
                   "no such column: colour");
}

/* What is asked is bound, never pasted. */
static void values_are_no_sql(void **state)
{
    struct place *place = *state;

    assert_where(place, "[\"name=' OR 1=1 --\"]", "[]");
    assert_refused(place, of_view("jobs\" --", "[]", "", ""), ERR_INVALID, "no view");
    assert_refused(place, of_view("jobs", "[]", "id\",spec --", ""), ERR_INVALID,
                   "has no column");
}

static void every_column_can_be_asked_for_by_its_name(void **state)
{
    struct place *place = *state;

    for (const struct query_view *v = query_views; v->name; v++) {
        struct buf names = BUF_INIT, out = BUF_INIT;
        struct query_request request;
        struct err err;

        for (const struct query_column *c = v->columns; c->name; c++)
            buf_printf(&names, "%s%s", names.n_bytes ? "," : "", c->name);
        request = of_view(v->name, "[]", buf_str(&names), "");
        if (ask(place, &out, &request, &err) < 0)
            fail_msg("%s", err.text);
        request = of_view(v->name, "[]", "", "");
        if (ask(place, &out, &request, &err) < 0)
            fail_msg("%s", err.text);
        for (const struct query_column *c = v->columns; c->name; c++) {
            char name[64];

            snprintf(name, sizeof(name), "{\"name\":\"%s\",\"type\":\"%s\"", c->name,
                     c->type);
            assert_non_null(strstr(buf_str(&out), name));
        }
        buf_fini(&names);
        buf_fini(&out);
    }
}

/* docs/query.md has a table of every view, as this writes it, and no other. */
static void add_section(struct buf *out, const struct query_view *v)
{
    buf_printf(out,
               "### %s\n\n%c%s.\n\n| column | type | unit | meaning |\n"
               "|---|---|---|---|\n",
               v->name, toupper((unsigned char)v->meaning[0]), v->meaning + 1);
    for (const struct query_column *c = v->columns; c->name; c++)
        buf_printf(out, "| %s%s | %s | %s | %s |\n", c->name, c->is_short ? " *" : "",
                   c->type, c->unit, c->meaning);
    if (v[1].name)
        buf_add_char(out, '\n');
}

static void documentation_has_every_view_and_column(void **state)
{
    struct buf text = BUF_INIT, expected = BUF_INIT;
    char path[FS_PATH_MAX];
    const char *views;
    struct err err;

    (void)state;
    assert_int_equal(fs_path(path, &err, "%s/docs/query.md", getenv("VNEVA_SOURCE")), 0);
    assert_int_equal(fs_read_file(&text, path, 1 << 20, &err), 0);
    for (const struct query_view *v = query_views; v->name; v++)
        add_section(&expected, v);
    views = strstr(buf_str(&text), "### ");
    assert_non_null(views);
    assert_string_equal(views, buf_str(&expected));
    buf_fini(&text);
    buf_fini(&expected);
}

/* ---- rejects ---- */

static void write_list(const char *folder, const char *text)
{
    char path[FS_PATH_MAX];
    struct err err;

    assert_int_equal(fs_make_dirs(folder, 0700, &err), 0);
    assert_int_equal(fs_path(path, &err, "%s/rejects.jsonl", folder), 0);
    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), &err), 0);
}

static void rejects_come_from_the_datasets_lists(void **state)
{
    struct place *place = *state;
    char good[96], failed[96], spec[256];
    struct dataset_row row = {.job = 1,
                              .name = "data",
                              .path = good,
                              .n_samples = 3,
                              .n_rejects = 1,
                              .fingerprint = "f"};
    struct err err;

    snprintf(good, sizeof(good), "%s/good", place->folder);
    snprintf(failed, sizeof(failed), "%s/failed", place->folder);
    snprintf(spec, sizeof(spec), "{\"model\": {\"data\": {\"output\": \"%s\"}}}", failed);
    write_list(good, "{\"file\": \"a.jsonl\", \"line\": 7, \"id\": \"s7\", \"kind\": "
                     "\"media\", \"reason\": \"no frames\"}\n");
    write_list(failed, "{\"file\": \"b.jsonl\", \"line\": 1, \"id\": \"x\", \"kind\": "
                       "\"text\", \"reason\": \"empty\"}\nnot json\n");
    store_dataset_put(place->store, &row);
    insert_job(place->store, 4, "prepare", "failed", "bad", 0, spec);
    assert_int_equal(store_commit(place->store, &err), 0);
    assert_rows(
        place, of_view("rejects", "[]", "job,sample,kind,reason,file,line", ""),
        "[[1,\"s7\",\"media\",\"no frames\",\"a.jsonl\",7],"
        "[4,\"x\",\"text\",\"empty\",\"b.jsonl\",1],"
        "[4,null,\"unreadable\",\"value expected at line 1, column 1\",null,null]]");
    assert_rows(place, of_view("rejects", "[\"job=1\"]", "sample", ""), "[[\"s7\"]]");
    assert_rows(place,
                of_sql("select kind, count(*) from rejects where job = 4 group by kind"),
                "[[\"text\",1],[\"unreadable\",1]]");
    fs_remove_tree(good, NULL); /* it should be there */
    assert_rows(place, of_sql("select count(*), max(kind) from rejects where job = 1"),
                "[[1,\"unreadable\"]]");
}

/* ---- SQL ---- */

static void pools_count_their_nodes_and_allocations_name_their_hosts(void **state)
{
    struct place *place = *state;
    struct pool_row pool = {.id = 1,
                            .min_nodes = 1,
                            .max_nodes = 4,
                            .idle_ms = 5000,
                            .name = "gpu",
                            .tag = "t",
                            .manager = "slurm",
                            .options = "[]",
                            .state = "active"};
    struct worker_row worker = {.agent = "a9",
                                .host = "n9",
                                .device_kind = "gpu",
                                .version = "0",
                                .state = "up",
                                .pool = "gpu",
                                .allocation = "77"};
    static const char *const states[] = {"running", "pending", "intended", "cancelling",
                                         "ended"};
    struct err err;

    store_pool_insert(place->store, &pool);
    store_worker_put(place->store, &worker);
    for (int i = 0; i < 5; i++) {
        char name[8];
        struct allocation_row row = {.id = i + 1,
                                     .pool = 1,
                                     .pool_name = "gpu",
                                     .name = name,
                                     .allocation = i == 0 ? "77" : "",
                                     .state = "intended",
                                     .reason = "",
                                     .now_ms = NOW_MS};

        snprintf(name, sizeof(name), "t-%d", i + 1);
        store_allocation_insert(place->store, &row);
        row.state = states[i];
        store_allocation_state(place->store, &row);
    }
    assert_int_equal(store_commit(place->store, &err), 0);
    assert_rows(place,
                of_view("pools", "[\"name=gpu\"]",
                        "name,n_running,n_pending,n_ending,n_devices", ""),
                "[[\"gpu\",1,2,1,null]]");
    assert_rows(place,
                of_view("allocations", "[\"pool=gpu\",\"state=running\"]",
                        "allocation,host,started_ms,ended_ms", ""),
                "[[\"77\",\"n9\",1800000000000,null]]");
    assert_rows(place, of_sql("SELECT count(*) FROM allocations WHERE ended_ms > 0"),
                "[[1]]");
}

static void select_sees_the_views(void **state)
{
    struct place *place = *state;

    assert_rows(place, of_sql("select count(*) from jobs"), "[[3]]");
    assert_rows(place, of_sql("select count(*) from tasks"), "[[0]]");
    assert_rows(place,
                of_sql("SELECT state, count(*) AS n FROM jobs GROUP BY 1 ORDER BY 1;"),
                "[[\"done\",1],[\"queued\",1],[\"running\",1]]");
    assert_rows(place,
                of_sql("with recent as (select id from jobs where id > 1) select j.name,"
                       " (select min(loss) from metrics m where m.job = j.id) from jobs j"
                       " join recent using (id) order by j.id"),
                "[[\"first run\",1.5],[\"second\",null]]");
    assert_rows(place,
                of_sql("select step, avg(loss) over (order by step rows 1 preceding)"
                       " from metrics where step < 3"),
                "[[1,4.5],[2,4]]");
    assert_rows(place, of_sql("select id, id from jobs limit 1"), "[[1,1]]");
    assert_rows(place, of_sql("select x'00ff', 0.1, 1e400, 'a\"b'"),
                "[[\"00ff\",0.1,null,\"a\\\"b\"]]");
    assert_rows(place, of_sql("values (1), (2)"), "[[1],[2]]");
    assert_rows(place, of_sql("select count(distinct view) from views"), "[[13]]");
}

static void answer_keeps_apart_columns_of_one_name(void **state)
{
    struct place *place = *state;
    struct query_request request =
        of_sql("select id, id, submitted_ms from jobs limit 0");
    struct buf out = BUF_INIT;
    struct err err;

    assert_int_equal(ask(place, &out, &request, &err), 0);
    assert_non_null(strstr(buf_str(&out), "\"name\":\"id_2\""));
    assert_non_null(strstr(buf_str(&out),
                           "\"submitted_ms\",\"type\":\"integer\",\"unit\":"
                           "\"time\""));
    buf_fini(&out);
}

static void select_sees_nothing_else(void **state)
{
    static const char *const denied[] = {
        "select * from main.jobs",
        "select request_id from main.jobs",
        "select * from rank_stages",
        "select * from sqlite_master",
        "select * from sqlite_temp_master",
        "select count(*) from sqlite_master",
        "select count(*) from pragma_database_list",
        "with jobs as (select * from main.jobs) select request_id from jobs",
        "with ranks as (select * from rank_stages) select * from ranks",
        "with jobs as (select sql from sqlite_temp_master) select * from jobs",
        "select (select request_id from main.jobs) from jobs",
        "select 1 from jobs where (select request_id from main.jobs) > ''",
        "select * from json_each('[1]')",
        "select * from pragma_table_info('jobs')",
        "select * from pragma_database_list",
        "explain select * from jobs",
        "explain query plan select * from jobs",
        "pragma user_version",
        "pragma writable_schema = 1",
        "attach '/etc/passwd' as x",
        "detach main",
        "vacuum into '/tmp/x'",
        "insert into jobs (id) values (9)",
        "delete from main.jobs",
        "update main.jobs set state = 'done'",
        "drop table main.jobs",
        "create table x (a)",
        "create temp table x (a)",
        "create temp view x as select 1",
        "begin immediate",
        "commit",
        "reindex",
        "analyze",
        "select load_extension('/tmp/x')",
        "select randomblob(1000000000)",
        "select zeroblob(1000000000)",
        "select sqlite_version()",
        "select fts3_tokenizer('simple')",
    };
    struct place *place = *state;

    for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++) {
        struct query_request request = of_sql(denied[i]);
        struct buf out = BUF_INIT;
        struct err err = {ERR_NONE, ""};

        if (ask(place, &out, &request, &err) == 0)
            fail_msg("%s gives %s", denied[i], buf_str(&out));
        if (err.code != ERR_DENIED && err.code != ERR_INVALID)
            fail_msg("%s: %s", denied[i], err.text);
        if (strchr(err.text, '@'))
            fail_msg("%s tells the secret: %s", denied[i], err.text);
        buf_fini(&out);
    }
    assert_refused(place, of_sql("select 1; select 2"), ERR_INVALID,
                   "more than one statement");
    assert_refused(place, of_sql(" -- nothing"), ERR_INVALID, "no SELECT");
    assert_refused(place, of_sql("select * from rank_stages"), ERR_DENIED,
                   "'rank_stages' is none of the views");
    assert_refused(place, of_sql("select load_extension('x')"), ERR_DENIED,
                   "load_extension() may not be called");
}

static void question_that_is_too_large_is_ended(void **state)
{
    struct place *place = *state;
    struct query_request numbers =
        of_sql("with recursive c(n) as (select 1 union all select n + 1 from c)"
               " select n from c");

    place->bounds.rows = 1000;
    assert_refused(place, numbers, ERR_LIMIT, "more than 1000 rows; narrow it");
    place->bounds = query_bounds_usual;
    place->bounds.bytes = 10000;
    assert_refused(place, numbers, ERR_LIMIT, "more than 10000 bytes; narrow it");
    place->bounds = query_bounds_usual;
    place->bounds.time_ms = 50;
    assert_refused(
        place,
        of_sql("with recursive c(n) as (select 1 union all select n + 1 from c)"
               " select count(*) from c"),
        ERR_LIMIT, "takes longer than 50 ms");
    place->bounds = query_bounds_usual;
    assert_refused(place, of_sql("select replace(printf('%4000000d', 1), ' ', 'xxxx')"),
                   ERR_LIMIT, "too big");
    assert_refused(place,
                   of_sql("select a, a, a from (select printf('%4000000d', 1) as a)"),
                   ERR_LIMIT, "a row has more than");
}

static void question_ends_when_it_is_told_to(void **state)
{
    struct place *place = *state;

    atomic_store(&place->stop, true);
    assert_refused(
        place,
        of_sql("with recursive c(n) as (select 1 union all select n + 1 from c)"
               " select count(*) from c"),
        ERR_STATE, "the coordinator ends");
}

static void long_answer_comes_in_parts(void **state)
{
    struct place *place = *state;
    struct query_request request = of_sql(
        "with recursive c(n) as (select 1 union all select n + 1 from c limit 100000)"
        " select n from c");
    struct query_answer answer;
    struct err err;
    int64_t n = 0;

    assert_int_equal(query_run(&answer, place->path, &request, &place->bounds,
                               &place->stop, NOW_MS, &err),
                     0);
    assert_true(answer.n_parts > 2);
    for (size_t i = 0; i < answer.n_parts; i++) {
        struct json *part, *rows;

        assert_true(strlen(answer.parts[i]) < 2 * QUERY_PART_BYTES);
        assert_int_equal(
            json_parse(&part, answer.parts[i], strlen(answer.parts[i]), &err), 0);
        rows = json_get(part, "rows");
        assert_int_equal(json_count(json_get(part, "columns")), 1);
        for (size_t r = 0; r < json_count(rows); r++)
            assert_int_equal(json_int(json_at(json_at(rows, r), 0), 0), ++n);
        json_free(part);
    }
    assert_int_equal(n, 100000);
    query_answer_fini(&answer);
}

/* The coordinator's own connection goes on meanwhile, and its uncommitted rows are not
 * seen. */
static void only_what_is_committed_is_seen(void **state)
{
    struct place *place = *state;
    struct err err;

    insert_job(place->store, 9, "pretrain", "queued", "open", 0, "{}");
    assert_where(place, "[]", "[[1],[2],[3]]");
    assert_int_equal(store_commit(place->store, &err), 0);
    assert_where(place, "[]", "[[1],[2],[3],[9]]");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(conditions_choose_rows),
        TEST(times_are_read_as_ago_or_as_dates),
        TEST(units_are_read_as_they_are_written),
        TEST(columns_order_and_limit_are_the_askers),
        TEST(ranks_say_what_they_do_where),
        TEST(wrong_names_get_the_nearest_right_one),
        TEST(values_are_no_sql),
        TEST(every_column_can_be_asked_for_by_its_name),
        TEST(documentation_has_every_view_and_column),
        TEST(rejects_come_from_the_datasets_lists),
        TEST(pools_count_their_nodes_and_allocations_name_their_hosts),
        TEST(select_sees_the_views),
        TEST(answer_keeps_apart_columns_of_one_name),
        TEST(select_sees_nothing_else),
        TEST(question_that_is_too_large_is_ended),
        TEST(question_ends_when_it_is_told_to),
        TEST(long_answer_comes_in_parts),
        TEST(only_what_is_committed_is_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
