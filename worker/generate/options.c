#include "worker/generate/options.h"

#include "common/base/args.h"
#include "dataprep/text/conversation.h"

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

static const struct args_option known[] = {
    {.name = "model", .value = "FOLDER"},
    {.name = "video", .value = "FILE"},
    {.name = "image", .value = "FILE"},
    {.name = "questions", .value = "FILE"},
    {.name = "media-root", .value = "DIR"},
    {.name = "num-frames", .value = "N"},
    {.name = "template", .value = "NAME"},
    {.name = "system", .value = "TEXT"},
    {.name = "max-new-tokens", .value = "N"},
    {.name = "temperature", .value = "X"},
    {.name = "top-k", .value = "N"},
    {.name = "top-p", .value = "X"},
    {.name = "repetition-penalty", .value = "X"},
    {.name = "min-new-tokens", .value = "N"},
    {.name = "seed", .value = "N"},
    {.name = "tokenizer", .value = "PATH"},
    {.name = "backend", .value = "NAME"},
    {.name = "precision", .value = "TYPE"},
    {.name = "threads", .value = "N"},
    {.name = "json"},
    {.name = "verbose"},
    {0},
};

static int add_media(struct options *out, enum media_kind kind, const char *path,
                     struct err *err)
{
    if (out->n_media == DATASET_MEDIA_MAX)
        return err_set(err, ERR_LIMIT, "at most %d media in one question",
                       DATASET_MEDIA_MAX);
    if (strlen(path) >= MEDIA_PATH_MAX)
        return err_set(err, ERR_LIMIT, "'%.100s...': a path of %zu bytes, at most %d fit",
                       path, strlen(path), MEDIA_PATH_MAX - 1);
    out->media[out->n_media++] = (struct options_media){kind, path};
    return 0;
}

static int read_media(struct options *out, const struct args *args, struct err *err)
{
    for (int i = 0; i < args->n_given; i++) {
        bool is_image = strcmp(args->names[i], "image") == 0;

        if ((is_image || strcmp(args->names[i], "video") == 0) &&
            add_media(out, is_image ? MEDIA_IMAGE : MEDIA_VIDEO, args->values[i], err) <
                0)
            return -1;
    }
    return 0;
}

static void read_texts(struct options *out, const struct args *args)
{
    out->model = args_value(args, "model");
    out->question = args->words[0];
    out->questions = args_value(args, "questions");
    out->media_root = args_value(args, "media-root");
    out->template = args_value(args, "template");
    out->system = args_value(args, "system");
    out->tokenizer = args_value(args, "tokenizer");
    out->backend = args_value(args, "backend");
    out->precision = args_value(args, "precision");
    out->is_json = args_has(args, "json");
    out->is_verbose = args_has(args, "verbose");
    out->is_drawn = args_has(args, "temperature") || args_has(args, "top-k") ||
                    args_has(args, "top-p");
}

static int read_numbers(struct options *out, const struct args *args, struct err *err)
{
    if (args_int(args, "num-frames", -1, OPTIONS_FRAMES_MAX, 0, &out->num_frames, err) <
            0 ||
        args_int(args, "max-new-tokens", 1, OPTIONS_TOKENS_MAX, 0, &out->max_new_tokens,
                 err) < 0 ||
        args_int(args, "threads", 1, OPTIONS_THREADS_MAX, 0, &out->n_threads, err) < 0 ||
        args_number(args, "temperature", 0, 1000, 1, &out->temperature, err) < 0 ||
        args_int(args, "top-k", 0, OPTIONS_TOKENS_MAX, 0, &out->top_k, err) < 0 ||
        args_number(args, "top-p", 1e-6, 1, 1, &out->top_p, err) < 0 ||
        args_number(args, "repetition-penalty", 0.01, 100, 1, &out->repetition_penalty,
                    err) < 0 ||
        args_int(args, "min-new-tokens", 0, OPTIONS_TOKENS_MAX, 0, &out->min_new_tokens,
                 err) < 0 ||
        args_int(args, "seed", 0, INT64_MAX, OPTIONS_SEED_DEFAULT, &out->seed, err) < 0)
        return -1;
    if (args_has(args, "num-frames") && out->num_frames == 0)
        return err_set(err, ERR_INVALID, "--num-frames 0: 1 or more, or -1 for all");
    return 0;
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

int options_parse(struct options *out, int argc, char *const *argv, struct err *err)
{
    const struct args_known takes = {known, NULL, ARGS_HINT};
    struct args args;

    if (args_parse(&args, &takes, argc - 1, argv + 1, err) < 0)
        return -1;
    out->is_help = args.wants_help;
    if (out->is_help)
        return 0;
    if (args.n_words + args.n_rest > 1)
        return err_set(err, ERR_INVALID,
                       "'%.60s' is one word too many: put the question in quotes",
                       args.words[1]);
    read_texts(out, &args);
    if (read_media(out, &args, err) < 0 || read_numbers(out, &args, err) < 0)
        return -1;
    return check(out, err);
}
