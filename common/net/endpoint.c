#include "common/net/endpoint.h"
#include "common/base/fs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOST_MAX 64 /* longer than any loopback name */
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

static int parse_tcp(struct endpoint *out, const char *text, struct err *err)
{
    const char *host = text + strlen("tcp://"), *colon = strrchr(host, ':');
    char name[HOST_MAX] = "";
    struct in_addr address;

    if (!colon || colon == host)
        return err_set(err, ERR_INVALID, "endpoint '%s' is not tcp://host:port", text);
    if ((size_t)(colon - host) < sizeof(name))
        memcpy(name, host, (size_t)(colon - host));
    if (strcmp(name, "localhost") == 0)
        memcpy(name, "127.0.0.1", sizeof("127.0.0.1"));
    if (inet_pton(AF_INET, name, &address) != 1 ||
        ntohl(address.s_addr) >> 24 != LOOPBACK_NET)
        return err_set(
            err, ERR_DENIED,
            "endpoint '%s' is not on loopback; other networks need keys, which "
            "this release does not have: use ipc:///path or tcp://127.0.0.1:port",
            text);
    out->address = ntohl(address.s_addr);
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
    char folder[FS_PATH_MAX], *slash;
    struct stat st;

    if (!endpoint->is_ipc)
        return 0;
    if (fs_path(folder, err, "%s", endpoint->path) < 0)
        return -1;
    slash = strrchr(folder, '/');
    slash[slash == folder ? 1 : 0] = '\0'; /* the folder of "/x" is "/" */
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

socklen_t endpoint_address(const struct endpoint *endpoint, struct sockaddr_storage *out)
{
    struct sockaddr_un *local = (struct sockaddr_un *)out;
    struct sockaddr_in *inet = (struct sockaddr_in *)out;

    memset(out, 0, sizeof(*out));
    if (endpoint->is_ipc) {
        local->sun_family = AF_UNIX;
        memcpy(local->sun_path, endpoint->path, strlen(endpoint->path));
        return sizeof(*local);
    }
    inet->sin_family = AF_INET;
    inet->sin_port = htons(endpoint->port);
    inet->sin_addr.s_addr = htonl(endpoint->address);
    return sizeof(*inet);
}
