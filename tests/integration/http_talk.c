#include "tests/integration/http_talk.h"
#include "common/base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OPTIONS_MAX 16
#define DEADLINE_MS 60000

/* ---- the program ---- */

static void exec_dashboard(const struct cluster *cluster, const char *const *options,
                           int out)
{
    const char *words[OPTIONS_MAX + 3] = {"vneva", "dashboard"};
    char program[FS_PATH_MAX];
    int n = 2;

    for (; *options && n < OPTIONS_MAX; options++)
        words[n++] = *options;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    setenv("VNEVA_HOME", cluster->home, 1);
    if (fs_path(program, NULL, "%s/vneva", getenv("VNEVA_BIN")) == 0)
        execv(program, (char *const *)words);
    _exit(127);
}

/* *out: what it prints. */
static pid_t start(const struct cluster *cluster, const char *const *options, int *out)
{
    int pipes[2];
    pid_t pid;

    assert_int_equal(pipe(pipes), 0);
    fcntl(pipes[0], F_SETFD, FD_CLOEXEC);
    fcntl(pipes[1], F_SETFD, FD_CLOEXEC);
    pid = fork();
    if (pid == 0)
        exec_dashboard(cluster, options, pipes[1]);
    close(pipes[1]);
    assert_true(pid > 0);
    *out = pipes[0];
    return pid;
}

/* Reads till the text is there (NULL: till the end). */
static void read_said(int fd, char *said, size_t n_bytes, const char *until)
{
    size_t n = 0;
    ssize_t got;

    said[0] = '\0';
    while (n + 1 < n_bytes && !(until && strstr(said, until)) &&
           (got = read(fd, said + n, n_bytes - n - 1)) > 0) {
        n += (size_t)got;
        said[n] = '\0';
    }
}

void dashboard_start(struct dashboard *dashboard, const struct cluster *cluster,
                     const char *const *options)
{
    const char *at;

    dashboard->pid = start(cluster, options, &dashboard->said_fd);
    read_said(dashboard->said_fd, dashboard->said, sizeof(dashboard->said), "/\n");
    at = strstr(dashboard->said, "dashboard at http://");
    if (!at) {
        fail_msg("it does not serve: %s", dashboard->said);
        return; /* for readers that do not know that it does not */
    }
    at = strrchr(at, ':');
    dashboard->port = at ? (int)strtol(at + 1, NULL, 10) : 0;
    assert_true(dashboard->port > 0);
}

void dashboard_stop(struct dashboard *dashboard)
{
    int status;

    kill(dashboard->pid, SIGTERM);
    assert_int_equal(waitpid(dashboard->pid, &status, 0), dashboard->pid);
    dashboard->pid = 0;
    read_said(dashboard->said_fd, dashboard->said, sizeof(dashboard->said), NULL);
    close(dashboard->said_fd);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int dashboard_fails(const struct cluster *cluster, const char *const *options, char *said,
                    size_t n_bytes)
{
    int fd, status;
    pid_t pid = start(cluster, options, &fd);

    read_said(fd, said, n_bytes, "dashboard at");
    close(fd);
    if (strstr(said, "dashboard at"))
        kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- the client ---- */

int talk_open(const struct dashboard *dashboard)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)dashboard->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

void talk_send(int fd, const void *bytes, size_t n_bytes)
{
    const char *at = bytes;

    while (n_bytes > 0) {
        ssize_t n = send(fd, at, n_bytes, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        at += n;
        n_bytes -= (size_t)n;
    }
}

void talk_finish(int fd, struct reply *reply, struct cluster *cluster)
{
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char block[16384];
    ssize_t n = 1;

    *reply = (struct reply){.text = BUF_INIT};
    while (n > 0 && clock_mono_ms() < end_ms) {
        cluster_step(cluster, 0);
        if (poll(&wait, 1, 10) <= 0)
            continue;
        n = read(fd, block, sizeof(block));
        if (n > 0)
            buf_add(&reply->text, block, (size_t)n);
    }
    if (n > 0)
        fail_msg("the server does not end: %s", buf_str(&reply->text));
    close(fd);
    reply->body = strstr(buf_str(&reply->text), "\r\n\r\n");
    reply->body = reply->body ? reply->body + 4 : "";
    if (strncmp(buf_str(&reply->text), "HTTP/1.", 7) == 0)
        reply->status = (int)strtol(buf_str(&reply->text) + 9, NULL, 10);
}

void reply_fini(struct reply *reply)
{
    buf_fini(&reply->text);
}

void talk(const struct dashboard *dashboard, struct cluster *cluster, struct reply *reply,
          const char *method, const char *target, const char *headers, const char *body)
{
    struct buf text = BUF_INIT;
    int fd = talk_open(dashboard);

    buf_printf(&text, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n%s",
               method, target, dashboard->port, headers ? headers : "");
    if (body)
        buf_printf(&text, "Content-Length: %zu\r\n", strlen(body));
    buf_printf(&text, "\r\n%s", body ? body : "");
    talk_send(fd, text.data, text.n_bytes);
    buf_fini(&text);
    talk_finish(fd, reply, cluster);
}

struct json *talk_json(const struct dashboard *dashboard, struct cluster *cluster,
                       const char *target, int status)
{
    struct json *json = NULL;
    struct reply reply;
    struct err err;

    talk(dashboard, cluster, &reply, "GET", target, NULL, NULL);
    if (reply.status != status)
        fail_msg("%s: %s", target, buf_str(&reply.text));
    assert_non_null(strstr(buf_str(&reply.text), "Content-Type: application/json\r\n"));
    if (json_parse(&json, reply.body, strlen(reply.body), &err) < 0)
        fail_msg("%s: %s: %s", target, err.text, reply.body);
    reply_fini(&reply);
    return json;
}
