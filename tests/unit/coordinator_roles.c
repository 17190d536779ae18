/* Which role may send which message, written down a second time. */
#include "coordinator/roles.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const enum msg_type asks[] = {MSG_QUERY, MSG_SELECT, MSG_LOGS};
static const enum msg_type wishes[] = {MSG_SUBMIT, MSG_CANCEL, MSG_HOLD, MSG_RELEASE};
static const enum msg_type reports[] = {MSG_REGISTER,     MSG_HEARTBEAT, MSG_RANK_READY,
                                        MSG_RANK_EXIT,    MSG_TASK_DONE, MSG_TASK_FAILED,
                                        MSG_PROGRESS,     MSG_LOG,       MSG_RANK_STAGE,
                                        MSG_AGENT_ENDING, MSG_AGENT_GONE};
static const enum msg_type answers[] = {
    MSG_SUBMITTED,  MSG_ROWS,      MSG_LOG_CHUNK,  MSG_OK,    MSG_PONG,
    MSG_ERROR,      MSG_ACK,       MSG_REGISTERED, MSG_PEERS, MSG_UNKNOWN_AGENT,
    MSG_RANK_START, MSG_TABLE,     MSG_TASK_START, MSG_NONE,  MSG_RANK_STOP,
    MSG_RANK_DONE,  MSG_AGENT_STOP};

#define HAS(list, type) has(list, sizeof(list) / sizeof((list)[0]), type)

static bool has(const enum msg_type *list, size_t n, enum msg_type type)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == type)
            return true;
    return false;
}

static bool may(enum key_role role, enum msg_type type)
{
    if (role == KEY_NONE || role == KEY_COORDINATOR || HAS(answers, type))
        return false;
    if (role == KEY_ADMIN || type == MSG_PING)
        return true;
    if (role == KEY_WORKER)
        return HAS(reports, type);
    return HAS(asks, type) || (role == KEY_USER && HAS(wishes, type));
}

static struct net_peer peer_of(enum key_role role)
{
    struct net_peer peer = {.role = role, .key_name = "eve", .public_key = "k"};

    return peer;
}

static void every_message_is_for_the_roles_that_need_it(void **state)
{
    (void)state;
    for (int role = 0; role < KEY_ROLE_COUNT; role++)
        for (int type = 0; type < MSG_TYPE_COUNT; type++) {
            struct net_peer peer = peer_of((enum key_role)role);
            struct err err = {ERR_NONE, ""};
            bool is_fine = roles_check(&peer, (enum msg_type)type, &err) == 0;

            if (is_fine != may((enum key_role)role, (enum msg_type)type))
                fail_msg("%s may%s send %s", key_role_name((enum key_role)role),
                         is_fine ? "" : " not", msg_type_name((enum msg_type)type));
            if (!is_fine)
                assert_int_equal(err.code, HAS(answers, (enum msg_type)type)
                                               ? ERR_INVALID
                                               : ERR_DENIED);
        }
}

static void refusal_says_which_role_it_takes_and_who_has_which(void **state)
{
    struct net_peer peer = peer_of(KEY_VIEWER);
    struct err err;

    (void)state;
    assert_int_equal(roles_check(&peer, MSG_SUBMIT, &err), -1);
    assert_string_equal(
        err.text, "SUBMIT takes a key of role admin or user; 'eve' has role viewer");
    peer.role = KEY_WORKER;
    assert_int_equal(roles_check(&peer, MSG_QUERY, &err), -1);
    assert_string_equal(err.text,
                        "QUERY takes a key of role admin, user or viewer; 'eve' "
                        "has role worker");
}

static void agent_of_a_workers_key_is_no_other_keys(void **state)
{
    struct net_peer worker = peer_of(KEY_WORKER), other = worker, admin = {0};
    char name[ROLES_AGENT_BYTES], same[ROLES_AGENT_BYTES], long_name[300];
    struct err err;

    (void)state;
    strcpy(other.key_name, "mallory");
    admin.role = KEY_ADMIN;
    assert_int_equal(roles_agent_name(name, &worker, "node1-77", &err), 0);
    assert_string_equal(name, "node1-77@eve");
    assert_int_equal(roles_agent_name(same, &other, "node1-77@eve", &err), 0);
    assert_string_not_equal(name, same);
    assert_int_equal(roles_agent_name(name, &admin, "node1-77", &err), 0);
    assert_string_equal(name, "node1-77");
    assert_int_equal(roles_agent_name(name, &worker, "", &err), -1);
    memset(long_name, 'n', sizeof(long_name));
    long_name[ROLES_AGENT_BYTES - 1 - strlen("@eve")] = '\0';
    assert_int_equal(roles_agent_name(name, &worker, long_name, &err), 0);
    long_name[ROLES_AGENT_BYTES - 1 - strlen("@eve")] = 'n';
    long_name[ROLES_AGENT_BYTES - strlen("@eve")] = '\0';
    assert_int_equal(roles_agent_name(name, &worker, long_name, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_is_for_the_roles_that_need_it),
        cmocka_unit_test(refusal_says_which_role_it_takes_and_who_has_which),
        cmocka_unit_test(agent_of_a_workers_key_is_no_other_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
