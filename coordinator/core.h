/* core.h - the coordinator without its socket: state, and what messages and time do to it
 *
 * A turn of the loop (reactor.c) gives core the messages that came, then the time, then
 * lets it decide; all that changes goes to the model, to the open transaction of the store
 * and, as messages, to the outbox. When the commit fails the model is thrown away and read
 * again from the store, as after a restart: in memory nothing is ever ahead of the disk.
 * Owns: all in struct core but store, queries and launcher. Threads: one.
 * Units: mono_ms for timeouts, wall_ms for records; both are of the present turn.
 */
#ifndef VNEVA_COORDINATOR_CORE_H
#define VNEVA_COORDINATOR_CORE_H

#include "common/base/fs.h"
#include "common/net/secret.h"
#include "coordinator/launcher.h"
#include "coordinator/model.h"
#include "coordinator/outbox.h"
#include "coordinator/pools.h"
#include "coordinator/queries.h"
#include "coordinator/store/store.h"

#define CORE_FRUITLESS_MAX 5  /* attempts lost one after another without a task done */
#define CORE_BAD_INPUTS_MAX 2 /* of them, when the last say that their input is bad */
#define CORE_EXIT_BAD_INPUT 2 /* a rank's exit status that says so */
#define CORE_FAILURES_MAX 3   /* of a task, before it is quarantined */
#define CORE_BACKOFF_MAX_MS 60000
#define CORE_TRAINING_LEASES 3 /* one in work, two ahead */
#define CORE_GRACE_MS 30000    /* hold, cancel: time to finish the step and checkpoint */
#define CORE_GRACE_MAX_MS 3600000 /* what may be asked for instead */
#define CORE_LOST_GRACE_MS 2000   /* the others of a lost attempt wait for nobody */
#define CORE_TEXT_MAX 512         /* of a reason or an event */

struct core_config {
    char home[FS_PATH_MAX];
    int64_t heartbeat_ms, lost_after_ms;
    int64_t backoff_ms;        /* before the first retry; doubles */
    struct net_secret secret;  /* from which those of attempts are derived */
    int64_t launch_timeout_ms; /* of a call of `vneva-launch` */
    int64_t pool_poll_ms;      /* between two lists of a pool */
    /* where agents on other machines reach us; "": nowhere */
    char endpoint[KEY_ENDPOINT_BYTES];
};

struct core {
    struct core_config config;
    struct store *store;
    struct outbox outbox;
    struct queries *queries;   /* the caller's, as the store is */
    struct launcher *launcher; /* the same */
    struct model model;
    struct pools pools;
    struct store_counters last; /* ids given */
    int64_t wall_ms, mono_ms;
    int64_t recovered_mono_ms; /* when the model was read from the store */
    bool is_ending;            /* after SHUTDOWN: nothing new starts */
    int64_t ending_grace_ms;   /* what ranks were then given */
    int64_t ending_linger_ms;  /* how long to answer when all have ended */
};

/* ---- recover.c ---- */

/* Fills model and counters from the store; what was there is thrown away. */
int core_recover(struct core *core, struct err *err);
void core_fini(struct core *core); /* the store is the caller's */

/* ---- change.c: the setters; each writes row and event ---- */

/* Formats a text that goes into rows and messages: cut between characters when too long. */
void core_text(char out[CORE_TEXT_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void core_event(struct core *core, int64_t job, const char *kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* reason: borrowed; may be one of the job's own texts. */
void job_change(struct core *core, struct job *job, enum job_event event,
                const char *reason);
/* The row as the job's state and goal are now. */
void job_write_state(struct core *core, const struct job *job, const char *reason);
void attempt_change(struct core *core, struct job *job, struct attempt *attempt,
                    enum attempt_event event);
/* attempt: who leases (0 keeps the number that is there). */
void task_change(struct core *core, struct job *job, struct task *task,
                 enum task_event event, int64_t attempt);
/* pool: whose nodes it waits for, "" for none. */
void job_set_reason(struct core *core, struct job *job, const char *reason,
                    const char *pool);
/* The grace that somebody asked for; 0: CORE_GRACE_MS. */
int64_t core_grace_ms(int64_t wanted_ms);
/* Wait before the n-th try, n from 1. */
int64_t core_backoff_ms(const struct core *core, int64_t n);

/* ---- tasks.c ---- */

/* The tasks a job begins with: plan, or all step ranges. */
int job_make_first_tasks(struct core *core, struct job *job, struct err *err);
/* Gives a running attempt what it can work on; ends it when there is no more. */
void attempt_lease(struct core *core, struct job *job, struct attempt *attempt);
/* TASK_START of all leases held, again. */
void attempt_lease_again(struct core *core, struct job *job, struct attempt *attempt);
/* The task is leased to the attempt. result, reason: of its rank. */
void task_finish(struct core *core, struct job *job, struct attempt *attempt,
                 struct task *task, const char *result);
void task_fail(struct core *core, struct job *job, struct attempt *attempt,
               struct task *task, const char *reason);
/* All leases of an attempt that ends go back; is_blamed: its own rank died on them. */
void attempt_return_leases(struct core *core, struct job *job, struct attempt *attempt,
                           bool is_blamed);
/* Sums up what is done of a batch job. */
void job_sum_progress(struct job *job);

/* ---- attempts.c ---- */

/* Places attempts of waiting jobs and leases tasks to those that run. */
void core_decide(struct core *core);
/* Sends RANK_START of one rank. */
void attempt_send_start(struct core *core, struct job *job, struct attempt *attempt,
                        int64_t rank);
/* To every agent that has ranks of the attempt, once. */
void attempt_send(struct core *core, const struct attempt *attempt,
                  const struct wire *message);
void attempt_rank_ready(struct core *core, struct job *job, struct attempt *attempt,
                        const struct msg_rank_ready *ready);
/* Stops a live attempt; job state and leases follow. */
void attempt_stop(struct core *core, struct job *job, struct attempt *attempt,
                  enum attempt_cause cause, int64_t grace_ms, const char *reason);
/* Asks the ranks of a stopping attempt again, now with RANK_STOP. */
void attempt_ask_again(struct core *core, struct job *job, struct attempt *attempt);
/* The rank has ended, however: frees its device, ends the attempt with the last one. */
void attempt_rank_gone(struct core *core, struct job *job, struct attempt *attempt,
                       int64_t rank);
/* Stops a job for a goal other than GOAL_RUN; ends it at once when nothing runs. */
void job_stop(struct core *core, struct job *job, enum job_goal goal, int64_t grace_ms,
              const char *reason);
/* All tasks are done. */
void job_finish(struct core *core, struct job *job);
/* Follows what the attempts of a job have become. */
void job_settle(struct core *core, struct job *job);

/* ---- agents.c ---- */

/* Messages to a peer or a registered agent, after the commit. */
void core_reply(struct core *core, const struct net_peer *to, const struct wire *request,
                struct wire *answer);
void core_reply_error(struct core *core, const struct net_peer *to,
                      const struct wire *request, const struct err *why);
void agent_send(struct core *core, const struct agent *agent, const struct wire *message);
void agent_set_busy(struct core *core, struct agent *agent, int64_t device, bool is_busy);
void agents_receive(struct core *core, const struct net_peer *from,
                    const struct wire *message); /* REGISTER, HEARTBEAT and reports */
/* Gives up agents whose key is no longer that of an agent. */
void agents_check_keys(struct core *core, const struct net_server *server);
/* Gives up agents that are silent and ranks that did not come back; asks again those
 * that were to end. */
void core_timers(struct core *core);

/* ---- reports.c: what agents say of their ranks ---- */

void report_receive(struct core *core, struct agent *agent, const struct net_peer *from,
                    const struct wire *message);

/* ---- clients.c ---- */

void clients_receive(struct core *core, const struct net_peer *from,
                     const struct wire *message);

/* ---- pool_key.c: what agents of a pool on other machines need ---- */

/* The file of the pool's key. */
int pool_key_path(const struct core *core, const struct pool *pool, char *out,
                  struct err *err);
/* Makes it, or finds it made already. */
int pool_key_make(const struct core *core, const struct pool *pool, struct err *err);
void pool_key_remove(struct core *core, const struct pool *pool);

/* ---- logs.c: log files of ranks ---- */

#define LOG_FILE_MAX (64 << 20) /* bytes of one rank's log */
#define LOG_CHUNK_MAX (1 << 20) /* bytes of one answer */

int core_make_job_folder(const struct core *core, int64_t job, struct err *err);
int log_append(const struct core *core, const struct msg_log *log, struct err *err);
/* Fills answer->log_chunk; its data is in `data`. */
int log_read(const struct core *core, const struct msg_logs *request, struct buf *data,
             struct wire *answer, struct err *err);

/* One message of any kind, from anybody. */
void core_receive(struct core *core, const struct net_peer *from,
                  const struct wire *message);

#endif
