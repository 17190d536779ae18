#include "slurm/node/options.h"

#include "slurm/node/exchange.h"

#include <stdlib.h>
#include <string.h>

#define DEVICES_MAX 64

const char node_usage[] =
    "usage: vneva-node --run-dir DIR [options] [-- SPEC.yaml key=value ...]\n"
    "\n"
    "Runs once on every node of an allocation (`srun --mpi=pmix`, `srun`, `mpirun`, "
    "`bcprun`,\n"
    "ssh). The nodes find each other; the first starts a coordinator, every one an "
    "agent;\n"
    "the job is handed in, and its end is theirs. The same DIR started again goes on "
    "with\n"
    "the same job.\n"
    "\n"
    "  --run-dir DIR        folder that all nodes share: database, keys, jobs, logs\n"
    "  --devices N          ranks at once on this node (default: one on each GPU, else "
    "what\n"
    "                       trainer.devices says)\n"
    "  --grace S            seconds that ranks get for their step and checkpoint when "
    "SIGUSR1\n"
    "                       says that the time is nearly over (default 60); SIGTERM "
    "gives 25\n"
    "                       at most\n"
    "  --connect ENDPOINT   agents of a coordinator elsewhere, none is started here\n"
    "  --key FILE           key for it, which names it and mostly its endpoint\n"
    "  --exchange WAY       how nodes find each other: auto (default), pmix, files, "
    "solo\n"
    "  --nodes N --node I   so many nodes, and which this is (default: the launcher's "
    "word)\n"
    "  --token WORD         this start of the allocation, the same on all nodes and "
    "never\n"
    "                       before (default: the launcher's number); for files\n"
    "  --address HOST       how the others reach the first node (default: its host "
    "name)\n"
    "  --host NAME          what this machine is called; ranks on machines of one name "
    "share\n"
    "                       memory (default: its host name)\n"
    "  --stranded S         a job that lacks a lost node's devices for so long is given "
    "up\n"
    "                       for another start (default 60)\n"
    "  --pool NAME          what the agents are for, as the coordinator knows it\n"
    "  --idle S             agents without a rank for so long end\n"
    "  --preflight HOW      look at all nodes first: on (default; a fault ends the "
    "start),\n"
    "                       warn (faults are only told), off; $VNEVA_PREFLIGHT says it "
    "too\n"
    "  --help               this text\n"
    "S: a number of seconds, or 90s, 5m, 2h, 1d.\n"
    "\n"
    "Exit status: 0 the job is done; 1 it failed or was cancelled; 2 wrong usage or a "
    "bad\n"
    "spec; 3 a node or the coordinator does not answer; 5 an error of the system; 75\n"
    "stopped as told, with a checkpoint: start it again and it goes on.\n"
    "\n"
    "Example, in a Slurm batch script:\n"
    "  srun --mpi=pmix vneva-node --run-dir runs/a -- train.yaml trainer.num_nodes=2\n";

static int to_way(enum node_way *out, const char *text, struct err *err)
{
    static const char *const names[] = {"auto", "pmix", "files", "solo"};

    for (int i = 0; i < 4; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum node_way)i;
            return 0;
        }
    return err_set(err, ERR_INVALID, "--exchange is auto, pmix, files or solo, not '%s'",
                   text);
}

static int to_check(enum node_check *out, const char *text, struct err *err)
{
    static const char *const names[] = {"on", "warn", "off"};

    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum node_check)i;
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "--preflight ($VNEVA_PREFLIGHT) is on, warn or off, not '%s'", text);
}

static int check(const struct node_options *options, struct err *err)
{
    if (!options->run_dir)
        return err_set(err, ERR_INVALID, "--run-dir DIR is needed");
    if ((options->node < 0) != (options->n_nodes == 0))
        return err_set(err, ERR_INVALID, "--node and --nodes go together");
    if (options->n_nodes && options->node >= options->n_nodes)
        return err_set(err, ERR_INVALID,
                       "--node counts from 0: there is no node %d of %d",
                       (int)options->node, (int)options->n_nodes);
    if (options->connect && !options->key && strncmp(options->connect, "ipc:", 4) != 0)
        return err_set(err, ERR_INVALID, "--connect to another machine needs --key FILE");
    if (options->idle_ms && !options->connect && !options->key)
        return err_set(err, ERR_INVALID,
                       "--idle is for agents of a coordinator elsewhere (--connect)");
    return 0;
}

static const struct args_option known[] = {
    {.name = "run-dir", .value = "DIR"},   {.name = "connect", .value = "ENDPOINT"},
    {.name = "key", .value = "FILE"},      {.name = "address", .value = "HOST"},
    {.name = "host", .value = "NAME"},     {.name = "token", .value = "WORD"},
    {.name = "pool", .value = "NAME"},     {.name = "devices", .value = "N"},
    {.name = "nodes", .value = "N"},       {.name = "node", .value = "I"},
    {.name = "grace", .value = "S"},       {.name = "stranded", .value = "S"},
    {.name = "idle", .value = "S"},        {.name = "exchange", .value = "WAY"},
    {.name = "preflight", .value = "HOW"}, {0},
};

static int read_numbers(struct node_options *out, struct err *err)
{
    const struct args *args = &out->args;

    if (args_int(args, "devices", 1, DEVICES_MAX, 0, &out->n_devices, err) < 0 ||
        args_int(args, "nodes", 1, EXCHANGE_NODES_MAX, 0, &out->n_nodes, err) < 0 ||
        args_int(args, "node", 0, EXCHANGE_NODES_MAX - 1, -1, &out->node, err) < 0 ||
        args_duration(args, "grace", NODE_GRACE_MS, &out->grace_ms, err) < 0 ||
        args_duration(args, "stranded", NODE_STRANDED_MS, &out->stranded_ms, err) < 0)
        return -1;
    return args_duration(args, "idle", 0, &out->idle_ms, err);
}

static int read_choices(struct node_options *out, struct err *err)
{
    const char *how = getenv("VNEVA_PREFLIGHT");
    const char *way = args_value(&out->args, "exchange");

    if (args_has(&out->args, "preflight"))
        how = args_value(&out->args, "preflight");
    if (how && *how && to_check(&out->check, how, err) < 0)
        return -1;
    return way ? to_way(&out->way, way, err) : 0;
}

int node_options_parse(struct node_options *out, int argc, char *const *argv,
                       struct err *err)
{
    const struct args_known takes = {known, NULL, ARGS_HINT};
    const struct args *args = &out->args;

    memset(out, 0, sizeof(*out));
    if (args_parse(&out->args, &takes, argc - 1, argv + 1, err) < 0)
        return -1;
    out->is_help = args->wants_help;
    if (out->is_help)
        return 0;
    out->run_dir = args_value(args, "run-dir");
    out->connect = args_value(args, "connect");
    out->key = args_value(args, "key");
    out->address = args_value(args, "address");
    out->host = args_value(args, "host");
    out->token = args_value(args, "token");
    out->pool = args_value(args, "pool");
    out->submit = args->n_words + args->n_rest ? args->words : NULL;
    if (read_numbers(out, err) < 0 || read_choices(out, err) < 0)
        return -1;
    return check(out, err);
}
