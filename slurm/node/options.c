#include "slurm/node/options.h"

#include "common/base/clock.h"
#include "slurm/node/exchange.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES_MAX 64
#define DURATION_MAX_MS (INT64_C(7) * 86400000)

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

static int to_number(int64_t *out, const char *name, const char *text, long min, long max,
                     struct err *err)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (end == text || *end || value < min || value > max)
        return err_set(err, ERR_INVALID, "--%s takes %ld to %ld, not '%s'", name, min,
                       max, text);
    *out = value;
    return 0;
}

static int to_ms(int64_t *out, const char *name, const char *text, struct err *err)
{
    if (!clock_read_duration(out, text, 1000) || *out > DURATION_MAX_MS)
        return err_set(err, ERR_INVALID,
                       "--%s takes 1 s to 7 d: a number of seconds, or 90s, 5m, 2h, not "
                       "'%s'",
                       name, text);
    return 0;
}

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

static int take(struct node_options *out, int option, const char *name, const char *value,
                struct err *err)
{
    switch (option) {
    case 'r':
        out->run_dir = value;
        return 0;
    case 'c':
        out->connect = value;
        return 0;
    case 'k':
        out->key = value;
        return 0;
    case 'a':
        out->address = value;
        return 0;
    case 'H':
        out->host = value;
        return 0;
    case 't':
        out->token = value;
        return 0;
    case 'p':
        out->pool = value;
        return 0;
    case 'd':
        return to_number(&out->n_devices, name, value, 1, DEVICES_MAX, err);
    case 'N':
        return to_number(&out->n_nodes, name, value, 1, EXCHANGE_NODES_MAX, err);
    case 'n':
        return to_number(&out->node, name, value, 0, EXCHANGE_NODES_MAX - 1, err);
    case 'g':
        return to_ms(&out->grace_ms, name, value, err);
    case 's':
        return to_ms(&out->stranded_ms, name, value, err);
    case 'i':
        return to_ms(&out->idle_ms, name, value, err);
    case 'e':
        return to_way(&out->way, value, err);
    case 'f':
        return to_check(&out->check, value, err);
    default:
        return err_set(err, ERR_INVALID, "see vneva-node --help");
    }
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

int node_options_parse(struct node_options *out, int argc, char *const *argv,
                       struct err *err)
{
    static const struct option known[] = {
        {"run-dir", required_argument, NULL, 'r'},
        {"connect", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},
        {"address", required_argument, NULL, 'a'},
        {"host", required_argument, NULL, 'H'},
        {"token", required_argument, NULL, 't'},
        {"pool", required_argument, NULL, 'p'},
        {"devices", required_argument, NULL, 'd'},
        {"nodes", required_argument, NULL, 'N'},
        {"node", required_argument, NULL, 'n'},
        {"grace", required_argument, NULL, 'g'},
        {"stranded", required_argument, NULL, 's'},
        {"idle", required_argument, NULL, 'i'},
        {"exchange", required_argument, NULL, 'e'},
        {"preflight", required_argument, NULL, 'f'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *how = getenv("VNEVA_PREFLIGHT");
    int c, at = 0;

    *out = (struct node_options){
        .node = -1, .grace_ms = NODE_GRACE_MS, .stranded_ms = NODE_STRANDED_MS};
    if (how && *how && to_check(&out->check, how, err) < 0)
        return -1;
    while ((c = getopt_long(argc, argv, "+", known, &at)) != -1) {
        if (c == 'h') {
            out->is_help = true;
            return 0;
        }
        if (take(out, c, known[at].name, optarg, err) < 0)
            return -1;
    }
    if (optind < argc)
        out->submit = argv + optind;
    return check(out, err);
}
