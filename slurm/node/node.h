/* node.h - what the files of the node program share: this node, its processes, its job
 *
 *     main.c       options, place, exchange, exit status
 *     check.c      preflight: what is asked of the nodes, who is told
 *     head.c       node 0: coordinator, job
 *     wireup.c     keys and what all must know, through the exchange
 *     supervise.c  the loop: processes, signals, lost nodes, the job's end
 *
 * Owns: everything in struct node; vneva-node ends and frees what is left at its end.
 * Threads: one.
 */
#ifndef VNEVA_SLURM_NODE_NODE_H
#define VNEVA_SLURM_NODE_NODE_H

#include "common/base/fs.h"
#include "common/net/net.h"
#include "slurm/node/devices.h"
#include "slurm/node/environment.h"
#include "slurm/node/exchange.h"
#include "slurm/node/options.h"
#include "slurm/node/phases.h"
#include "slurm/node/preflight.h"
#include "slurm/node/process.h"
#include "slurm/node/scratch.h"

enum node_exit {
    NODE_DONE = 0,
    NODE_JOB_FAILED = 1,
    NODE_USAGE = 2,
    NODE_NOBODY = 3,
    NODE_SYSTEM = 5,
    NODE_CHECKPOINTED = 75, /* EX_TEMPFAIL: stopped as told, start it again */
};

#define NODE_HOST_MAX 256
#define NODE_ID_MAX 160

struct node {
    struct node_options options;
    struct environment environment;
    struct exchange *exchange;
    struct phases *phases;
    char host[NODE_HOST_MAX], name[NODE_HOST_MAX]; /* name: for people */
    char run[FS_PATH_MAX], home[FS_PATH_MAX], programs[FS_PATH_MAX];
    struct scratch scratch; /* its socket and key */
    char token[ENVIRONMENT_TOKEN_MAX];
    char agent_id[NODE_ID_MAX];
    bool is_elsewhere; /* the coordinator is none of ours */
    bool is_head;      /* node 0, when it is */
    struct key key;    /* this node's agent's */
    struct devices devices;

    /* the coordinator, as this node reaches it */
    char control[FS_PATH_MAX], key_path[FS_PATH_MAX]; /* key_path "": none needed */
    char agent_key[FS_PATH_MAX];                      /* "": none */
    struct net_client *client;       /* NULL on nodes that have nothing to ask */
    pid_t coordinator, agent, wait;  /* 0: none runs */
    char listen[KEY_ENDPOINT_BYTES]; /* where it is started again */
    int64_t n_spec_devices;          /* trainer.devices; 0: no job */
    struct json *paths;              /* that the job names; NULL: no job, or not node 0 */
    struct preflight_need need;      /* node 0: of every node */

    bool leaves_alone; /* it ends and others may not: they are not waited for */
    int64_t job;       /* 0: none */
    bool has_job_ended;
    enum node_exit job_exit;
};

/* ---- check.c ---- */

/* COLLECTIVE: preflight of all nodes; failed (may be NULL): why node 0 cannot go on. */
int check_nodes(struct node *node, const struct err *failed, struct err *err);
/* COLLECTIVE: after wireup, whether every node reaches node 0's coordinator. */
int check_reach(struct node *node, struct err *err);

/* ---- head.c ---- */

/* Starts the coordinator and waits until it answers. */
int head_start(struct node *node, struct err *err);
/* Again after it died, at the same endpoint. */
int head_start_again(struct node *node, struct err *err);
/* Reads the spec, for what the nodes must know of it. ERR_INVALID and the like. */
int head_read_spec(struct node *node, struct err *err);
/* Hands the job in, or finds the one this run folder has. */
int head_submit(struct node *node, struct err *err);
/* `vneva wait`, for people. */
int head_start_wait(struct node *node, struct err *err);
/* Tells the coordinator to end with everything; then it answers for another linger_ms, or
 * until it is told again with 0. */
int head_shut_down(struct node *node, int64_t grace_ms, int64_t linger_ms,
                   const char *reason, struct err *err);

struct head_job {
    char state[32], reason[256];
    bool has_ended;         /* done, failed, cancelled */
    bool is_waiting;        /* for devices */
    bool is_at_rest;        /* nothing of it runs: waiting, held or ended */
    int64_t done, n_agents; /* agents: that are up */
};
/* Also leaves a line in RUN/progress that changes with every durable bit of progress. */
int head_ask_job(struct node *node, struct head_job *out, struct err *err);

/* ---- wireup.c ---- */

/* COLLECTIVE: keys, endpoint, job; `failed` (may be NULL): why this node cannot go on,
 * which all are told. *status: the exit status where -1 is returned. */
int wireup(struct node *node, const struct err *failed, int *status, struct err *err);
/* The keys of this start count no more. */
void wireup_revoke(struct node *node);
/* The key of one node: the coordinator gives its agent up at once. */
void wireup_revoke_node(struct node *node, int i);
int exit_of(const struct err *err); /* the status that fits */

/* ---- supervise.c ---- */

/* Signals are blocked by then (node_block_signals). The exit status. */
int supervise(struct node *node, struct err *err);
void node_block_signals(void);

#endif
