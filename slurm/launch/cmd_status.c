/* vneva launch status: the phases of a run folder's newest launch. */
#include "common/base/clock.h"
#include "slurm/launch/launch.h"
#include "slurm/node/phases.h"

#include <stdio.h>

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
    static const struct args_option options[] = {{.name = "json"}, {0}};
    struct json *launch;
    struct args args;
    struct err err;

    if (launch_parse(&args, options, NULL, argc, argv, &err) < 0)
        return launch_fail(&err);
    if (args.wants_help || args.n_words + args.n_rest != 1) {
        fputs(usage, args.wants_help ? stdout : stderr);
        return args.wants_help ? EXIT_DONE : EXIT_USAGE;
    }
    if (phases_read(&launch, args.words[0], &err) < 0)
        return launch_fail(&err);
    if (args_has(&args, "json"))
        print_json(launch);
    else
        phases_print(stdout, launch, clock_wall_ms());
    json_free(launch);
    return EXIT_DONE;
}
