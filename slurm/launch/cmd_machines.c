/* vneva-launch agents | list | cancel slurm: the verbs that pools call (README.md). */
#include "slurm/launch/launch.h"

#include "common/base/json.h"
#include "slurm/launch/machines.h"
#include "slurm/launch/queue.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Allocations of agents are known by the name of their Slurm job, "vneva-pool-POOL", or
 * "vneva-pool-POOL:NAME". */
#define NAME_PREFIX "vneva-pool-"
#define NAME_SEPARATOR ':'
#define SCRIPT_FILE "vneva.sbatch"

static const struct args_option agents_options[] = {
    {"pool", 0, "NAME", "which pool they are of"},
    {"connect", 0, "ENDPOINT", "of the coordinator"},
    {"key", 0, "FILE", "the key for it, as the nodes see it"},
    {"idle", 0, "S", "agents end after so long without work: 300, 5m (default: never)"},
    {"dry-run", 0, NULL, "print the script, change nothing"},
    {NULL, 0, NULL, NULL},
};
static const struct args_option list_options[] = {
    {"pool", 0, "NAME", "only of that pool"},
    {NULL, 0, NULL, NULL},
};

static int check_name(const char *option, const char *name, struct err *err)
{
    bool is_fine = name && *name && strlen(name) < LAUNCH_NAME_MAX;

    for (const char *c = name; is_fine && *c; c++)
        is_fine = isalnum((unsigned char)*c) || strchr("._-", *c);
    if (is_fine)
        return 0;
    return err_set(err, ERR_INVALID,
                   "%s '%s': expected letters, digits, '.', '_' and '-', at most %d",
                   option, name ? name : "", LAUNCH_NAME_MAX - 1);
}

/* Prints the object as one line; takes it. */
static int print_line(struct json *object, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc;

    json_write(&text, object, 0);
    rc = buf_check(&text, err);
    if (rc == 0)
        printf("%s\n", buf_str(&text));
    buf_fini(&text);
    return rc;
}

/* ---- agents ---- */

struct agents {
    struct args options;
    struct machines machines;
    const char *pool, *name; /* name: NULL where none is given */
    char job_name[sizeof(NAME_PREFIX) + 2 * LAUNCH_NAME_MAX];
    char key[FS_PATH_MAX], script_path[FS_PATH_MAX];
    struct buf script;
};

/* A folder for every allocation, unless one is given. */
static int find_agents_folder(struct agents *a, struct err *err)
{
    const char *given = args_value(&a->options, "run-dir");
    const char *home = getenv("VNEVA_HOME"), *user_home = getenv("HOME");
    char path[FS_PATH_MAX], stamp[LAUNCH_STAMP_MAX], own[LAUNCH_NAME_MAX];
    int rc;

    launch_stamp(stamp);
    if (a->name)
        snprintf(own, sizeof(own), "%s", a->name);
    else
        snprintf(own, sizeof(own), "%s-%d", stamp, (int)getpid());
    if (given)
        rc = fs_path(path, err, "%s", given);
    else if (home && *home)
        rc = fs_path(path, err, "%s/pools/%s/%s", home, a->pool, own);
    else if (user_home && *user_home)
        rc = fs_path(path, err, "%s/.vneva/pools/%s/%s", user_home, a->pool, own);
    else
        rc = err_set(err, ERR_INVALID,
                     "neither --run-dir nor VNEVA_HOME nor HOME says "
                     "where the run folder is to be");
    if (rc < 0 || launch_absolute(a->machines.run_dir, path, err) < 0)
        return -1;
    return fs_path(a->script_path, err, "%s/" SCRIPT_FILE, a->machines.run_dir);
}

static int read_agents(struct agents *a, struct err *err)
{
    const struct args *o = &a->options;
    const char *key = args_value(o, "key");
    int64_t idle_ms, gpus;

    a->pool = args_value(o, "pool");
    a->name = args_value(o, "name");
    if (check_name("--pool", a->pool, err) < 0 ||
        (a->name && check_name("--name", a->name, err) < 0))
        return -1;
    if (!args_has(o, "connect") || !key)
        return err_set(err, ERR_INVALID,
                       "agents need --connect ENDPOINT of their coordinator and --key "
                       "FILE with the key for it");
    if (o->n_words)
        return err_set(err, ERR_INVALID, "'%s': agents take no specification",
                       o->words[0]);
    if (a->name)
        snprintf(a->job_name, sizeof(a->job_name), NAME_PREFIX "%s%c%s", a->pool,
                 NAME_SEPARATOR, a->name);
    else
        snprintf(a->job_name, sizeof(a->job_name), NAME_PREFIX "%s", a->pool);
    a->machines.options = o;
    a->machines.name = a->job_name;
    if (args_int(o, "nodes", 1, LAUNCH_NODES_MAX, 1, &a->machines.n_nodes, err) < 0 ||
        args_int(o, "gpus-per-node", 1, LAUNCH_DEVICES_MAX, 0, &gpus, err) < 0 ||
        args_int(o, "devices", 1, LAUNCH_DEVICES_MAX, gpus, &a->machines.n_devices, err) <
            0 ||
        args_duration(o, "idle", 0, &idle_ms, err) < 0 ||
        launch_absolute(a->key, key, err) < 0)
        return -1;
    if (!fs_exists(a->key))
        return err_set(err, ERR_NOT_FOUND, "--key: '%s' is not there", a->key);
    return find_agents_folder(a, err);
}

static int make_agents_script(struct agents *a, struct err *err)
{
    static const char *const not_again[] = {"--no-requeue"};
    struct script *script = script_create();
    int rc;

    if (!script)
        return err_set(err, ERR_NOMEM, "no memory for a script");
    rc = script_add_options(script, not_again, 1, err);
    if (rc == 0)
        rc = machines_fill(script, &a->machines, err);
    script_set_variable(script, "SPEC", "");
    script_set_variable(script, "POOL", a->pool);
    script_set_variable(script, "CONNECT", args_value(&a->options, "connect"));
    script_set_variable(script, "KEY", a->key);
    script_set_variable(script, "IDLE", args_value(&a->options, "idle"));
    if (rc == 0)
        rc = script_write(&a->script, script, err);
    script_destroy(script);
    return rc;
}

static int print_agents(const struct agents *a, const char *id, struct err *err)
{
    struct json *object = json_new(JSON_OBJECT);
    int rc = -1;

    if (json_set(object, "allocation", json_new_string(id), err) == 0 &&
        json_set(object, "pool", json_new_string(a->pool), err) == 0 &&
        json_set(object, "name", json_new_string(a->name ? a->name : ""), err) == 0 &&
        json_set(object, "nodes", json_new_int(a->machines.n_nodes), err) == 0 &&
        json_set(object, "run_dir", json_new_string(a->machines.run_dir), err) == 0)
        rc = print_line(object, err);
    json_free(object);
    return rc;
}

static int run_agents(struct agents *a, struct err *err)
{
    char id[MACHINES_ID_MAX];

    if (read_agents(a, err) < 0 || make_agents_script(a, err) < 0)
        return -1;
    if (args_has(&a->options, "dry-run")) {
        fputs(buf_str(&a->script), stdout);
        return 0;
    }
    if (fs_make_dirs(a->machines.run_dir, 0700, err) < 0 ||
        fs_write_file_atomic(a->script_path, buf_str(&a->script), a->script.n_bytes,
                             err) < 0)
        return -1;
    if (machines_submit(id, a->script_path, err) < 0) {
        /* refused for sure, and a pool tries again: its folder is of no use */
        if (err->code == ERR_STATE && !args_has(&a->options, "run-dir"))
            (void)fs_remove_tree(a->machines.run_dir, NULL);
        return -1;
    }
    return print_agents(a, id, err);
}

int cmd_agents(int argc, char *const *argv)
{
    struct agents a = {.script = BUF_INIT};
    struct err err;
    int rc = launch_parse(&a.options, machines_options, agents_options, argc, argv, &err);

    if (rc == 0 && a.options.wants_help) {
        fputs(
            "usage: vneva-launch agents slurm --pool NAME --connect ENDPOINT --key FILE "
            "[options] [-- options of sbatch]\n\nQueues an allocation of agents.\n\n",
            stdout);
        launch_print_options(agents_options);
        launch_print_options(machines_options);
        return EXIT_DONE;
    }
    if (rc == 0)
        rc = run_agents(&a, &err);
    buf_fini(&a.script);
    return rc < 0 ? launch_fail(&err) : EXIT_DONE;
}

/* ---- list ---- */

/* An allocation of agents: its pool and its own name, cut out of the job's. */
static bool is_agents(struct queue_entry *entry, const char **pool, const char **name)
{
    size_t n = strlen(NAME_PREFIX);
    char *separator = strchr(entry->name, NAME_SEPARATOR);

    if (strncmp(entry->name, NAME_PREFIX, n) != 0)
        return false;
    *pool = entry->name + n;
    *name = separator ? separator + 1 : "";
    if (separator)
        *separator = '\0';
    return true;
}

static int print_entry(const struct queue_entry *entry, const char *pool,
                       const char *name, struct err *err)
{
    const char *state = queue_state_name(entry->state);
    struct json *object = json_new(JSON_OBJECT);
    int rc = -1;

    if (json_set(object, "allocation", json_new_string(entry->id), err) == 0 &&
        json_set(object, "pool", json_new_string(pool), err) == 0 &&
        json_set(object, "name", json_new_string(name), err) == 0 &&
        json_set(object, "state", json_new_string(state), err) == 0 &&
        json_set(object, "reason", json_new_string(entry->reason), err) == 0 &&
        json_set(object, "nodes", json_new_int(entry->n_nodes), err) == 0 &&
        json_set(object, "since_ms", json_new_int(entry->since_ms), err) == 0)
        rc = print_line(object, err);
    json_free(object);
    return rc;
}

static int run_list(const struct args *options, struct err *err)
{
    const char *asked = args_value(options, "pool"), *pool, *name;
    struct queue queue = {NULL, 0};
    int rc = 0;

    if (options->n_words || options->has_rest)
        return err_set(err, ERR_INVALID, "usage: vneva-launch list slurm [--pool NAME]");
    if ((asked && check_name("--pool", asked, err) < 0) || queue_read(&queue, err) < 0)
        return -1;
    for (size_t i = 0; rc == 0 && i < queue.n_entries; i++) {
        struct queue_entry *entry = &queue.entries[i];

        if (is_agents(entry, &pool, &name) && (!asked || strcmp(asked, pool) == 0))
            rc = print_entry(entry, pool, name, err);
    }
    queue_fini(&queue);
    return rc;
}

int cmd_list(int argc, char *const *argv)
{
    struct args options;
    struct err err;
    int rc = launch_parse(&options, list_options, NULL, argc, argv, &err);

    if (rc == 0 && options.wants_help) {
        fputs("usage: vneva-launch list slurm [--pool NAME]\n\nLists the allocations of "
              "agents, a JSON object a line.\n\n",
              stdout);
        launch_print_options(list_options);
        return EXIT_DONE;
    }
    if (rc == 0)
        rc = run_list(&options, &err);
    return rc < 0 ? launch_fail(&err) : EXIT_DONE;
}

/* ---- cancel ---- */

/* What scancel says of a job that has ended or is not known (any more). */
static bool is_gone(const struct spawn_said *said)
{
    static const char *const parts[] = {"Invalid job id", "already completing",
                                        "already completed"};

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        if (strstr(buf_str(&said->errors), parts[i]))
            return true;
    return false;
}

static int print_cancelled(const char *id, bool was_gone, struct err *err)
{
    struct json *object = json_new(JSON_OBJECT);
    int rc = -1;

    if (json_set(object, "allocation", json_new_string(id), err) == 0 &&
        json_set(object, "state", json_new_string(was_gone ? "gone" : "cancelled"),
                 err) == 0)
        rc = print_line(object, err);
    json_free(object);
    return rc;
}

static int cancel_one(const char *id, struct err *err)
{
    /* verbose: only then it tells of jobs that had ended */
    const char *const argv[] = {"scancel", "--verbose", id, NULL};
    struct spawn_said said;
    const char *errors;
    int rc;

    if (launch_call(&said, argv, err) < 0) {
        if (err->code == ERR_NOT_FOUND)
            return err_set(
                err, ERR_UNSUPPORTED,
                "there is no scancel here: cancel on a machine of the cluster");
        return -1;
    }
    errors = buf_str(&said.errors);
    if (said.status == 0 || is_gone(&said))
        rc = print_cancelled(id, is_gone(&said), err);
    else if (strstr(errors, "ermission") || strstr(errors, "denied"))
        rc = err_set(err, ERR_DENIED, "allocation %s: %s", id, launch_complaint(&said));
    else
        rc = err_set(err, ERR_TIMEOUT, "allocation %s: %s", id, launch_complaint(&said));
    spawn_said_fini(&said);
    return rc;
}

static int run_cancel(const struct args *options, struct err *err)
{
    if (!options->n_words || options->has_rest)
        return err_set(err, ERR_INVALID, "usage: vneva-launch cancel slurm ID ...");
    for (int i = 0; i < options->n_words; i++) {
        const char *id = options->words[i];
        size_t n = strspn(id, "0123456789");

        if (id[n] || n == 0 || n >= MACHINES_ID_MAX)
            return err_set(err, ERR_INVALID,
                           "'%s' is no allocation; `vneva-launch list slurm` lists them",
                           id);
    }
    for (int i = 0; i < options->n_words; i++)
        if (cancel_one(options->words[i], err) < 0)
            return -1;
    return 0;
}

int cmd_cancel(int argc, char *const *argv)
{
    struct args options;
    struct err err;
    int rc = launch_parse(&options, NULL, NULL, argc, argv, &err);

    if (rc == 0 && options.wants_help) {
        fputs("usage: vneva-launch cancel slurm ID ...\n\nEnds allocations of agents.\n",
              stdout);
        return EXIT_DONE;
    }
    if (rc == 0)
        rc = run_cancel(&options, &err);
    return rc < 0 ? launch_fail(&err) : EXIT_DONE;
}
