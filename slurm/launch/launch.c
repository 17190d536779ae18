#include "slurm/launch/launch.h"

#include "common/base/fs.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HELP_COLUMN 28

static int check_printable(const char *word, struct err *err)
{
    for (const unsigned char *c = (const unsigned char *)word; *c; c++)
        if (*c < ' ' || *c == 0x7f)
            return err_set(err, ERR_INVALID,
                           "a line break or control character in '%.*s...': a batch "
                           "script cannot hold it",
                           (int)((const char *)c - word), word);
    return 0;
}

int launch_parse(struct args *out, const struct args_option *options,
                 const struct args_option *more, int argc, char *const *argv,
                 struct err *err)
{
    const struct args_known known = {
        options, more,
        "--help lists them, and what follows `--` is passed on to the cluster's own "
        "program"};

    for (int i = 0; i < argc; i++)
        if (check_printable(argv[i], err) < 0)
            return -1;
    return args_parse(out, &known, argc, argv, err);
}

void launch_print_options(const struct args_option *options)
{
    for (; options->name; options++) {
        char name[64];

        snprintf(name, sizeof(name), "--%s%s%s", options->name, options->value ? " " : "",
                 options->value ? options->value : "");
        printf("  %-*s %s\n", HELP_COLUMN, name, options->meaning);
    }
}

int launch_fail(const struct err *err)
{
    fflush(stdout);
    fprintf(stderr, "vneva: %s\n", err->text);
    return err->code == ERR_UNSUPPORTED ? EXIT_SYSTEM : err_asking_status(err);
}

void launch_stamp(char *out)
{
    time_t now = time(NULL);
    struct tm utc;

    gmtime_r(&now, &utc);
    strftime(out, LAUNCH_STAMP_MAX, "%Y%m%dT%H%M%SZ", &utc);
}

void launch_plain_name(char *out, const char *name)
{
    snprintf(out, LAUNCH_NAME_MAX, "%s", name);
    for (char *c = out; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
            *c = '-';
}

int launch_absolute(char *out, const char *path, struct err *err)
{
    char folder[FS_PATH_MAX];

    if (*path == '/')
        return fs_path(out, err, "%s", path);
    if (!getcwd(folder, sizeof(folder)))
        return err_set(err, ERR_IO, "cannot tell the current folder: %s",
                       strerror(errno));
    return fs_path(out, err, "%s/%s", folder, path);
}

int launch_call(struct spawn_said *out, const char *const *argv, struct err *err)
{
    struct spawn how = {.argv = argv, .err_fd = -1};
    int rc = spawn_run(out, &how, LAUNCH_CALL_MS, err);

    if (rc < 0)
        spawn_said_fini(out);
    return rc;
}

const char *launch_complaint(struct spawn_said *said)
{
    char *text = said->errors.n_bytes ? said->errors.data : said->out.data;
    char *error = text ? strstr(text, "error") : NULL;

    if (!text)
        return "it says nothing";
    while (error && error > text && error[-1] != '\n')
        error--;
    text = error ? error : text;
    text[strcspn(text, "\n")] = '\0';
    return text;
}
