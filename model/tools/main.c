/* vneva-model: weights looked at, compared, brought in and taken out. */
#include "model/tools/tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct tool_command *const commands[] = {&tool_show, &tool_diff,
                                                      &tool_import, &tool_export};
#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static void print_help(FILE *out)
{
    fputs("usage: vneva model show | diff, vneva import, vneva export\n\n"
          "Weights, without running the model.\n\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  vneva %-12s %s\n", commands[i]->said, commands[i]->summary);
    fputs(
        "\nEach has --help.\n\nExit status: 0 done, 1 the weights differ, 2 wrong usage "
        "or bad input,\n5 an error of the system.\n\n"
        "Example: what is in this folder?\n  vneva model show ~/.vneva/jobs/2\n",
        out);
}

static int run_command(const struct tool_command *command, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(command->help, stdout);
            return TOOL_DONE;
        }
    opterr = 0; /* the command says it, in the house's words */
    return command->run(argc, argv);
}

int main(int argc, char **argv)
{
    int status = TOOL_USAGE;
    size_t i;

    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? TOOL_USAGE : TOOL_DONE;
    }
    for (i = 0; i < N_COMMANDS && strcmp(commands[i]->name, argv[1]) != 0; i++)
        ;
    if (i < N_COMMANDS)
        status = run_command(commands[i], argc - 1, argv + 1);
    else
        fprintf(stderr, "vneva model: no command '%s'; see vneva model --help\n",
                argv[1]);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "vneva model: cannot write the output: %s\n", strerror(errno));
        return TOOL_SYSTEM;
    }
    return status;
}
