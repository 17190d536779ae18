#include "fake_coordinator.h"

#include "common/base/fs.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS 20

struct fake {
    const struct fake_rule *rules;
    int given[32]; /* answers of each rule so far */
    struct net_server *server;
    char home[64];
    pthread_t thread;
    atomic_bool is_over;
    struct wire asked[FAKE_ASKED_MAX];
    atomic_int n_asked;
};

static const char *view_of(const struct wire *request)
{
    return request->type == MSG_SELECT ? request->select.view : request->query.view;
}

static const struct fake_rule *find_rule(struct fake *fake, const struct wire *request)
{
    for (int i = 0; fake->rules[i].type != MSG_NONE; i++) {
        const struct fake_rule *rule = &fake->rules[i];

        if (rule->type != request->type ||
            (rule->view && strcmp(rule->view, view_of(request)) != 0) ||
            (rule->times && fake->given[i] == rule->times))
            continue;
        fake->given[i]++;
        return rule;
    }
    return NULL;
}

static void fill_answer(struct wire *answer, const struct fake_rule *rule,
                        const struct wire *request)
{
    const char *text = rule && rule->text ? rule->text : "";

    answer->type = rule ? rule->answer : MSG_ERROR;
    answer->reply_to = request->sequence;
    switch (answer->type) {
    case MSG_ROWS:
        answer->rows.json = text;
        break;
    case MSG_TABLE:
        answer->table.json = text;
        answer->table.is_last = 1;
        break;
    case MSG_OK:
        answer->ok.text = text;
        break;
    case MSG_PONG:
        answer->pong.version = "test";
        break;
    case MSG_SUBMITTED:
        answer->submitted.job = rule->a;
        answer->submitted.is_new = rule->b;
        break;
    case MSG_LOG_CHUNK:
        answer->log_chunk.data = (struct wire_bytes){text, strlen(text)};
        answer->log_chunk.attempt = rule->a;
        answer->log_chunk.next = request->logs.offset + (int64_t)strlen(text);
        answer->log_chunk.is_end = rule->b;
        break;
    default:
        answer->error.code = rule ? rule->code : "invalid";
        answer->error.text = rule ? text : "the test has no rule for this";
    }
}

static void *serve(void *state)
{
    struct fake *fake = state;

    while (!atomic_load(&fake->is_over)) {
        struct wire request, answer = {.type = MSG_NONE};
        struct net_peer from;
        int n = atomic_load(&fake->n_asked);

        if (net_server_receive(fake->server, &from, &request, POLL_MS, NULL) != 1)
            continue;
        fill_answer(&answer, find_rule(fake, &request), &request);
        if (n < FAKE_ASKED_MAX) {
            fake->asked[n] = request;
            atomic_store(&fake->n_asked, n + 1);
        } else {
            wire_fini(&request);
        }
        net_server_send(fake->server, &from, &answer, NULL);
    }
    return NULL;
}

struct fake *fake_start(const struct fake_rule *rules)
{
    struct fake *fake = calloc(1, sizeof(*fake));
    char endpoint[128];
    struct err err;

    if (!fake)
        return NULL;
    fake->rules = rules;
    strcpy(fake->home, "/tmp/vneva-client-XXXXXX");
    if (!mkdtemp(fake->home)) {
        free(fake);
        return NULL;
    }
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/coordinator.sock", fake->home);
    if (net_server_open(&fake->server, endpoint, &err) < 0 ||
        pthread_create(&fake->thread, NULL, serve, fake) != 0) {
        fprintf(stderr, "%s\n", err.text);
        net_server_close(fake->server);
        free(fake);
        return NULL;
    }
    return fake;
}

void fake_stop(struct fake *fake)
{
    if (!fake)
        return;
    atomic_store(&fake->is_over, true);
    pthread_join(fake->thread, NULL);
    net_server_close(fake->server);
    for (int i = 0; i < atomic_load(&fake->n_asked); i++)
        wire_fini(&fake->asked[i]);
    fs_remove_tree(fake->home, NULL);
    free(fake);
}

const char *fake_home(const struct fake *fake)
{
    return fake->home;
}

const struct wire *fake_asked(const struct fake *fake, int n)
{
    return n < atomic_load(&fake->n_asked) ? &fake->asked[n] : NULL;
}

struct said client_says(const char *home, const char *const *words)
{
    struct said said = {-1, NULL, NULL};
    struct client client;
    size_t n_out, n_err;
    int argc = 0;

    while (words[argc])
        argc++;
    if (client_init(&client, "/nonexistent", home, NULL, NULL, NULL) < 0)
        return said;
    client.out = open_memstream(&said.out, &n_out);
    client.err = open_memstream(&said.err, &n_err);
    client.is_terminal = false;
    client.poll_ms = 5;
    client.plain_ms = 0;
    said.status = client_run(&client, argc, (char *const *)words);
    client_fini(&client);
    fclose(client.out);
    fclose(client.err);
    return said;
}

void said_fini(struct said *said)
{
    free(said->out);
    free(said->err);
}
