#include "jobs/client/client.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder this program stands in, where the others are too. */
static int own_folder(char out[FS_PATH_MAX], struct err *err)
{
    ssize_t n = readlink("/proc/self/exe", out, FS_PATH_MAX - 1);
    char *slash;

    if (n < 0)
        return err_set(err, ERR_IO, "cannot tell where this program is");
    out[n] = '\0';
    slash = strrchr(out, '/');
    if (slash)
        *slash = '\0';
    return 0;
}

int main(int argc, char **argv)
{
    char programs[FS_PATH_MAX];
    struct client client;
    struct err err;
    int status;

    signal(SIGPIPE, SIG_DFL); /* `vneva status | head` */
    if (own_folder(programs, &err) < 0 ||
        client_init(&client, programs, getenv("VNEVA_HOME"), getenv("VNEVA_ENDPOINT"),
                    &err) < 0) {
        fprintf(stderr, "vneva: %s\n", err.text);
        return EXIT_SYSTEM;
    }
    status = client_run(&client, argc - 1, argv + 1);
    client_fini(&client);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "vneva: cannot write the output\n");
        return EXIT_SYSTEM;
    }
    return status;
}
