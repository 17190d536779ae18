#include "common/base/option.h"

#include <getopt.h>
#include <stdbool.h>
#include <string.h>

int option_refuse(char *const *argv, const char *command, struct err *err)
{
    const char *word = argv[optind - 1];
    char letter[3] = {'-', (char)optopt, '\0'};
    bool is_long = strncmp(word, "--", 2) == 0;

    /* optopt: 0 for a long option that is not known, else what the option stands for */
    if (is_long && optopt && !strchr(word, '='))
        return err_set(err, ERR_INVALID, "option '%s' wants a value; see %s --help", word,
                       command);
    return err_set(err, ERR_INVALID, "unknown option '%s'; see %s --help",
                   is_long ? word : letter, command);
}
