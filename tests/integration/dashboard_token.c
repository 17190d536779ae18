/* Who is let in by vneva dashboard, and how it fails to start. */
#include "common/base/fs.h"
#include "tests/integration/http_talk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define TOKEN "a-token-of-the-test-0123456789"
#define BEARER "Authorization: Bearer " TOKEN "\r\n"
#define COOKIE "Cookie: other=1; vneva_dashboard=" TOKEN "\r\n"

struct fixture {
    struct cluster cluster;
    char token_file[128];
};

static void write_token(struct fixture *f, unsigned mode)
{
    struct err err = {ERR_NONE, ""};

    snprintf(f->token_file, sizeof(f->token_file), "%s/token", f->cluster.home);
    if (fs_write_file_atomic(f->token_file, TOKEN "\n", strlen(TOKEN) + 1, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(chmod(f->token_file, mode), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    cluster_init(&f->cluster);
    cluster_start(&f->cluster, NULL);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    cluster_fini(&f->cluster);
    free(f);
    return 0;
}

static int status_of(struct fixture *f, const struct dashboard *dashboard,
                     const char *target, const char *headers)
{
    struct reply reply;
    int status;

    talk(dashboard, &f->cluster, &reply, "GET", target, headers, NULL);
    status = reply.status;
    reply_fini(&reply);
    return status;
}

static void only_those_with_the_token_are_answered(void **state)
{
    static const char *const closed[] = {"/api/jobs", "/data/overview", "/metrics",
                                         "/page.js", "/nothing"};
    static const char *const wrong[] = {
        NULL,
        "Authorization: Bearer " TOKEN "x\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Basic " TOKEN "\r\n",
        "Cookie: vneva_dashboard=\r\n",
        "Cookie: vneva_dashboard=a-token-of-the-test-012345678x\r\n",
        "Cookie: xvneva_dashboard=" TOKEN "\r\n"};
    struct fixture *f = *state;
    const char *options[] = {"--listen", "127.0.0.1:0", "--token-file", f->token_file,
                             NULL};
    struct dashboard dashboard;

    write_token(f, 0600);
    dashboard_start(&dashboard, &f->cluster, options);
    assert_null(strstr(dashboard.said, TOKEN));
    for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++)
        for (size_t k = 0; k < sizeof(wrong) / sizeof(wrong[0]); k++)
            assert_int_equal(status_of(f, &dashboard, closed[i], wrong[k]), 401);
    assert_int_equal(status_of(f, &dashboard, "/", NULL), 303);
    assert_int_equal(status_of(f, &dashboard, "/login", NULL), 200);
    assert_int_equal(status_of(f, &dashboard, "/page.css", NULL), 200);
    assert_int_equal(status_of(f, &dashboard, "/", BEARER), 200);
    assert_int_equal(status_of(f, &dashboard, "/", COOKIE), 200);
    assert_int_equal(status_of(f, &dashboard, "/metrics", BEARER), 200);
    assert_int_equal(status_of(f, &dashboard, "/api/jobs", COOKIE), 200);
    dashboard_stop(&dashboard);
    assert_non_null(strstr(dashboard.said, "turned away 127.0.0.1: no token\n"));
    assert_non_null(strstr(dashboard.said, "turned away 127.0.0.1: a wrong token\n"));
    assert_null(strstr(dashboard.said, TOKEN));
}

static void form_gives_a_cookie_for_the_token_only(void **state)
{
    struct fixture *f = *state;
    const char *options[] = {"--listen", "127.0.0.1:0", "--token-file", f->token_file,
                             NULL};
    struct dashboard dashboard;
    struct reply reply;

    write_token(f, 0600);
    dashboard_start(&dashboard, &f->cluster, options);
    talk(&dashboard, &f->cluster, &reply, "POST", "/login", NULL, "token=" TOKEN);
    assert_int_equal(reply.status, 303);
    assert_non_null(strstr(buf_str(&reply.text), "Location: /\r\n"));
    assert_non_null(strstr(buf_str(&reply.text),
                           "Set-Cookie: vneva_dashboard=" TOKEN
                           "; Path=/; HttpOnly; SameSite=Strict\r\n"));
    reply_fini(&reply);
    talk(&dashboard, &f->cluster, &reply, "POST", "/login", NULL, "token=wrong");
    assert_int_equal(reply.status, 303);
    assert_non_null(strstr(buf_str(&reply.text), "Location: /login#wrong\r\n"));
    assert_null(strstr(buf_str(&reply.text), "Set-Cookie"));
    reply_fini(&reply);
    talk(&dashboard, &f->cluster, &reply, "POST", "/login", NULL, "token=%zz");
    assert_int_equal(reply.status, 400);
    reply_fini(&reply);
    dashboard_stop(&dashboard);
}

/* Also with other names of the machine: a page elsewhere has no cookie of ours. */
static void beyond_this_machine_a_token_is_made_and_asked_for(void **state)
{
    struct fixture *f = *state;
    const char *options[] = {"--listen", "0.0.0.0:0", NULL};
    char path[FS_PATH_MAX], header[256];
    struct dashboard dashboard;
    struct buf token = BUF_INIT;
    struct stat st;

    for (int i = 0; i < 2; i++) { /* the second time it is that of the first */
        dashboard_start(&dashboard, &f->cluster, options);
        assert_int_equal(strstr(dashboard.said, "made just now") != NULL, i == 0);
        snprintf(path, sizeof(path), "%s/dashboard.token", f->cluster.home);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        buf_reset(&token);
        assert_int_equal(fs_read_file(&token, path, 1000, NULL), 0);
        token.data[strcspn(token.data, "\n")] = '\0';
        assert_null(strstr(dashboard.said, token.data));
        snprintf(header, sizeof(header), "Authorization: Bearer %s\r\n", token.data);
        assert_int_equal(status_of(f, &dashboard, "/metrics", NULL), 401);
        assert_int_equal(status_of(f, &dashboard, "/metrics", header), 200);
        dashboard_stop(&dashboard);
    }
    buf_fini(&token);
}

static void token_on_this_machine_too_when_wanted(void **state)
{
    struct fixture *f = *state;
    const char *options[] = {"--listen", "127.0.0.1:0", "--token", NULL};
    struct dashboard dashboard;

    dashboard_start(&dashboard, &f->cluster, options);
    assert_non_null(strstr(dashboard.said, "the token is in '"));
    assert_int_equal(status_of(f, &dashboard, "/metrics", NULL), 401);
    dashboard_stop(&dashboard);
}

static void fails(struct fixture *f, const char *const *options, int status,
                  const char *text)
{
    char said[2048];

    assert_int_equal(dashboard_fails(&f->cluster, options, said, sizeof(said)), status);
    if (!strstr(said, text))
        fail_msg("no '%s' in: %s", text, said);
}

static void what_is_wrong_ends_it_with_a_code_and_a_reason(void **state)
{
    struct fixture *f = *state;
    const char *const wrong[][4] = {{"--listen", "x", NULL},
                                    {"--listen", "127.0.0.1:70000", NULL},
                                    {"--lisen", "127.0.0.1:0", NULL},
                                    {"word", NULL},
                                    {"--token-file", "/nowhere/at/all", NULL}};
    static const char *const texts[] = {"HOST:PORT", "HOST:PORT", "did you mean",
                                        "no 'word' here", "cannot open token file"};
    const char *open_file[] = {"--listen", "127.0.0.1:0", "--token-file", f->token_file,
                               NULL};
    const char *no_key[] = {"--key", "/nowhere/a.key", NULL};
    const char *first[] = {"--listen", "127.0.0.1:0", NULL};
    char taken[64];
    const char *second[] = {"--listen", taken, NULL};
    struct dashboard dashboard;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        fails(f, wrong[i], 2, texts[i]);
    assert_int_equal(setenv("VNEVA_ENDPOINT", "tcp://127.0.0.1:9", 1), 0);
    fails(f, no_key, 2, "cannot open '/nowhere/a.key'");
    assert_int_equal(unsetenv("VNEVA_ENDPOINT"), 0);
    write_token(f, 0644);
    fails(f, open_file, 4, "chmod 600");
    dashboard_start(&dashboard, &f->cluster, first);
    snprintf(taken, sizeof(taken), "127.0.0.1:%d", dashboard.port);
    fails(f, second, 2, "in use");
    dashboard_stop(&dashboard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_those_with_the_token_are_answered),
        cmocka_unit_test(form_gives_a_cookie_for_the_token_only),
        cmocka_unit_test(beyond_this_machine_a_token_is_made_and_asked_for),
        cmocka_unit_test(token_on_this_machine_too_when_wanted),
        cmocka_unit_test(what_is_wrong_ends_it_with_a_code_and_a_reason),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
