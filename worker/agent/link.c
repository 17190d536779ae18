/* The states of the link:
 *
 *     unregistered --REGISTER sent--> registering --REGISTERED--> registered
 *     registering --no answer in LINK_ANSWER_MS--> unregistered (pause doubles)
 *     registered --UNKNOWN_AGENT--> unregistered (at once)
 *     any --the connection broke and there is a new one--> unregistered (at once)
 *
 * Durable messages go out in `registered` only, so none reaches a coordinator that would
 * refuse it for not knowing its sender.
 */
#include "worker/agent/link.h"

#include "common/base/log.h"
#include "common/net/net.h"
#include "worker/agent/spool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum link_state { LINK_UNREGISTERED, LINK_REGISTERING, LINK_REGISTERED };

struct link {
    const struct link_config *config;
    struct net_client *client;
    struct spool *spool;
    enum link_state state;
    int64_t due_ms; /* of the next try, the answer, or the next heartbeat, by state */
    int64_t pause_ms, heartbeat_ms;
    struct wire *backlog; /* [LINK_BACKLOG_MAX] */
    int n_backlog;
    int64_t n_lost; /* reports that found the backlog full */
    bool was_registered;
    struct err refusal; /* of the first registration; ERR_NONE: none */
};

int link_open(struct link **out, const struct link_config *config, struct err *err)
{
    struct link *link = calloc(1, sizeof(*link));

    if (!link)
        return err_set(err, ERR_NOMEM, "cannot allocate the coordinator link");
    link->config = config;
    link->pause_ms = LINK_BACKOFF_FIRST_MS;
    link->backlog = calloc(LINK_BACKLOG_MAX, sizeof(*link->backlog));
    if (!link->backlog) {
        err_set(err, ERR_NOMEM, "cannot allocate the coordinator link");
        goto fail;
    }
    if (spool_create(&link->spool, err) < 0 ||
        net_client_open(&link->client, config->endpoint, config->key, err) < 0)
        goto fail;
    *out = link;
    return 0;
fail:
    link_close(link);
    return -1;
}

void link_close(struct link *link)
{
    if (!link)
        return;
    for (int i = 0; i < link->n_backlog; i++)
        wire_fini(&link->backlog[i]);
    free(link->backlog);
    spool_destroy(link->spool);
    if (link->client)
        net_client_close(link->client);
    free(link);
}

int link_fd(struct link *link)
{
    return link->client ? net_client_fd(link->client) : -1;
}

bool link_is_registered(const struct link *link)
{
    return link->state == LINK_REGISTERED;
}

/* Sends and says whether it went out; a full socket is no reason to stop. */
static bool link_try_send(struct link *link, struct wire *message)
{
    struct err err = {0};

    if (link->client && net_client_send(link->client, message, &err) == 0)
        return true;
    log_warn("cannot send %s: %s", msg_type_name(message->type), err.text);
    return false;
}

/* ---- what comes in ---- */

static void link_flush_backlog(struct link *link)
{
    for (int i = 0; i < link->n_backlog; i++) {
        link_try_send(link, &link->backlog[i]);
        wire_fini(&link->backlog[i]);
    }
    link->n_backlog = 0;
    if (link->n_lost)
        log_warn("%" PRId64 " reports were lost while no coordinator answered",
                 link->n_lost);
    link->n_lost = 0;
}

static void link_take_registered(struct link *link, const struct msg_registered *answer,
                                 int64_t now_ms)
{
    link->state = LINK_REGISTERED;
    link->was_registered = true;
    link->pause_ms = LINK_BACKOFF_FIRST_MS;
    link->heartbeat_ms = answer->heartbeat_ms > 0 ? answer->heartbeat_ms : 1000;
    link->due_ms = now_ms + link->heartbeat_ms;
    log_info("registered at %s", link->config->endpoint);
    link->config->on_registered(link->config->state);
    link_flush_backlog(link);
    spool_mark_all_unsent(link->spool);
}

/* A durable message that is refused will not be taken the next time either. */
static void link_take_error(struct link *link, const struct wire *message)
{
    enum msg_type type = spool_remove(link->spool, message->reply_to);

    if (type != MSG_NONE)
        log_warn("%s refused: %s (%s)", msg_type_name(type), message->error.text,
                 message->error.code);
    else
        log_warn("the coordinator says: %s (%s)", message->error.text,
                 message->error.code);
    if (link->state == LINK_REGISTERING && !link->was_registered &&
        strcmp(message->error.code, err_code_name(ERR_DENIED)) == 0)
        err_set(&link->refusal, ERR_DENIED, "%s", message->error.text);
}

/* True when the message was the link's own business. */
static bool link_handle(struct link *link, const struct wire *message, int64_t now_ms)
{
    switch (message->type) {
    case MSG_REGISTERED:
        if (link->state == LINK_REGISTERING)
            link_take_registered(link, &message->registered, now_ms);
        return true;
    case MSG_UNKNOWN_AGENT:
        if (link->state == LINK_REGISTERED) {
            log_warn("the coordinator does not know this agent: registering again");
            link->state = LINK_UNREGISTERED;
            link->due_ms = now_ms;
        }
        return true;
    case MSG_ACK:
        spool_remove(link->spool, (uint64_t)message->ack.acked);
        return true;
    case MSG_ERROR:
        link_take_error(link, message);
        return true;
    default:
        return false;
    }
}

static void link_check_connection(struct link *link, int64_t now_ms)
{
    if (!net_client_take_break(link->client) || link->state == LINK_UNREGISTERED)
        return;
    log_warn("the connection to the coordinator broke and is there again");
    link->state = LINK_UNREGISTERED;
    link->due_ms = now_ms;
}

int link_receive(struct link *link, struct wire *message, int64_t now_ms, struct err *err)
{
    int rc = 0;

    if (link->client)
        link_check_connection(link, now_ms);
    while (link->client && (rc = net_client_receive(link->client, message, 0, err)) > 0) {
        if (!link_handle(link, message, now_ms))
            return 1;
        wire_fini(message);
    }
    return rc;
}

/* ---- what goes out ---- */

void link_report(struct link *link, struct wire *message)
{
    if (link->state == LINK_REGISTERED) {
        link_try_send(link, message);
        wire_fini(message);
    } else if (link->n_backlog < LINK_BACKLOG_MAX) {
        link->backlog[link->n_backlog++] = *message;
    } else {
        link->n_lost++;
        wire_fini(message);
    }
}

int link_put(struct link *link, struct wire *message, struct err *err)
{
    return spool_put(link->spool, message, err);
}

int link_check_refused(const struct link *link, struct err *err)
{
    if (link->refusal.code == ERR_NONE)
        return 0;
    *err = link->refusal;
    return -1;
}

bool link_is_full(const struct link *link)
{
    return spool_is_full(link->spool);
}

int link_n_waiting(const struct link *link)
{
    return spool_count(link->spool);
}

const struct wire *link_waiting_at(const struct link *link, int i)
{
    return spool_at(link->spool, i);
}

static void link_register(struct link *link, int64_t now_ms)
{
    const struct link_config *config = link->config;
    struct buf running = BUF_INIT;
    struct wire message = {.type = MSG_REGISTER};

    config->list_running(config->state, &running);
    message.registration = (struct msg_registration){
        .agent = config->agent,
        .host = config->host,
        .pid = getpid(),
        .n_devices = config->n_devices,
        .device_kind = config->device_kind,
        .memory_bytes = config->memory_bytes,
        .version = config->version,
        .running = buf_str(&running),
        .pool = config->pool,
        .allocation = config->allocation,
    };
    link_try_send(link, &message);
    buf_fini(&running);
    link->state = LINK_REGISTERING;
    link->due_ms = now_ms + LINK_ANSWER_MS;
}

/* A new socket, so that requests nobody read do not pile up in the old one. */
static void link_give_up_try(struct link *link, int64_t now_ms)
{
    struct err err = {0};

    if (link->client && net_client_check_refused(link->client, &err) < 0)
        log_warn("%s; trying again", err.text);
    else
        log_info("no coordinator answers at %s, trying again", link->config->endpoint);
    net_client_close(link->client);
    link->client = NULL;
    if (net_client_open(&link->client, link->config->endpoint, link->config->key, &err) <
        0)
        log_warn("%s", err.text);
    link->state = LINK_UNREGISTERED;
    link->due_ms = now_ms + link->pause_ms;
    link->pause_ms *= 2;
    if (link->pause_ms > LINK_BACKOFF_MAX_MS)
        link->pause_ms = LINK_BACKOFF_MAX_MS;
}

static void link_send_durable(struct link *link, int64_t now_ms)
{
    struct wire *message;

    while ((message = spool_next_unsent(link->spool, now_ms - LINK_RESEND_MS))) {
        if (!link_try_send(link, message))
            return;
        spool_mark_sent(link->spool, message, now_ms);
    }
}

void link_tick(struct link *link, int64_t now_ms)
{
    if (link->state == LINK_REGISTERING && now_ms >= link->due_ms)
        link_give_up_try(link, now_ms);
    if (link->state == LINK_UNREGISTERED && now_ms >= link->due_ms)
        link_register(link, now_ms);
    if (link->state != LINK_REGISTERED)
        return;
    if (now_ms >= link->due_ms) {
        struct wire beat = {.type = MSG_HEARTBEAT, .heartbeat = {link->config->agent}};

        link_try_send(link, &beat);
        link->due_ms = now_ms + link->heartbeat_ms;
        link->config->on_heartbeat(link->config->state);
    }
    link_send_durable(link, now_ms);
}

int64_t link_next_ms(const struct link *link, int64_t now_ms)
{
    return link->due_ms > now_ms ? link->due_ms : now_ms;
}
