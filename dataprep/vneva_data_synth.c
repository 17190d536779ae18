#include "dataprep/vneva_data.h"

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

static int run(const struct args *args, struct err *err)
{
    struct synth_config config = {.output = args_value(args, "output"),
                                  .progress = progress};
    int64_t seed;

    if (args_int(args, "clips", 1, SYNTH_CLIPS_MAX, 0, &config.n_clips, err) < 0 ||
        args_int(args, "seed", 0, INT64_MAX, 1, &seed, err) < 0)
        return -1;
    config.seed = (uint64_t)seed;
    if (!config.output || !config.n_clips)
        return err_set(err, ERR_INVALID, "--output DIR and --clips N are needed");
    return synth_run(&config, err) < 0 ? -1 : DATA_DONE;
}

static const struct args_option options[] = {{.name = "output", .value = "DIR"},
                                             {.name = "clips", .value = "N"},
                                             {.name = "seed", .value = "S"},
                                             {0}};

const struct program_command data_synth = {
    "synth", "vneva data synth", help, options, "nothing but options", 0, 0, run};
