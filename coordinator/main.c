#define _XOPEN_SOURCE 700 /* realpath */
/* vneva-coordinator: keeps jobs and hands them to agents. See README.md. */
#include "common/base/args.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "coordinator/reactor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define MS_MAX INT64_C(86400000) /* a day */

enum { EXIT_DONE = 0, EXIT_USAGE = 2, EXIT_REFUSED = 4, EXIT_INTERNAL = 5 };

static const char usage[] =
    "usage: vneva-coordinator --home DIR [--listen ENDPOINT] [--heartbeat-ms N]\n"
    "                         [--lost-after-ms N] [--backoff-ms N]\n"
    "                         [--launcher PROGRAM] [--launch-timeout-ms N]\n"
    "                         [--pool-poll-ms N]\n"
    "\n"
    "Keeps jobs in DIR/coordinator.db and hands them to the agents that register.\n"
    "\n"
    "  --home DIR           private folder of database, logs and jobs; made if missing\n"
    "  --listen ENDPOINT    tcp://HOST:PORT: for other machines too, with the keys of "
    "DIR\n"
    "                       (`vneva keys`); HOST * is all addresses, PORT * a free one,\n"
    "                       and DIR/endpoint then says which.\n"
    "                       ipc:///path: instead of ipc://DIR/coordinator.sock.\n"
    "                       May be given once of each kind\n"
    "  --heartbeat-ms N     how often agents are to report (default 1000)\n"
    "  --lost-after-ms N    silence after which an agent is lost (default 10000)\n"
    "  --backoff-ms N       wait before the first retry, doubled each time (default "
    "1000)\n"
    "  --launcher PROGRAM   what pools call to submit, list and cancel nodes (default:\n"
    "                       vneva-launch beside this program)\n"
    "  --launch-timeout-ms N  a call of it that takes longer is killed (default 60000)\n"
    "  --pool-poll-ms N     how often a pool with nodes is listed (default 5000)\n"
    "\n"
    "example: vneva-coordinator --home ~/.vneva\n"
    "exit status: 0 ended as asked, 2 wrong usage, 4 another one runs, 5 internal "
    "error\n";

struct options {
    const char *home, *launcher;
    char local[FS_PATH_MAX], network[FS_PATH_MAX]; /* endpoints; network "": none */
    int64_t heartbeat_ms, lost_after_ms, backoff_ms, launch_timeout_ms, pool_poll_ms;
    bool is_help;
};

/* Written by the signal handler only. */
static volatile sig_atomic_t stop_wanted;

static void on_signal(int signal)
{
    (void)signal;
    stop_wanted = 1;
}

static const struct args_option known[] = {
    {.name = "home", .value = "DIR"},
    {.name = "listen", .value = "ENDPOINT"},
    {.name = "heartbeat-ms", .value = "N"},
    {.name = "lost-after-ms", .value = "N"},
    {.name = "backoff-ms", .value = "N"},
    {.name = "launcher", .value = "PROGRAM"},
    {.name = "launch-timeout-ms", .value = "N"},
    {.name = "pool-poll-ms", .value = "N"},
    {0},
};

static int read_endpoints(struct options *out, const struct args *args, struct err *err)
{
    const char *given[ARGS_WORDS_MAX];
    int n = args_values(args, "listen", given);

    for (int i = 0; i < n; i++)
        if (fs_path(strncmp(given[i], "ipc:", 4) == 0 ? out->local : out->network, err,
                    "%s", given[i]) < 0)
            return -1;
    return 0;
}

static int read_times(struct options *out, const struct args *args, struct err *err)
{
    if (args_int(args, "heartbeat-ms", 1, MS_MAX, 1000, &out->heartbeat_ms, err) < 0 ||
        args_int(args, "lost-after-ms", 1, MS_MAX, 10000, &out->lost_after_ms, err) < 0 ||
        args_int(args, "backoff-ms", 1, MS_MAX, 1000, &out->backoff_ms, err) < 0 ||
        args_int(args, "launch-timeout-ms", 1, MS_MAX, 60000, &out->launch_timeout_ms,
                 err) < 0)
        return -1;
    return args_int(args, "pool-poll-ms", 1, MS_MAX, 5000, &out->pool_poll_ms, err);
}

static int parse_options(struct options *out, int argc, char **argv, struct err *err)
{
    const struct args_known takes = {known, NULL, ARGS_HINT};
    struct args args;

    memset(out, 0, sizeof(*out));
    if (args_parse(&args, &takes, argc - 1, argv + 1, err) < 0)
        return -1;
    out->is_help = args.wants_help;
    if (out->is_help)
        return 0;
    if (args.words[0])
        return err_set(err, ERR_INVALID, "'%s' is not expected here", args.words[0]);
    out->home = args_value(&args, "home");
    out->launcher = args_value(&args, "launcher");
    if (!out->home)
        return err_set(err, ERR_INVALID, "--home DIR is needed");
    if (read_endpoints(out, &args, err) < 0 || read_times(out, &args, err) < 0)
        return -1;
    if (out->lost_after_ms < 2 * out->heartbeat_ms)
        return err_set(err, ERR_INVALID,
                       "--lost-after-ms must be twice --heartbeat-ms or more");
    return 0;
}

/* Ranks get paths below the home, so it has to be absolute. */
static int make_home(struct core *core, struct options *options, struct err *err)
{
    char *home;
    int rc;

    if (fs_make_dirs(options->home, 0700, err) < 0)
        return -1;
    home = realpath(options->home, NULL);
    if (!home)
        return err_set(err, ERR_IO, "cannot find '%s': %s", options->home,
                       strerror(errno));
    rc = fs_path(core->config.home, err, "%s", home);
    if (rc == 0 && !options->local[0])
        rc = fs_path(options->local, err, "ipc://%s/coordinator.sock", home);
    if (rc == 0 && setenv("VNEVA_HOME", home, 1) < 0) /* for what pools call */
        rc = err_set(err, ERR_NOMEM, "no memory for VNEVA_HOME");
    free(home);
    core->config.heartbeat_ms = options->heartbeat_ms;
    core->config.lost_after_ms = options->lost_after_ms;
    core->config.backoff_ms = options->backoff_ms;
    core->config.launch_timeout_ms = options->launch_timeout_ms;
    core->config.pool_poll_ms = options->pool_poll_ms;
    return rc;
}

/* Beside the ipc socket, when it is asked for; HOME/endpoint says where. */
static int listen_network(struct net_server *server, struct core *core,
                          const struct options *options, struct err *err)
{
    const char *home = core->config.home;
    bool is_new = false;

    if (keys_remove_endpoint(home, err) < 0) /* one that was killed may have left it */
        return -1;
    if (!options->network[0])
        return 0;
    if (keys_init(home, NULL, &is_new, err) < 0 ||
        net_server_listen(server, options->network, home, err) < 0 ||
        keys_write_endpoint(home, net_server_endpoint(server), err) < 0)
        return -1;
    if (is_new)
        log_info("made a key for this coordinator in '%s/keys'", home);
    log_info("listening at %s for the keys in '%s/keys/authorized'",
             net_server_endpoint(server), home);
    snprintf(core->config.endpoint, sizeof(core->config.endpoint), "%s",
             net_server_endpoint(server));
    return 0;
}

/* The key from which the secrets of attempts are derived. */
static int open_secret(struct core *core, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/keys", core->config.home) < 0 ||
        fs_make_dirs(path, 0700, err) < 0 ||
        fs_path(path, err, "%s/keys/attempts.key", core->config.home) < 0)
        return -1;
    return net_secret_open(&core->config.secret, path, err);
}

/* A connection takes a file; most systems let a program have many more than it is given. */
static void raise_file_limit(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur == files.rlim_max)
        return;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        log_warn("cannot have more than the usual number of connections: %s",
                 strerror(errno));
}

static int open_launcher(struct core *core, const struct options *options,
                         struct err *err)
{
    char program[FS_PATH_MAX], folder[FS_PATH_MAX];

    if (options->launcher) {
        if (fs_path(program, err, "%s", options->launcher) < 0)
            return -1;
    } else if (fs_program_folder(folder, err) < 0 ||
               fs_path(program, err, "%s/vneva-launch", folder) < 0) {
        return -1;
    }
    return launcher_create(&core->launcher, program, options->launch_timeout_ms, err);
}

static int run(struct options *options, struct err *err)
{
    static struct core core; /* large; zero */
    struct net_server *server = NULL;
    char path[FS_PATH_MAX];
    int rc = -1;

    if (make_home(&core, options, err) < 0 ||
        fs_path(path, err, "%s/coordinator.db", core.config.home) < 0)
        return -1;
    if (net_server_open(&server, options->local, err) < 0 ||
        open_secret(&core, err) < 0 || store_open(&core.store, path, err) < 0 ||
        core_recover(&core, err) < 0 || queries_create(&core.queries, path, err) < 0 ||
        listen_network(server, &core, options, err) < 0 ||
        open_launcher(&core, options, err) < 0)
        goto out;
    log_info("%zu jobs not ended; listening at %s", core.model.n_jobs, options->local);
    rc = reactor_run(&core, server, &stop_wanted, err);
    if (keys_remove_endpoint(core.config.home, NULL) < 0)
        log_warn("cannot remove '%s/endpoint'", core.config.home);
out:
    launcher_destroy(core.launcher);
    queries_destroy(core.queries);
    core_fini(&core);
    store_close(core.store);
    net_server_close(server);
    return rc;
}

int main(int argc, char **argv)
{
    struct sigaction on_stop = {.sa_handler = on_signal};
    struct options options;
    struct err err;

    log_init("coordinator", LOG_INFO);
    if (parse_options(&options, argc, argv, &err) < 0) {
        fprintf(stderr, "vneva-coordinator: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (options.is_help) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    sigaction(SIGTERM, &on_stop, NULL);
    sigaction(SIGINT, &on_stop, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* whoever read the log may be gone */
    raise_file_limit();
    if (run(&options, &err) == 0) {
        log_info("ended");
        return EXIT_DONE;
    }
    log_error("%s", err.text);
    if (err.code == ERR_EXISTS)
        return EXIT_REFUSED;
    return err.code == ERR_DENIED || err.code == ERR_INVALID || err.code == ERR_LIMIT
               ? EXIT_USAGE
               : EXIT_INTERNAL;
}
