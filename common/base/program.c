#include "common/base/program.h"

#include "common/base/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_USAGE = 2, EXIT_SYSTEM = 5 };

static int check_words(const struct program_command *command, const struct args *args,
                       struct err *err)
{
    if (args->n_words < command->min_words)
        return err_set(err, ERR_INVALID, "%s is expected; see %s --help", command->words,
                       command->said);
    if (args->n_words > command->max_words)
        return err_set(err, ERR_INVALID, "'%.60s' is one word too many: %s is expected",
                       args->words[command->max_words], command->words);
    return 0;
}

static int run_command(const struct program_command *command, int argc, char *const *argv)
{
    const struct args_known known = {command->options, NULL, ARGS_HINT};
    struct args args;
    struct err err = {0};
    int status = -1;

    if (args_parse(&args, &known, argc, argv, &err) == 0) {
        if (args.wants_help) {
            fputs(command->help, stdout);
            return EXIT_DONE;
        }
        args.n_words += args.n_rest; /* here "--" only ends the options */
        if (check_words(command, &args, &err) == 0)
            status = command->run(&args, &err);
    }
    if (status >= 0)
        return status;
    fprintf(stderr, "%s: %s\n", command->said, err.text);
    return err_exit_status(&err);
}

static int fail_unknown(const struct program *program, const char *word)
{
    struct suggest names = {.word = word};

    for (int i = 0; program->commands[i]; i++)
        suggest_offer(&names, program->commands[i]->name);
    if (names.near)
        fprintf(stderr, "%s: no command '%s'; did you mean '%s'?\n", program->said, word,
                names.near);
    else
        fprintf(stderr, "%s: no command '%s'; see %s --help\n", program->said, word,
                program->said);
    return EXIT_USAGE;
}

int program_run(const struct program *program, int argc, char *const *argv)
{
    const struct program_command *const *command = program->commands;
    int status;

    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        fputs(program->help, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_DONE;
    }
    while (*command && strcmp((*command)->name, argv[1]) != 0)
        command++;
    status = *command ? run_command(*command, argc - 2, argv + 2)
                      : fail_unknown(program, argv[1]);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "%s: cannot write the output: %s\n", program->said,
                strerror(errno));
        return EXIT_SYSTEM;
    }
    return status;
}
