/* vneva-dashboard: a page in a browser about everything the coordinator knows. */
#include "common/base/log.h"
#include "common/net/keys.h"
#include "jobs/dashboard/answers.h"
#include "jobs/dashboard/http.h"
#include "jobs/dashboard/listen.h"
#include "jobs/dashboard/routes.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTEN_DEFAULT "127.0.0.1:8420"

static const char usage[] =
    "usage: vneva dashboard [--listen HOST:PORT] [--token] [--token-file FILE]\n"
    "\n"
    "Serves a read-only page about jobs, ranks, workers and datasets, the views as JSON\n"
    "(/api/VIEW) and numbers for Prometheus (/metrics), until Ctrl-C.\n"
    "\n"
    "  --listen HOST:PORT   where (default " LISTEN_DEFAULT "; port 0: a free one)\n"
    "  --token              ask for a token on this machine as well; elsewhere it is\n"
    "                       always asked for. It is made once: HOME/dashboard.token\n"
    "  --token-file FILE    the token: a file of mode 0600 with one line\n"
    "  --key FILE           a key of the coordinator to ask; a viewer's is enough\n"
    "\n"
    "VNEVA_HOME, VNEVA_ENDPOINT and VNEVA_KEY say which coordinator, as for every\n"
    "command.\n"
    "\n"
    "Example: vneva dashboard --listen 127.0.0.1:8420\n"
    "\n"
    "Exit codes: 0 ended as asked; 2 wrong usage or bad input, or somebody listens "
    "there;\n"
    "4 refused; 5 an error of the system.\n";

static const struct args_option options[] = {
    {"listen", 'l', "HOST:PORT", "where"},
    {"token", 0, NULL, "ask for a token here too"},
    {"token-file", 0, "FILE", "the token"},
    {"key", 'k', "FILE", "of the coordinator"},
    {NULL, 0, NULL, NULL},
};

/* Written by the signal handler only. */
static volatile sig_atomic_t stop_wanted;

static void on_signal(int signal)
{
    (void)signal;
    stop_wanted = 1;
}

/* The token that is asked for, if one is to be. */
static int set_token(struct routes *routes, const struct client *client,
                     const struct args *args, struct err *err)
{
    const char *file = args_value(args, "token-file");
    char path[FS_PATH_MAX];
    bool is_new;

    if (file)
        return token_load(&routes->token, file, err);
    if (routes->is_loopback && !args_has(args, "token"))
        return 0;
    if (fs_make_dirs(client->home, 0700, err) < 0 ||
        fs_path(path, err, "%s/dashboard.token", client->home) < 0 ||
        token_load_or_make(&routes->token, path, &is_new, err) < 0)
        return -1;
    fprintf(client->out, "the token is in '%s'%s\n", path,
            is_new ? ", made just now" : "");
    return 0;
}

/* Serves till a signal comes; ask has its thread. */
static int serve(struct routes *routes, int fd, struct err *err)
{
    struct http_handler handler = {
        .answer = routes_answer, .drop = routes_drop, .state = routes};
    struct http *http;
    int rc;

    if (http_open(&http, fd, &handler, err) < 0) {
        ask_stop(routes->ask);
        return -1;
    }
    rc = http_serve(http, &stop_wanted, err);
    ask_stop(routes->ask);
    http_close(http);
    return rc;
}

/* A key that cannot be used would fail every question later. */
static int check_key(const struct client *client, struct err *err)
{
    struct key key;

    if (!client->key_path[0] || strncmp(client->endpoint, "ipc:", 4) == 0)
        return 0;
    if (key_read(&key, client->key_path, err) < 0)
        return -1;
    key_fini(&key);
    return 0;
}

static int run(struct client *client, const struct args *args, struct err *err)
{
    const char *listen = args_value(args, "listen");
    struct answers answers = {.client = client};
    struct routes routes = {.ask = NULL};
    struct listen_at at;
    int rc;

    if (check_key(client, err) < 0 ||
        listen_open(&at, listen ? listen : LISTEN_DEFAULT, err) < 0)
        return -1;
    routes.is_loopback = at.is_loopback;
    if (set_token(&routes, client, args, err) < 0 ||
        ask_create(&routes.ask, answers_write, &answers, err) < 0) {
        close(at.fd);
        return -1;
    }
    fprintf(client->out, "dashboard at http://%s/\n", at.name);
    fflush(client->out);
    rc = serve(&routes, at.fd, err);
    ask_destroy(routes.ask);
    return rc;
}

/* Reads the command line; *is_over: only help was wanted. */
static int read_args(struct args *args, int argc, char **argv, bool *is_over,
                     struct err *err)
{
    const struct args_known known = {options, NULL, ARGS_HINT};

    if (args_parse(args, &known, argc - 1, argv + 1, err) < 0)
        return -1;
    *is_over = args->wants_help;
    if (args->wants_help)
        fputs(usage, stdout);
    else if (args->n_words + args->n_rest > 0)
        return err_set(err, ERR_INVALID, "no '%s' here (--help says what it takes)",
                       args->words[0]);
    return 0;
}

int main(int argc, char **argv)
{
    struct sigaction on_stop = {.sa_handler = on_signal};
    struct args args = {.n_words = 0};
    struct client client;
    struct err err;
    int status = EXIT_DONE;
    bool is_over = false;

    log_init("dashboard", LOG_INFO);
    if (read_args(&args, argc, argv, &is_over, &err) < 0 ||
        client_init(&client, "", getenv("VNEVA_HOME"), getenv("VNEVA_ENDPOINT"),
                    args_has(&args, "key") ? args_value(&args, "key")
                                           : getenv("VNEVA_KEY"),
                    &err) < 0) {
        fprintf(stderr, "vneva: dashboard: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (is_over)
        return EXIT_DONE;
    sigaction(SIGTERM, &on_stop, NULL);
    sigaction(SIGINT, &on_stop, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* browsers go away */
    if (run(&client, &args, &err) < 0)
        status = client_fail(&client, &err);
    client_fini(&client);
    return status;
}
