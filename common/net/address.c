#define _DEFAULT_SOURCE /* IFF_UP */
#include "common/net/address.h"
#include "common/base/buf.h"
#include "common/net/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOPBACK "127.0.0.1"
#define ANYWHERE "192.0.2.1" /* of no network (RFC 5737): reached by the default route */
#define ANY_PORT 9

/* The text of an address that ranks may listen at; false: it is of another kind. */
static bool text_of(char out[NET_ADDRESS_BYTES], const struct sockaddr *address)
{
    const struct sockaddr_in *inet = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *inet6 = (const struct sockaddr_in6 *)address;

    if (!address)
        return false;
    if (address->sa_family == AF_INET)
        return inet_ntop(AF_INET, &inet->sin_addr, out, NET_ADDRESS_BYTES) != NULL;
    return address->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&inet6->sin6_addr) &&
           inet_ntop(AF_INET6, &inet6->sin6_addr, out, NET_ADDRESS_BYTES) != NULL;
}

static int no_address(const char *name, const struct ifaddrs *all, struct err *err)
{
    struct buf there = BUF_INIT;

    for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
        char text[NET_ADDRESS_BYTES];

        if (text_of(text, one->ifa_addr))
            buf_printf(&there, "%s%s (%s)", there.n_bytes ? ", " : "", text,
                       one->ifa_name);
    }
    err_set(err, ERR_INVALID,
            "'%s' is neither an address nor an interface of this machine; it has %s",
            name, buf_str(&there));
    buf_fini(&there);
    return -1;
}

/* An interface has its IPv4 addresses first in the list. */
int net_address_named(char out[NET_ADDRESS_BYTES], const char *name, struct err *err)
{
    struct ifaddrs *all = NULL;
    int rc = -1;

    if (getifaddrs(&all) < 0)
        return err_set(err, ERR_IO, "cannot list the addresses of this machine: %s",
                       strerror(errno));
    for (const struct ifaddrs *one = all; one && rc < 0; one = one->ifa_next)
        if (text_of(out, one->ifa_addr) &&
            (strcmp(one->ifa_name, name) == 0 || strcmp(out, name) == 0))
            rc = 0;
    if (rc < 0)
        no_address(name, all, err);
    freeifaddrs(all);
    return rc;
}

/* A datagram socket that is connected has chosen its route; nothing goes out. */
static int route_to(char out[NET_ADDRESS_BYTES], const struct sockaddr_storage *to,
                    socklen_t n_bytes, struct err *err)
{
    int fd = socket(to->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_storage own;
    int rc = 0;

    if (fd < 0)
        return err_set(err, ERR_IO, "cannot make a socket: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)to, n_bytes) < 0)
        rc = err_set(err, ERR_IO, "no route to the coordinator: %s", strerror(errno));
    n_bytes = sizeof(own);
    if (rc == 0 && (getsockname(fd, (struct sockaddr *)&own, &n_bytes) < 0 ||
                    !text_of(out, (struct sockaddr *)&own)))
        rc = err_set(err, ERR_IO, "the way to the coordinator has no address here");
    close(fd);
    return rc;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    const struct sockaddr_in *inet = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *inet6 = (const struct sockaddr_in6 *)address;

    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&inet6->sin6_addr);
    return ntohl(inet->sin_addr.s_addr) >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
}

/* The first address of an interface that is up. */
static int first_address(char out[NET_ADDRESS_BYTES], struct err *err)
{
    struct ifaddrs *all = NULL;
    bool is_found = false;

    if (getifaddrs(&all) < 0)
        return err_set(err, ERR_IO, "cannot list the addresses of this machine: %s",
                       strerror(errno));
    for (const struct ifaddrs *one = all; one && !is_found; one = one->ifa_next)
        is_found = one->ifa_flags & IFF_UP && !(one->ifa_flags & IFF_LOOPBACK) &&
                   text_of(out, one->ifa_addr);
    freeifaddrs(all);
    return is_found ? 0 : err_set(err, ERR_NOT_FOUND, "this machine is on no network");
}

static int guess(char out[NET_ADDRESS_BYTES], struct err *err)
{
    struct sockaddr_in anywhere = {.sin_family = AF_INET, .sin_port = htons(ANY_PORT)};
    struct sockaddr_storage to = {0};

    inet_pton(AF_INET, ANYWHERE, &anywhere.sin_addr);
    memcpy(&to, &anywhere, sizeof(anywhere));
    if (route_to(out, &to, sizeof(anywhere), NULL) == 0)
        return 0;
    return first_address(out, err);
}

int net_address_towards(char out[NET_ADDRESS_BYTES], const char *endpoint,
                        struct err *err)
{
    struct sockaddr_storage address;
    struct endpoint parsed;
    socklen_t n_bytes;

    if (endpoint_parse(&parsed, endpoint, err) < 0)
        return -1;
    if (parsed.is_ipc || parsed.is_loopback) {
        snprintf(out, NET_ADDRESS_BYTES, LOOPBACK);
        return 0;
    }
    if (endpoint_resolve(&parsed, &address, &n_bytes, err) < 0)
        return -1;
    return is_loopback(&address) ? guess(out, err)
                                 : route_to(out, &address, n_bytes, err);
}
