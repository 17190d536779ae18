/* Questions beside the loop, and ranks that get nowhere, through the real program. */
#include "common/base/clock.h"
#include "tests/integration/jobs_cluster.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#define ANSWER_MS 30000
/* Takes long, whatever the machine: it ends at the limit of time. */
#define ENDLESS                                                                          \
    "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) "   \
    "from c"

/* ---- questions ---- */

static uint64_t send_sql(struct net_client *client, const char *sql)
{
    struct wire request = {
        .type = MSG_SELECT,
        .select = {.sql = sql, .view = "", .where = "[]", .columns = "", .sort = ""}};

    assert_int_equal(net_client_send(client, &request, NULL), 0);
    return request.sequence;
}

static struct net_client *open_client(struct cluster *cluster)
{
    struct net_client *client;
    struct err err;

    if (net_client_open(&client, cluster->endpoint, NULL, &err) < 0)
        fail_msg("%s", err.text);
    return client;
}

/* The first row's first number. */
static int64_t ask_number(struct cluster *cluster, const char *sql)
{
    struct net_client *client = open_client(cluster);
    uint64_t sequence = send_sql(client, sql);
    struct json *table;
    struct wire reply;
    struct err err;
    int64_t number;

    if (net_client_await(client, sequence, &reply, ANSWER_MS, &err) < 0)
        fail_msg("%s: %s", sql, err.text);
    assert_int_equal(reply.type, MSG_TABLE);
    assert_int_equal(reply.table.is_last, 1);
    assert_int_equal(json_parse(&table, reply.table.json, strlen(reply.table.json), &err),
                     0);
    number = json_int(json_at(json_at(json_get(table, "rows"), 0), 0), -1);
    json_free(table);
    wire_fini(&reply);
    net_client_close(client);
    return number;
}

static void long_question_holds_up_nothing_and_ends_at_its_limit(void **state)
{
    struct cluster *cluster = *state;
    struct net_client *client = open_client(cluster);
    uint64_t sequence = send_sql(client, ENDLESS);
    char spec[1024];
    struct wire reply;
    struct err err = {ERR_NONE, ""};

    spec_prepare(spec, sizeof(spec), 10);
    cluster_add_agent(cluster, 1, 30);
    cluster_wait_job(cluster, cluster_submit(cluster, "r", "prepare", spec), "done");
    /* The whole job has run before the answer came. */
    assert_int_equal(net_client_receive(client, &reply, 0, &err), 0);
    assert_int_equal(net_client_await(client, sequence, &reply, ANSWER_MS, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_non_null(strstr(err.text, "takes longer than"));
    net_client_close(client);
}

static void client_with_too_many_questions_is_refused(void **state)
{
    struct net_client *client = open_client(*state);
    uint64_t sequence = 0;
    struct wire reply;
    struct err err = {ERR_NONE, ""};

    for (int i = 0; i < 5; i++)
        sequence = send_sql(client, ENDLESS);
    assert_int_equal(net_client_await(client, sequence, &reply, ANSWER_MS, &err), -1);
    assert_non_null(strstr(err.text, "4 questions of this client wait already"));
    net_client_close(client);
}

static void long_answer_comes_in_several_messages(void **state)
{
    struct net_client *client = open_client(*state);
    uint64_t sequence =
        send_sql(client, "with recursive c(n) as (select 1 union all select n + 1 from c"
                         " limit 100000) select n from c");
    struct wire reply;
    struct err err;
    int n_parts = 0;
    bool is_last;

    do {
        if (net_client_await(client, sequence, &reply, ANSWER_MS, &err) < 0)
            fail_msg("%s", err.text);
        is_last = reply.table.is_last != 0;
        n_parts++;
        wire_fini(&reply);
    } while (!is_last);
    assert_in_range(n_parts, 3, 10);
    net_client_close(client);
}

/* More rows than the client asks for at once, put in from beside. */
static void add_events(const struct cluster *cluster, int n)
{
    char path[128], sql[256];
    sqlite3 *db;

    snprintf(path, sizeof(path), "%s/coordinator.db", cluster->home);
    snprintf(sql, sizeof(sql),
             "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT %d)"
             " INSERT INTO events (job, ms, kind, text) SELECT 77, n, 'test', n FROM c",
             n);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, ANSWER_MS);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static FILE *run_query(const struct cluster *cluster, const char *words)
{
    char command[512];
    FILE *pipe;

    snprintf(command, sizeof(command), "VNEVA_HOME=%s %s/vneva query %s", cluster->home,
             getenv("VNEVA_BIN"), words);
    pipe = popen(command, "r"); /* NOLINT(cert-env33-c): a test's own command */
    assert_non_null(pipe);
    return pipe;
}

static void client_gets_every_row_once_whatever_their_number(void **state)
{
    struct cluster *cluster = *state;
    char line[128];
    int64_t n = 0;
    FILE *pipe;

    assert_int_equal(ask_number(cluster, "select 7"), 7); /* the database is made */
    add_events(cluster, 45000);
    pipe = run_query(cluster, "events where job=77 --columns text,kind --format csv");
    assert_non_null(fgets(line, sizeof(line), pipe));
    assert_string_equal(line, "text,kind\n");
    while (fgets(line, sizeof(line), pipe)) {
        assert_int_equal(strtoll(line, NULL, 10), ++n);
        assert_non_null(strstr(line, ",test\n"));
    }
    assert_int_equal(n, 45000);
    assert_int_equal(pclose(pipe), 0);
    pipe = run_query(cluster, "events where job=77 --columns text --sort -text --limit 2"
                              " --format csv");
    assert_non_null(fgets(line, sizeof(line), pipe));
    assert_non_null(fgets(line, sizeof(line), pipe));
    assert_string_equal(line, "9999\n"); /* texts sort as texts */
    assert_non_null(fgets(line, sizeof(line), pipe));
    assert_null(fgets(line, sizeof(line), pipe));
    assert_int_equal(pclose(pipe), 0);
}

/* The question in work ends with the coordinator: it does not hold it up either. */
static void coordinator_ends_while_a_question_is_in_work(void **state)
{
    struct cluster *cluster = *state;
    struct net_client *client = open_client(cluster);

    send_sql(client, ENDLESS);
    assert_int_equal(ask_number(cluster, "select 7"), 7); /* behind it, so it was taken */
    send_sql(client, ENDLESS);
    cluster_kill(cluster, SIGTERM);
    net_client_close(client);
}

/* ---- ranks that get nowhere ---- */

/* The attempt has its first 20 steps behind it and sits on the rest. */
static bool sits_on_a_task(struct cluster *cluster, void *context)
{
    const struct fake_agent *agent = context;

    (void)cluster;
    for (int i = 0; i < AGENT_RANKS_MAX; i++)
        if (agent->ranks[i].is_used && !agent->ranks[i].is_ended &&
            agent->ranks[i].n_tasks > 0 && agent->ranks[i].tasks[0].first >= 20)
            return true;
    return false;
}

static void say_stage(struct fake_agent *agent, int64_t job, int64_t attempt,
                      int64_t rank, const char *stage, int64_t for_ms, int64_t limit_ms)
{
    struct wire message = {.type = MSG_RANK_STAGE};

    message.rank_stage = (struct msg_rank_stage){.job = job,
                                                 .attempt = attempt,
                                                 .rank = rank,
                                                 .stage = stage,
                                                 .for_ms = for_ms,
                                                 .limit_ms = limit_ms,
                                                 .step = 23,
                                                 .memory_bytes = 4096};
    assert_int_equal(net_client_send(agent->client, &message, NULL), 0);
}

static bool is_second_attempt(struct cluster *cluster, void *context)
{
    struct json *rows = cluster_rows(cluster, "job", *(int64_t *)context);
    bool is_it = json_get_int(json_at(rows, 0), "attempt", 0) == 2;

    json_free(rows);
    return is_it;
}

static bool has_two_stages(struct cluster *cluster, void *context)
{
    (void)context;
    return ask_number(cluster, "select count(stage) from ranks") == 2;
}

static void rank_in_a_stage_beyond_its_limit_ends_the_attempt_by_name(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent = cluster_add_agent(cluster, 2, 0);
    struct json *rows;
    char spec[2048];
    const char *reason;
    int64_t job;

    spec_train(spec, sizeof(spec), 40, 10, 2);
    agent->script = SCRIPT_KEEP;
    agent->keep_from = 20;
    job = cluster_submit(cluster, "r", "pretrain", spec);
    assert_true(cluster_wait(cluster, sits_on_a_task, agent));
    say_stage(agent, job, 1, 0, "all-reduce of group tensor", 90000, 0); /* may wait */
    say_stage(agent, job, 1, 1, "forward", 90000, 90000); /* just not yet */
    say_stage(agent, job, 7, 1, "forward", 90000, 10);    /* no attempt */
    say_stage(agent, job, 1, 9, "forward", 90000, 10);    /* no rank */
    assert_true(cluster_wait(cluster, has_two_stages, NULL));
    assert_int_equal(ask_number(cluster, "select count(*) from ranks where step = 23 and"
                                         " job = 1 and memory_bytes = 4096"),
                     2);
    say_stage(agent, job, 1, 1, "forward", 90001, 90000);
    assert_true(cluster_wait(cluster, is_second_attempt, &job));
    agent->script = SCRIPT_WORK;
    assert_int_equal(agent->last_stop_grace_ms, 2000);
    rows = cluster_rows(cluster, "attempts", job);
    reason = json_get_string(json_at(rows, 0), "reason");
    assert_string_equal(json_get_string(json_at(rows, 0), "cause"), "lost");
    assert_non_null(strstr(reason, "rank 1 on "));
    assert_non_null(strstr(reason, "is stuck: it has been in forward for 90 s"));
    json_free(rows);
    cluster_wait_job(cluster, job, "done");
    assert_int_equal(
        ask_number(cluster, "select count(*) from events where kind = 'stuck'"), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, jobs_set_up, jobs_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(long_question_holds_up_nothing_and_ends_at_its_limit),
        TEST(client_with_too_many_questions_is_refused),
        TEST(long_answer_comes_in_several_messages),
        TEST(client_gets_every_row_once_whatever_their_number),
        TEST(coordinator_ends_while_a_question_is_in_work),
        TEST(rank_in_a_stage_beyond_its_limit_ends_the_attempt_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
