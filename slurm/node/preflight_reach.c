/* Whether a node reaches the coordinator: with a question that it must answer. Where it does
 * not, a connection tells a closed port from a key that is not accepted; not before, for the
 * coordinator's log has a line for everybody who connects and says nothing. */
#define _GNU_SOURCE /* getaddrinfo, SOCK_CLOEXEC */
#include "common/base/clock.h"
#include "common/base/utf8.h"
#include "common/net/endpoint.h"
#include "common/net/net.h"
#include "slurm/node/preflight_facts.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REACH_MS 10000 /* for connecting and for the answer, together */
#define TOLD_MAX 4     /* nodes whose reason is given in an error */

#define REMEDY                                                                           \
    "let this node look up the first one's host name and reach its TCP ports in "        \
    "net.ipv4.ip_local_port_range (firewall, network)"

#define REACH_KEY "reach.why"
#define REACH_VERDICT "reach.verdict"
#define REACH_WELL "ok"

/* The errno that a connect under way ends with, 0: none. */
static int wait_connected(int fd, int64_t timeout_ms)
{
    struct pollfd poller = {.fd = fd, .events = POLLOUT};
    socklen_t n_bytes = sizeof(int);
    int why = 0;

    if (poll(&poller, 1, (int)timeout_ms) <= 0)
        return ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &n_bytes) < 0 ? errno : why;
}

/* 0, or the errno of connecting to one address within timeout_ms. */
static int try_address(const struct addrinfo *address, int64_t timeout_ms)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int why = 0;

    if (fd < 0)
        return errno;
    if (connect(fd, address->ai_addr, address->ai_addrlen) < 0)
        why = errno;
    if (why == EINPROGRESS)
        why = wait_connected(fd, timeout_ms);
    close(fd);
    return why;
}

static void connect_tcp(char *why, const char *endpoint, int64_t timeout_ms)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    struct endpoint at;
    char port[16];
    int last = 0, rc;

    if (endpoint_parse(&at, endpoint, NULL) < 0 || at.is_ipc)
        return; /* the question itself will tell */
    snprintf(port, sizeof(port), "%u", at.port);
    rc = getaddrinfo(at.host, port, &hints, &addresses);
    if (rc != 0) {
        snprintf(why, FACTS_WHY_MAX, "cannot find '%.200s': %s", at.host,
                 gai_strerror(rc));
        return;
    }
    for (const struct addrinfo *a = addresses; a; a = a->ai_next)
        if ((last = try_address(a, timeout_ms)) == 0)
            break;
    freeaddrinfo(addresses);
    if (last)
        snprintf(why, FACTS_WHY_MAX, "cannot connect: %s", strerror(last));
}

static int ask(char *version, const char *endpoint, const struct key *key,
               int64_t timeout_ms, struct err *err)
{
    struct wire request = {.type = MSG_PING}, reply = {.type = MSG_NONE};
    struct net_client *client = NULL;
    int rc = net_client_open(&client, endpoint, key, err);

    if (rc == 0)
        rc = net_client_call(client, &request, &reply, timeout_ms, err);
    if (rc == 0 && reply.type == MSG_PONG)
        snprintf(version, FACTS_VERSION_MAX, "%s", reply.pong.version);
    if (rc < 0 && err->code == ERR_TIMEOUT)
        err_set(err, ERR_TIMEOUT,
                "it accepts connections but does not answer within %.1f s: the key may "
                "not be one that it knows (vneva keys), or something else listens there",
                (double)timeout_ms / 1000);
    wire_fini(&reply);
    net_client_close(client);
    return rc;
}

/* why: what keeps a PING from being answered, or "". version[FACTS_VERSION_MAX] */
static void ping(char *why, char *version, const char *endpoint, const struct key *key,
                 int64_t timeout_ms)
{
    struct err err;

    *why = *version = '\0';
    if (ask(version, endpoint, key, timeout_ms / 2, &err) == 0)
        return;
    connect_tcp(why, endpoint, timeout_ms / 2);
    if (!*why)
        snprintf(why, FACTS_WHY_MAX, "%s", err.text);
}

int facts_of_coordinator(struct json *facts, const char *endpoint, const struct key *key,
                         struct err *err)
{
    struct json *coordinator = json_new(JSON_OBJECT);
    char why[FACTS_WHY_MAX], version[FACTS_VERSION_MAX];

    ping(why, version, endpoint, key, REACH_MS);
    if (facts_string(coordinator, "why", why, err) < 0 ||
        facts_string(coordinator, "version", version, err) < 0) {
        json_free(coordinator);
        return -1;
    }
    return json_set(facts, "coordinator", coordinator, err);
}

/* ---- together ---- */

/* Node 0: REACH_WELL or who does not reach it, with the reasons of the first; of all in
 * `told`. */
static int judge(struct buf *out, struct exchange *exchange, const char *endpoint,
                 FILE *told, struct err *err)
{
    struct buf list = BUF_INIT;
    int n = 0, rc = 0;

    for (int node = 0; rc == 0 && node < exchange->n_nodes; node++) {
        const char *why;

        rc = exchange_get(exchange, node, REACH_KEY, &why, err);
        if (rc < 0 || strcmp(why, REACH_WELL) == 0)
            continue;
        fprintf(told,
                "preflight: fault: %.*s: coordinator: does not reach %s%s\n    mend it: "
                "%s\n",
                (int)strcspn(why, ":"), why, endpoint, why + strcspn(why, ":"), REMEDY);
        if (n++ < TOLD_MAX)
            buf_printf(&list, "; %.200s", why);
    }
    if (n == 0)
        buf_add_str(out, REACH_WELL);
    else
        buf_printf(out, "%d of %d nodes do not reach the coordinator at %s%s%s", n,
                   exchange->n_nodes, endpoint, buf_str(&list),
                   n > TOLD_MAX ? "; and more" : "");
    buf_fini(&list);
    if (out->data)
        utf8_mend(out->data); /* a reason may have been cut within a character */
    return rc < 0 ? -1 : buf_check(out, err);
}

int preflight_reach(struct exchange *exchange, const char *host, const char *endpoint,
                    const struct key *key, int64_t timeout_ms, FILE *told,
                    struct err *err)
{
    char why[FACTS_WHY_MAX], version[FACTS_VERSION_MAX];
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    struct buf text = BUF_INIT;
    const char *verdict;
    int rc;

    ping(why, version, endpoint, key,
         timeout_ms / 2 < REACH_MS ? timeout_ms / 2 : REACH_MS);
    if (*why)
        buf_printf(&text, "%s: %s", host, why);
    else
        buf_add_str(&text, REACH_WELL);
    rc = exchange_put(exchange, REACH_KEY, buf_str(&text), err);
    buf_reset(&text);
    if (rc == 0)
        rc = exchange_fence(exchange, deadline_ms - clock_mono_ms(), err);
    if (rc == 0 && exchange->node == 0 &&
        (judge(&text, exchange, endpoint, told, err) < 0 ||
         exchange_put(exchange, REACH_VERDICT, buf_str(&text), err) < 0))
        rc = -1;
    buf_fini(&text);
    if (rc < 0 || exchange_fence(exchange, deadline_ms - clock_mono_ms(), err) < 0 ||
        exchange_get(exchange, 0, REACH_VERDICT, &verdict, err) < 0)
        return -1;
    return strcmp(verdict, REACH_WELL) == 0 ? 0 : err_set(err, ERR_STATE, "%s", verdict);
}
