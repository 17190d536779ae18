/* vneva-generate: questions from the command line, a file or a person at a terminal. */
#include "common/base/fs.h"
#include "common/base/log.h"
#include "worker/generate/prompt.h"
#include "worker/generate/talk.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* What is not there is told at once, not when the model is loaded. */
static int check_files(const struct options *options, struct err *err)
{
    if (!options->question && !options->questions && !isatty(STDIN_FILENO))
        return err_set(err, ERR_INVALID,
                       "no question: give one, or --questions FILE (- for standard "
                       "input)");
    for (int i = 0; i < options->n_media; i++)
        if (prompt_check_file(options->media[i].kind, options->media[i].path, err) < 0)
            return -1;
    if (options->questions && strcmp(options->questions, "-") != 0)
        return fs_must_exist(options->questions, err);
    return 0;
}

static int run(const struct options *options)
{
    struct talk talk = {.options = options};
    struct buf about = BUF_INIT;
    struct err err = {0};
    int status;

    if (check_files(options, &err) < 0 || session_open(&talk.session, options, &err) < 0)
        return talk_fail(&err);
    talk_tell_guess(&talk);
    if (options->is_verbose && session_describe(&about, talk.session, &err) == 0)
        fprintf(stderr, "vneva generate: '%s': %s\n", session_folder(talk.session)->path,
                buf_str(&about));
    buf_fini(&about);
    status = options->question    ? talk_question(&talk)
             : options->questions ? talk_file(&talk)
                                  : talk_person(&talk);
    session_close(talk.session);
    return status;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    struct err err = {0};
    int status;

    log_init("generate", LOG_WARN);
    (void)signal(SIGPIPE, SIG_IGN); /* a closed output is an error like another */
    if (options_parse(&options, argc, argv, &err) < 0)
        return talk_fail(&err);
    if (options.is_help)
        fputs(options_help, stdout);
    status = options.is_help ? TALK_DONE : run(&options);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "vneva generate: cannot write the output: %s\n", strerror(errno));
        return TALK_SYSTEM;
    }
    return status;
}
