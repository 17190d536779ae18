/* vneva launch status: the phases of a run folder's newest launch. */
#include "common/base/clock.h"
#include "slurm/launch/launch.h"
#include "slurm/node/phases.h"

#include <stdio.h>
#include <string.h>

static const char usage[] = "usage: vneva launch status [--json] RUN_FOLDER\n\n"
                            "The phases of the newest launch of the folder: when each "
                            "began, how long it took, and\n"
                            "which node is in it since when, or has failed and why.\n\n"
                            "Example: vneva launch status runs/train-20261127T180501Z\n";

static void print_json(const struct json *launch)
{
    struct buf text = BUF_INIT;

    json_write(&text, launch, 2);
    puts(buf_str(&text));
    buf_fini(&text);
}

int cmd_status(int argc, char *const *argv)
{
    bool is_json = argc > 0 && strcmp(argv[0], "--json") == 0;
    struct json *launch;
    struct err err;

    if (argc == 1 && strcmp(argv[0], "--help") == 0) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    if (argc != 1 + is_json || argv[is_json][0] == '-') {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (phases_read(&launch, argv[is_json], &err) < 0)
        return launch_fail(&err);
    if (is_json)
        print_json(launch);
    else
        phases_print(stdout, launch, clock_wall_ms());
    json_free(launch);
    return EXIT_DONE;
}
