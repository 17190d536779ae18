/* cluster.h - a real coordinator and scripted agents, for tests and the dispatch bench
 *
 * The coordinator is the program itself, in a temporary home, over its own socket. Agents
 * are structs stepped by the test: they register, heartbeat, keep durable messages until
 * they are acknowledged, and play their ranks by a script. Nothing sleeps for a time:
 * cluster_wait steps all agents until a condition holds or a deadline passes.
 */
#ifndef VNEVA_TESTS_INTEGRATION_CLUSTER_H
#define VNEVA_TESTS_INTEGRATION_CLUSTER_H

#include "common/base/json.h"
#include "common/net/net.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CLUSTER_AGENTS_MAX 64
#define CLUSTER_OPTIONS_MAX 16
#define CLUSTER_DEADLINE_MS 60000
#define AGENT_RANKS_MAX 16
#define AGENT_PENDING_MAX 1024
#define AGENT_TASKS_MAX 8
#define AGENT_DONE_MAX 16 /* more than an attempt can have leased */

struct fake_task {
    int64_t id, first, count;
    char phase[8];
    bool is_reported_failed;
};

struct fake_rank {
    bool is_used, is_ready, has_peers, is_ended, is_done_told;
    int64_t job, attempt, rank, n_ranks, device;
    char kind[16], resume[256];
    struct fake_task tasks[AGENT_TASKS_MAX];
    int n_tasks;
    int64_t done_tasks[AGENT_DONE_MAX]; /* reported done; the last ones, in a ring */
    int n_done;
};

/* What a scripted agent does with a task its rank 0 has. */
enum script { SCRIPT_WORK, SCRIPT_KEEP, SCRIPT_FAIL, SCRIPT_DIE, SCRIPT_REFUSE };

struct fake_agent {
    struct net_client *client;
    char name[32], pool[80], allocation[32];
    int64_t n_devices;
    bool is_registered, is_silent, is_stopped, ignores_stop;
    int64_t next_beat_ms;
    struct fake_rank ranks[AGENT_RANKS_MAX];
    struct wire *pending[AGENT_PENDING_MAX]; /* durable, not acknowledged */
    int n_pending;
    enum script script;
    int64_t
        keep_from; /* SCRIPT_KEEP, SCRIPT_FAIL, SCRIPT_DIE: work tasks with first >= */
    int64_t n_samples; /* answer to plan */
    int64_t begins_at; /* training: the step of an earlier run's checkpoint; 0: none */
    int64_t n_done;    /* tasks reported done */
    int64_t last_stop_grace_ms;
    char last_error[32];     /* code of the last ERROR */
    int64_t *round_trips_ns; /* of leases, when given; [n_done] */
    int64_t sent_ns;
};

struct cluster {
    char home[64], endpoint[128], program[512];
    pid_t pid; /* of the coordinator; 0: none */
    int64_t lost_after_ms;
    const char *options[CLUSTER_OPTIONS_MAX]; /* more words for the coordinator */
    int n_options;
    struct fake_agent agents[CLUSTER_AGENTS_MAX];
    int n_agents;
    struct net_client *client;
};

/* All fail the running cmocka test (or abort) when something cannot be had. */
void cluster_init(struct cluster *cluster);
void cluster_fini(struct cluster *cluster);
void cluster_start(struct cluster *cluster, const char *fault); /* NULL: none */
int cluster_reap(struct cluster *cluster, bool may_wait); /* wait status; -1: runs */
void cluster_kill(struct cluster *cluster, int signal);   /* and waits for its end */
void cluster_wait_end(struct cluster *cluster); /* of the coordinator; agents go on */

struct fake_agent *cluster_add_agent(struct cluster *cluster, int64_t n_devices,
                                     int64_t n_samples);
void agent_close(struct fake_agent *agent);
void cluster_step(struct cluster *cluster, int64_t wait_ms);

/* Steps until the condition holds; false at the deadline. */
bool cluster_wait(struct cluster *cluster, bool (*holds)(struct cluster *, void *),
                  void *context);

/* One request from the test's own client while agents go on. -1 with err for ERROR. */
int cluster_call(struct cluster *cluster, struct wire *request, struct wire *reply,
                 struct err *err);
int64_t cluster_submit(struct cluster *cluster, const char *request_id, const char *kind,
                       const char *spec);
/* Rows of a view; the caller frees them. */
struct json *cluster_rows(struct cluster *cluster, const char *view, int64_t job);
/* Waits for the job's state; fails with what it is instead. */
void cluster_wait_job(struct cluster *cluster, int64_t job, const char *state);
/* Text of a key of the job's row, copied. */
void cluster_job_text(struct cluster *cluster, int64_t job, const char *key, char *out,
                      size_t n_bytes);

/* Specs that the coordinator accepts. */
void spec_prepare(char *out, size_t n_bytes, int64_t shard_size);
void spec_train(char *out, size_t n_bytes, int64_t max_steps, int64_t checkpoint_steps,
                int64_t n_ranks);

#endif
