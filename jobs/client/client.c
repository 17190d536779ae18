#include "jobs/client/client.h"

#include "common/base/clock.h"
#include "common/base/utf8.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE_ROWS 10000
#define IPC "ipc://"

int client_init(struct client *client, const char *programs, const char *home,
                const char *endpoint, const char *key, struct err *err)
{
    const char *user_home = getenv("HOME");

    memset(client, 0, sizeof(*client));
    client->out = stdout;
    client->err = stderr;
    client->programs = programs;
    client->is_terminal = isatty(STDERR_FILENO) == 1;
    client->poll_ms = 500;
    client->plain_ms = 5000;
    if (home && *home) {
        if (fs_path(client->home, err, "%s", home) < 0)
            return -1;
    } else if (!user_home || !*user_home) {
        return err_set(err, ERR_INVALID, "neither VNEVA_HOME nor HOME is set");
    } else if (fs_path(client->home, err, "%s/.vneva", user_home) < 0) {
        return -1;
    }
    if (client->home[0] != '/') {
        char relative[FS_PATH_MAX], folder[FS_PATH_MAX];

        memcpy(relative, client->home, sizeof(relative));
        if (!getcwd(folder, sizeof(folder)))
            return err_set(err, ERR_IO, "cannot tell the current folder");
        if (fs_path(client->home, err, "%s/%s", folder, relative) < 0)
            return -1;
    }
    if (key && *key && fs_path(client->key_path, err, "%s", key) < 0)
        return -1;
    client->has_endpoint = endpoint && *endpoint;
    if (client->has_endpoint)
        return fs_path(client->endpoint, err, "%s", endpoint);
    return client->key_path[0] ? 0 : client_use_home(client, err);
}

int client_use_home(struct client *client, struct err *err)
{
    net_client_close(client->net);
    client->net = NULL;
    client->key_path[0] = '\0';
    return fs_path(client->endpoint, err, IPC "%s/coordinator.sock", client->home);
}

void client_fini(struct client *client)
{
    net_client_close(client->net);
    client->net = NULL;
}

int client_fail(struct client *client, const struct err *err)
{
    char text[sizeof(err->text)], *end;

    fflush(client->out);
    snprintf(text, sizeof(text), "%s", err->text);
    fputs("vneva: ", client->err);
    for (char *line = text; line; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        utf8_hide_controls(line); /* there are names in it that others gave */
        fprintf(client->err, "%s\n", line);
    }
    return err_asking_status(err);
}

int client_read_job(const char *word, int64_t *out, struct err *err)
{
    char *end;

    errno = 0;
    *out = strtoll(word, &end, 10);
    if (errno || end == word || *end || *out < 1)
        return err_set(
            err, ERR_INVALID,
            "expected the number of a job, got '%s'; `vneva status` lists them", word);
    return 0;
}

bool client_is_served(const struct client *client)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = client->endpoint + strlen(IPC);
    bool is_served;
    int fd;

    if (strncmp(client->endpoint, IPC, strlen(IPC)) != 0)
        return true; /* another machine: only asking tells */
    if (strlen(path) >= sizeof(address.sun_path))
        return false;
    memcpy(address.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true;
    is_served = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return is_served;
}

static int fail_nobody(const struct client *client, struct err *err)
{
    char elsewhere[KEY_ENDPOINT_BYTES];

    if (!client->has_endpoint && access(client->home, X_OK) < 0 && errno != ENOENT)
        return err_set(err, ERR_TIMEOUT,
                       "the home '%s' cannot be used: %s; set VNEVA_HOME to a folder of "
                       "your own, or VNEVA_KEY to a key for its coordinator",
                       client->home, strerror(errno));
    /* a launched job's: another must not be started in its home */
    if (!client->has_endpoint && keys_read_endpoint(elsewhere, client->home, NULL) == 0)
        return err_set(err, ERR_TIMEOUT,
                       "no coordinator answers at '%s'; the one of this home listens, or "
                       "did, at '%s': give a key for it with --key or in VNEVA_KEY",
                       client->endpoint, elsewhere);
    return err_set(err, ERR_TIMEOUT,
                   "no coordinator answers at '%s'; start one with `vneva up`",
                   client->endpoint);
}

/* The key is read when it is needed, so that what asks nobody works without it. */
static int connect_with_key(struct client *client, struct err *err)
{
    struct key key;
    int rc;

    if (key_read(&key, client->key_path, err) < 0)
        return -1;
    if (client->endpoint[0])
        rc = 0;
    else if (key.endpoint[0])
        rc = fs_path(client->endpoint, err, "%s", key.endpoint);
    else
        rc = err_set(err, ERR_INVALID,
                     "key file '%s' names no endpoint: say it in VNEVA_ENDPOINT",
                     client->key_path);
    if (rc == 0)
        rc = net_client_open(&client->net, client->endpoint, &key, err);
    key_fini(&key);
    return rc;
}

static int connect_client(struct client *client, struct err *err)
{
    if (client->net)
        return 0;
    if (client->key_path[0] && strncmp(client->endpoint, IPC, strlen(IPC)) != 0)
        return connect_with_key(client, err);
    return net_client_open(&client->net, client->endpoint, NULL, err);
}

int client_call_within(struct client *client, struct wire *request, struct wire *reply,
                       int64_t timeout_ms, struct err *err)
{
    if (!client_is_served(client))
        return fail_nobody(client, err);
    if (connect_client(client, err) < 0)
        return -1;
    return net_client_call(client->net, request, reply, timeout_ms, err);
}

int client_call(struct client *client, struct wire *request, struct wire *reply,
                struct err *err)
{
    return client_call_within(client, request, reply, CLIENT_CALL_MS, err);
}

int client_query(struct client *client, struct json **rows, const char *view, int64_t job,
                 int64_t since, int64_t limit, struct err *err)
{
    struct wire request = {.type = MSG_QUERY}, reply = {.type = MSG_NONE};
    int rc;

    *rows = NULL;
    request.query.view = view;
    request.query.job = job;
    request.query.since = since;
    request.query.limit = limit;
    if (client_call(client, &request, &reply, err) < 0)
        return -1;
    if (reply.type != MSG_ROWS)
        rc = err_set(err, ERR_PEER, "the coordinator answers %s to a query",
                     msg_type_name(reply.type));
    else
        rc = json_parse(rows, reply.rows.json, strlen(reply.rows.json), err);
    wire_fini(&reply);
    if (rc == 0 && json_type(*rows) != JSON_ARRAY) {
        json_free(*rows);
        rc = err_set(err, ERR_PEER, "the coordinator's rows are no list");
    }
    return rc;
}

int client_get_job(struct client *client, struct json **row, int64_t job, struct err *err)
{
    struct json *rows = NULL;

    *row = NULL;
    if (client_query(client, &rows, "job", job, 0, 0, err) < 0)
        return -1;
    if (json_count(rows) == 0) {
        err_set(err, ERR_NOT_FOUND, "no job %lld", (long long)job);
    } else {
        *row = json_clone(json_at(rows, 0));
        if (!*row)
            err_set(err, ERR_NOMEM, "out of memory in a job's row");
    }
    json_free(rows);
    return *row ? 0 : -1;
}

int client_query_all(struct client *client, struct json **rows, const char *view,
                     int64_t job, int64_t since, struct err *err)
{
    struct json *all = json_new(JSON_ARRAY), *page = NULL;
    size_t n;

    do {
        if (!all || client_query(client, &page, view, job, since, PAGE_ROWS, err) < 0) {
            json_free(all);
            return -1;
        }
        n = json_count(page);
        for (size_t i = 0; i < n; i++) {
            since = json_get_int(json_at(page, i), "id", since);
            if (json_append(all, json_clone(json_at(page, i)), err) < 0) {
                json_free(page);
                json_free(all);
                return -1;
            }
        }
        json_free(page);
    } while (n == PAGE_ROWS);
    *rows = all;
    return 0;
}

/* ---- questions about the views ---- */

/* Takes a part over; 1: it was the last. */
static int take_part(struct wire *reply,
                     int (*each)(void *state, const struct json *part, struct err *err),
                     void *state, struct err *err)
{
    struct json *part = NULL;
    int rc = reply->table.is_last ? 1 : 0;

    if (reply->type != MSG_TABLE)
        rc = err_set(err, ERR_PEER, "the coordinator answers %s to a question",
                     msg_type_name(reply->type));
    else if (json_parse(&part, reply->table.json, strlen(reply->table.json), err) < 0 ||
             each(state, part, err) < 0)
        rc = -1;
    json_free(part);
    wire_fini(reply);
    return rc;
}

int client_select(struct client *client, const struct msg_select *question,
                  int (*each)(void *state, const struct json *part, struct err *err),
                  void *state, struct err *err)
{
    struct wire request = {.type = MSG_SELECT, .select = *question};
    struct wire reply = {.type = MSG_NONE};
    int rc;

    if (client_call(client, &request, &reply, err) < 0)
        return -1;
    while ((rc = take_part(&reply, each, state, err)) == 0)
        if (net_client_await(client->net, request.sequence, &reply, CLIENT_CALL_MS, err) <
            0)
            return -1;
    return rc < 0 ? -1 : 0;
}

static int add_objects(void *state, const struct json *part, struct err *err)
{
    const struct json *columns = json_get(part, "columns"),
                      *rows = json_get(part, "rows");
    struct json *list = state;

    for (size_t r = 0; r < json_count(rows); r++) {
        struct json *object = json_new(JSON_OBJECT);

        for (size_t c = 0; c < json_count(columns); c++) {
            const char *name = json_get_string(json_at(columns, c), "name");

            if (json_set(object, name ? name : "",
                         json_clone(json_at(json_at(rows, r), c)), err) < 0) {
                json_free(object);
                return -1;
            }
        }
        if (json_append(list, object, err) < 0)
            return -1;
    }
    return 0;
}

static int select_objects(struct client *client, struct json **rows,
                          const struct msg_select *question, struct err *err)
{
    *rows = json_new(JSON_ARRAY);
    if (*rows && client_select(client, question, add_objects, *rows, err) == 0)
        return 0;
    if (!*rows)
        err_set(err, ERR_NOMEM, "no memory for rows");
    json_free(*rows);
    *rows = NULL;
    return -1;
}

int client_select_rows(struct client *client, struct json **rows, const char *view,
                       const char *where, const char *columns, const char *sort,
                       int64_t limit, struct err *err)
{
    struct msg_select question = {.sql = "",
                                  .view = view,
                                  .where = where ? where : "[]",
                                  .columns = columns ? columns : "",
                                  .sort = sort ? sort : "",
                                  .limit = limit};

    return select_objects(client, rows, &question, err);
}

int client_select_sql(struct client *client, struct json **rows, const char *sql,
                      struct err *err)
{
    struct msg_select question = {
        .sql = sql, .view = "", .where = "[]", .columns = "", .sort = ""};

    return select_objects(client, rows, &question, err);
}

/* ---- waiting ---- */

/* Interrupts are blocked and waited for, so that no handler is needed. */
static sigset_t interrupts(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

void client_catch_interrupt(void)
{
    sigset_t set = interrupts();

    sigprocmask(SIG_BLOCK, &set, NULL);
}

bool client_pause(int64_t ms)
{
    sigset_t set = interrupts();
    struct timespec time = {ms / 1000, (ms % 1000) * 1000000};

    return sigtimedwait(&set, NULL, &time) > 0;
}

void client_print_json(struct client *client, const struct json *json)
{
    struct buf text = BUF_INIT;

    json_write(&text, json, 2);
    fprintf(client->out, "%s\n", buf_str(&text));
    buf_fini(&text);
}

bool is_job_ended(const char *state)
{
    return state && (strcmp(state, "done") == 0 || strcmp(state, "failed") == 0 ||
                     strcmp(state, "cancelled") == 0);
}
