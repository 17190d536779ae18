#include "coordinator/roles.h"
#include "common/base/buf.h"

#include <stdio.h>
#include <string.h>

/* Sets of roles, a bit each. */
#define NOBODY 0u
#define ADMIN (1u << KEY_ADMIN)
#define USER (ADMIN | 1u << KEY_USER)
#define AGENT (ADMIN | 1u << KEY_WORKER)
#define READER (USER | 1u << KEY_VIEWER)
#define ANYBODY (READER | AGENT)

/* A new message gets its line here: MAY_SEND_ and its name. */
#define MAY_SEND_SUBMIT USER
#define MAY_SEND_QUERY READER
#define MAY_SEND_CANCEL USER
#define MAY_SEND_HOLD USER
#define MAY_SEND_RELEASE USER
#define MAY_SEND_LOGS READER
#define MAY_SEND_SHUTDOWN ADMIN
#define MAY_SEND_PING ANYBODY /* tells an agent's machine that its key is good */
#define MAY_SEND_SELECT READER
#define MAY_SEND_POOL_ADD ADMIN /* they spend what others pay for */
#define MAY_SEND_POOL_REMOVE ADMIN
#define MAY_SEND_POOL_PAUSE ADMIN
#define MAY_SEND_POOL_RESUME ADMIN

#define MAY_SEND_REGISTER AGENT
#define MAY_SEND_HEARTBEAT AGENT
#define MAY_SEND_RANK_READY AGENT
#define MAY_SEND_RANK_EXIT AGENT
#define MAY_SEND_TASK_DONE AGENT
#define MAY_SEND_TASK_FAILED AGENT
#define MAY_SEND_PROGRESS AGENT
#define MAY_SEND_LOG AGENT
#define MAY_SEND_RANK_STAGE AGENT
#define MAY_SEND_AGENT_ENDING AGENT
#define MAY_SEND_AGENT_GONE AGENT

/* What a coordinator itself says. */
#define MAY_SEND_SUBMITTED NOBODY
#define MAY_SEND_ROWS NOBODY
#define MAY_SEND_LOG_CHUNK NOBODY
#define MAY_SEND_OK NOBODY
#define MAY_SEND_PONG NOBODY
#define MAY_SEND_ERROR NOBODY
#define MAY_SEND_REGISTERED NOBODY
#define MAY_SEND_UNKNOWN_AGENT NOBODY
#define MAY_SEND_ACK NOBODY
#define MAY_SEND_RANK_START NOBODY
#define MAY_SEND_PEERS NOBODY
#define MAY_SEND_TASK_START NOBODY
#define MAY_SEND_RANK_STOP NOBODY
#define MAY_SEND_RANK_DONE NOBODY
#define MAY_SEND_AGENT_STOP NOBODY
#define MAY_SEND_TABLE NOBODY

static const unsigned may_send[MSG_TYPE_COUNT] = {
#define MESSAGE(NAME, name, fields) [MSG_##NAME] = MAY_SEND_##NAME,
#include "common/wire/messages.def"
#undef MESSAGE
};

/* "admin, user or viewer" */
static void list_roles(struct buf *out, unsigned roles)
{
    for (int role = KEY_NONE; role < KEY_ROLE_COUNT; role++) {
        if (!(roles & 1u << role))
            continue;
        roles &= ~(1u << role);
        if (out->n_bytes)
            buf_add_str(out, roles ? ", " : " or ");
        buf_add_str(out, key_role_name((enum key_role)role));
    }
}

int roles_check(const struct net_peer *from, enum msg_type type, struct err *err)
{
    struct buf roles = BUF_INIT;

    if (may_send[type] & 1u << from->role)
        return 0;
    if (may_send[type] == NOBODY)
        return err_set(err, ERR_INVALID, "%s is not for a coordinator",
                       msg_type_name(type));
    list_roles(&roles, may_send[type]);
    err_set(err, ERR_DENIED, "%s takes a key of role %s; '%s' has role %s",
            msg_type_name(type), buf_str(&roles), from->key_name,
            key_role_name(from->role));
    buf_fini(&roles);
    return -1;
}

int roles_agent_name(char out[ROLES_AGENT_BYTES], const struct net_peer *from,
                     const char *name, struct err *err)
{
    bool is_worker = from->role != KEY_ADMIN;
    int n = snprintf(out, ROLES_AGENT_BYTES, "%s%s%s", name, is_worker ? "@" : "",
                     is_worker ? from->key_name : "");

    if (name[0] && n < ROLES_AGENT_BYTES)
        return 0;
    return err_set(err, ERR_INVALID, "an agent's name has 1 to %d bytes",
                   ROLES_AGENT_BYTES - 1 - (is_worker ? KEY_NAME_BYTES : 0));
}
