#include "common/base/args.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "model/backend/backend.h"
#include "worker/rank/rank.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char usage[] =
    "usage: vneva-rank [--has-bf16]\n"
    "\n"
    "One rank of a job. It is started by vneva-worker, which gives it a socket in\n"
    "VNEVA_AGENT_FD; there is no other way to use it, except:\n"
    "\n"
    "  --has-bf16   exit status 0 when this machine multiplies bf16 on units made for "
    "it,\n"
    "               1 when not\n"
    "  --help       this text\n";

/* Whether to try again cannot help, unless another node sees other files. */
static int exit_status(const struct err *err)
{
    return err->code == ERR_INVALID || err->code == ERR_FORMAT ||
                   err->code == ERR_NOT_FOUND
               ? EXIT_USAGE
               : EXIT_FAILED;
}

static int has_bf16(void)
{
    struct backend *backend = NULL;
    struct err err = {0};
    bool is_fast;

    if (backend_create(&backend, "auto", 0, 1, &err) < 0) {
        log_error("%s", err.text);
        return EXIT_FAILED;
    }
    is_fast = backend_is_fast(backend, DTYPE_BF16);
    backend_destroy(backend);
    return is_fast ? EXIT_OK : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    static const struct args_option known[] = {{.name = "has-bf16"}, {0}};
    const struct args_known takes = {known, NULL, ARGS_HINT};
    const char *fd_text = getenv("VNEVA_AGENT_FD");
    char folder[FS_PATH_MAX];
    struct args args;
    struct err err = {0};
    char *end = NULL;
    long fd = fd_text ? strtol(fd_text, &end, 10) : -1;

    log_init("rank", LOG_INFO);
    if (args_parse(&args, &takes, argc - 1, argv + 1, &err) < 0) {
        fprintf(stderr, "vneva-rank: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (args.wants_help) {
        fputs(usage, stdout);
        return EXIT_OK;
    }
    if (args_has(&args, "has-bf16"))
        return has_bf16();
    if (args.words[0] || fd < 0 || *end) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (fs_program_folder(folder, &err) < 0 || rank_run((int)fd, folder, &err) < 0) {
        log_error("%s", err.text);
        return exit_status(&err);
    }
    return EXIT_OK;
}
