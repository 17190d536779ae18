#define _GNU_SOURCE /* gethostname, realpath */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/net/address.h"
#include "worker/agent/agent.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_USAGE = 2, EXIT_NOBODY = 3, EXIT_REFUSED = 4, EXIT_SYSTEM = 5 };

#define HOST_MAX 256
#define DEVICES_MAX 64
#define DURATION_MAX_MS (INT64_C(7) * 86400000)

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

struct options {
    const char *connect, *key, *home, *device_kind, *host, *address, *id, *pool;
    const char *allocation;
    long n_devices;
    int64_t grace_ms, give_up_ms, idle_ms;
    bool is_help, asks_bf16;
};

static int parse_number(long *out, const char *name, const char *text, long max,
                        struct err *err)
{
    char *end;

    *out = strtol(text, &end, 10);
    if (end == text || *end || *out < 1 || *out > max)
        return err_set(err, ERR_INVALID, "%s must be 1 to %ld, not '%s'", name, max,
                       text);
    return 0;
}

static int parse_duration(int64_t *out, const char *name, const char *text,
                          struct err *err)
{
    if (!clock_read_duration(out, text, 1000) || *out > DURATION_MAX_MS)
        return err_set(
            err, ERR_INVALID,
            "%s takes 1 s to 7 d: a number of seconds, or 90s, 5m, 2h, not '%s'", name,
            text);
    return 0;
}

static const struct option known[] = {
    {"connect", required_argument, NULL, 'c'},
    {"key", required_argument, NULL, 'K'},
    {"home", required_argument, NULL, 'H'},
    {"devices", required_argument, NULL, 'd'},
    {"device-kind", required_argument, NULL, 'k'},
    {"host", required_argument, NULL, 'n'},
    {"address", required_argument, NULL, 'a'},
    {"id", required_argument, NULL, 'i'},
    {"grace", required_argument, NULL, 'g'},
    {"give-up", required_argument, NULL, 'G'},
    {"idle", required_argument, NULL, 'I'},
    {"pool", required_argument, NULL, 'p'},
    {"allocation", required_argument, NULL, 'A'},
    {"has-bf16", no_argument, NULL, 'b'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* Where the text of an option goes as it is; NULL: it is no such option. */
static const char **text_of(struct options *options, int c)
{
    switch (c) {
    case 'c':
        return &options->connect;
    case 'K':
        return &options->key;
    case 'H':
        return &options->home;
    case 'i':
        return &options->id;
    case 'k':
        return &options->device_kind;
    case 'n':
        return &options->host;
    case 'a':
        return &options->address;
    case 'p':
        return &options->pool;
    case 'A':
        return &options->allocation;
    default:
        return NULL;
    }
}

static int take_option(struct options *options, int c, const char *value, struct err *err)
{
    const char **text = text_of(options, c);

    if (text) {
        *text = value;
        return 0;
    }
    switch (c) {
    case 'd':
        return parse_number(&options->n_devices, "--devices", value, DEVICES_MAX, err);
    case 'g':
        return parse_duration(&options->grace_ms, "--grace", value, err);
    case 'G':
        return parse_duration(&options->give_up_ms, "--give-up", value, err);
    case 'I':
        return parse_duration(&options->idle_ms, "--idle", value, err);
    case 'b':
        options->asks_bf16 = true;
        return 0;
    default:
        return err_set(err, ERR_INVALID, "see vneva worker --help");
    }
}

static int options_parse(struct options *options, int argc, char **argv, struct err *err)
{
    int c;

    while ((c = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        if (c == 'h') {
            options->is_help = true;
            return 0;
        }
        if (take_option(options, c, optarg, err) < 0)
            return -1;
    }
    if (optind < argc)
        return err_set(err, ERR_INVALID, "'%s' is not expected here", argv[optind]);
    if (strcmp(options->device_kind, "cpu") != 0 &&
        strcmp(options->device_kind, "gpu") != 0)
        return err_set(err, ERR_INVALID, "--device-kind must be cpu or gpu, not '%s'",
                       options->device_kind);
    return 0;
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
    struct options options = {.device_kind = "cpu", .n_devices = 1};
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
