/* What the nodes of one start tell each other. Two fences:
 *
 *     every node: a pair of keys; its public half, its agent's name, or why it cannot go on
 *     node 0:     the coordinator's endpoint and public key, the job, trainer.devices
 *     --- fence ---
 *     node 0:     authorizes the public halves as workers
 *     --- fence ---
 *     every node: its key file, in its own folder on its own machine
 *
 * No secret leaves its machine. A node that cannot go on comes to the fence all the same,
 * so that nobody waits for it. */
#include "common/base/log.h"
#include "slurm/node/node.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIREUP_MS 60000
#define KEY_PREFIX "node-" /* of the names of this start's keys */

int exit_of(const struct err *err)
{
    switch (err->code) {
    case ERR_INVALID:
    case ERR_FORMAT:
    case ERR_NOT_FOUND:
    case ERR_DENIED:
        return NODE_USAGE;
    case ERR_TIMEOUT:
    case ERR_PEER:
        return NODE_NOBODY;
    case ERR_STATE:
        return NODE_JOB_FAILED;
    default:
        return NODE_SYSTEM;
    }
}

static void key_name(char out[KEY_NAME_BYTES], int node)
{
    snprintf(out, KEY_NAME_BYTES, KEY_PREFIX "%d", node);
}

/* ---- faults ---- */

/* "STATUS TEXT", or "" when all is well. */
static int put_fault(struct node *node, const char *key, const struct err *failed,
                     struct err *err)
{
    char text[ERR_TEXT_MAX + 16] = "";

    if (failed)
        snprintf(text, sizeof(text), "%d %s", exit_of(failed), failed->text);
    return exchange_put(node->exchange, key, text, err);
}

/* The first node that cannot go on; the others say so too. */
static int check_faults(struct node *node, const char *key, int *status, struct err *err)
{
    for (int i = 0; i < node->exchange->n_nodes; i++) {
        const char *text, *host = "?";
        char *end;

        if (exchange_get(node->exchange, i, key, &text, err) < 0) {
            *status = exit_of(err);
            return -1;
        }
        if (!*text)
            continue;
        *status = (int)strtol(text, &end, 10);
        exchange_get(node->exchange, i, "host", &host, NULL);
        return err_set(err, ERR_STATE, "node %d (%s):%s", i, host, end);
    }
    return 0;
}

static int meet(struct node *node, const char *key, const struct err *failed, int *status,
                struct err *err)
{
    if (put_fault(node, key, failed, err) < 0 ||
        exchange_fence(node->exchange, WIREUP_MS, err) < 0) {
        *status = exit_of(err);
        return -1;
    }
    return check_faults(node, key, status, err);
}

/* ---- what is told ---- */

static int put_number(struct node *node, const char *key, int64_t value, struct err *err)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRId64, value);
    return exchange_put(node->exchange, key, text, err);
}

static int get_number(struct node *node, const char *key, int64_t *out, struct err *err)
{
    const char *text;

    if (exchange_get(node->exchange, 0, key, &text, err) < 0)
        return -1;
    *out = strtoll(text, NULL, 10);
    return 0;
}

static int put_own(struct node *node, struct err *err)
{
    if (exchange_put(node->exchange, "host", node->name, err) < 0 ||
        exchange_put(node->exchange, "key", node->key.public_key, err) < 0)
        return -1;
    if (node->exchange->node != 0)
        return 0;
    if (exchange_put(node->exchange, "endpoint", node->key.endpoint, err) < 0 ||
        exchange_put(node->exchange, "coordinator", node->key.coordinator, err) < 0 ||
        put_number(node, "job", node->job, err) < 0 ||
        put_number(node, "has-ended", node->has_job_ended, err) < 0 ||
        put_number(node, "job-exit", node->job_exit, err) < 0)
        return -1;
    return put_number(node, "devices", node->n_spec_devices, err);
}

static int get_common(struct node *node, struct err *err)
{
    const char *endpoint, *coordinator;
    int64_t has_ended, job_exit;

    if (exchange_get(node->exchange, 0, "endpoint", &endpoint, err) < 0 ||
        exchange_get(node->exchange, 0, "coordinator", &coordinator, err) < 0 ||
        get_number(node, "job", &node->job, err) < 0 ||
        get_number(node, "has-ended", &has_ended, err) < 0 ||
        get_number(node, "job-exit", &job_exit, err) < 0 ||
        get_number(node, "devices", &node->n_spec_devices, err) < 0)
        return -1;
    node->has_job_ended = has_ended != 0;
    node->job_exit = (enum node_exit)job_exit;
    if (node->options.connect || node->options.key)
        return 0;                  /* the key file says which coordinator */
    if (node->exchange->node == 0) /* it has them, maybe under the names others use */
        return 0;
    snprintf(node->key.endpoint, sizeof(node->key.endpoint), "%s", endpoint);
    snprintf(node->key.coordinator, sizeof(node->key.coordinator), "%s", coordinator);
    return 0;
}

/* ---- keys ---- */

/* Those of starts that ended without being able to take them back. */
static int revoke_all(struct node *node, struct err *err)
{
    struct authorized_list list;
    const char **names;
    size_t n = 0;
    int rc = 0;

    if (keys_read_authorized(&list, node->home, err) < 0)
        return -1;
    names = calloc(list.n_items + 1, sizeof(*names));
    for (size_t i = 0; names && i < list.n_items; i++)
        if (strncmp(list.items[i].name, KEY_PREFIX, strlen(KEY_PREFIX)) == 0)
            names[n++] = list.items[i].name;
    if (!names)
        rc = err_set(err, ERR_NOMEM, "no memory for a list of keys");
    else if (n)
        rc = keys_revoke(node->home, names, n, err);
    free(names);
    authorized_fini(&list);
    return rc;
}

static int fill_line(struct node *node, int i, struct authorized *line, struct err *err)
{
    const char *public_key;

    if (exchange_get(node->exchange, i, "key", &public_key, err) < 0)
        return -1;
    key_name(line->name, i);
    line->role = KEY_WORKER;
    snprintf(line->public_key, sizeof(line->public_key), "%s", public_key);
    return 0;
}

static int authorize_all(struct node *node, struct err *err)
{
    int n = node->exchange->n_nodes, rc;
    struct authorized *lines = calloc((size_t)n, sizeof(*lines));

    if (!lines)
        return err_set(err, ERR_NOMEM, "no memory for the keys of %d nodes", n);
    rc = revoke_all(node, err);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = fill_line(node, i, &lines[i], err);
    if (rc == 0)
        rc = keys_authorize(node->home, lines, (size_t)n, err);
    free(lines);
    return rc;
}

void wireup_revoke(struct node *node)
{
    struct err err;

    if (revoke_all(node, &err) < 0)
        log_warn("the keys of this start stay valid: %s", err.text);
}

void wireup_revoke_node(struct node *node, int i)
{
    char text[KEY_NAME_BYTES];
    const char *name = text;
    struct err err;

    key_name(text, i);
    if (keys_revoke(node->home, &name, 1, &err) < 0 && err.code != ERR_NOT_FOUND)
        log_warn("node %d cannot be given up at once: %s", i, err.text);
}

/* The agent's key file. One node alone needs none: its agent takes the socket that node 0
 * takes itself, whether or not this machine's own name can be looked up. */
static int write_key(struct node *node, struct err *err)
{
    if (node->options.key)
        return fs_path(node->agent_key, err, "%s", node->options.key);
    if (node->is_elsewhere || node->exchange->n_nodes == 1)
        return 0;
    if (fs_path(node->agent_key, err, "%s/agent.key", node->scratch.path) < 0)
        return -1;
    return key_write(&node->key, node->agent_key, err);
}

int wireup(struct node *node, const struct err *failed, int *status, struct err *err)
{
    struct err why = {0};
    bool has_failed = false;

    if (put_own(node, err) < 0) {
        *status = exit_of(err);
        return -1;
    }
    if (meet(node, "fault-1", failed, status, err) < 0)
        return -1;
    has_failed = get_common(node, &why) < 0 ||
                 (node->is_head && authorize_all(node, &why) < 0) ||
                 write_key(node, &why) < 0;
    return meet(node, "fault-2", has_failed ? &why : NULL, status, err);
}
