/* The dashboard's pure parts: addresses, hosts, cookies, tokens, numbers for Prometheus. */
#include "common/base/fs.h"
#include "jobs/dashboard/listen.h"
#include "jobs/dashboard/metrics.h"
#include "jobs/dashboard/page.h"
#include "jobs/dashboard/token.h"
#include "jobs/dashboard/url.h"
#include "tests/support/prometheus_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- addresses ---- */

static void address_is_taken_apart_and_decoded(void **state)
{
    struct url url;
    struct err err = {ERR_NONE, ""};

    (void)state;
    assert_int_equal(
        url_parse(&url, "/api/jo%62s?where=a%3Db+c&where=loss%3C2&x&y=&z=%C3%A9", &err),
        0);
    assert_string_equal(url.path, "/api/jobs");
    assert_int_equal(url.n_params, 5);
    assert_string_equal(url.params[0].value, "a=b c");
    assert_string_equal(url.params[1].value, "loss<2");
    assert_string_equal(url_param(&url, "x"), "");
    assert_string_equal(url_param(&url, "z"), "\xc3\xa9");
    assert_null(url_param(&url, "none"));
    url_fini(&url);
    assert_int_equal(url_parse(&url, "/a+b?", &err), 0); /* "+" is itself in a path */
    assert_string_equal(url.path, "/a+b");
    assert_int_equal(url.n_params, 0);
    url_fini(&url);
}

static void address_that_is_broken_is_refused(void **state)
{
    static const char *const broken[] = {
        "",      "api/jobs", "http://a/b", "/%",     "/%4",   "/%zz",    "/%00",
        "/a%0a", "/\x01",    "/%ff",       "/?a=%0", "/?%c3", "/?a=%7f", "*"};
    char longer[URL_MAX + 2], many[URL_MAX];
    struct url url;
    struct err err;
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        assert_int_equal(url_parse(&url, broken[i], &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
    memset(longer, '/', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(url_parse(&url, longer, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    n = (size_t)snprintf(many, sizeof(many), "/?");
    for (int i = 0; i <= URL_PARAMS_MAX; i++)
        n += (size_t)snprintf(many + n, sizeof(many) - n, "a=%d&", i);
    assert_int_equal(url_parse(&url, many, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
}

static void form_is_taken_apart(void **state)
{
    struct url url;

    (void)state;
    assert_int_equal(url_parse_form(&url, "token=a%2Bb&c=d", 11, NULL), 0);
    assert_string_equal(url_param(&url, "token"), "a+b"); /* 11 bytes: no more */
    assert_int_equal(url.n_params, 1);
    url_fini(&url);
    assert_int_equal(url_parse_form(&url, "token=a\0b", 9, NULL), -1);
}

static void numbers_and_names_of_parameters_are_checked(void **state)
{
    static const char *const known[] = {"limit", "b", NULL};
    struct url url;
    struct err err;
    int64_t n;

    (void)state;
    assert_int_equal(url_parse(&url, "/?limit=12&b=x1&d=+5", &err), 0);
    assert_int_equal(url_param_int(&url, "limit", 1, 20, 7, &n, &err), 0);
    assert_int_equal(n, 12);
    assert_int_equal(url_param_int(&url, "none", 1, 20, 7, &n, &err), 0);
    assert_int_equal(n, 7);
    assert_int_equal(url_param_int(&url, "limit", 1, 11, 7, &n, &err), -1);
    assert_int_equal(url_param_int(&url, "b", 1, 11, 7, &n, &err), -1);
    assert_int_equal(url_param_int(&url, "d", 1, 11, 7, &n, &err), -1);
    assert_int_equal(url_check_params(&url, known, &err), -1);
    assert_non_null(strstr(err.text, "'d'"));
    url_fini(&url);
}

static void only_loopback_names_are_hosts_of_this_machine(void **state)
{
    static const char *const own[] = {"localhost", "LOCALHOST:80", "127.0.0.1:8420",
                                      "[::1]", "[::1]:1"};
    static const char *const others[] = {"",
                                         "evil.example",
                                         "localhost.evil.example",
                                         "127.0.0.1.evil.example",
                                         "localhost:80x",
                                         "localhost:80:90",
                                         "127.0.0.1@evil",
                                         "::1",
                                         "10.0.0.1"};

    (void)state;
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        assert_true(url_host_is_loopback(own[i]));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_false(url_host_is_loopback(others[i]));
    assert_false(url_host_is_loopback(NULL));
}

static void cookie_is_found_among_others(void **state)
{
    size_t n = 0;
    const char *at = url_find_cookie("xtoken=1; token=abc; token=d", "token", &n);

    (void)state;
    assert_non_null(at);
    assert_int_equal(n, 3);
    assert_memory_equal(at, "abc", 3);
    assert_null(url_find_cookie("xtoken=1; tokens=2;;", "token", &n));
    assert_null(url_find_cookie(NULL, "token", &n));
    at = url_find_cookie("token=", "token", &n);
    assert_non_null(at);
    assert_int_equal(n, 0);
}

/* ---- tokens ---- */

static void write_file(const char *path, const char *text, unsigned mode)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
}

static void token_is_made_once_and_private(void **state)
{
    char folder[] = "/tmp/vneva-token-XXXXXX", path[64];
    struct token first, second;
    struct err err = {ERR_NONE, ""};
    struct stat st;
    bool is_new = false;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/t", folder);
    assert_int_equal(token_load(&first, path, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(token_load_or_make(&first, path, &is_new, &err), 0);
    assert_true(is_new);
    assert_int_equal(strlen(first.text), 2 * TOKEN_MADE_BYTES);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(token_load_or_make(&second, path, &is_new, &err), 0);
    assert_false(is_new);
    assert_string_equal(first.text, second.text);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(token_load_or_make(&second, path, &is_new, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    fs_remove_tree(folder, NULL);
}

static void token_file_that_holds_none_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "\n",
                                      "short\n",
                                      "has a space in its middle\n",
                                      "semicolon;semicolon;semicolon\n",
                                      "first-line-is-long-enough\nsecond\n"};
    char folder[] = "/tmp/vneva-token-XXXXXX", path[64], longer[TOKEN_MAX + 3];
    struct token token;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/t", folder);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_file(path, bad[i], 0600);
        assert_int_equal(token_load(&token, path, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    write_file(path, longer, 0600);
    assert_int_equal(token_load(&token, path, &err), -1);
    longer[TOKEN_MAX] = '\0';
    write_file(path, longer, 0600);
    assert_int_equal(token_load(&token, path, &err), 0);
    fs_remove_tree(folder, NULL);
}

static void token_is_that_one_only(void **state)
{
    struct token token = {"0123456789abcdef"}, none = {""};

    (void)state;
    assert_true(token_is(&token, "0123456789abcdef", 16));
    assert_false(token_is(&token, "0123456789abcdeX", 16));
    assert_false(token_is(&token, "X123456789abcdef", 16));
    assert_false(token_is(&token, "0123456789abcde", 15));
    assert_false(token_is(&token, "0123456789abcdef0123456789abcdef", 32));
    assert_false(token_is(&token, "", 0));
    assert_false(token_is(&token, NULL, 0));
    assert_false(token_is(&none, "", 0));
}

/* ---- listening ---- */

static void address_to_listen_at_is_read(void **state)
{
    static const char *const bad[] = {
        "", "8420", "host:", ":x", "::1:80", "localhost", "a:1:2", "127.0.0.1:99999999"};
    struct listen_at at, again;
    struct err err = {ERR_NONE, ""};

    (void)state;
    assert_int_equal(listen_open(&at, "127.0.0.1:0", &err), 0);
    assert_true(at.is_loopback);
    assert_int_equal(listen_open(&again, at.name, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    close(at.fd);
    assert_int_equal(listen_open(&at, "*:0", &err), 0);
    assert_false(at.is_loopback);
    close(at.fd);
    assert_int_equal(listen_open(&at, "0.0.0.0:0", &err), 0);
    assert_false(at.is_loopback);
    close(at.fd);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(listen_open(&at, bad[i], &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
}

/* ---- Prometheus ---- */

static const char facts_text[] =
    "{\"states\": [{\"state\": \"running\", \"n\": 2}],"
    " \"tasks\": [{\"state\": \"done\", \"n\": 7, \"n_failures\": 1},"
    "             {\"state\": \"ready\", \"n\": 3, \"n_failures\": 2}],"
    " \"attempts\": [{\"cause\": \"lost\", \"n\": 4}, {\"cause\": \"done\", \"n\": 9}],"
    " \"workers\": [{\"agent\": \"a\", \"host\": \"h\\\"1\\\\\\n\", \"state\": \"up\","
    "   \"n_devices\": 8, \"n_busy\": 5, \"last_seen_ms\": 98500},"
    "   {\"agent\": \"b\", \"host\": \"h2\", \"state\": \"lost\", \"n_devices\": 8,"
    "    \"n_busy\": 8, \"last_seen_ms\": 1}],"
    " \"jobs\": [{\"job\": 3, \"name\": \"a \\\"name\\\"\\n\", \"kind\": \"pretrain\","
    "   \"done\": 10, \"total\": 40}],"
    " \"steps\": [{\"job\": 3, \"step\": 10, \"loss\": 3.25, \"val_loss\": null,"
    "   \"step_ms\": 100, \"wait_ms\": 20, \"comm_ms\": 30, \"samples_per_s\": 320.5,"
    "   \"tflops\": 0.5, \"time_ms\": 99000}],"
    " \"ranks\": [{\"job\": 3, \"n\": 2, \"memory_bytes\": 123, \"since_ms\": 90000}],"
    " \"checkpoints\": [{\"job\": 3, \"created_ms\": 40000}]}";

static void holds(const struct buf *text, const char *line)
{
    char whole[256];

    snprintf(whole, sizeof(whole), "\n%s\n", line);
    if (!strstr(buf_str(text), whole))
        fail_msg("no line '%s' in:\n%s", line, buf_str(text));
}

static void numbers_have_units_and_labels_are_escaped(void **state)
{
    struct buf text = BUF_INIT;
    struct json *facts;
    struct err err = {ERR_NONE, ""};

    (void)state;
    assert_int_equal(json_parse(&facts, facts_text, strlen(facts_text), &err), 0);
    metrics_write(&text, facts, 100000);
    if (prometheus_check(buf_str(&text), &err) < 0)
        fail_msg("%s", err.text);
    holds(&text, "vneva_up 1");
    holds(&text, "vneva_jobs{state=\"running\"} 2");
    holds(&text, "vneva_jobs{state=\"failed\"} 0");
    holds(&text, "vneva_tasks{state=\"ready\"} 3");
    holds(&text, "vneva_tasks_done_total 7");
    holds(&text, "vneva_task_failures_total 3");
    holds(&text, "vneva_attempts_lost_total 4");
    holds(&text, "vneva_workers{state=\"up\"} 1");
    holds(&text, "vneva_workers{state=\"lost\"} 1");
    holds(&text, "vneva_devices 8"); /* of those that are up */
    holds(&text, "vneva_devices_busy 5");
    holds(&text,
          "vneva_worker_heartbeat_age_seconds{host=\"h\\\"1\\\\\\n\",agent=\"a\"} 1.5");
    holds(&text,
          "vneva_job_info{job=\"3\",name=\"a \\\"name\\\"\\n\",kind=\"pretrain\"} 1");
    holds(&text, "vneva_job_loss{job=\"3\"} 3.25");
    holds(&text, "vneva_job_samples_per_second{job=\"3\"} 320.5");
    holds(&text, "vneva_job_flops_per_second{job=\"3\"} 500000000000");
    holds(&text, "vneva_job_step_seconds{job=\"3\"} 0.1");
    holds(&text, "vneva_job_step_part_seconds{job=\"3\",part=\"compute\"} 0.05");
    holds(&text, "vneva_job_step_part_seconds{job=\"3\",part=\"communication\"} 0.03");
    holds(&text, "vneva_job_step_part_seconds{job=\"3\",part=\"data\"} 0.02");
    holds(&text, "vneva_job_checkpoint_age_seconds{job=\"3\"} 60");
    holds(&text, "vneva_job_stage_age_seconds{job=\"3\"} 10");
    assert_null(strstr(buf_str(&text), "validation_loss")); /* not known: not there */
    json_free(facts);
    buf_fini(&text);
}

static void coordinator_that_is_down_is_a_number(void **state)
{
    struct buf text = BUF_INIT;
    struct err err = {ERR_NONE, ""};

    (void)state;
    metrics_write(&text, NULL, 100000);
    if (prometheus_check(buf_str(&text), &err) < 0)
        fail_msg("%s", err.text);
    holds(&text, "vneva_up 0");
    assert_null(strstr(buf_str(&text), "vneva_jobs"));
    buf_fini(&text);
}

/* The checker itself sees what it is for. */
static void checker_refuses_what_prometheus_would(void **state)
{
#define HEAD "# HELP a A.\n# TYPE a gauge\n"
    static const char *const bad[] = {
        "a 1\n",                                /* no head */
        HEAD "a 1",                             /* no end */
        HEAD "b 1\n",                           /* another family's */
        HEAD "a{x=1} 1\n",                      /* no quotes */
        HEAD "a{x=\"\\y\"} 1\n",                /* an escape that there is not */
        HEAD "a{x=\"y} 1\n",                    /* open */
        HEAD "a{1x=\"y\"} 1\n",                 /* name */
        HEAD "a x\n",                           /* no number */
        HEAD "a  1\n",                          /* two spaces */
        HEAD "a 1\na 2\n",                      /* twice */
        HEAD "a 1\n" HEAD "a{x=\"y\"} 1\n",     /* in two pieces */
        "# HELP a A.\n# TYPE a counter\na 1\n", /* name of no counter */
        "# TYPE a gauge\na 1\n",
        HEAD "a{x=\"\xff\"} 1\n",
    };
    struct err err;

    (void)state;
    assert_int_equal(prometheus_check(HEAD "a 1\na{x=\"y\\n\",z=\"\"} 2e-3\n", &err), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (prometheus_check(bad[i], &err) == 0)
            fail_msg("not refused: %s", bad[i]);
}

/* ---- the page ---- */

/* Nothing that makes markup or code of a text, and nothing from elsewhere. */
static void page_never_makes_markup_of_texts(void **state)
{
    static const char *const forbidden[] = {"innerHTML",
                                            "outerHTML",
                                            "insertAdjacent",
                                            "document.write",
                                            "eval(",
                                            "new Function",
                                            "javascript:",
                                            "setTimeout('",
                                            "srcdoc",
                                            "//cdn",
                                            "https:",
                                            "DOMParser",
                                            "createContextualFragment"};
    int n = 0;

    (void)state;
    for (const struct page_file *file = page_files; file->name; file++, n++) {
        char *text = strndup((const char *)file->bytes, file->n_bytes);

        assert_non_null(text);
        for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
            if (strstr(text, forbidden[i]))
                fail_msg("'%s' in %s", forbidden[i], file->name);
        assert_null(strstr(text, " style=")); /* the content policy forbids it */
        assert_int_equal(strlen(text), file->n_bytes);
        free(text);
    }
    assert_int_equal(n, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_is_taken_apart_and_decoded),
        cmocka_unit_test(address_that_is_broken_is_refused),
        cmocka_unit_test(form_is_taken_apart),
        cmocka_unit_test(numbers_and_names_of_parameters_are_checked),
        cmocka_unit_test(only_loopback_names_are_hosts_of_this_machine),
        cmocka_unit_test(cookie_is_found_among_others),
        cmocka_unit_test(token_is_made_once_and_private),
        cmocka_unit_test(token_file_that_holds_none_is_refused),
        cmocka_unit_test(token_is_that_one_only),
        cmocka_unit_test(address_to_listen_at_is_read),
        cmocka_unit_test(numbers_have_units_and_labels_are_escaped),
        cmocka_unit_test(coordinator_that_is_down_is_a_number),
        cmocka_unit_test(checker_refuses_what_prometheus_would),
        cmocka_unit_test(page_never_makes_markup_of_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
