#include "jobs/client/client.h"

#include <signal.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    char programs[FS_PATH_MAX];
    struct client client;
    struct err err;
    int status;

    signal(SIGPIPE, SIG_DFL); /* `vneva status | head` */
    if (fs_program_folder(programs, &err) < 0 ||
        client_init(&client, programs, getenv("VNEVA_HOME"), getenv("VNEVA_ENDPOINT"),
                    getenv("VNEVA_KEY"), &err) < 0) {
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
