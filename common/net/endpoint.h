/* endpoint.h - reads "ipc:///path" and "tcp://host:port"
 *
 * An ipc socket must lie in a folder of the user's own with mode 0700, for whoever can
 * open the socket may run jobs. A tcp host is a name, an IPv4 address, an IPv6 address in
 * brackets, or, to listen on all of the machine's addresses, "*"; whoever serves or uses
 * one asks for keys (or, between ranks, a secret) whatever the host is.
 * Owns: nothing. For the sockets of common/net, and for who looks at what they reach.
 */
#ifndef VNEVA_COMMON_NET_ENDPOINT_H
#define VNEVA_COMMON_NET_ENDPOINT_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Longest path of a Unix socket on Linux, without the NUL (man 7 unix). */
#define ENDPOINT_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)
#define ENDPOINT_HOST_BYTES 256 /* a DNS name has at most 253 (RFC 1035) */

struct endpoint {
    bool is_ipc;
    const char *path;               /* ipc: within the text parsed */
    char host[ENDPOINT_HOST_BYTES]; /* tcp: without brackets; "*" is 0.0.0.0 */
    bool is_ipv6;                   /* tcp: host was in brackets */
    bool is_loopback;               /* tcp: 127.0.0.0/8, ::1 or localhost */
    bool is_any;                    /* tcp: 0.0.0.0, :: or "*": no place to connect to */
    uint16_t port;                  /* tcp: 0 (or "*" in the text): the system chooses */
};

/* Checks form and length. ERR_INVALID, ERR_LIMIT. */
int endpoint_parse(struct endpoint *out, const char *text, struct err *err);

/* The folder of an ipc socket is private to the user; nothing to check for tcp. */
int endpoint_check_private(const struct endpoint *endpoint, struct err *err);

/* Fills a socket address and its length. A name is looked up, which may take seconds; of
 * several addresses the first is taken, IPv4 before IPv6. ERR_NOT_FOUND. */
int endpoint_resolve(const struct endpoint *endpoint, struct sockaddr_storage *out,
                     socklen_t *n_bytes, struct err *err);

/* The port of a tcp socket address. */
uint16_t endpoint_port(const struct sockaddr_storage *address);

/* "tcp://host:port" of it with another host (NULL: its own) and port. */
int endpoint_format(char *out, size_t n_bytes, const struct endpoint *endpoint,
                    const char *host, uint16_t port, struct err *err);

#endif
