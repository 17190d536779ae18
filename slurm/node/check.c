/* Preflight as part of a start: what is asked of the nodes, and who is told. */
#include "slurm/node/node.h"

#include <stdlib.h>

#define REACH_MS 20000

/* The coordinator elsewhere that --key or --connect names; the key is read into *key. */
static int ask_elsewhere(struct preflight_ask *ask, const struct node_options *options,
                         struct key *key, struct err *err)
{
    ask->endpoint = options->connect;
    if (!options->key)
        return 0;
    if (key_read(key, options->key, err) < 0)
        return -1;
    ask->key = key;
    if (!ask->endpoint)
        ask->endpoint = key->endpoint;
    return 0;
}

/* What is known of this node's devices before node 0 has told of the job. */
static int ask_devices(struct preflight_ask *ask, const struct node *node,
                       struct err *err)
{
    struct devices_facts facts = {
        .asked = node->options.n_devices,
        .visible = getenv("CUDA_VISIBLE_DEVICES"),
        .n_said = node->environment.n_devices,
        .n_files = devices_count_files(),
        .local = node->exchange->local,
        .n_local = node->exchange->n_local,
    };
    struct devices devices;

    if (devices_decide(&devices, &facts, err) < 0)
        return -1;
    ask->wants_gpus = devices.are_gpus;
    ask->n_devices = devices.are_gpus ? devices.n : node->options.n_devices;
    return 0;
}

static int run(struct node *node, struct preflight_ask *ask, struct err *err)
{
    struct json *report;
    int rc = preflight_run(&report, node->exchange, ask, err);

    if (report) /* on node 0 */
        preflight_print(stderr, report);
    json_free(report);
    return rc;
}

int check_nodes(struct node *node, const struct err *failed, struct err *err)
{
    const struct node_options *options = &node->options;
    struct preflight_ask ask = {
        .host = node->name,
        .run_folder = node->run,
        .program_folder = node->programs,
        .way = options->way == WAY_PMIX ? "pmix" : "",
        .failed = failed,
        .n_default = node->n_spec_devices > 0 ? node->n_spec_devices : 1,
        .is_advisory = options->check == CHECK_WARN,
        .paths = node->paths,
        .need = node->need,
    };
    struct key key = {.role = KEY_NONE};
    int rc;

    if (options->check == CHECK_OFF)
        return failed ? err_set(err, failed->code, "%s", failed->text) : 0;
    if (!node->paths) /* no job: agents only */
        preflight_need(&ask.need, NULL, options->n_devices, devices_count_files() > 0);
    if (ask_elsewhere(&ask, options, &key, err) < 0 || ask_devices(&ask, node, err) < 0)
        rc = -1;
    else
        rc = run(node, &ask, err);
    key_fini(&key);
    return rc;
}

int check_reach(struct node *node, struct err *err)
{
    const struct node_options *options = &node->options;

    if (options->check == CHECK_OFF || options->connect || options->key ||
        node->exchange->n_nodes == 1)
        return 0;
    return preflight_reach(node->exchange, node->name, node->key.endpoint, &node->key,
                           REACH_MS, stderr, err);
}
