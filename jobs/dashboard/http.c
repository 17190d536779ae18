#include "jobs/dashboard/http.h"
#include "common/base/clock.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEER_MAX 64     /* bytes of an address as text */
#define TICK_MS 250     /* how often late connections are looked for */
#define CLOSING_RUNS 64 /* turns in which calls that were resumed get their answers */

/* What a page of ours may do: load from here, run and style from here, send forms here. */
static const char content_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

struct connection {
    struct connection *next, **place;
    int fd;
    int64_t deadline_ms; /* monotonic; INT64_MAX: an answer is being made */
};

struct http {
    struct MHD_Daemon *daemon;
    const struct http_handler *handler;
    struct connection *connections;
    int epoll_fd; /* the daemon's */
    int wake_fd;  /* an eventfd: a call was resumed */
};

struct http_call {
    struct http *http;
    struct MHD_Connection *connection;
    char *target;
    char body[HTTP_BODY_MAX];
    size_t n_body_bytes;
    bool has_begun; /* its head has been seen */
    void *work;
};

/* ---- connections ---- */

static struct connection *connection_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

static void allow(struct MHD_Connection *connection, int64_t ms)
{
    struct connection *c = connection_of(connection);

    if (c)
        c->deadline_ms = ms < 0 ? INT64_MAX : clock_mono_ms() + ms;
}

static void on_connection(void *state, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *http = state;
    struct connection *c = *context;
    const union MHD_ConnectionInfo *info;

    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (c) {
            *c->place = c->next;
            if (c->next)
                c->next->place = c->place;
            free(c);
            *context = NULL;
        }
        return;
    }
    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    c = info ? calloc(1, sizeof(*c)) : NULL;
    if (!c)
        return; /* it has the daemon's own time limit */
    *c = (struct connection){.next = http->connections,
                             .place = &http->connections,
                             .fd = info->connect_fd,
                             .deadline_ms = clock_mono_ms() + HTTP_REQUEST_MS};
    if (c->next)
        c->next->place = &c->next;
    http->connections = c;
    *context = c;
}

/* The daemon then finds them closed. */
static void cut_late(struct http *http)
{
    int64_t now_ms = clock_mono_ms();

    for (struct connection *c = http->connections; c; c = c->next)
        if (now_ms > c->deadline_ms)
            shutdown(c->fd, SHUT_RDWR);
}

/* ---- calls ---- */

/* The first thing known of a request: its target as it was sent. */
static void *on_target(void *state, const char *target, struct MHD_Connection *connection)
{
    struct http_call *call = calloc(1, sizeof(*call));

    if (!call)
        return NULL;
    call->http = state;
    call->connection = connection;
    call->target = strdup(target);
    if (call->target)
        return call;
    free(call);
    return NULL;
}

static void on_completed(void *state, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct http_call *call = *context;

    (void)state;
    (void)code;
    allow(connection, HTTP_IDLE_MS);
    if (!call)
        return;
    if (call->work)
        call->http->handler->drop(call->work);
    free(call->target);
    free(call);
    *context = NULL;
}

void http_suspend(struct http_call *call)
{
    MHD_suspend_connection(call->connection);
}

/* The daemon looks for calls that were resumed when it runs, but does not wake for them. */
void http_resume(struct http_call *call)
{
    int wake_fd = call->http->wake_fd;

    MHD_resume_connection(call->connection); /* the call may be gone from here on */
    (void)eventfd_write(wake_fd, 1);
}

/* ---- answers ---- */

static bool add_headers(struct MHD_Response *response, const struct http_answer *answer)
{
    const char *pairs[][2] = {
        {MHD_HTTP_HEADER_CONTENT_TYPE, answer->type},
        {"Content-Security-Policy", content_policy},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
        {MHD_HTTP_HEADER_CACHE_CONTROL,
         answer->may_be_kept ? "private, max-age=300" : "no-store"},
        {answer->header, answer->header_value},
        {answer->cookie[0] ? MHD_HTTP_HEADER_SET_COOKIE : NULL, answer->cookie},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (pairs[i][0] &&
            MHD_add_response_header(response, pairs[i][0], pairs[i][1]) != MHD_YES)
            return false;
    return true;
}

static enum MHD_Result send_answer(struct MHD_Connection *connection,
                                   const struct http_answer *answer)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        answer->n_bytes, (void *)(uintptr_t)answer->bytes, MHD_RESPMEM_PERSISTENT);
    enum MHD_Result result = MHD_NO;

    if (!response)
        return MHD_NO;
    if (add_headers(response, answer))
        result = MHD_queue_response(connection, (unsigned)answer->status, response);
    MHD_destroy_response(response);
    allow(connection, HTTP_SEND_MS);
    return result;
}

static enum MHD_Result refuse_size(struct MHD_Connection *connection)
{
    static const char text[] = "more than is taken\n";
    struct http_answer answer = {.status = MHD_HTTP_CONTENT_TOO_LARGE,
                                 .type = "text/plain; charset=utf-8",
                                 .bytes = text,
                                 .n_bytes = sizeof(text) - 1};

    return send_answer(connection, &answer);
}

static const char *header_of(struct http_call *call, const char *name)
{
    return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

/* The head is there: a body that is said to be too large is not waited for. */
static enum MHD_Result begin(struct http_call *call)
{
    const char *length = header_of(call, MHD_HTTP_HEADER_CONTENT_LENGTH);

    call->has_begun = true;
    if (length && strtoull(length, NULL, 10) > HTTP_BODY_MAX)
        return refuse_size(call->connection);
    return MHD_YES;
}

static enum MHD_Result take_body(struct http_call *call, const char *bytes,
                                 size_t *n_bytes)
{
    if (*n_bytes > HTTP_BODY_MAX - call->n_body_bytes)
        return MHD_NO; /* in chunks, of no length that was said: the end of it */
    memcpy(call->body + call->n_body_bytes, bytes, *n_bytes);
    call->n_body_bytes += *n_bytes;
    *n_bytes = 0;
    return MHD_YES;
}

static void find_peer(struct MHD_Connection *connection, char *out, size_t n_bytes)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

    const struct sockaddr *address = info ? info->client_addr : NULL;
    socklen_t n = address && address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                            : sizeof(struct sockaddr_in);

    if (!address ||
        getnameinfo(address, n, out, (socklen_t)n_bytes, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(out, n_bytes, "somebody");
}

static enum MHD_Result answer_call(struct http_call *call, const char *method)
{
    const struct http_handler *handler = call->http->handler;
    char peer[PEER_MAX];
    struct http_request request = {
        .method = method,
        .target = call->target,
        .host = header_of(call, MHD_HTTP_HEADER_HOST),
        .authorization = header_of(call, MHD_HTTP_HEADER_AUTHORIZATION),
        .cookie = header_of(call, MHD_HTTP_HEADER_COOKIE),
        .peer = peer,
        .body = call->body,
        .n_body_bytes = call->n_body_bytes,
    };
    struct http_answer answer = {.status = MHD_HTTP_OK};

    find_peer(call->connection, peer, sizeof(peer));
    allow(call->connection, -1);
    if (handler->answer(handler->state, &request, call, &call->work, &answer) ==
        HTTP_LATER)
        return MHD_YES;
    return send_answer(call->connection, &answer);
}

static enum MHD_Result on_request(void *state, struct MHD_Connection *connection,
                                  const char *url, const char *method,
                                  const char *version, const char *bytes, size_t *n_bytes,
                                  void **context)
{
    struct http_call *call = *context;

    (void)state;
    (void)connection;
    (void)url; /* decoded leniently: the handler has the target as it was sent */
    (void)version;
    if (!call)
        return MHD_NO;
    if (!call->has_begun)
        return begin(call);
    if (*n_bytes)
        return take_body(call, bytes, n_bytes);
    return answer_call(call, method);
}

/* ---- the server ---- */

static int start_daemon(struct http *http, int fd, struct err *err)
{
    const union MHD_DaemonInfo *info;

    http->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (http->wake_fd < 0)
        return err_set(err, ERR_IO, "cannot make an eventfd: %s", strerror(errno));
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, http,
        MHD_OPTION_LISTEN_SOCKET, (MHD_socket)fd, MHD_OPTION_URI_LOG_CALLBACK, on_target,
        http, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        (unsigned)HTTP_CONNECTIONS_PEER_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HTTP_HEAD_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)(HTTP_IDLE_MS / 1000), MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    info =
        http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info)
        return err_set(err, ERR_IO, "cannot start the HTTP server");
    http->epoll_fd = info->epoll_fd;
    return 0;
}

int http_open(struct http **out, int fd, const struct http_handler *handler,
              struct err *err)
{
    struct http *http = calloc(1, sizeof(*http));

    if (!http) {
        close(fd);
        return err_set(err, ERR_NOMEM, "no memory for a server");
    }
    http->handler = handler;
    if (start_daemon(http, fd, err) == 0) {
        *out = http;
        return 0;
    }
    if (http->daemon)
        MHD_stop_daemon(http->daemon); /* closes fd */
    else
        close(fd);
    if (http->wake_fd >= 0)
        close(http->wake_fd);
    free(http);
    return -1;
}

/* Till there is something to do, or for a tick. */
static void wait_for_work(struct http *http)
{
    struct pollfd fds[2] = {{.fd = http->epoll_fd, .events = POLLIN},
                            {.fd = http->wake_fd, .events = POLLIN}};
    MHD_UNSIGNED_LONG_LONG limit_ms = TICK_MS;
    eventfd_t n;

    if (MHD_get_timeout(http->daemon, &limit_ms) != MHD_YES || limit_ms > TICK_MS)
        limit_ms = TICK_MS;
    if (poll(fds, 2, (int)limit_ms) > 0 && fds[1].revents)
        (void)eventfd_read(http->wake_fd, &n);
}

int http_serve(struct http *http, const volatile sig_atomic_t *stop, struct err *err)
{
    while (!*stop) {
        wait_for_work(http);
        if (MHD_run(http->daemon) != MHD_YES && !*stop)
            return err_set(err, ERR_IO, "the HTTP server cannot go on");
        cut_late(http);
    }
    return 0;
}

void http_close(struct http *http)
{
    if (!http)
        return;
    for (int i = 0; i < CLOSING_RUNS; i++)
        MHD_run(http->daemon);
    MHD_stop_daemon(http->daemon); /* closes the socket it listens at as well */
    close(http->wake_fd);
    free(http);
}
