/* client.h - what every command of `vneva` shares: streams, connection, exit codes
 *
 * A command is a row of a table: name, help, options, a function. It prints results to
 * client->out, everything else to client->err, and returns an exit code.
 * Owns: the connection, opened when first needed; client_fini closes it.
 * Threads: one.
 */
#ifndef VNEVA_JOBS_CLIENT_CLIENT_H
#define VNEVA_JOBS_CLIENT_CLIENT_H

#include "common/base/args.h"
#include "common/base/fs.h"
#include "common/base/json.h"
#include "common/net/net.h"

#include <stdio.h>

#define CLIENT_CALL_MS 15000 /* an answer takes a commit; a busy disk takes long */

enum client_exit {
    EXIT_DONE = 0,
    EXIT_JOB_FAILED = 1, /* the job, or the check, failed */
    EXIT_USAGE = 2,      /* wrong usage or bad input */
    EXIT_NOBODY = 3,     /* nobody answers at the endpoint */
    EXIT_REFUSED = 4,    /* refused: state, denied */
    EXIT_SYSTEM = 5,     /* an internal or system error */
    EXIT_INTERRUPTED = 130,
};

struct client {
    FILE *out, *err;
    const char *programs; /* folder of vneva-coordinator and the others */
    char home[FS_PATH_MAX];
    char endpoint[FS_PATH_MAX]; /* "": that of the key, once it is read */
    char key_path[FS_PATH_MAX]; /* of a key file; "": none */
    bool has_endpoint;          /* it was given, not found */
    bool is_terminal;           /* err is one: progress bars */
    int64_t poll_ms;            /* how often commands that wait ask */
    int64_t plain_ms;           /* how often they print where there is no terminal */
    struct net_client *net;
};

struct command {
    const char *name, *words; /* "show", "JOB" */
    const char *summary;      /* one line */
    const char *example;      /* two lines at most */
    const struct args_option *options;
    int min_words, max_words; /* max_words -1: passed on as they are, options too */
    int (*run)(struct client *client, const struct args *args);
};

extern const struct command client_commands[]; /* ends with a NULL name */

/* The whole program. home, endpoint, key: $VNEVA_HOME, $VNEVA_ENDPOINT, $VNEVA_KEY or
 * NULL. Asked is the endpoint, else that of the key, else the home's own socket. */
int client_init(struct client *client, const char *programs, const char *home,
                const char *endpoint, const char *key, struct err *err);
void client_fini(struct client *client);
int client_run(struct client *client, int argc, char *const *argv);

/* Prints "vneva: text" and returns the exit code that fits. */
int client_fail(struct client *client, const struct err *err);

/* A word as the number of a job. ERR_INVALID. */
int client_read_job(const char *word, int64_t *out, struct err *err);

/* Leaves endpoint and key aside: what the home itself serves is asked. */
int client_use_home(struct client *client, struct err *err);

/* Whether somebody serves the endpoint: asked quickly, without waiting for an answer. */
bool client_is_served(const struct client *client);

/* One question, one answer; the caller owns the reply (wire_fini). ERR_TIMEOUT when
 * nobody answers, at once when nobody serves. */
int client_call(struct client *client, struct wire *request, struct wire *reply,
                struct err *err);
int client_call_within(struct client *client, struct wire *request, struct wire *reply,
                       int64_t timeout_ms, struct err *err);
/* Rows of a view: a JSON array the caller owns. */
int client_query(struct client *client, struct json **rows, const char *view, int64_t job,
                 int64_t since, int64_t limit, struct err *err);
/* The one row of view "job"; the caller owns it. */
int client_get_job(struct client *client, struct json **row, int64_t job,
                   struct err *err);
/* All rows with id > since, page after page. */
int client_query_all(struct client *client, struct json **rows, const char *view,
                     int64_t job, int64_t since, struct err *err);

/* A question about the views (common/wire's SELECT); every part of the answer goes to
 * `each`, borrowed: {"columns": [...], "rows": [[...]]}. What it returns < 0 ends it. */
int client_select(struct client *client, const struct msg_select *question,
                  int (*each)(void *state, const struct json *part, struct err *err),
                  void *state, struct err *err);
/* The same, as a list of objects that the caller owns. NULL texts are "". */
int client_select_rows(struct client *client, struct json **rows, const char *view,
                       const char *where, const char *columns, const char *sort,
                       int64_t limit, struct err *err);
int client_select_sql(struct client *client, struct json **rows, const char *sql,
                      struct err *err);

/* Waits; true when Ctrl-C or SIGTERM came. client_catch_interrupt first. */
void client_catch_interrupt(void);
bool client_pause(int64_t ms);

void client_print_json(struct client *client, const struct json *json);

/* Commands, a file each. */
int cmd_up(struct client *client, const struct args *args);
int cmd_down(struct client *client, const struct args *args);
int cmd_coordinator(struct client *client, const struct args *args);
int cmd_worker(struct client *client, const struct args *args);
int cmd_data(struct client *client, const struct args *args);
int cmd_launch(struct client *client, const struct args *args);
int cmd_model(struct client *client, const struct args *args);
int cmd_import(struct client *client, const struct args *args);
int cmd_export(struct client *client, const struct args *args);
int cmd_dashboard(struct client *client, const struct args *args);
int cmd_generate(struct client *client, const struct args *args);
int cmd_keys(struct client *client, const struct args *args);
int cmd_submit(struct client *client, const struct args *args);
int cmd_status(struct client *client, const struct args *args);
int cmd_show(struct client *client, const struct args *args);
int cmd_logs(struct client *client, const struct args *args);
int cmd_cancel(struct client *client, const struct args *args);
int cmd_hold(struct client *client, const struct args *args);
int cmd_release(struct client *client, const struct args *args);
int cmd_wait(struct client *client, const struct args *args);
int cmd_pool(struct client *client, const struct args *args);
int cmd_query(struct client *client, const struct args *args);
int cmd_top(struct client *client, const struct args *args);
int cmd_why(struct client *client, const struct args *args);
int cmd_events(struct client *client, const struct args *args);
int cmd_workers(struct client *client, const struct args *args);
int cmd_checkpoints(struct client *client, const struct args *args);
int cmd_report(struct client *client, const struct args *args);
int cmd_version(struct client *client, const struct args *args);
int cmd_help(struct client *client, const struct args *args);

/* Waits for a job's end and shows its progress (cmd_wait.c); also of `submit --wait`.
 * timeout_ms < 0: none. until >= 0: only till so much is done. */
int wait_for_job(struct client *client, int64_t job, int64_t timeout_ms, int64_t until);
bool is_job_ended(const char *state);

#endif
