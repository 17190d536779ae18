/* vneva pool: nodes of a cluster that come while tasks wait, and go. docs/cluster.md. */
#include "common/base/clock.h"
#include "jobs/client/client.h"
#include "jobs/client/format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_DEFAULT "5m"
#define POOLS_MAX 1000
#define WHERE_MAX 256
#define GPUS_MAX 64
#define DEVICES_MAX 64

/* Options that go on to `vneva-launch` as they are. */
static const char *const passed_on[] = {"devices", "partition", "time", "container-image",
                                        "container-mounts"};

/* ---- add ---- */

/* "0-4" */
static int read_nodes(const struct args *args, struct msg_pool_add *add, struct err *err)
{
    const char *text = args_value(args, "nodes");
    char *end;

    if (!text)
        return err_set(err, ERR_INVALID,
                       "how many nodes? --nodes MIN-MAX, as in --nodes 0-4");
    errno = 0;
    add->min_nodes = strtoll(text, &end, 10);
    if (end == text || *end != '-' || end[1] < '0' || end[1] > '9')
        return err_set(err, ERR_INVALID, "--nodes takes MIN-MAX, as 0-4, not '%s'", text);
    text = end + 1;
    add->max_nodes = strtoll(text, &end, 10);
    if (*end || errno)
        return err_set(err, ERR_INVALID, "--nodes takes MIN-MAX, as 0-4, not '%s'",
                       args_value(args, "nodes"));
    return 0;
}

/* "90s", "5m", "2h", "1d" */
static int read_idle(const struct args *args, struct msg_pool_add *add, struct err *err)
{
    const char *text = args_value(args, "idle");

    text = text ? text : IDLE_DEFAULT;
    if (clock_read_duration(&add->idle_ms, text, 0))
        return 0;
    return err_set(err, ERR_INVALID, "--idle takes a time as 90s, 5m, 2h, not '%s'",
                   text);
}

static void add_word(struct buf *out, const char *word)
{
    if (out->n_bytes > 1)
        buf_add_char(out, ',');
    json_write_string(out, word, strlen(word));
}

/* What the launcher gets: options of its own, and those behind "--" for sbatch. */
static int list_options(struct buf *out, const struct args *args, struct err *err)
{
    char option[32];

    buf_add_char(out, '[');
    for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++) {
        const char *value = args_value(args, passed_on[i]);

        if (!value)
            continue;
        snprintf(option, sizeof(option), "--%s", passed_on[i]);
        add_word(out, option);
        add_word(out, value);
    }
    if (args->n_words > 2)
        add_word(out, "--");
    for (int i = 2; i < args->n_words; i++) {
        if (args->words[i][0] != '-' && args->words[i - 1][0] != '-')
            return err_set(err, ERR_INVALID,
                           "'%s' is not expected here; options of sbatch go behind --",
                           args->words[i]);
        add_word(out, args->words[i]);
    }
    buf_add_char(out, ']');
    return buf_check(out, err);
}

static int ask(struct client *client, struct wire *request, struct err *err)
{
    struct wire reply = {.type = MSG_NONE};

    if (client_call(client, request, &reply, err) < 0)
        return -1;
    wire_fini(&reply);
    return 0;
}

static int fill_add(struct msg_pool_add *add, const struct args *args,
                    struct buf *options, struct err *err)
{
    const char *name = args_value(args, "name");
    int64_t devices;

    if (args->n_words < 2 || strcmp(args->words[1], "slurm") != 0)
        return err_set(
            err, ERR_INVALID,
            "usage: vneva pool add slurm --nodes MIN-MAX [options] [-- options "
            "of sbatch]");
    add->manager = args->words[1];
    add->name = name ? name : add->manager;
    if (read_nodes(args, add, err) < 0 || read_idle(args, add, err) < 0 ||
        args_int(args, "gpus-per-node", 1, GPUS_MAX, 0, &add->gpus_per_node, err) < 0 ||
        args_int(args, "devices", 1, DEVICES_MAX, 0, &devices, err) < 0 ||
        list_options(options, args, err) < 0)
        return -1;
    add->options = buf_str(options);
    return 0;
}

static int pool_add(struct client *client, const struct args *args)
{
    struct wire request = {.type = MSG_POOL_ADD};
    struct buf options = BUF_INIT;
    struct err err;
    int status = EXIT_DONE;

    if (fill_add(&request.pool_add, args, &options, &err) < 0 ||
        ask(client, &request, &err) < 0)
        status = client_fail(client, &err);
    else
        fprintf(client->out, "pool %s is added\n", request.pool_add.name);
    buf_fini(&options);
    return status;
}

/* ---- list and status ---- */

static void cell_nodes(struct buf *out, const struct json *row)
{
    buf_printf(out, "%" PRId64 "-%" PRId64, json_get_int(row, "min_nodes", 0),
               json_get_int(row, "max_nodes", 0));
}

static void cell_idle(struct buf *out, const struct json *row)
{
    format_duration(out, json_get_int(row, "idle_ms", 0));
}

/* In its state; of an allocation that runs or waits. */
static void cell_since(struct buf *out, const struct json *row)
{
    int64_t ms = json_get_int(row, "started_ms", json_get_int(row, "submitted_ms", 0));

    if (ms > 0)
        format_duration(out, clock_wall_ms() - ms);
}

static int ask_rows(struct client *client, struct json **rows, const char *view,
                    const char *where, struct err *err)
{
    return client_select_rows(client, rows, view, where, NULL, NULL, POOLS_MAX, err);
}

static int ask_pools(struct client *client, const char *name, struct json **rows,
                     struct err *err)
{
    struct buf where = BUF_INIT, word = BUF_INIT;
    int rc;

    buf_printf(&word, "name=%s", name ? name : "");
    buf_add_char(&where, '[');
    if (name)
        json_write_string(&where, buf_str(&word), word.n_bytes);
    buf_add_char(&where, ']');
    rc = ask_rows(client, rows, "pools", buf_str(&where), err);
    buf_fini(&where);
    buf_fini(&word);
    if (rc < 0 || !name || json_count(*rows))
        return rc;
    json_free(*rows);
    *rows = NULL;
    return err_set(err, ERR_NOT_FOUND, "no pool '%s'; `vneva pool list` lists them",
                   name);
}

static int pool_list(struct client *client, const struct args *args)
{
    static const struct table_column columns[] = {
        {"POOL", "name", NULL, false},        {"MANAGER", "manager", NULL, false},
        {"STATE", "state", NULL, false},      {"NODES", NULL, cell_nodes, true},
        {"RUNNING", "n_running", NULL, true}, {"PENDING", "n_pending", NULL, true},
        {"DEVICES", "n_devices", NULL, true}, {"IDLE", NULL, cell_idle, true},
    };
    struct json *rows;
    struct err err;

    if (ask_pools(client, NULL, &rows, &err) < 0)
        return client_fail(client, &err);
    if (args_has(args, "json"))
        client_print_json(client, rows);
    else if (json_count(rows) == 0)
        fputs("no pools\n", client->out);
    else
        table_print(client->out, rows, columns, 8);
    json_free(rows);
    return EXIT_DONE;
}

static int ask_allocations(struct client *client, struct json *pool, struct err *err)
{
    char where[WHERE_MAX];
    struct json *rows;

    snprintf(where, sizeof(where), "[\"pool=%s\",\"state!=ended\"]",
             json_get_string(pool, "name"));
    if (ask_rows(client, &rows, "allocations", where, err) < 0)
        return -1;
    return json_set(pool, "allocations", rows, err);
}

static void print_status(struct client *client, const struct json *pool)
{
    static const char *const sentences[] = {"submits", "keeps", "cancels", "ends"};
    static const struct table_column columns[] = {
        {"ALLOCATION", "allocation", NULL, true}, {"STATE", "state", NULL, false},
        {"FOR", NULL, cell_since, true},          {"HOST", "host", NULL, false},
        {"BUSY", "n_busy", NULL, true},           {"REASON", "reason", NULL, false},
    };
    struct buf text = BUF_INIT;

    buf_printf(&text, "pool %s is %s: ", json_get_string(pool, "name"),
               json_get_string(pool, "state"));
    cell_nodes(&text, pool);
    buf_add_str(&text, " nodes, which may be idle for ");
    cell_idle(&text, pool);
    fprintf(client->out, "%s\n", buf_str(&text));
    for (size_t i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++) {
        const char *sentence = json_get_string(pool, sentences[i]);

        if (sentence && *sentence)
            fprintf(client->out, "  %s\n", sentence);
    }
    if (json_count(json_get(pool, "allocations")))
        table_print(client->out, json_get(pool, "allocations"), columns, 6);
    buf_fini(&text);
}

static int pool_status(struct client *client, const struct args *args)
{
    const char *name = args->n_words > 1 ? args->words[1] : NULL;
    struct json *rows = NULL;
    struct err err;
    int rc = ask_pools(client, name, &rows, &err);

    for (size_t i = 0; rc == 0 && i < json_count(rows); i++)
        rc = ask_allocations(client, json_at(rows, i), &err);
    if (rc == 0 && args_has(args, "json"))
        client_print_json(client, rows);
    else if (rc == 0 && json_count(rows) == 0)
        fputs("no pools\n", client->out);
    else
        for (size_t i = 0; rc == 0 && i < json_count(rows); i++)
            print_status(client, json_at(rows, i));
    json_free(rows);
    return rc < 0 ? client_fail(client, &err) : EXIT_DONE;
}

/* ---- wishes ---- */

static int wish(struct client *client, const struct args *args, enum msg_type type,
                const char *done)
{
    const char *name = args->n_words > 1 ? args->words[1] : NULL;
    struct wire request = {.type = type};
    struct err err;

    if (!name || args->n_words > 2)
        err_set(&err, ERR_INVALID, "usage: vneva pool %s NAME", args->words[0]);
    if (!name || args->n_words > 2)
        return client_fail(client, &err);
    if (type == MSG_POOL_REMOVE)
        request.pool_remove.name = name;
    else if (type == MSG_POOL_PAUSE)
        request.pool_pause.name = name;
    else
        request.pool_resume.name = name;
    if (ask(client, &request, &err) < 0)
        return client_fail(client, &err);
    fprintf(client->out, "pool %s %s\n", name, done);
    return EXIT_DONE;
}

static int pool_remove(struct client *client, const struct args *args)
{
    return wish(client, args, MSG_POOL_REMOVE, "is being removed");
}

static int pool_pause(struct client *client, const struct args *args)
{
    return wish(client, args, MSG_POOL_PAUSE, "is paused");
}

static int pool_resume(struct client *client, const struct args *args)
{
    return wish(client, args, MSG_POOL_RESUME, "goes on");
}

int cmd_pool(struct client *client, const struct args *args)
{
    static const struct {
        const char *name;
        int (*run)(struct client *client, const struct args *args);
    } commands[] = {{"add", pool_add},       {"list", pool_list},
                    {"status", pool_status}, {"remove", pool_remove},
                    {"pause", pool_pause},   {"resume", pool_resume}};
    struct err err;

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(args->words[0], commands[i].name) == 0)
            return commands[i].run(client, args);
    err_set(&err, ERR_INVALID,
            "no pool command '%s'; there are add, list, status, remove, pause, resume",
            args->words[0]);
    return client_fail(client, &err);
}
