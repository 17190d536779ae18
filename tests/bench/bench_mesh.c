/* bench_mesh [MiB]: what a link between two ranks carries, encrypted by the mesh and plain,
 * side by side over loopback: two threads, so that on two cores encryption is not hidden
 * behind anything. Bytes count once, for one direction; a turn is what a ring of two does
 * in an all-reduce: both send and receive at once.
 */
#include "common/base/clock.h"
#include "common/net/mesh.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB_DEFAULT 512
#define BLOCK_BYTES ((size_t)4 << 20)
#define SMALL_BYTES ((size_t)4 << 10)
#define SMALL_TURNS 20000
#define DEADLINE_MS 60000
#define KERNEL_BYTES (4 << 20) /* as the mesh asks for */

enum what { WHAT_ONE_WAY, WHAT_TURN, WHAT_COUNT };

struct side {
    int rank;
    struct net_mesh *mesh; /* NULL: plain */
    const char *endpoints[2];
    int fd;
    enum what what;
    size_t n_bytes; /* of a message */
    int64_t n_messages;
};

static void die(const char *what, const struct err *err)
{
    fprintf(stderr, "bench_mesh: %s: %s\n", what, err ? err->text : strerror(errno));
    exit(1);
}

/* ---- plain: the same loop without the sealing ---- */

static void plain_turn(int fd, const char *out, size_t n_out, char *in, size_t n_in)
{
    while (n_out || n_in) {
        struct pollfd poll_fd = {.fd = fd};
        ssize_t n = n_out ? send(fd, out, n_out, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

        out += n > 0 ? n : 0;
        n_out -= n > 0 ? (size_t)n : 0;
        n = n_in ? recv(fd, in, n_in, MSG_DONTWAIT) : 0;
        in += n > 0 ? n : 0;
        n_in -= n > 0 ? (size_t)n : 0;
        poll_fd.events = (short)((n_out ? POLLOUT : 0) | (n_in ? POLLIN : 0));
        if (poll_fd.events && poll(&poll_fd, 1, DEADLINE_MS) <= 0)
            die("plain", NULL);
    }
}

static void mesh_turn(const struct side *side, const char *out, size_t n_out, char *in,
                      size_t n_in)
{
    int other = 1 - side->rank;
    struct err err;

    if (net_mesh_post(side->mesh, other, out, n_out, &err) < 0 ||
        net_mesh_recv(side->mesh, other, in, n_in, DEADLINE_MS, &err) < 0 ||
        net_mesh_flush(side->mesh, DEADLINE_MS, &err) < 0)
        die("mesh", &err);
}

static void *side_main(void *argument)
{
    static const struct net_secret secret = {"of a benchmark"};
    struct side *side = argument;
    char *out = calloc(1, side->n_bytes), *in = malloc(side->n_bytes);
    bool sends = side->what == WHAT_TURN || side->rank == 0;
    bool receives = side->what == WHAT_TURN || side->rank == 1;
    struct err err;

    if (!out || !in)
        die("memory", NULL);
    if (side->mesh && net_mesh_connect(side->mesh, side->rank, 2, side->endpoints,
                                       &secret, DEADLINE_MS, &err) < 0)
        die("mesh", &err);
    for (int64_t i = 0; i < side->n_messages; i++) {
        size_t n_out = sends ? side->n_bytes : 0, n_in = receives ? side->n_bytes : 0;

        if (side->mesh)
            mesh_turn(side, out, n_out, in, n_in);
        else
            plain_turn(side->fd, out, n_out, in, n_in);
    }
    free(out);
    free(in);
    return NULL;
}

static void connect_plain(struct side sides[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t n_bytes = sizeof(address);
    const int room = KERNEL_BYTES, on = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sides[1].fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    setsockopt(sides[1].fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    setsockopt(sides[1].fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    if (bind(listener, (struct sockaddr *)&address, n_bytes) < 0 ||
        listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &n_bytes) < 0 ||
        connect(sides[1].fd, (struct sockaddr *)&address, n_bytes) < 0)
        die("plain", NULL);
    sides[0].fd = accept(listener, NULL, NULL);
    for (int i = 0; i < 2; i++)
        setsockopt(sides[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    close(listener);
}

static void open_mesh(struct side sides[2])
{
    struct err err;

    for (int i = 0; i < 2; i++)
        if (net_mesh_listen(&sides[i].mesh, "127.0.0.1", &err) < 0)
            die("mesh", &err);
    for (int i = 0; i < 4; i++)
        sides[i / 2].endpoints[i % 2] = net_mesh_endpoint(sides[i % 2].mesh);
}

/* Seconds for all messages. */
static double run(bool is_plain, enum what what, size_t n_bytes, int64_t n_messages)
{
    struct side sides[2];
    pthread_t threads[2];
    int64_t begun_ns;

    for (int i = 0; i < 2; i++)
        sides[i] = (struct side){.rank = i,
                                 .fd = -1,
                                 .what = what,
                                 .n_bytes = n_bytes,
                                 .n_messages = n_messages};
    if (is_plain)
        connect_plain(sides);
    else
        open_mesh(sides);
    begun_ns = clock_mono_ns();
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, side_main, &sides[i]) != 0)
            die("thread", NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        net_mesh_close(sides[i].mesh);
        if (sides[i].fd >= 0)
            close(sides[i].fd);
    }
    return (double)(clock_mono_ns() - begun_ns) / 1e9;
}

int main(int argc, char **argv)
{
    int64_t mib = argc > 1 ? strtoll(argv[1], NULL, 10) : MIB_DEFAULT;
    int64_t n_blocks = (mib << 20) / (int64_t)BLOCK_BYTES;
    double bytes = (double)n_blocks * (double)BLOCK_BYTES;

    if (n_blocks < 1) {
        fprintf(stderr, "usage: bench_mesh [MiB]\n");
        return 2;
    }
    printf("%-12s %14s %14s %18s\n", "link", "one way GB/s", "turn GB/s",
           "turn of 4 KiB us");
    for (int is_plain = 1; is_plain >= 0; is_plain--)
        printf("%-12s %14.2f %14.2f %18.1f\n", is_plain ? "plain" : "encrypted",
               bytes / run(is_plain, WHAT_ONE_WAY, BLOCK_BYTES, n_blocks) / 1e9,
               bytes / run(is_plain, WHAT_TURN, BLOCK_BYTES, n_blocks) / 1e9,
               run(is_plain, WHAT_TURN, SMALL_BYTES, SMALL_TURNS) / SMALL_TURNS * 1e6);
    return 0;
}
