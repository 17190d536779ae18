/* The table of commands, their help, and finding one. */
#include "common/base/suggest.h"
#include "jobs/client/client.h"

#include <stdlib.h>
#include <string.h>

static const struct args_option json_only[] = {
    {"json", 0, NULL, "print JSON"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option show_options[] = {
    {"field", 'f', "PATH", "print one member: state, folder, ranks.1.pid, ..."},
    {"json", 0, NULL, "print JSON"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option up_options[] = {
    {"devices", 'd', "N", "CPU ranks at once (default 2)"},
    {"listen", 'l', "ENDPOINT", "for other machines: tcp://HOST:PORT, with keys"},
    {"foreground", 0, NULL, "stay, and stop everything on Ctrl-C"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option keys_options[] = {
    {"role", 'r', "ROLE", "admin, user, worker or viewer"},
    {"out", 'o', "FILE", "where the key goes (default NAME.key)"},
    {"public", 0, "KEY", "add: of a pair that `keys pair` made elsewhere"},
    {"endpoint", 0, "ENDPOINT", "tcp://HOST:PORT, as others reach the coordinator"},
    {"coordinator", 0, "KEY", "pair: the coordinator's public key"},
    {"json", 0, NULL, "list: print JSON"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option submit_options[] = {
    {"kind", 'k', "KIND", "prepare, pretrain, finetune or evaluate"},
    {"check", 0, NULL,
     "say what the job would do; submit nothing (1: it would be refused)"},
    {"memory", 0, "SIZE", "of a device, for one rank: 80G (default: as agents say)"},
    {"wait", 'w', NULL, "wait for its end, as `vneva wait`"},
    {"quiet", 'q', NULL, "print the job's number alone"},
    {"keys", 0, NULL, "list every key of a specification"},
    {"request-id", 0, "ID", "the same ID again is the same job, not another one"},
    {"json", 0, NULL, "print JSON"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option status_options[] = {
    {"all", 'a', NULL, "ended jobs too, the last thousand"},
    {"json", 0, NULL, "print JSON"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option logs_options[] = {
    {"follow", 'f', NULL, "go on until the job ends"},
    {"rank", 'r', "R", "whose (default 0); -1: the job's own"},
    {"attempt", 0, "A", "of which attempt (default: the newest)"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option reason_options[] = {
    {"reason", 0, "TEXT", "kept with the job"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option wait_options[] = {
    {"timeout", 't', "S", "give up after so many seconds (exit code 1)"},
    {"until", 'u', "N", "leave when N samples or steps are done"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option pool_options[] = {
    {"name", 0, "NAME", "of the pool to add (default: slurm)"},
    {"nodes", 'n', "MIN-MAX", "so many always, so many at most"},
    {"idle", 0, "TIME", "a node with nothing to do ends after it (5m)"},
    {"gpus-per-node", 0, "G", "devices of a node (default: none, its CPUs)"},
    {"devices", 0, "D", "ranks at once on a node (default: its GPUs, or 1)"},
    {"partition", 0, "NAME", "of the cluster"},
    {"time", 0, "TIME", "limit of an allocation, as sbatch takes it"},
    {"container-image", 0, "IMAGE", "what agents run in (pyxis)"},
    {"container-mounts", 0, "MOUNTS", "with it"},
    {"json", 0, NULL, "list, status: print JSON"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option query_options[] = {
    {"columns", 'c', "NAMES", "which, with commas (default: those that fit)"},
    {"sort", 's', "NAMES", "by which; -NAME from the highest"},
    {"limit", 'n', "N", "rows at most, 0: all (default: 1000 of a table)"},
    {"format", 'f', "FORMAT", "table, json, jsonl or csv"},
    {"watch", 'w', "S", "again every S seconds, until Ctrl-C"},
    {"sql", 0, "SELECT", "ask in SQL instead"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option report_options[] = {
    {"output", 'o', "FILE", "where to (default report.html)"},
    {NULL, 0, NULL, NULL},
};

const struct command client_commands[] = {
    {"up", "", "start a coordinator and an agent on this machine", "vneva up --devices 2",
     up_options, 0, 0, cmd_up},
    {"down", "", "stop them; running jobs go on at the next start", "vneva down", NULL, 0,
     0, cmd_down},
    {"keys", "init | add NAME | pair NAME | revoke NAME ... | list",
     "say who may connect over a network", "vneva keys add alice --role user",
     keys_options, 1, ARGS_WORDS_MAX, cmd_keys},
    {"submit", "FILE [KEY=VALUE ...]", "hand in a job",
     "vneva submit train.yaml model.optim.lr=1e-3 --wait", submit_options, 0,
     ARGS_WORDS_MAX, cmd_submit},
    {"status", "", "list jobs", "vneva status --json", status_options, 0, 0, cmd_status},
    {"show", "JOB", "all about a job", "vneva show 3 --field state", show_options, 1, 1,
     cmd_show},
    {"logs", "JOB", "what a rank wrote", "vneva logs -f 3 --rank 1", logs_options, 1, 1,
     cmd_logs},
    {"wait", "JOB", "wait for a job's end, with its progress",
     "vneva wait 3 --timeout 600", wait_options, 1, 1, cmd_wait},
    {"cancel", "JOB ...", "end jobs for good", "vneva cancel 3 --reason 'wrong data'",
     reason_options, 1, ARGS_WORDS_MAX, cmd_cancel},
    {"hold", "JOB ...", "stop jobs until they are released", "vneva hold 3", NULL, 1,
     ARGS_WORDS_MAX, cmd_hold},
    {"release", "JOB ...", "let held jobs go on", "vneva release 3", NULL, 1,
     ARGS_WORDS_MAX, cmd_release},
    {"events", "JOB", "what happened to a job", "vneva events 3", json_only, 1, 1,
     cmd_events},
    {"workers", "", "list agents and their devices", "vneva workers", json_only, 0, 0,
     cmd_workers},
    {"checkpoints", "[JOB]", "list checkpoints", "vneva checkpoints 2 --json", json_only,
     0, 1, cmd_checkpoints},
    {"top", "", "watch jobs, ranks and the loss, full screen", "vneva top", NULL, 0, 0,
     cmd_top},
    {"why", "JOB", "what it waits for, in one sentence", "vneva why 3", json_only, 1, 1,
     cmd_why},
    {"pool", "add slurm | list | status | remove | pause | resume [NAME]",
     "nodes of a cluster that come while tasks wait",
     "vneva pool add slurm --name gpu --nodes 0-4 --gpus-per-node 8 --partition a100\n"
     "         vneva pool status gpu",
     pool_options, 1, ARGS_WORDS_MAX, cmd_pool},
    {"query", "VIEW [where CONDITION ...]", "rows of jobs, ranks, metrics, ...",
     "vneva query metrics where job=2 'loss<2' --sort -step --limit 5\n"
     "         vneva query --sql 'select state, count(*) from jobs group by 1'",
     query_options, 0, ARGS_WORDS_MAX, cmd_query},
    {"dashboard", "...", "serve a page about all of it: run vneva-dashboard",
     "vneva dashboard --listen 127.0.0.1:8420", NULL, 0, -1, cmd_dashboard},
    {"report", "JOB", "write a page of curves and examples",
     "vneva report 3 -o report.html", report_options, 1, 1, cmd_report},
    {"data", "COMMAND ...", "look at and make data: run vneva-data",
     "vneva data rejects DATASET", NULL, 0, -1, cmd_data},
    {"import", "HF_FOLDER OUT", "make a checkpoint of a Hugging Face folder",
     "vneva import llava-1.5-7b-hf ~/models/llava", NULL, 0, -1, cmd_import},
    {"export", "FOLDER OUT", "write weights as a folder that transformers loads",
     "vneva export --dtype bf16 ~/.vneva/jobs/2 my-llava", NULL, 0, -1, cmd_export},
    {"model", "show | diff ...", "look at weights, compare them: run vneva-model",
     "vneva model show ~/.vneva/jobs/2", NULL, 0, -1, cmd_model},
    {"generate", "...", "ask a model about a video, here and now: run vneva-generate",
     "vneva generate --model ~/.vneva/jobs/2 --video cat.mp4 'What moves?'", NULL, 0, -1,
     cmd_generate},
    {"launch", "slurm | bcp ...", "run a job over the nodes of a cluster: vneva-launch",
     "vneva launch slurm --nodes 2 --gpus-per-node 8 train.yaml", NULL, 0, -1,
     cmd_launch},
    {"coordinator", "...", "run vneva-coordinator", "vneva coordinator --help", NULL, 0,
     -1, cmd_coordinator},
    {"worker", "...", "run vneva-worker, a node's agent", "vneva worker --help", NULL, 0,
     -1, cmd_worker},
    {"version", "", "say which version this is", "vneva version", NULL, 0, 0,
     cmd_version},
    {"help", "[COMMAND]", "this list, or one command", "vneva help submit", NULL, 0, 1,
     cmd_help},
    {NULL, NULL, NULL, NULL, NULL, 0, 0, NULL},
};

static const struct command *find_command(const char *name)
{
    for (const struct command *c = client_commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static const char exit_codes[] =
    "Exit codes: 0 done; 1 the job or check failed; 2 wrong usage or bad input;\n"
    "3 no coordinator answers; 4 refused in this state; 5 an error of the system;\n"
    "130 interrupted.\n";

#define OPTION_COLUMNS 16 /* longer ones have a line of their own */

static void print_help(FILE *out, const struct command *command)
{
    fprintf(out, "usage: vneva %s%s%s%s\n\n%s\n", command->name,
            command->options ? " [options]" : "", *command->words ? " " : "",
            command->words, command->summary);
    if (command->options)
        fputc('\n', out);
    for (const struct args_option *o = command->options; o && o->name; o++) {
        char name[40];

        snprintf(name, sizeof(name), "--%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        if (o->letter)
            fprintf(out, "  -%c, ", o->letter);
        else
            fputs("      ", out);
        if (strlen(name) > OPTION_COLUMNS)
            fprintf(out, "%s\n%*s", name, OPTION_COLUMNS + 7, "");
        else
            fprintf(out, "%-*s ", OPTION_COLUMNS, name);
        fprintf(out, "%s\n", o->meaning);
    }
    fprintf(out, "\nExample: %s\n\n%s", command->example, exit_codes);
}

static void print_overview(FILE *out)
{
    fputs("usage: vneva COMMAND ...\n\nPrepares video datasets, trains VideoNeVA models "
          "on them and answers questions\nabout videos, as jobs.\n\n",
          out);
    for (const struct command *c = client_commands; c->name; c++)
        fprintf(out, "  %-12s %s\n", c->name, c->summary);
    fprintf(
        out,
        "\nVNEVA_HOME is where a coordinator started with `up` lives (default "
        "~/.vneva),\nVNEVA_ENDPOINT another coordinator to ask. On a network it takes "
        "a key file, in\nVNEVA_KEY or by --key FILE, which every command takes; it "
        "mostly "
        "names the endpoint too.\nEvery command has --help.\n\n%s",
        exit_codes);
}

static int fail_unknown(struct client *client, const char *name)
{
    struct suggest known = {.word = name};

    for (const struct command *c = client_commands; c->name; c++)
        suggest_offer(&known, c->name);
    if (known.near)
        fprintf(client->err, "vneva: no command '%s'; did you mean '%s'?\n", name,
                known.near);
    else
        fprintf(client->err, "vneva: no command '%s'; `vneva help` lists them\n", name);
    return EXIT_USAGE;
}

int cmd_help(struct client *client, const struct args *args)
{
    const struct command *command;

    if (!args->n_words) {
        print_overview(client->out);
        return EXIT_DONE;
    }
    command = find_command(args->words[0]);
    if (!command)
        return fail_unknown(client, args->words[0]);
    print_help(client->out, command);
    return EXIT_DONE;
}

int cmd_version(struct client *client, const struct args *args)
{
    (void)args;
    fprintf(client->out, "vneva %s\n", VNEVA_VERSION);
    return EXIT_DONE;
}

/* `vneva --key FILE COMMAND ...`, `vneva COMMAND --key FILE`: as with VNEVA_KEY=FILE, also
 * for other programs. */
static int use_key(struct client *client, const char *path, struct err *err)
{
    if (fs_path(client->key_path, err, "%s", path) < 0)
        return -1;
    if (!client->has_endpoint)
        client->endpoint[0] = '\0';
    if (setenv("VNEVA_KEY", path, 1) < 0)
        return err_set(err, ERR_NOMEM, "no memory for VNEVA_KEY");
    return 0;
}

static int run_command(struct client *client, const struct command *command, int argc,
                       char *const *argv)
{
    static const struct args_option every_command[] = {{"key", 0, "FILE", "a key file"},
                                                       {NULL, 0, NULL, NULL}};
    const struct args_known known = {command->options, every_command, ARGS_HINT};
    struct args args = {.n_words = 0};
    const char *key;
    struct err err;

    if (command->max_words < 0) { /* the other program reads them */
        if (argc > ARGS_WORDS_MAX) {
            fprintf(client->err, "vneva: %s: more than %d words\n", command->name,
                    ARGS_WORDS_MAX);
            return EXIT_USAGE;
        }
        for (int i = 0; i < argc; i++)
            args.words[args.n_words++] = argv[i];
        return command->run(client, &args);
    }
    if (args_parse(&args, &known, argc, argv, &err) < 0) {
        err_wrap(&err, "%s", command->name);
        return client_fail(client, &err);
    }
    if (args.wants_help) {
        print_help(client->out, command);
        return EXIT_DONE;
    }
    args.n_words += args.n_rest; /* here "--" only ends the options */
    if (args.n_words < command->min_words || args.n_words > command->max_words) {
        fprintf(client->err, "vneva: usage: vneva %s %s (--help says more)\n",
                command->name, command->words);
        return EXIT_USAGE;
    }
    key = args_value(&args, "key");
    if (key && use_key(client, key, &err) < 0)
        return client_fail(client, &err);
    return command->run(client, &args);
}

static int run_with_key(struct client *client, const char *path, int argc,
                        char *const *argv)
{
    struct err err;

    if (use_key(client, path, &err) < 0)
        return client_fail(client, &err);
    return client_run(client, argc, argv);
}

int client_run(struct client *client, int argc, char *const *argv)
{
    const struct command *command;

    if (argc < 1) {
        print_overview(client->err);
        return EXIT_USAGE;
    }
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) {
        print_overview(client->out);
        return EXIT_DONE;
    }
    if (strcmp(argv[0], "--version") == 0)
        return cmd_version(client, NULL);
    if (strncmp(argv[0], "--key=", strlen("--key=")) == 0)
        return run_with_key(client, argv[0] + strlen("--key="), argc - 1, argv + 1);
    if (strcmp(argv[0], "--key") == 0 && argc > 1)
        return run_with_key(client, argv[1], argc - 2, argv + 2);
    command = find_command(argv[0]);
    return command ? run_command(client, command, argc - 1, argv + 1)
                   : fail_unknown(client, argv[0]);
}
