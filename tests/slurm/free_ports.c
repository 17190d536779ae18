/* free_ports N: prints N ports that are free on 127.0.0.1 now, in a line. All are held while
 * the next is asked for, so they differ. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS_MAX 16

static int free_port(int fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n_bytes = sizeof(address);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, n_bytes) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &n_bytes) < 0)
        return -1;
    return ntohs(address.sin_port);
}

int main(int argc, char **argv)
{
    long n = argc == 2 ? strtol(argv[1], NULL, 10) : 0;

    if (n < 1 || n > PORTS_MAX) {
        fprintf(stderr, "usage: free_ports N (at most %d)\n", PORTS_MAX);
        return 2;
    }
    for (long i = 0; i < n; i++) {
        int port = free_port(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

        if (port < 0) {
            perror("free_ports");
            return 1;
        }
        printf("%d%c", port, i + 1 < n ? ' ' : '\n');
    }
    return 0; /* the sockets are closed at the end */
}
