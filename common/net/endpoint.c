#include "common/net/endpoint.h"
#include "common/base/fs.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOPBACK_NET 127

static int parse_ipc(struct endpoint *out, const char *text, struct err *err)
{
    const char *path = text + strlen("ipc://");

    if (path[0] != '/')
        return err_set(err, ERR_INVALID, "endpoint '%s' needs an absolute path", text);
    if (strlen(path) > ENDPOINT_PATH_MAX)
        return err_set(err, ERR_LIMIT,
                       "socket path of %zu bytes is longer than the %zu a Unix socket "
                       "may have: '%s'; use a shorter folder",
                       strlen(path), ENDPOINT_PATH_MAX, path);
    out->is_ipc = true;
    out->path = path;
    return 0;
}

static int parse_port(struct endpoint *out, const char *text, const char *port,
                      struct err *err)
{
    char *end;
    long value;

    if (strcmp(port, "*") == 0)
        return 0;
    errno = 0;
    value = strtol(port, &end, 10);
    if (errno || end == port || *end || value < 0 || value > UINT16_MAX)
        return err_set(err, ERR_INVALID, "port '%s' of endpoint '%s' is no port number",
                       port, text);
    out->port = (uint16_t)value;
    return 0;
}

/* The text between "tcp://" and the last colon; brackets hold an IPv6 address. */
static int parse_host(struct endpoint *out, const char *text, const char *host, size_t n,
                      struct err *err)
{
    if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {
        out->is_ipv6 = true;
        host++;
        n -= 2;
    }
    if (n >= sizeof(out->host))
        return err_set(err, ERR_LIMIT, "host of more than %zu bytes in '%.80s...'",
                       sizeof(out->host) - 1, text);
    memcpy(out->host, host, n);
    if (strcmp(out->host, "*") == 0)
        memcpy(out->host, "0.0.0.0", sizeof("0.0.0.0"));
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)out->host[i]) &&
            !strchr(out->is_ipv6 ? ":." : ".-_", out->host[i]))
            n = 0;
    return n ? 0
             : err_set(err, ERR_INVALID,
                       "endpoint '%s' names no host; it is tcp://host:port, with an IPv6 "
                       "address in brackets",
                       text);
}

/* What is known of the host without asking anybody. */
static int classify(struct endpoint *out, const char *text, struct err *err)
{
    struct in6_addr six;
    struct in_addr four;

    if (out->is_ipv6) {
        if (inet_pton(AF_INET6, out->host, &six) != 1)
            return err_set(err, ERR_INVALID, "'%s' of endpoint '%s' is no IPv6 address",
                           out->host, text);
        out->is_loopback = IN6_IS_ADDR_LOOPBACK(&six);
        out->is_any = IN6_IS_ADDR_UNSPECIFIED(&six);
    } else if (inet_pton(AF_INET, out->host, &four) == 1) {
        out->is_loopback = ntohl(four.s_addr) >> 24 == LOOPBACK_NET;
        out->is_any = four.s_addr == htonl(INADDR_ANY);
    } else {
        out->is_loopback = strcmp(out->host, "localhost") == 0;
    }
    return 0;
}

static int parse_tcp(struct endpoint *out, const char *text, struct err *err)
{
    const char *host = text + strlen("tcp://"), *colon = strrchr(host, ':');

    if (!colon || colon == host)
        return err_set(err, ERR_INVALID, "endpoint '%s' is not tcp://host:port", text);
    if (parse_host(out, text, host, (size_t)(colon - host), err) < 0 ||
        classify(out, text, err) < 0)
        return -1;
    return parse_port(out, text, colon + 1, err);
}

int endpoint_parse(struct endpoint *out, const char *text, struct err *err)
{
    memset(out, 0, sizeof(*out));
    if (strncmp(text, "ipc://", strlen("ipc://")) == 0)
        return parse_ipc(out, text, err);
    if (strncmp(text, "tcp://", strlen("tcp://")) == 0)
        return parse_tcp(out, text, err);
    return err_set(err, ERR_INVALID,
                   "endpoint '%s' is neither ipc:///path nor tcp://host:port", text);
}

int endpoint_check_private(const struct endpoint *endpoint, struct err *err)
{
    char folder[FS_PATH_MAX];
    struct stat st;

    if (!endpoint->is_ipc)
        return 0;
    if (fs_parent(folder, endpoint->path, err) < 0)
        return -1;
    if (stat(folder, &st) < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot look at folder '%s' of the socket: %s", folder,
                       strerror(errno));
    if (st.st_uid != geteuid() || st.st_mode & (S_IRWXG | S_IRWXO))
        return err_set(err, ERR_DENIED,
                       "folder '%s' of the socket is not private; make it so with "
                       "chmod 700",
                       folder);
    return 0;
}

static int resolve_name(const struct endpoint *endpoint, struct sockaddr_storage *out,
                        socklen_t *n_bytes, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL, *best;
    int rc = getaddrinfo(endpoint->host, NULL, &hints, &found);

    if (rc != 0 || !found)
        return err_set(err, ERR_NOT_FOUND, "host '%s' is not known here: %s",
                       endpoint->host, gai_strerror(rc));
    best = found;
    while (best && best->ai_family != AF_INET)
        best = best->ai_next;
    best = best ? best : found;
    memcpy(out, best->ai_addr, best->ai_addrlen);
    *n_bytes = best->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int endpoint_resolve(const struct endpoint *endpoint, struct sockaddr_storage *out,
                     socklen_t *n_bytes, struct err *err)
{
    struct sockaddr_un *local = (struct sockaddr_un *)out;

    memset(out, 0, sizeof(*out));
    if (endpoint->is_ipc) {
        local->sun_family = AF_UNIX;
        memcpy(local->sun_path, endpoint->path, strlen(endpoint->path));
        *n_bytes = sizeof(*local);
        return 0;
    }
    if (resolve_name(endpoint, out, n_bytes, err) < 0)
        return -1;
    if (out->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)out)->sin6_port = htons(endpoint->port);
    else
        ((struct sockaddr_in *)out)->sin_port = htons(endpoint->port);
    return 0;
}

uint16_t endpoint_port(const struct sockaddr_storage *address)
{
    return ntohs(address->ss_family == AF_INET6
                     ? ((const struct sockaddr_in6 *)address)->sin6_port
                     : ((const struct sockaddr_in *)address)->sin_port);
}

int endpoint_format(char *out, size_t n_bytes, const struct endpoint *endpoint,
                    const char *host, uint16_t port, struct err *err)
{
    bool has_brackets = host ? strchr(host, ':') != NULL : endpoint->is_ipv6;
    int n =
        snprintf(out, n_bytes, "tcp://%s%s%s:%u", has_brackets ? "[" : "",
                 host ? host : endpoint->host, has_brackets ? "]" : "", (unsigned)port);

    if (n < 0 || (size_t)n >= n_bytes)
        return err_set(err, ERR_LIMIT, "endpoint of more than %zu bytes", n_bytes - 1);
    return 0;
}
