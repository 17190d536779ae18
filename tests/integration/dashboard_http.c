/* vneva dashboard before a real coordinator, asked by a plain socket: every route, who is
 * let in, bounds, garbage, slow clients, a coordinator that goes and comes back. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "jobs/dashboard/http.h"
#include "tests/integration/http_talk.h"
#include "tests/integration/jobs_cluster.h"
#include "tests/support/prometheus_check.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NAME "<img src=x onerror=alert(1)>&\"'"
#define DEADLINE_MS 60000

static const char *const usual[] = {"--listen", "127.0.0.1:0", NULL};

struct fixture {
    struct cluster cluster;
    struct dashboard dashboard;
    int64_t job;
};

static void send_log(struct fake_agent *agent, int64_t job)
{
    static const char text[] = "first line\nsecond \x1b[1mline\x1b[0m <b>\n";
    struct wire log = {.type = MSG_LOG, .log = {job, 1, 0, {text, sizeof(text) - 1}}};

    assert_int_equal(net_client_send(agent->client, &log, NULL), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct fake_agent *agent;

    assert_non_null(f);
    cluster_init(&f->cluster);
    cluster_start(&f->cluster, NULL);
    f->job = start_training(&f->cluster, NAME, &agent);
    send_log(agent, f->job);
    tell_two_steps(&f->cluster, agent, f->job);
    dashboard_start(&f->dashboard, &f->cluster, usual);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    dashboard_stop(&f->dashboard);
    cluster_fini(&f->cluster);
    free(f);
    return 0;
}

/* ---- what there is ---- */

static void get(struct fixture *f, struct reply *reply, const char *target)
{
    talk(&f->dashboard, &f->cluster, reply, "GET", target, NULL, NULL);
}

static void has_status(struct fixture *f, const char *target, int status)
{
    struct reply reply;

    get(f, &reply, target);
    if (reply.status != status)
        fail_msg("%s has status %d", target, reply.status);
    reply_fini(&reply);
}

static void page_comes_with_the_headers_that_guard_it(void **state)
{
    static const char *const files[][2] = {{"/", "text/html"},
                                           {"/login", "text/html"},
                                           {"/page.css", "text/css"},
                                           {"/page.js", "text/javascript"},
                                           {"/dom.js", "text/javascript"},
                                           {"/chart.js", "text/javascript"},
                                           {"/favicon.svg", "image/svg+xml"}};
    static const char *const headers[] = {
        "Content-Security-Policy: default-src 'none'; script-src 'self';",
        "X-Content-Type-Options: nosniff\r\n", "X-Frame-Options: DENY\r\n",
        "Referrer-Policy: no-referrer\r\n",
        "Cross-Origin-Resource-Policy: same-origin\r\n"};
    struct fixture *f = *state;
    struct reply reply;
    char type[64];

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        get(f, &reply, files[i][0]);
        assert_int_equal(reply.status, 200);
        snprintf(type, sizeof(type), "Content-Type: %s", files[i][1]);
        assert_non_null(strstr(buf_str(&reply.text), type));
        for (size_t k = 0; k < sizeof(headers) / sizeof(headers[0]); k++)
            assert_non_null(strstr(buf_str(&reply.text), headers[k]));
        assert_true(strlen(reply.body) > 100);
        assert_null(strstr(reply.body, "onerror=")); /* nothing of a job is in it */
        reply_fini(&reply);
    }
    has_status(f, "/page", 404);
    has_status(f, "/../page.css", 404);
}

static void only_looking_is_possible(void **state)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE", "OPTIONS", "TRACE"};
    struct fixture *f = *state;
    struct reply reply;

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        talk(&f->dashboard, &f->cluster, &reply, methods[i], "/api/jobs", NULL, "");
        assert_int_equal(reply.status, 405);
        assert_non_null(strstr(buf_str(&reply.text), "Allow: GET, HEAD\r\n"));
        reply_fini(&reply);
    }
    talk(&f->dashboard, &f->cluster, &reply, "HEAD", "/", NULL, NULL);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body, "");
    reply_fini(&reply);
}

static void run(struct fixture *f, const char *words, struct buf *out)
{
    char command[FS_PATH_MAX + 256], block[4096];
    FILE *pipe;
    size_t n;

    snprintf(command, sizeof(command), "VNEVA_HOME=%s %s/vneva %s", f->cluster.home,
             getenv("VNEVA_BIN"), words);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    while ((n = fread(block, 1, sizeof(block), pipe)) > 0)
        buf_add(out, block, n);
    assert_int_equal(pclose(pipe), 0);
}

static void view_is_what_vneva_query_prints(void **state)
{
    static const char *const questions[][2] = {
        {"query jobs --format json", "/api/jobs"},
        {"query metrics where 'loss<4' --columns step,loss --format json",
         "/api/metrics?where=loss%3C4&columns=step,loss"},
        {"query metrics where job=1 and 'loss>1' --sort -loss --limit 1 --format json",
         "/api/metrics?where=job=1+and+loss%3E1&sort=-loss&limit=1"},
        {"query tasks where state=ready,leased --format json",
         "/api/tasks?where=state=ready,leased"},
        {"query views where view=jobs --format json", "/api/views?where=view=jobs"}};
    struct fixture *f = *state;
    struct buf printed = BUF_INIT;
    struct reply reply;

    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        buf_reset(&printed);
        run(f, questions[i][0], &printed);
        get(f, &reply, questions[i][1]);
        assert_int_equal(reply.status, 200);
        assert_string_equal(reply.body, buf_str(&printed));
        assert_true(strlen(reply.body) > 10);
        reply_fini(&reply);
    }
    buf_fini(&printed);
}

static void views_are_paged_and_conditions_joined(void **state)
{
    struct fixture *f = *state;
    struct json *all = talk_json(&f->dashboard, &f->cluster, "/api/events", 200), *rest;
    char target[64];

    assert_true(json_count(all) > 2);
    snprintf(target, sizeof(target), "/api/events?after=%lld&limit=1",
             (long long)json_get_int(json_at(all, 0), "id", 0));
    rest = talk_json(&f->dashboard, &f->cluster, target, 200);
    assert_int_equal(json_count(rest), 1);
    assert_int_equal(json_get_int(json_at(rest, 0), "id", 0),
                     json_get_int(json_at(all, 1), "id", -1));
    json_free(rest);
    json_free(all);
    all = talk_json(&f->dashboard, &f->cluster,
                    "/api/metrics?where=step%3E1&where=job%3D1", 200);
    assert_int_equal(json_count(all), 1);
    json_free(all);
}

static void wrong_question_is_400_and_says_why(void **state)
{
    static const char *const wrong[][2] = {
        {"/api/jbs", "did you mean 'jobs'"},
        {"/api/jobs?where=stat%3Drunning", "did you mean"},
        {"/api/jobs?where=running", "no condition"},
        {"/api/jobs?columns=nme", "did you mean 'name'"},
        {"/api/jobs?sort=nme", "did you mean 'name'"},
        {"/api/jobs?limit=0", "limit is a whole number"},
        {"/api/jobs?limit=x", "limit is a whole number"},
        {"/api/jobs?after=-1", "after is a whole number"},
        {"/api/jobs?wher=x", "no parameter 'wher'"},
        {"/api/jobs?sql=select+1", "no parameter 'sql'"},
        {"/data/job/1/log?rank=-1", "rank is a whole number"},
        {"/data/job/1?x=1", "no parameter 'x'"}};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct json *json = talk_json(&f->dashboard, &f->cluster, wrong[i][0], 400);
        const char *text = json_get_string(json_get(json, "error"), "text");

        assert_non_null(text);
        if (!strstr(text, wrong[i][1]))
            fail_msg("%s says: %s", wrong[i][0], text);
        json_free(json);
    }
    has_status(f, "/api/jobs?x=%zz", 400);
    has_status(f, "/api/jobs%00", 400);
    has_status(f, "/data/job/99", 404);
    has_status(f, "/data/job/x", 404);
    has_status(f, "/data/job/1/nothing", 404);
    has_status(f, "/data/none", 404);
}

static void overview_and_job_tell_all(void **state)
{
    struct fixture *f = *state;
    struct json *all = talk_json(&f->dashboard, &f->cluster, "/data/overview", 200);
    const struct json *step = json_at(json_get(all, "steps"), 0);

    assert_string_equal(json_get_string(json_at(json_get(all, "jobs"), 0), "name"), NAME);
    assert_int_equal(json_get_int(json_at(json_get(all, "workers"), 0), "n_busy", -1), 2);
    assert_int_equal(json_get_int(step, "step", 0), 2);
    assert_int_equal(json_get_int(step, "samples_per_s", 0), 64);
    json_free(all);
    all = talk_json(&f->dashboard, &f->cluster, "/data/job/1", 200);
    assert_string_equal(json_get_string(json_get(all, "job"), "state"), "running");
    assert_non_null(strstr(json_get_string(all, "why"), "job 1 "));
    assert_int_equal(json_count(json_get(all, "ranks")), 2);
    assert_int_equal(json_count(json_get(all, "attempts")), 1);
    json_free(all);
    all = talk_json(&f->dashboard, &f->cluster, "/data/job/1/curve", 200);
    assert_int_equal(json_count(json_get(all, "points")), 2);
    assert_true(json_get_double(json_at(json_get(all, "points"), 1), "loss", 0) == 3.25);
    json_free(all);
    all = talk_json(&f->dashboard, &f->cluster, "/data/job/1/log?rank=0", 200);
    assert_int_equal(json_get_int(all, "attempt", 0), 1);
    assert_string_equal(json_get_string(all, "text"),
                        "first line\nsecond \x1b[1mline\x1b[0m <b>\n");
    json_free(all);
}

/* However many wait before them: the list has a bound. */
static void jobs_at_work_are_listed_before_those_that_wait(void **state)
{
    struct fixture *f = *state;
    int64_t waits = submit_train(&f->cluster, "waits", 10, 1, 2), works;
    struct buf said = BUF_INIT;
    struct json *all = NULL;
    char hold[32];

    snprintf(hold, sizeof(hold), "hold %d", (int)waits);
    run(f, hold, &said);
    buf_fini(&said);
    cluster_add_agent(&f->cluster, 2, 0)->script = SCRIPT_KEEP;
    works = submit_train(&f->cluster, "works", 10, 1, 2);
    cluster_wait_job(&f->cluster, works, "running");
    do { /* an answer may be a second old */
        json_free(all);
        all = talk_json(&f->dashboard, &f->cluster, "/data/overview", 200);
    } while (json_count(json_get(all, "jobs")) < 3);
    assert_int_equal(json_get_int(json_at(json_get(all, "jobs"), 1), "id", 0), works);
    assert_int_equal(json_get_int(json_at(json_get(all, "jobs"), 2), "id", 0), waits);
    json_free(all);
}

#define N_VALIDATIONS 605 /* more than twice as many as a curve has */

static bool is_trained(struct cluster *cluster, void *context)
{
    return job_int(cluster, *(int64_t *)context, "done") == N_VALIDATIONS;
}

/* Of many validations every n-th, and always the newest. */
static void curve_ends_with_the_newest_validation(void **state)
{
    struct fixture *f = *state;
    int64_t job = submit_train(&f->cluster, "long", N_VALIDATIONS, 1, 2);
    const struct json *points;
    struct json *all;
    char path[64];

    cluster_add_agent(&f->cluster, 2, 0);
    assert_true(cluster_wait(&f->cluster, is_trained, &job));
    snprintf(path, sizeof(path), "/data/job/%d/curve", (int)job);
    all = talk_json(&f->dashboard, &f->cluster, path, 200);
    points = json_get(all, "validation");
    assert_in_range(json_count(points), 150, 300);
    assert_int_equal(json_get_int(json_at(points, json_count(points) - 1), "step", 0),
                     N_VALIDATIONS);
    json_free(all);
}

/* ---- files of a job's folder ---- */

static const char png[] = "\x89PNG\r\n\x1a\nrest";

static void put(struct fixture *f, const char *name, const char *bytes, size_t n_bytes)
{
    char path[FS_PATH_MAX];
    struct err err = {ERR_NONE, ""};

    if (fs_path(path, &err, "%s/jobs/1/%s", f->cluster.home, name) < 0 ||
        fs_write_file_atomic(path, bytes, n_bytes, &err) < 0)
        fail_msg("%s", err.text);
}

static void examples_come_from_the_folder_and_nothing_else_does(void **state)
{
    static const char table[] = "{\"n\": 1, \"accuracy\": 1.0}";
    static const char examples[] =
        "[{\"id\": \"a\", \"question\": \"<b>?\", \"expected\": \"x\", \"given\": \"y\","
        " \"is_correct\": false, \"frames\": [\"0000-0.png\"]}]";
    static const char *const refused[] = {"/data/job/1/frames/secret.png",
                                          "/data/job/1/frames/text.png",
                                          "/data/job/1/frames/none.png",
                                          "/data/job/1/frames/examples.json",
                                          "/data/job/1/frames/..%2Ftop.png",
                                          "/data/job/1/frames/../top.png",
                                          "/data/job/1/frames/",
                                          "/data/job/1/frames/.png",
                                          "/data/job/2/frames/0000-0.png"};
    struct fixture *f = *state;
    char path[FS_PATH_MAX], link[FS_PATH_MAX];
    struct json *all;
    struct reply reply;

    snprintf(path, sizeof(path), "%s/jobs/1/examples", f->cluster.home);
    assert_int_equal(fs_make_dirs(path, 0700, NULL), 0);
    put(f, "table.json", table, sizeof(table) - 1);
    put(f, "top.png", png, sizeof(png));
    put(f, "examples/examples.json", examples, sizeof(examples) - 1);
    put(f, "examples/0000-0.png", png, sizeof(png));
    put(f, "examples/text.png", "no picture", 10);
    snprintf(link, sizeof(link), "%s/secret.png", path);
    assert_int_equal(symlink("../top.png", link), 0);
    all = talk_json(&f->dashboard, &f->cluster, "/data/job/1/examples", 200);
    assert_int_equal(json_get_int(json_get(all, "table"), "n", 0), 1);
    assert_string_equal(
        json_get_string(json_at(json_get(all, "examples"), 0), "question"), "<b>?");
    json_free(all);
    get(f, &reply, "/data/job/1/frames/0000-0.png");
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(buf_str(&reply.text), "Content-Type: image/png\r\n"));
    assert_memory_equal(reply.body, png, sizeof(png));
    reply_fini(&reply);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        has_status(f, refused[i], 404);
}

static void metrics_are_prometheus_text(void **state)
{
    struct fixture *f = *state;
    struct reply reply;
    struct err err = {ERR_NONE, ""};

    get(f, &reply, "/metrics");
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(buf_str(&reply.text),
                           "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    if (prometheus_check(reply.body, &err) < 0)
        fail_msg("%s", err.text);
    assert_non_null(strstr(reply.body, "\nvneva_jobs{state=\"running\"} 1\n"));
    assert_non_null(strstr(reply.body, "\nvneva_devices_busy 2\n"));
    assert_non_null(strstr(reply.body, "\nvneva_job_loss{job=\"1\"} 3.25\n"));
    assert_non_null(strstr(
        reply.body, "name=\"<img src=x onerror=alert(1)>&\\\"'\",kind=\"pretrain\"}"));
    reply_fini(&reply);
}

/* ---- hostile clients ---- */

static void raw(struct fixture *f, struct reply *reply, const char *bytes, size_t n_bytes)
{
    int fd = talk_open(&f->dashboard);

    talk_send(fd, bytes, n_bytes);
    shutdown(fd, SHUT_WR);
    talk_finish(fd, reply, &f->cluster);
}

static void other_names_of_this_machine_are_refused(void **state)
{
    static const char *const hosts[] = {"Host: evil.example\r\n",
                                        "Host: 127.0.0.1.evil.example\r\n",
                                        "Host: localhost.evil.example:80\r\n", ""};
    struct fixture *f = *state;
    struct reply reply;
    char text[256];

    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        snprintf(text, sizeof(text), "GET /api/jobs HTTP/1.0\r\n%s\r\n", hosts[i]);
        raw(f, &reply, text, strlen(text));
        assert_int_equal(reply.status, 403);
        reply_fini(&reply);
    }
    snprintf(text, sizeof(text), "GET /api/jobs HTTP/1.0\r\nHost: LocalHost:99\r\n\r\n");
    raw(f, &reply, text, strlen(text));
    assert_int_equal(reply.status, 200);
    reply_fini(&reply);
}

static void garbage_and_what_is_too_large_are_refused(void **state)
{
    struct fixture *f = *state;
    struct buf text = BUF_INIT;
    struct reply reply;

    buf_add_str(&text, "GET /api/jobs?where=");
    for (int i = 0; i < 5000; i++)
        buf_add_char(&text, 'a');
    buf_add_str(&text, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    raw(f, &reply, text.data, text.n_bytes);
    assert_int_equal(reply.status, 414);
    reply_fini(&reply);
    buf_reset(&text);
    buf_add_str(&text, "GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    for (int i = 0; i < 2 * HTTP_HEAD_MAX; i++)
        buf_add_char(&text, 'a');
    buf_add_str(&text, "\r\n\r\n");
    raw(f, &reply, text.data, text.n_bytes);
    assert_true(reply.status == 0 || reply.status == 431);
    reply_fini(&reply);
    buf_reset(&text);
    for (unsigned i = 0; i < 4096; i++)
        buf_add_char(&text, (char)(i * 2654435761U >> 13));
    raw(f, &reply, text.data, text.n_bytes);
    assert_true(reply.status == 0 || reply.status == 400);
    reply_fini(&reply);
    raw(f, &reply, "GET / HTTP/9.9\r\n\r\n", 18);
    assert_true(reply.status != 200);
    reply_fini(&reply);
    buf_fini(&text);
    has_status(f, "/", 200);
}

static void large_body_is_not_taken(void **state)
{
    struct fixture *f = *state;
    struct buf text = BUF_INIT;
    struct reply reply;

    buf_add_str(&text, "POST /login HTTP/1.1\r\nHost: localhost\r\n"
                       "Content-Length: 99999999\r\n\r\ntoken=");
    raw(f, &reply, text.data, text.n_bytes);
    assert_int_equal(reply.status, 413);
    reply_fini(&reply);
    buf_reset(&text);
    buf_add_str(&text, "POST /login HTTP/1.1\r\nHost: localhost\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < HTTP_BODY_MAX; i++)
        buf_add_str(&text, "2\r\naa\r\n");
    raw(f, &reply, text.data, text.n_bytes);
    assert_int_equal(reply.status, 0);
    reply_fini(&reply);
    buf_fini(&text);
    has_status(f, "/", 200);
}

/* Whether the server has ended the connection. */
static bool is_closed(int fd)
{
    char bytes[256];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno != EAGAIN);
}

/* One that never stops sending, a byte now and then, is cut all the same; others are
 * answered meanwhile. */
static void slow_clients_hold_up_nobody_and_are_cut(void **state)
{
    struct fixture *f = *state;
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;
    int slow[20], n_open = 20;

    for (int i = 0; i < n_open; i++) {
        slow[i] = talk_open(&f->dashboard);
        talk_send(slow[i], "GET / HTTP/1.1\r\nX: ", 19);
    }
    has_status(f, "/api/jobs", 200);
    while (n_open > 0) {
        assert_true(clock_mono_ms() < end_ms);
        cluster_step(&f->cluster, 100);
        for (int i = 0; i < n_open; i++) {
            talk_send(slow[i], "x", 1);
            if (is_closed(slow[i])) {
                close(slow[i]);
                slow[i--] = slow[--n_open];
            }
        }
    }
    has_status(f, "/api/jobs", 200);
}

/* Those beyond the limit are closed while the first ones, whose time is not up yet, are
 * not. */
static void one_address_has_so_many_connections_at_most(void **state)
{
    struct fixture *f = *state;
    int fds[HTTP_CONNECTIONS_PEER_MAX + 8];
    int n = (int)(sizeof(fds) / sizeof(fds[0]));
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;

    for (int i = 0; i < n; i++)
        fds[i] = talk_open(&f->dashboard);
    while (!is_closed(fds[n - 1])) {
        assert_true(clock_mono_ms() < end_ms);
        cluster_step(&f->cluster, 10);
    }
    assert_false(is_closed(fds[0]));
    for (int i = 0; i < n; i++)
        close(fds[i]);
    for (struct reply reply = {.status = 0}; reply.status != 200; reply_fini(&reply)) {
        assert_true(clock_mono_ms() < end_ms);
        get(f, &reply, "/");
    }
}

/* ---- the coordinator goes and comes back ---- */

static void coordinator_that_is_down_is_said_to_be_and_found_again(void **state)
{
    struct fixture *f = *state;
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;
    struct reply reply = {.status = 0};
    struct json *json;

    cluster_kill(&f->cluster, SIGKILL);
    while (reply.status != 503) { /* an answer of a moment ago may still be given */
        assert_true(clock_mono_ms() < end_ms);
        get(f, &reply, "/data/overview");
        if (reply.status == 503)
            assert_non_null(strstr(reply.body, "no coordinator answers"));
        reply_fini(&reply);
    }
    json = talk_json(&f->dashboard, &f->cluster, "/api/workers", 503);
    assert_string_equal(json_get_string(json_get(json, "error"), "code"), "timeout");
    json_free(json);
    has_status(f, "/", 200);
    do {
        assert_true(clock_mono_ms() < end_ms);
        reply_fini(&reply);
        get(f, &reply, "/metrics");
        assert_int_equal(reply.status, 200);
    } while (!strstr(reply.body, "\nvneva_up 0\n"));
    reply_fini(&reply);
    cluster_start(&f->cluster, NULL);
    for (reply.status = 0; reply.status != 200; reply_fini(&reply)) {
        assert_true(clock_mono_ms() < end_ms);
        get(f, &reply, "/data/overview");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_comes_with_the_headers_that_guard_it),
        cmocka_unit_test(only_looking_is_possible),
        cmocka_unit_test(view_is_what_vneva_query_prints),
        cmocka_unit_test(views_are_paged_and_conditions_joined),
        cmocka_unit_test(wrong_question_is_400_and_says_why),
        cmocka_unit_test(overview_and_job_tell_all),
        cmocka_unit_test(examples_come_from_the_folder_and_nothing_else_does),
        cmocka_unit_test(metrics_are_prometheus_text),
        cmocka_unit_test(other_names_of_this_machine_are_refused),
        cmocka_unit_test(garbage_and_what_is_too_large_are_refused),
        cmocka_unit_test(large_body_is_not_taken),
        cmocka_unit_test(slow_clients_hold_up_nobody_and_are_cut),
        cmocka_unit_test(one_address_has_so_many_connections_at_most),
        cmocka_unit_test(coordinator_that_is_down_is_said_to_be_and_found_again),
        cmocka_unit_test(jobs_at_work_are_listed_before_those_that_wait),
        cmocka_unit_test(curve_ends_with_the_newest_validation),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
