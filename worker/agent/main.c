#define _GNU_SOURCE /* gethostname, realpath */
#include "common/base/args.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/net/address.h"
#include "worker/agent/agent.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_USAGE = 2, EXIT_NOBODY = 3, EXIT_REFUSED = 4, EXIT_SYSTEM = 5 };

#define HOST_MAX 256
#define DEVICES_MAX 64

static const char usage[] =
    "usage: vneva worker [options]\n"
    "\n"
    "Runs this machine's agent: it registers the devices with the coordinator and runs\n"
    "ranks on them until it is stopped. It finds the coordinator again by itself.\n"
    "\n"
    "  --connect ENDPOINT   the coordinator's endpoint (default: that of the key, else\n"
    "                       that of --home)\n"
    "  --key FILE           key for a coordinator on a network, which names it and, "
    "mostly,\n"
    "                       its endpoint (default: $VNEVA_KEY). Only that coordinator's\n"
    "                       jobs are run\n"
    "  --home DIR           vneva's home folder (default: $VNEVA_HOME, else ~/.vneva)\n"
    "  --devices N          how many ranks may run at once (default 1)\n"
    "  --device-kind KIND   cpu (default) or gpu\n"
    "  --id NAME            its name at the coordinator, unique while it runs; one that\n"
    "                       replaces another that has ended may have that one's\n"
    "                       (default: a random one)\n"
    "  --grace S            seconds that ranks get for their step and a checkpoint when\n"
    "                       SIGTERM ends the agent (default 30)\n"
    "  --give-up S          ends, with status 3, when no coordinator answers for so "
    "long\n"
    "                       (default: never)\n"
    "  --idle S             ends when it has had no rank for so long (default: never)\n"
    "  --host NAME          what this machine is called (default: its host name)\n"
    "  --address ADDRESS    address or interface (ib0) at which ranks here listen for "
    "ranks\n"
    "                       of other machines (default: the one that faces the "
    "coordinator)\n"
    "  --pool NAME          the pool it was started for (default: $VNEVA_POOL)\n"
    "  --allocation ID      its allocation's number (default: $SLURM_JOB_ID)\n"
    "  --has-bf16           only say, by exit status 0 or 1, whether this machine has "
    "units\n"
    "                       of its own for bf16\n"
    "  --help               this text\n"
    "S: a number of seconds, or 90s, 5m, 2h, 1d.\n"
    "\n"
    "Exit status: 0 stopped as asked, 2 wrong usage, 3 nobody answers, 4 the key may\n"
    "not register agents, 5 an error of the system.\n"
    "\n"
    "Example: two CPU ranks for a coordinator on this machine\n"
    "  vneva worker --connect ipc:///home/me/.vneva/coordinator.sock --devices 2\n";

static const struct args_option known[] = {
    {.name = "connect", .value = "ENDPOINT"},
    {.name = "key", .value = "FILE"},
    {.name = "home", .value = "DIR"},
    {.name = "devices", .value = "N"},
    {.name = "device-kind", .value = "KIND"},
    {.name = "host", .value = "NAME"},
    {.name = "address", .value = "ADDRESS"},
    {.name = "id", .value = "NAME"},
    {.name = "grace", .value = "S"},
    {.name = "give-up", .value = "S"},
    {.name = "idle", .value = "S"},
    {.name = "pool", .value = "NAME"},
    {.name = "allocation", .value = "ID"},
    {.name = "has-bf16"},
    {0},
};

struct options {
    const char *connect, *key, *home, *device_kind, *host, *address, *id, *pool;
    const char *allocation;
    int64_t n_devices, grace_ms, give_up_ms, idle_ms;
    bool is_help, asks_bf16;
};

static void read_texts(struct options *out, const struct args *args)
{
    const char *kind = args_value(args, "device-kind");

    out->device_kind = kind ? kind : "cpu";
    out->connect = args_value(args, "connect");
    out->key = args_value(args, "key");
    out->home = args_value(args, "home");
    out->host = args_value(args, "host");
    out->address = args_value(args, "address");
    out->id = args_value(args, "id");
    out->pool = args_value(args, "pool");
    out->allocation = args_value(args, "allocation");
    out->is_help = args->wants_help;
    out->asks_bf16 = args_has(args, "has-bf16");
}

static int options_parse(struct options *out, int argc, char *const *argv,
                         struct err *err)
{
    const struct args_known takes = {known, NULL, ARGS_HINT};
    struct args args;

    if (args_parse(&args, &takes, argc - 1, argv + 1, err) < 0)
        return -1;
    read_texts(out, &args);
    if (out->is_help)
        return 0;
    if (args.words[0])
        return err_set(err, ERR_INVALID, "'%s' is not expected here", args.words[0]);
    if (strcmp(out->device_kind, "cpu") != 0 && strcmp(out->device_kind, "gpu") != 0)
        return err_set(err, ERR_INVALID, "--device-kind must be cpu or gpu, not '%s'",
                       out->device_kind);
    if (args_int(&args, "devices", 1, DEVICES_MAX, 1, &out->n_devices, err) < 0 ||
        args_duration(&args, "grace", 0, &out->grace_ms, err) < 0 ||
        args_duration(&args, "give-up", 0, &out->give_up_ms, err) < 0)
        return -1;
    return args_duration(&args, "idle", 0, &out->idle_ms, err);
}

/* The coordinator's socket in the home folder. */
static int default_endpoint(char *out, const char *home, struct err *err)
{
    const char *user_home = getenv("HOME");

    if (!home)
        home = getenv("VNEVA_HOME");
    if (home)
        return fs_path(out, err, "ipc://%s/coordinator.sock", home);
    if (!user_home)
        return err_set(err, ERR_INVALID,
                       "neither --connect, --home, VNEVA_HOME nor HOME is set");
    return fs_path(out, err, "ipc://%s/.vneva/coordinator.sock", user_home);
}

/* Reads the key when one is given, or when the environment's is what leads to the
 * coordinator. 1: read, 0: none is used, -1. */
static int read_key(struct key *out, const struct options *options, struct err *err)
{
    const char *path = options->key;
    bool is_local = options->connect ? strncmp(options->connect, "ipc:", 4) == 0
                                     : options->home != NULL;

    if (!path && !is_local)
        path = getenv("VNEVA_KEY");
    if (!path || !*path)
        return 0;
    if (key_read(out, path, err) < 0)
        return -1;
    if (options->connect || out->endpoint[0])
        return 1;
    key_fini(out);
    return err_set(err, ERR_INVALID,
                   "key file '%s' names no endpoint: say it with --connect", path);
}

/* vneva-rank lies beside this program. */
static int find_rank_program(char *out, struct err *err)
{
    char folder[FS_PATH_MAX];

    if (fs_program_folder(folder, err) < 0)
        return -1;
    return fs_path(out, err, "%s/vneva-rank", folder);
}

/* The agent itself opens no backend: the rank's program knows. Returns only on failure. */
static int exec_has_bf16(void)
{
    char program[FS_PATH_MAX];
    struct err err = {0};

    if (find_rank_program(program, &err) == 0) {
        execl(program, program, "--has-bf16", (char *)NULL);
        err_set(&err, ERR_IO, "cannot execute '%s': %s", program, strerror(errno));
    }
    log_error("%s", err.text);
    return EXIT_SYSTEM;
}

static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

static int run(const struct options *options, const struct key *key, struct err *err)
{
    char endpoint[FS_PATH_MAX], program[FS_PATH_MAX], host[HOST_MAX] = "";
    const char *given = options->connect ? options->connect : key ? key->endpoint : NULL;
    char address[NET_ADDRESS_BYTES];
    struct agent_config config = {
        .endpoint = given ? given : endpoint,
        .key = key,
        .host = options->host ? options->host : host,
        .address = options->address,
        .device_kind = options->device_kind,
        .n_devices = options->n_devices,
        .pool = options->pool ? options->pool : getenv("VNEVA_POOL"),
        .allocation = options->allocation ? options->allocation : getenv("SLURM_JOB_ID"),
        .rank_program = program,
        .id = options->id,
        .grace_ms = options->grace_ms,
        .give_up_ms = options->give_up_ms,
        .idle_ms = options->idle_ms,
    };
    struct agent *agent = NULL;
    int rc = -1;

    if (gethostname(host, sizeof(host) - 1) < 0)
        return err_set(err, ERR_IO, "cannot read the host name: %s", strerror(errno));
    if ((!given && default_endpoint(endpoint, options->home, err) < 0) ||
        find_rank_program(program, err) < 0)
        return -1;
    if (options->address && net_address_named(address, options->address, err) < 0)
        return -1;
    block_signals();
    if (agent_create(&agent, &config, err) == 0)
        rc = agent_run(agent, err);
    agent_destroy(agent);
    return rc;
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err = {0};
    struct key key;
    int has_key, rc;

    log_init("agent", LOG_INFO);
    if (options_parse(&options, argc, argv, &err) < 0) {
        fprintf(stderr, "vneva worker: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (options.is_help) {
        fputs(usage, stdout);
        return EXIT_OK;
    }
    if (options.asks_bf16)
        return exec_has_bf16();
    has_key = read_key(&key, &options, &err);
    rc = has_key < 0 ? -1 : run(&options, has_key ? &key : NULL, &err);
    if (has_key > 0)
        key_fini(&key);
    if (rc == 0)
        return EXIT_OK;
    log_error("%s", err.text);
    if (err.code == ERR_TIMEOUT)
        return EXIT_NOBODY;
    if (has_key > 0 && err.code == ERR_DENIED)
        return EXIT_REFUSED;
    return has_key < 0 || err.code == ERR_INVALID ? EXIT_USAGE : EXIT_SYSTEM;
}
