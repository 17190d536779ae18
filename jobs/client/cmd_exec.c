/* vneva coordinator, worker, data, generate, dashboard, launch, model, import, export: the
 * sibling programs, as git does it. */
#include "jobs/client/client.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static int exec_sibling(struct client *client, const char *name, const struct args *args)
{
    char program[FS_PATH_MAX];
    const char *argv[ARGS_WORDS_MAX + 2];
    struct err err;

    if (fs_path(program, &err, "%s/%s", client->programs, name) < 0)
        return client_fail(client, &err);
    argv[0] = program;
    memcpy(&argv[1], args->words, (size_t)args->n_words * sizeof(*argv));
    argv[args->n_words + 1] = NULL;
    execv(program, (char *const *)argv);
    err_set(&err, ERR_IO, "cannot run '%s': %s", program, strerror(errno));
    return client_fail(client, &err);
}

int cmd_coordinator(struct client *client, const struct args *args)
{
    return exec_sibling(client, "vneva-coordinator", args);
}

int cmd_worker(struct client *client, const struct args *args)
{
    return exec_sibling(client, "vneva-worker", args);
}

int cmd_model(struct client *client, const struct args *args)
{
    return exec_sibling(client, "vneva-model", args);
}

/* A command of vneva-model that has a name of its own here. */
static int exec_model(struct client *client, const char *command, const struct args *args)
{
    struct args longer = *args;
    struct err err;

    if (args->n_words == ARGS_WORDS_MAX) {
        err_set(&err, ERR_LIMIT, "more than %d words", ARGS_WORDS_MAX - 1);
        return client_fail(client, &err);
    }
    longer.words[0] = command;
    memcpy(&longer.words[1], args->words, (size_t)args->n_words * sizeof(*args->words));
    longer.n_words++;
    return exec_sibling(client, "vneva-model", &longer);
}

int cmd_import(struct client *client, const struct args *args)
{
    return exec_model(client, "import", args);
}

int cmd_export(struct client *client, const struct args *args)
{
    return exec_model(client, "export", args);
}

int cmd_generate(struct client *client, const struct args *args)
{
    return exec_sibling(client, "vneva-generate", args);
}

int cmd_data(struct client *client, const struct args *args)
{
    return exec_sibling(client, "vneva-data", args);
}

int cmd_launch(struct client *client, const struct args *args)
{
    return exec_sibling(client, "vneva-launch", args);
}

int cmd_dashboard(struct client *client, const struct args *args)
{
    return exec_sibling(client, "vneva-dashboard", args);
}
