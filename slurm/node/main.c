#define _GNU_SOURCE /* gethostname, mkdtemp, environ, realpath */
/* vneva-node: once on every node of an allocation. See node.h and README.md. */
#include "common/base/log.h"
#include "slurm/node/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define MEET_MS 60000     /* the first of them waits so long for the last */
#define TOGETHER_MS 10000 /* the nodes wait so long for each other at the end */

/* ---- where this node is ---- */

static int find_place(struct node *node, struct err *err)
{
    const struct node_options *options = &node->options;
    const char *slurm_name = getenv("SLURMD_NODENAME");

    if (environment_read(&node->environment, (const char *const *)environ, err) < 0)
        return -1;
    if (options->n_nodes) {
        node->environment.node = (int)options->node;
        node->environment.n_nodes = (int)options->n_nodes;
    }
    snprintf(node->token, sizeof(node->token), "%s",
             options->token ? options->token : node->environment.token);
    if (node->environment.n_nodes > 1 && !node->token[0])
        return err_set(err, ERR_INVALID,
                       "%d nodes need a --token, the same on all of them and a new one "
                       "at every start",
                       node->environment.n_nodes);
    if (!node->token[0])
        snprintf(node->token, sizeof(node->token), "alone-%d", (int)getpid());
    if (options->host)
        snprintf(node->host, sizeof(node->host), "%s", options->host);
    else if (gethostname(node->host, sizeof(node->host) - 1) < 0)
        return err_set(err, ERR_IO, "cannot read the host name: %s", strerror(errno));
    /* what Slurm calls it, in its own words to people */
    snprintf(node->name, sizeof(node->name), "%s",
             slurm_name && *slurm_name ? slurm_name : node->host);
    return fs_program_folder(node->programs, err);
}

static int open_files(struct node *node, struct err *err)
{
    return exchange_open_files(&node->exchange, node->run, node->token,
                               node->environment.node, node->environment.n_nodes, err);
}

static int open_exchange(struct node *node, struct err *err)
{
    struct err why;

    switch (node->options.way) {
    case WAY_PMIX:
        return exchange_open_pmix(&node->exchange, NULL, NULL, err);
    case WAY_FILES:
        return open_files(node, err);
    case WAY_SOLO:
        return exchange_open_solo(&node->exchange, err);
    case WAY_AUTO:
        break;
    }
    if (!node->options.n_nodes &&
        exchange_open_pmix(&node->exchange, node->run, node->token, &why) == 0)
        return 0;
    if (node->environment.n_nodes == 1)
        return exchange_open_solo(&node->exchange, err);
    if (!node->options.n_nodes)
        log_info("%s: the nodes meet through files: %s", node->name, why.text);
    return open_files(node, err);
}

/* All come. Where PMIx does not work on some node, all go to where that one waits. */
static int meet_all(struct node *node, struct err *err)
{
    struct exchange *pmix = node->exchange;
    int rc = exchange_fence(pmix, MEET_MS, err);

    if (rc == 0 || err->code != ERR_UNSUPPORTED || node->options.way != WAY_AUTO)
        return rc;
    log_warn("%s: all meet through files", err->text);
    if (open_files(node, err) < 0)
        return -1;
    exchange_close(pmix);
    return exchange_fence(node->exchange, MEET_MS, err);
}

/* ---- what it needs ---- */

static int make_folders(struct node *node, struct err *err)
{
    char logs[FS_PATH_MAX], *real;

    if (fs_make_dirs(node->options.run_dir, 0755, err) < 0)
        return -1;
    real = realpath(node->options.run_dir, NULL);
    if (!real)
        return err_set(err, ERR_IO, "cannot find '%s': %s", node->options.run_dir,
                       strerror(errno));
    snprintf(node->run, sizeof(node->run), "%s", real);
    free(real);
    if (fs_path(node->home, err, "%s/home", node->run) < 0 ||
        fs_path(logs, err, "%s/logs", node->run) < 0 || fs_make_dirs(logs, 0755, err) < 0)
        return -1;
    return scratch_open(&node->scratch, err);
}

static int make_agent_id(struct node *node, struct err *err)
{
    unsigned char random[4];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_set(err, ERR_IO, "cannot draw a number: %s", strerror(errno));
    snprintf(node->agent_id, sizeof(node->agent_id), "%s.%d.%02x%02x%02x%02x",
             node->token, node->exchange->node, random[0], random[1], random[2],
             random[3]);
    return 0;
}

static void begin(struct node *node, const char *phase)
{
    struct err err;

    if (phases_begin(node->phases, phase, &err) < 0)
        log_warn("%s", err.text);
}

static void end(struct node *node, const char *text)
{
    struct err err;

    if (phases_end(node->phases, text, &err) < 0)
        log_warn("%s", err.text);
}

/* The way to a coordinator elsewhere; asked for the job, and nothing else. */
static int open_elsewhere(struct node *node, struct err *err)
{
    const struct node_options *options = &node->options;
    struct key key = {.role = KEY_NONE};
    int rc;

    if (options->key && key_read(&key, options->key, err) < 0)
        return -1;
    rc = fs_path(node->control, err, "%s",
                 options->connect ? options->connect : key.endpoint);
    if (rc == 0 && !node->control[0])
        rc = err_set(err, ERR_INVALID,
                     "key file '%s' names no endpoint: say it with --connect",
                     options->key);
    if (rc == 0)
        rc = fs_path(node->key_path, err, "%s", options->key ? options->key : "");
    if (rc == 0 && options->submit)
        rc = net_client_open(&node->client, node->control, options->key ? &key : NULL,
                             err);
    key_fini(&key);
    return rc;
}

/* Everything between preflight and keys: node 0 starts the coordinator and hands the job
 * in. */
static int prepare(struct node *node, struct err *err)
{
    if (node->is_elsewhere && open_elsewhere(node, err) < 0)
        return -1;
    if (node->exchange->node != 0)
        return 0;
    if (!node->is_elsewhere) {
        begin(node, "coordinator");
        if (head_start(node, err) < 0)
            return -1;
        node->is_head = true; /* before, all there is belongs to another start */
        end(node, node->key.endpoint);
    }
    if (!node->options.submit)
        return 0;
    begin(node, "submit");
    if (head_submit(node, err) < 0)
        return -1;
    end(node, "");
    return 0;
}

static int find_devices(struct node *node, struct err *err)
{
    struct devices_facts facts = {
        .asked = node->options.n_devices,
        .visible = getenv("CUDA_VISIBLE_DEVICES"),
        .n_said = node->environment.n_devices,
        .n_files = devices_count_files(),
        .n_spec = node->n_spec_devices,
        .local = node->exchange->local,
        .n_local = node->exchange->n_local,
    };

    return devices_decide(&node->devices, &facts, err);
}

/* Reads the job first, for what is to be looked at. */
static int look_at_nodes(struct node *node, struct err *err)
{
    bool is_first = node->exchange->node == 0;
    struct err why;
    bool has_failed = is_first && node->options.submit && head_read_spec(node, &why) < 0;

    begin(node, "preflight");
    if (check_nodes(node, has_failed ? &why : NULL, err) < 0)
        return -1;
    end(node, node->options.check == CHECK_OFF ? "off" : "");
    return 0;
}

/* ---- the whole ---- */

static int fail(struct node *node, struct err *err)
{
    phases_fail(node->phases, err);
    log_error("%s", err->text);
    return exit_of(err);
}

/* The exit status. */
static int run(struct node *node)
{
    struct err err = {0}, why = {0};
    char text[64];
    int status = NODE_SYSTEM, others;

    begin(node, "wire-up");
    if (meet_all(node, &err) < 0)
        return fail(node, &err);
    snprintf(text, sizeof(text), "%d node%s, %s", node->exchange->n_nodes,
             node->exchange->n_nodes == 1 ? "" : "s", node->exchange->ops->name);
    end(node, text);
    if (key_create(&node->key, "node", KEY_WORKER, &err) < 0 ||
        make_agent_id(node, &err) < 0)
        return fail(node, &err);
    if (look_at_nodes(node, &err) < 0)
        return fail(node, &err);
    if (prepare(node, &why) < 0) {
        status = fail(node, &why);
        wireup(node, &why, &others, &err); /* the others are told, and not waited for */
        return status;
    }
    begin(node, "keys");
    if (wireup(node, NULL, &status, &err) < 0) {
        fail(node, &err);
        return status;
    }
    end(node, "");
    if (node->has_job_ended)
        return node->job_exit;
    begin(node, "reach");
    if (check_reach(node, &err) < 0)
        return fail(node, &err);
    end(node, "");
    if (find_devices(node, &err) < 0)
        return fail(node, &err);
    status = supervise(node, &err);
    return status < 0 ? fail(node, &err) : status;
}

static void node_close(struct node *node)
{
    struct err err;

    process_kill(&node->wait);
    process_kill(&node->agent);
    if (node->is_head && node->coordinator) {
        /* it keeps what is in its database; nobody is there to be told more */
        if (head_shut_down(node, 1, 0, "the node program ends", &err) < 0)
            process_kill(&node->coordinator);
    }
    process_kill(&node->coordinator);
    if (node->is_head)
        wireup_revoke(node);
    if (node->client)
        net_client_close(node->client);
    scratch_close(&node->scratch);
    json_free(node->paths);
    phases_close(node->phases);
    exchange_close(node->exchange);
    key_fini(&node->key);
}

static int open_node(struct node *node, struct err *err)
{
    if (find_place(node, err) < 0 || make_folders(node, err) < 0 ||
        open_exchange(node, err) < 0)
        return -1;
    /* without a record of its phases a launch may still go on */
    if (phases_open(&node->phases, node->run, node->token, node->exchange->node,
                    node->name, node->exchange->node == 0 ? stderr : NULL, err) < 0)
        log_warn("%s", err->text);
    return 0;
}

int main(int argc, char **argv)
{
    static struct node node; /* large; zero */
    struct err err = {0};
    int status;

    node_block_signals(); /* before anything may take long */
    log_init("node", LOG_INFO);
    if (node_options_parse(&node.options, argc, argv, &err) < 0) {
        fprintf(stderr, "vneva-node: %s\n", err.text);
        return NODE_USAGE;
    }
    node.is_elsewhere = node.options.connect || node.options.key;
    if (node.options.is_help) {
        fputs(node_usage, stdout);
        return NODE_DONE;
    }
    if (open_node(&node, &err) < 0) {
        log_error("%s%s%s", node.name, *node.name ? ": " : "", err.text);
        status = exit_of(&err);
    } else {
        status = run(&node);
        /* a launcher may end the others when the first of them leaves */
        if (!node.leaves_alone)
            exchange_fence(node.exchange, TOGETHER_MS, NULL);
    }
    node_close(&node);
    return status;
}
