#include "dataprep/vneva_data.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct data_command *const commands[] = {
    &data_prepare, &data_rejects,  &data_show,
    &data_synth,   &data_tokenize, &data_train_tokenizer,
};
#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

int data_fail(const struct err *err)
{
    fprintf(stderr, "vneva data: %s\n", err->text);
    return err_exit_status(err);
}

int data_usage(const struct data_command *command, const char *what)
{
    fprintf(stderr, "vneva data %s: %s; see vneva data %s --help\n", command->name, what,
            command->name);
    return DATA_USAGE;
}

void data_progress(const char *what, int64_t n_done, int64_t n_total)
{
    int64_t tenth = (n_total + 9) / 10;

    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: %lld of %lld%s", what, (long long)n_done,
                (long long)n_total, n_done == n_total ? "\n" : "");
    else if ((tenth && n_done % tenth == 0) || n_done == n_total)
        fprintf(stderr, "%s: %lld of %lld\n", what, (long long)n_done,
                (long long)n_total);
}

static void print_help(void)
{
    printf("usage: vneva data COMMAND [arguments]\n\n"
           "Datasets, tokenizers and conversations, without a coordinator.\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  %-16s %s\n", commands[i]->name, commands[i]->summary);
    printf("\n'vneva data COMMAND --help' tells more.\n\n"
           "Exit status: 0 done, 1 the check or the work failed, 2 wrong usage or bad "
           "input,\n5 an error of the system.\n\n"
           "Example: what does the training see of these conversations?\n"
           "  vneva data tokenize --tokenizer tokenizer.model --template v1 \\\n"
           "      --num-frames 4 --patches-per-frame 16 annotations.jsonl\n");
}

static int run_command(const struct data_command *command, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(command->help, stdout);
            return DATA_DONE;
        }
    opterr = 0; /* data_usage says it, in the house's words */
    return command->run(argc, argv);
}

int main(int argc, char **argv)
{
    int status = DATA_USAGE;
    size_t i;

    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help();
        return argc < 2 ? DATA_USAGE : DATA_DONE;
    }
    for (i = 0; i < N_COMMANDS && strcmp(commands[i]->name, argv[1]) != 0; i++)
        ;
    if (i < N_COMMANDS)
        status = run_command(commands[i], argc - 1, argv + 1);
    else
        fprintf(stderr, "vneva data: no command '%s'; see vneva data --help\n", argv[1]);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "vneva data: cannot write the output: %s\n", strerror(errno));
        return DATA_SYSTEM;
    }
    return status;
}
