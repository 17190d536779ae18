#include "jobs/dashboard/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST_MAX 256
#define PORT_MAX 65535

static bool is_port(const char *text)
{
    size_t n = strspn(text, "0123456789");

    return n > 0 && n <= 5 && !text[n] && strtol(text, NULL, 10) <= PORT_MAX;
}

/* "host:port" in two; "" for every address. */
static int split(const char *address, char *host, const char **port, struct err *err)
{
    const char *colon = strrchr(address, ':');
    size_t n = colon ? (size_t)(colon - address) : 0;
    bool has_brackets = n > 1 && address[0] == '[' && address[n - 1] == ']';

    if (!colon || !is_port(colon + 1) || n >= HOST_MAX ||
        (!has_brackets && memchr(address, ':', n)))
        return err_set(err, ERR_INVALID,
                       "'%s' is no address to listen at; write HOST:PORT, as "
                       "127.0.0.1:8420 or [::1]:8420",
                       address);
    if (has_brackets)
        snprintf(host, HOST_MAX, "%.*s", (int)n - 2, address + 1);
    else
        snprintf(host, HOST_MAX, "%.*s", (int)n, address);
    if (strcmp(host, "*") == 0)
        host[0] = '\0';
    *port = colon + 1;
    return 0;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)address;

        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)address;

        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    }
    return false;
}

/* With the port that was given or chosen. */
static int name_of(struct listen_at *at, struct err *err)
{
    struct sockaddr_storage address;
    socklen_t n = sizeof(address);
    char host[HOST_MAX], port[16];

    if (getsockname(at->fd, (struct sockaddr *)&address, &n) < 0 ||
        getnameinfo((struct sockaddr *)&address, n, host, sizeof(host), port,
                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return err_set(err, ERR_IO, "cannot tell where the socket listens");
    at->is_loopback = is_loopback((struct sockaddr *)&address);
    snprintf(at->name, sizeof(at->name),
             address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return 0;
}

static int open_socket(int *fd, const struct addrinfo *info, struct err *err)
{
    int on = 1, off = 0;

    *fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return err_set(err, ERR_IO, "cannot make a socket: %s", strerror(errno));
    setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (info->ai_family == AF_INET6) /* "::" is every address, of both kinds */
        setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(*fd, info->ai_addr, info->ai_addrlen) < 0 ||
        listen(*fd, LISTEN_WAITING_MAX) < 0)
        return err_set(err, errno == EADDRINUSE ? ERR_EXISTS : ERR_IO, "%s",
                       strerror(errno));
    return 0;
}

int listen_open(struct listen_at *out, const char *address, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *found = NULL;
    char host[HOST_MAX] = "";
    const char *port = NULL;
    int rc;

    out->fd = -1;
    if (split(address, host, &port, err) < 0)
        return -1;
    rc = getaddrinfo(*host ? host : NULL, port, &hints, &found);
    if (rc != 0)
        return err_set(err, ERR_INVALID, "cannot listen at '%s': %s", address,
                       gai_strerror(rc));
    rc = open_socket(&out->fd, found, err);
    freeaddrinfo(found);
    if (rc == 0)
        rc = name_of(out, err);
    if (rc == 0)
        return 0;
    if (out->fd >= 0)
        close(out->fd);
    out->fd = -1;
    return err_wrap(err, "cannot listen at '%s'", address);
}
