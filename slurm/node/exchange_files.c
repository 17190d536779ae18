/* The exchange through files: see exchange_folder.h for what lies where.
 *
 * A fence: every node writes round-K/NODE; node 0 waits till all are there and makes
 * events/met-K, for which the others wait. Who closes leaves a mark, so that the others do
 * not wait for it until their time is up. */
#include "common/base/clock.h"
#include "slurm/node/exchange_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 4096   /* fences of one exchange */
#define POLL_FIRST_MS 2   /* between two looks at the folder: at first, */
#define POLL_LAST_MS 100  /* and in the end, and 1 ms more for every node */
#define LOST_LOOK_MS 1000 /* between two looks for nodes that have left */
#define NAMED_MAX 8       /* missing nodes named in an error */

struct peer {
    char host[EXCHANGE_HOST_MAX];
    struct json **read; /* all that was read of it, for what was given out is borrowed */
    int n_read, read_round;
    bool is_told; /* that it has left */
};

struct files {
    struct exchange exchange; /* first */
    char path[FS_PATH_MAX], folder[FS_PATH_MAX], host[EXCHANGE_HOST_MAX];
    struct json *mine; /* {"host", "put"}: all that this node has put so far */
    struct peer *peers;
    bool *seen, *left, *met; /* scratch of the listings: by node, by node, by fence */
    int round;               /* the next fence */
    int64_t next_look_ms;
};

static struct files *of(struct exchange *exchange)
{
    return (struct files *)exchange;
}

static int files_put(struct exchange *exchange, const char *key, const char *value,
                     struct err *err)
{
    struct json *put = json_get(of(exchange)->mine, "put");

    return json_set(put, key, json_new_string(value), err);
}

/* ---- who is there ---- */

static const char *host_of(struct files *files, int node)
{
    struct peer *peer = &files->peers[node];

    if (!*peer->host)
        exchange_folder_host(peer->host, files->path, node);
    return peer->host;
}

/* "node 1 (n2), node 3 (never seen)": those that are not in files->seen. */
static void name_missing(struct files *files, struct buf *out, bool *is_one_unseen)
{
    int n_missing = 0, n_nodes = files->exchange.n_nodes;

    *is_one_unseen = false;
    for (int node = 0; node < n_nodes; node++) {
        const char *host;

        if (files->seen[node] || n_missing++ >= NAMED_MAX)
            continue;
        host = host_of(files, node);
        *is_one_unseen |= !*host;
        buf_printf(out, "%snode %d (%s)", n_missing > 1 ? ", " : "", node,
                   *host ? host : "never seen");
    }
    if (n_missing > NAMED_MAX)
        buf_printf(out, " and %d more", n_missing - NAMED_MAX);
}

static int list_round(struct files *files, struct err *err)
{
    char sub[32];

    snprintf(sub, sizeof(sub), "round-%d", files->round);
    return exchange_folder_list(files->seen, files->exchange.n_nodes, files->path, sub,
                                "", err);
}

static int fail_late(struct files *files, int64_t timeout_ms, struct err *err)
{
    struct buf names = BUF_INIT;
    bool is_one_unseen;
    int n_here = list_round(files, err);

    if (n_here < 0)
        return -1;
    if (n_here == files->exchange.n_nodes) { /* then it is node 0 that says nothing */
        files->seen[0] = false;
        n_here--;
    }
    name_missing(files, &names, &is_one_unseen);
    err_set(err, ERR_TIMEOUT, "%d of %d nodes met within %.1f s; missing: %s%s%s%s",
            n_here, files->exchange.n_nodes, (double)timeout_ms / 1000, buf_str(&names),
            is_one_unseen ? "; have they started, and is '" : "",
            is_one_unseen ? files->folder : "",
            is_one_unseen ? "' shared between the nodes?" : "");
    buf_fini(&names);
    return -1;
}

/* ---- the fence ---- */

static int fail_left(struct files *files, int node, struct err *err)
{
    return err_set(err, ERR_PEER, "node %d (%s) has ended", node, host_of(files, node));
}

/* A node that has left before it came to this fence, or -1; -2 with err. What has left is
 * looked at before what has come, for a node comes first and leaves then. */
static int find_left(struct files *files, struct err *err)
{
    int n_left = exchange_folder_list(files->left, files->exchange.n_nodes, files->path,
                                      "events", "left-", err);

    if (n_left <= 0)
        return n_left < 0 ? -2 : -1;
    if (list_round(files, err) < 0)
        return -2;
    for (int node = 0; node < files->exchange.n_nodes; node++)
        if (files->left[node] && !files->seen[node])
            return node;
    return -1;
}

/* 1: all have met, 0: not yet, -1: error. */
static int look(struct files *files, struct err *err)
{
    int left = find_left(files, err), n;
    bool has_first_left = left >= -1 && files->left[0];

    if (left == -2)
        return -1;
    if (files->exchange.node == 0) {
        n = list_round(files, err);
        if (n < 0 || n == files->exchange.n_nodes)
            return n < 0 ? -1 : 1;
    } else {
        if (exchange_folder_list(files->met, files->round + 1, files->path, "events",
                                 "met-", err) < 0)
            return -1;
        if (files->met[files->round])
            return 1;
        if (left < 0 && has_first_left) /* it came, and gave up waiting for the rest */
            left = 0;
    }
    return left >= 0 ? fail_left(files, left, err) : 0;
}

static int wait_met(struct files *files, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms, step_ms = POLL_FIRST_MS, left_ms;
    int64_t last_ms = POLL_LAST_MS + files->exchange.n_nodes;
    int rc;

    while ((rc = look(files, err)) == 0) {
        struct timespec pause;

        left_ms = deadline_ms - clock_mono_ms();
        if (left_ms <= 0)
            return fail_late(files, timeout_ms, err);
        step_ms = step_ms * 3 / 2 < last_ms ? step_ms * 3 / 2 : last_ms;
        if (left_ms > step_ms)
            left_ms = step_ms;
        pause = (struct timespec){left_ms / 1000, left_ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    return rc < 0 ? -1 : 0;
}

/* Node 0: tells the others that all are there; at the first fence who they are. */
static int tell_met(struct files *files, struct err *err)
{
    struct json *met = json_new(JSON_OBJECT), *hosts = json_new(JSON_ARRAY);
    char name[32];
    int rc = 0;

    for (int node = 0; rc == 0 && files->round == 0 && node < files->exchange.n_nodes;
         node++)
        rc = json_append(hosts, json_new_string(host_of(files, node)), err);
    if (json_set(met, "hosts", hosts, rc == 0 ? err : NULL) < 0)
        rc = -1;
    snprintf(name, sizeof(name), "met-%d", files->round);
    if (rc == 0)
        rc = exchange_folder_write(files->path, "events", name, met, err);
    json_free(met);
    return rc;
}

/* At the first fence: which nodes share this one's host. */
static int learn_hosts(struct files *files, struct err *err)
{
    struct exchange *exchange = &files->exchange;
    struct json *met, *hosts;

    if (exchange_folder_read(&met, files->path, "events", "met-0", err) < 0)
        return -1;
    hosts = json_get(met, "hosts");
    exchange->local = exchange->n_local = 0;
    for (int node = 0; node < exchange->n_nodes; node++) {
        const char *host = json_string(json_at(hosts, (size_t)node));
        struct peer *peer = &files->peers[node];

        if (host)
            snprintf(peer->host, sizeof(peer->host), "%s", host);
        if (strcmp(peer->host, files->host) != 0)
            continue;
        exchange->local += node < exchange->node;
        exchange->n_local++;
    }
    json_free(met);
    return 0;
}

static int files_fence(struct exchange *exchange, int64_t timeout_ms, struct err *err)
{
    struct files *files = of(exchange);
    char sub[32], name[16];

    if (files->round == ROUNDS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d fences in one exchange", ROUNDS_MAX);
    snprintf(sub, sizeof(sub), "round-%d", files->round);
    snprintf(name, sizeof(name), "%d", exchange->node);
    if (exchange_folder_write(files->path, sub, name, files->mine, err) < 0 ||
        wait_met(files, timeout_ms, err) < 0 ||
        (exchange->node == 0 && tell_met(files, err) < 0) ||
        (files->round == 0 && learn_hosts(files, err) < 0))
        return -1;
    files->round++;
    return 0;
}

/* ---- what the others have put ---- */

/* Reads what that node had put at the last fence, where that is not known yet. */
static int read_peer(struct files *files, int node, struct err *err)
{
    struct peer *peer = &files->peers[node];
    char sub[32], name[16];
    struct json **grown, *json;

    if (peer->read_round == files->round)
        return 0;
    snprintf(sub, sizeof(sub), "round-%d", files->round - 1);
    snprintf(name, sizeof(name), "%d", node);
    if (exchange_folder_read(&json, files->path, sub, name, err) < 0)
        return -1;
    grown = realloc(peer->read, ((size_t)peer->n_read + 1) * sizeof(*grown));
    if (!grown) {
        json_free(json);
        return err_set(err, ERR_NOMEM, "no memory for what node %d has put", node);
    }
    peer->read = grown;
    peer->read[peer->n_read++] = json;
    peer->read_round = files->round;
    return 0;
}

static int files_get(struct exchange *exchange, int node, const char *key,
                     const char **value, struct err *err)
{
    struct files *files = of(exchange);
    struct peer *peer = &files->peers[node];

    *value = NULL;
    if (read_peer(files, node, err) < 0)
        return -1;
    if (peer->n_read)
        *value = json_get_string(json_get(peer->read[peer->n_read - 1], "put"), key);
    if (!*value)
        return err_set(err, ERR_NOT_FOUND, "node %d (%s) has not put '%s'", node,
                       host_of(files, node), key);
    return 0;
}

static int files_poll_lost(struct exchange *exchange)
{
    struct files *files = of(exchange);
    int64_t now_ms = clock_mono_ms();

    if (now_ms >= files->next_look_ms) {
        files->next_look_ms = now_ms + LOST_LOOK_MS;
        if (exchange_folder_list(files->left, exchange->n_nodes, files->path, "events",
                                 "left-", NULL) < 0)
            return -1;
    }
    for (int node = 0; node < exchange->n_nodes; node++)
        if (files->left[node] && node != exchange->node && !files->peers[node].is_told) {
            files->peers[node].is_told = true;
            return node;
        }
    return -1;
}

/* ---- life ---- */

static void files_free(struct files *files)
{
    for (int node = 0; files->peers && node < files->exchange.n_nodes; node++) {
        for (int i = 0; i < files->peers[node].n_read; i++)
            json_free(files->peers[node].read[i]);
        free(files->peers[node].read);
    }
    free(files->peers);
    free(files->seen);
    free(files->left);
    free(files->met);
    json_free(files->mine);
    free(files);
}

/* Leaves the mark; who sees that all others have left theirs removes the folder. */
static void files_close(struct exchange *exchange)
{
    struct files *files = of(exchange);
    struct json *nothing = json_new(JSON_OBJECT);
    char name[32];

    snprintf(name, sizeof(name), "left-%d", exchange->node);
    if (exchange_folder_write(files->path, "events", name, nothing, NULL) == 0 &&
        exchange_folder_list(files->left, exchange->n_nodes, files->path, "events",
                             "left-", NULL) == exchange->n_nodes)
        fs_remove_tree(files->path, NULL); /* best effort: pruned later */
    json_free(nothing);
    files_free(files);
}

static const struct exchange_ops files_ops = {"files",   files_put,       files_fence,
                                              files_get, files_poll_lost, files_close};

static int files_init(struct files *files, const char *folder, int n_nodes,
                      struct err *err)
{
    const char *slurm = getenv("SLURMD_NODENAME");

    files->exchange.ops = &files_ops;
    files->exchange.n_nodes = n_nodes;
    files->exchange.n_local = 1;
    files->mine = json_new(JSON_OBJECT);
    files->peers = calloc((size_t)n_nodes, sizeof(*files->peers));
    files->seen = calloc((size_t)n_nodes, sizeof(bool));
    files->left = calloc((size_t)n_nodes, sizeof(bool));
    files->met = calloc(ROUNDS_MAX, sizeof(bool));
    if (!files->mine || !files->peers || !files->seen || !files->left || !files->met)
        return err_set(err, ERR_NOMEM, "no memory for an exchange of %d nodes", n_nodes);
    if (slurm && *slurm)
        snprintf(files->host, sizeof(files->host), "%s", slurm);
    else if (gethostname(files->host, sizeof(files->host) - 1) < 0)
        return err_set(err, ERR_IO, "cannot tell the name of this host");
    if (json_set(files->mine, "put", json_new(JSON_OBJECT), err) < 0)
        return -1;
    return fs_path(files->folder, err, "%s", folder);
}

int exchange_open_files(struct exchange **out, const char *folder, const char *token,
                        int node, int n_nodes, struct err *err)
{
    struct files *files;

    if (n_nodes < 1 || n_nodes > EXCHANGE_NODES_MAX || node < 0 || node >= n_nodes)
        return err_set(err, ERR_INVALID, "node %d of %d: not possible (at most %d)", node,
                       n_nodes, EXCHANGE_NODES_MAX);
    files = calloc(1, sizeof(*files));
    if (!files)
        return err_set(err, ERR_NOMEM, "no memory for an exchange");
    files->exchange.node = node;
    if (files_init(files, folder, n_nodes, err) < 0 ||
        exchange_folder_make(files->path, folder, token, err) < 0 ||
        exchange_folder_enter(files->path, node, files->host, err) < 0) {
        files_free(files);
        return err_wrap(err, "cannot open the exchange through files");
    }
    if (node == 0)
        exchange_folder_prune(files->path);
    *out = &files->exchange;
    return 0;
}
