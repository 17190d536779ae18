#include "worker/generate/options.h"

#include "common/base/args.h"
#include "common/base/option.h"
#include "dataprep/text/conversation.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

const char options_help[] =
    "usage: vneva generate --model FOLDER [--video FILE | --image FILE]... QUESTION\n"
    "       vneva generate --model FOLDER --questions FILE.jsonl\n"
    "\n"
    "Answers questions about videos on this machine, without a coordinator. FOLDER is a\n"
    "checkpoint, the folder of a training job (its newest checkpoint is meant) or a\n"
    "LLaVA folder of Hugging Face's. Without a question it talks with you, where there\n"
    "is a terminal. Put <video> and <image> into the question where the media belong;\n"
    "without, they come first.\n"
    "\n"
    "  --video FILE, --image FILE   what the question is about; as often as you like\n"
    "  --questions FILE         records as NeMo and LLaVA have them, one answer line "
    "each\n"
    "                           (as results.jsonl of an evaluation); - is standard "
    "input\n"
    "  --media-root DIR         what the records' media are below (default: FILE's "
    "folder)\n"
    "  --num-frames N           frames of a video, -1 for all (default: as trained, or "
    "8)\n"
    "  --template NAME          how turns are laid out (default: as trained; else "
    "guessed)\n"
    "  --system TEXT            instead of the template's system text\n"
    "  --max-new-tokens N       longest answer (default: 256, or what there is room "
    "for)\n"
    "  --temperature X          draw tokens instead of taking the most probable; logits "
    "are\n"
    "                           divided by X (1 unless given with the next two; 0: do "
    "not)\n"
    "  --top-k N, --top-p X     of the N most probable, of the fewest that make up X\n"
    "  --repetition-penalty X   above 1: less of what question and answer had before\n"
    "  --min-new-tokens N       shortest answer (default 0)\n"
    "  --seed N                 of what is drawn: the same answers again (default 1234)\n"
    "  --tokenizer PATH         when FOLDER has none\n"
    "  --backend NAME           auto, cpu, ref, cuda (default auto)\n"
    "  --precision TYPE         bf16, 16 or 32 (default: what this machine is fast in)\n"
    "  --threads N              CPU threads (default: all this process may use)\n"
    "  --json                   a line of JSON an answer, with its token numbers\n"
    "  --verbose                times and counts, on standard error\n"
    "  --help                   this text\n"
    "\n"
    "Exit status: 0 done; 1 some questions could not be answered; 2 wrong usage or bad\n"
    "input; 5 an error of the system; 130 interrupted.\n"
    "\n"
    "Example:\n"
    "  vneva generate --model ~/.vneva/jobs/2 --video cat.mp4 \"What does the cat "
    "do?\"\n";

enum {
    OPTION_VIDEO = 256,
    OPTION_IMAGE,
    OPTION_TEMPERATURE,
    OPTION_TOP_K,
    OPTION_TOP_P,
    OPTION_PENALTY,
    OPTION_MIN,
    OPTION_SEED
};

static int parse_number(double *out, const char *option, double least, double most,
                        struct err *err)
{
    char *end;

    errno = 0;
    *out = strtod(optarg, &end);
    if (end == optarg || *end || errno || !(*out >= least && *out <= most))
        return err_set(err, ERR_INVALID, "%s must be a number from %g to %g, not '%s'",
                       option, least, most, optarg);
    return 0;
}

/* How tokens are drawn. 1: the option is another one. */
static int parse_draw(struct options *out, int option, struct err *err)
{
    switch (option) {
    case OPTION_TEMPERATURE:
        out->is_drawn = true;
        return parse_number(&out->temperature, "--temperature", 0, 1000, err);
    case OPTION_TOP_K:
        out->is_drawn = true;
        return args_whole(&out->top_k, optarg, 0, OPTIONS_TOKENS_MAX, "--top-k", err);
    case OPTION_TOP_P:
        out->is_drawn = true;
        return parse_number(&out->top_p, "--top-p", 1e-6, 1, err);
    case OPTION_PENALTY:
        return parse_number(&out->repetition_penalty, "--repetition-penalty", 0.01, 100,
                            err);
    case OPTION_MIN:
        return args_whole(&out->min_new_tokens, optarg, 0, OPTIONS_TOKENS_MAX,
                          "--min-new-tokens", err);
    case OPTION_SEED:
        return args_whole(&out->seed, optarg, 0, INT64_MAX, "--seed", err);
    default:
        return 1;
    }
}

static int add_media(struct options *out, enum media_kind kind, struct err *err)
{
    if (out->n_media == DATASET_MEDIA_MAX)
        return err_set(err, ERR_LIMIT, "at most %d media in one question",
                       DATASET_MEDIA_MAX);
    if (strlen(optarg) >= MEDIA_PATH_MAX)
        return err_set(err, ERR_LIMIT, "'%.100s...': a path of %zu bytes, at most %d fit",
                       optarg, strlen(optarg), MEDIA_PATH_MAX - 1);
    out->media[out->n_media++] = (struct options_media){kind, optarg};
    return 0;
}

static int parse_frames(struct options *out, struct err *err)
{
    if (args_whole(&out->num_frames, optarg, -1, OPTIONS_FRAMES_MAX, "--num-frames",
                   err) < 0)
        return -1;
    if (out->num_frames == 0)
        return err_set(err, ERR_INVALID, "--num-frames 0: 1 or more, or -1 for all");
    return 0;
}

static int parse_option(struct options *out, int option, char **argv, struct err *err)
{
    int rc = parse_draw(out, option, err);

    if (rc <= 0)
        return rc;
    switch (option) {
    case OPTION_VIDEO:
        return add_media(out, MEDIA_VIDEO, err);
    case OPTION_IMAGE:
        return add_media(out, MEDIA_IMAGE, err);
    case 'n':
        return parse_frames(out, err);
    case 'x':
        return args_whole(&out->max_new_tokens, optarg, 1, OPTIONS_TOKENS_MAX,
                          "--max-new-tokens", err);
    case 'j':
        return args_whole(&out->n_threads, optarg, 1, OPTIONS_THREADS_MAX, "--threads",
                          err);
    default:
        return option_refuse(argv, "vneva generate", err);
    }
}

static int check(const struct options *options, struct err *err)
{
    if (!options->model)
        return err_set(err, ERR_INVALID, "--model FOLDER is needed");
    if (options->question && options->questions)
        return err_set(err, ERR_INVALID, "a question and --questions exclude each other");
    if (options->media_root && !options->questions)
        return err_set(err, ERR_INVALID, "--media-root goes with --questions");
    if (options->template && !conv_template_find(options->template))
        return err_set(err, ERR_INVALID, "--template: there is no '%s', only %s",
                       options->template, conv_template_names());
    if (options->precision && strcmp(options->precision, "bf16") != 0 &&
        strcmp(options->precision, "16") != 0 && strcmp(options->precision, "32") != 0)
        return err_set(err, ERR_INVALID, "--precision must be bf16, 16 or 32, not '%s'",
                       options->precision);
    return 0;
}

/* false: the option takes another kind of value than a text. */
static bool set_text(struct options *out, int option)
{
    switch (option) {
    case 'm':
        out->model = optarg;
        return true;
    case 'q':
        out->questions = optarg;
        return true;
    case 'r':
        out->media_root = optarg;
        return true;
    case 't':
        out->template = optarg;
        return true;
    case 'k':
        out->tokenizer = optarg;
        return true;
    case 's':
        out->system = optarg;
        return true;
    case 'b':
        out->backend = optarg;
        return true;
    case 'p':
        out->precision = optarg;
        return true;
    default:
        return false;
    }
}

/* false: the option takes a value. */
static bool set_switch(struct options *out, int option)
{
    out->is_json |= option == 'J';
    out->is_verbose |= option == 'v';
    out->is_help |= option == 'h';
    return option == 'J' || option == 'v' || option == 'h';
}

int options_parse(struct options *out, int argc, char **argv, struct err *err)
{
    static const struct option known[] = {
        {"model", required_argument, NULL, 'm'},
        {"video", required_argument, NULL, OPTION_VIDEO},
        {"image", required_argument, NULL, OPTION_IMAGE},
        {"questions", required_argument, NULL, 'q'},
        {"media-root", required_argument, NULL, 'r'},
        {"num-frames", required_argument, NULL, 'n'},
        {"template", required_argument, NULL, 't'},
        {"system", required_argument, NULL, 's'},
        {"max-new-tokens", required_argument, NULL, 'x'},
        {"temperature", required_argument, NULL, OPTION_TEMPERATURE},
        {"top-k", required_argument, NULL, OPTION_TOP_K},
        {"top-p", required_argument, NULL, OPTION_TOP_P},
        {"repetition-penalty", required_argument, NULL, OPTION_PENALTY},
        {"min-new-tokens", required_argument, NULL, OPTION_MIN},
        {"seed", required_argument, NULL, OPTION_SEED},
        {"tokenizer", required_argument, NULL, 'k'},
        {"backend", required_argument, NULL, 'b'},
        {"precision", required_argument, NULL, 'p'},
        {"threads", required_argument, NULL, 'j'},
        {"json", no_argument, NULL, 'J'},
        {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    out->temperature = out->top_p = out->repetition_penalty = 1;
    out->seed = OPTIONS_SEED_DEFAULT;
    opterr = 0; /* parse_option says it, in the house's words */
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1)
        if (!set_text(out, option) && !set_switch(out, option) &&
            parse_option(out, option, argv, err) < 0)
            return -1;
    if (out->is_help)
        return 0;
    if (optind < argc)
        out->question = argv[optind++];
    if (optind < argc)
        return err_set(err, ERR_INVALID,
                       "'%.60s' is one word too many: put the question in quotes",
                       argv[optind]);
    return check(out, err);
}
