#include "dataprep/vneva_data.h"

#include "common/base/option.h"

#include "dataprep/synth/synth.h"

#include <stdio.h>

static const char help[] =
    "usage: vneva data synth --output DIR --clips N [--seed S]\n"
    "\n"
    "Draws clips of moving and changing shapes (H.264) with questions that need several\n"
    "frames and questions that one frame answers: DIR/clip_00000.mp4 and so on, and\n"
    "DIR/annotations.jsonl. Clip i of a seed is the same whatever N is.\n"
    "\n"
    "  --output DIR   the folder to fill\n"
    "  --clips N      how many\n"
    "  --seed S       a whole number, 0 or more (default 1)\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage, 5 an error of the system.\n"
    "\n"
    "Example:\n"
    "  vneva data synth --output motion --clips 100 --seed 1\n";

static void progress(void *state, int64_t n_done, int64_t n_clips)
{
    (void)state;
    data_progress("clips drawn", n_done, n_clips);
}

static int parse(struct synth_config *out, int argc, char **argv, struct err *err)
{
    static const struct option known[] = {
        {"output", required_argument, NULL, 'o'},
        {"clips", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},
        {NULL, 0, NULL, 0},
    };
    int64_t seed = 1;
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        int rc = 0;

        if (option == 'o')
            out->output = optarg;
        else if (option == 'c')
            rc = args_whole(&out->n_clips, optarg, 1, SYNTH_CLIPS_MAX, "--clips", err);
        else if (option == 's')
            rc = args_whole(&seed, optarg, 0, INT64_MAX, "--seed", err);
        else
            rc = option_refuse(argv, "vneva data synth", err);
        if (rc < 0)
            return -1;
    }
    out->seed = (uint64_t)seed;
    if (!out->output || !out->n_clips || optind < argc)
        return err_set(err, ERR_INVALID,
                       "synth: --output DIR and --clips N are needed, and no more");
    return 0;
}

static int run(int argc, char **argv)
{
    struct synth_config config = {.progress = progress};
    struct err err = {0};

    if (parse(&config, argc, argv, &err) < 0 || synth_run(&config, &err) < 0)
        return data_fail(&err);
    return DATA_DONE;
}

const struct data_command data_synth = {"synth", "draw clips with questions about motion",
                                        help, run};
