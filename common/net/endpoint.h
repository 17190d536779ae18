/* endpoint.h - reads "ipc:///path" and "tcp://host:port" and says what is allowed
 *
 * An ipc socket must lie in a folder of the user's own with mode 0700, for whoever can
 * open the socket may run jobs. A tcp host must be loopback: other networks need keys,
 * which are not built yet.
 * Owns: nothing. Shared by the sockets of common/net; not for other rooms.
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

struct endpoint {
    bool is_ipc;
    const char *path; /* ipc: within the text parsed */
    uint32_t address; /* tcp: IPv4, host byte order, loopback */
    uint16_t port;    /* tcp: 0 (or "*" in the text): let the system choose */
};

/* Checks form, length, loopback. ERR_INVALID, ERR_LIMIT, ERR_DENIED. */
int endpoint_parse(struct endpoint *out, const char *text, struct err *err);

/* The folder of an ipc socket is private to the user; nothing to check for tcp. */
int endpoint_check_private(const struct endpoint *endpoint, struct err *err);

/* Fills a socket address; its length is the return value. */
socklen_t endpoint_address(const struct endpoint *endpoint, struct sockaddr_storage *out);

#endif
