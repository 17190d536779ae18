/* The real programs over TCP: what each role may do, what becomes of agents when keys
 * change, and who is not let in. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "coordinator/roles.h"
#include "tests/integration/cluster.h"
#include "tests/integration/keys_site.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define CODE_BYTES 32

static int set_up(void **state)
{
    struct site *site = calloc(1, sizeof(*site));

    site_init(site);
    site_start_coordinator(site);
    *state = site;
    return 0;
}

static int tear_down(void **state)
{
    site_fini(*state);
    free(*state);
    return 0;
}

/* ---- roles ---- */

/* A message of the type whose texts are empty. */
static struct wire empty_message(enum msg_type type)
{
    struct wire message = {.type = type};

/* NOLINTBEGIN(bugprone-macro-parentheses): fields are statements here */
#define I64(field) (void)m;
#define F64(field) (void)m;
#define STR(field) m->field = "";
#define BIN(field) m->field.data = "";
#define MESSAGE(NAME, name, fields)                                                      \
    case MSG_##NAME: {                                                                   \
        struct msg_##name *m = &message.name;                                            \
        fields break;                                                                    \
    }
    /* NOLINTEND(bugprone-macro-parentheses) */
    switch (type) {
#include "common/wire/messages.def"
    default:
        break;
    }
#undef I64
#undef F64
#undef STR
#undef BIN
#undef MESSAGE
    return message;
}

/* Code of the ERROR that answers, "" for another answer. */
static void ask(struct net_client *client, struct wire *request, char *code, char *text)
{
    int64_t deadline_ms = clock_mono_ms() + SITE_DEADLINE_MS;
    struct err err = {ERR_NONE, ""};
    struct wire reply;

    if (net_client_send(client, request, &err) < 0)
        fail_msg("%s", err.text);
    while (net_client_receive(client, &reply, 1000, &err) != 1 ||
           reply.reply_to != request->sequence)
        if (clock_mono_ms() >= deadline_ms)
            fail_msg("%s is not answered", msg_type_name(request->type));
    snprintf(code, CODE_BYTES, "%s", reply.type == MSG_ERROR ? reply.error.code : "");
    snprintf(text, ERR_TEXT_MAX, "%s", reply.type == MSG_ERROR ? reply.error.text : "");
    wire_fini(&reply);
}

/* What coordinator_roles (tests/unit) says of the table is true of the wire. */
static void try_every_message(struct site *site, enum key_role role)
{
    const struct net_peer peer = {.role = role, .key_name = "x"};
    struct key key = site_make_key(site, key_role_name(role), role);
    struct net_client *client;
    char code[CODE_BYTES], text[ERR_TEXT_MAX];
    int n_denied = 0;

    site_authorize(site, &key);
    client = site_open_client(&key);
    for (int type = MSG_NONE + 1; type < MSG_TYPE_COUNT; type++) {
        struct wire request = empty_message((enum msg_type)type);
        struct err expected = {ERR_NONE, ""};
        bool is_denied;

        if (type == MSG_SHUTDOWN && role == KEY_ADMIN)
            continue; /* the coordinator would end */
        roles_check(&peer, request.type, &expected);
        ask(client, &request, code, text);
        is_denied = strcmp(code, "denied") == 0;
        if (is_denied != (expected.code == ERR_DENIED) ||
            (expected.code == ERR_INVALID && strcmp(code, "invalid") != 0))
            fail_msg("%s of a %s: %s %s", msg_type_name(request.type),
                     key_role_name(role), code, text);
        if (is_denied && !strstr(text, key_role_name(role)))
            fail_msg("'%s' does not say who has which role", text);
        n_denied += is_denied;
    }
    assert_true((n_denied == 0) == (role == KEY_ADMIN));
    net_client_close(client);
}

static void each_role_does_what_it_may_and_no_more(void **state)
{
    struct site *site = *state;
    struct key key = site_make_key(site, "root", KEY_ADMIN);
    struct wire request = empty_message(MSG_SHUTDOWN);
    char code[CODE_BYTES], text[ERR_TEXT_MAX];
    struct net_client *client;

    for (int role = KEY_ADMIN; role < KEY_COORDINATOR; role++)
        try_every_message(site, (enum key_role)role);
    site_authorize(site, &key);
    client = site_open_client(&key);
    ask(client, &request, code, text);
    assert_string_equal(code, "");
    assert_int_equal(waitpid(site->coordinator, NULL, 0), site->coordinator);
    site->coordinator = 0;
    net_client_close(client);
}

static struct wire registration(const char *agent)
{
    struct wire message = empty_message(MSG_REGISTER);

    message.registration.agent = agent;
    message.registration.host = "h";
    message.registration.n_devices = 1;
    message.registration.running = "[]";
    return message;
}

static void workers_key_speaks_only_for_its_own_agents(void **state)
{
    struct site *site = *state;
    struct key one = site_make_key(site, "one", KEY_WORKER);
    struct key two = site_make_key(site, "two", KEY_WORKER);
    struct net_client *first, *second;
    struct wire message = registration("a"), reply;
    char code[CODE_BYTES], text[ERR_TEXT_MAX];

    site_authorize(site, &one);
    site_authorize(site, &two);
    first = site_open_client(&one);
    second = site_open_client(&two);
    ask(first, &message, code, text);
    site_wait_row(site, "workers", "\"agent\": \"a@one\"");
    message = (struct wire){.type = MSG_HEARTBEAT, .heartbeat = {"a"}};
    assert_int_equal(net_client_call(second, &message, &reply, SITE_DEADLINE_MS, NULL),
                     0);
    assert_int_equal(reply.type, MSG_UNKNOWN_AGENT);
    wire_fini(&reply);
    message.heartbeat.agent = "a@one";
    assert_int_equal(net_client_call(second, &message, &reply, SITE_DEADLINE_MS, NULL),
                     0);
    assert_int_equal(reply.type, MSG_UNKNOWN_AGENT);
    wire_fini(&reply);
    message = registration("a"); /* of the same name, and another agent */
    ask(second, &message, code, text);
    site_wait_row(site, "workers", "\"agent\": \"a@two\"");
    assert_int_equal(site_count_rows(site, "workers", "\"agent\": \"a@one\""), 1);
    net_client_close(first);
    net_client_close(second);
}

static void events_name_whose_wish_it_was(void **state)
{
    struct site *site = *state;
    struct key key = site_make_key(site, "alice", KEY_USER);
    struct net_client *client;
    struct wire request = {.type = MSG_SUBMIT}, reply;
    struct err err = {ERR_NONE, ""};
    char spec[1024];

    site_authorize(site, &key);
    client = site_open_client(&key);
    spec_prepare(spec, sizeof(spec), 8);
    request.submit = (struct msg_submit){"request", "prepare", "test", spec};
    if (net_client_call(client, &request, &reply, SITE_DEADLINE_MS, &err) < 0)
        fail_msg("%s", err.text);
    request = (struct wire){.type = MSG_CANCEL, .cancel = {reply.submitted.job, ""}};
    wire_fini(&reply);
    if (net_client_call(client, &request, &reply, SITE_DEADLINE_MS, &err) < 0)
        fail_msg("%s", err.text);
    wire_fini(&reply);
    site_wait_row(site, "events", "submitted by alice");
    site_wait_row(site, "events", "CANCEL by 'alice'");
    net_client_close(client);
}

/* ---- agents and their keys ---- */

static void write_worker_key(struct site *site, struct key *key, char path[128])
{
    struct err err = {ERR_NONE, ""};

    *key = site_make_key(site, "node", KEY_WORKER);
    snprintf(path, 128, "%s/node.key", site->home);
    if (key_write(key, path, &err) < 0)
        fail_msg("%s", err.text);
}

static void agent_comes_in_when_authorized_and_goes_when_revoked(void **state)
{
    const char *name = "node";
    struct site *site = *state;
    struct key key;
    char path[128];

    write_worker_key(site, &key, path);
    site_start_worker(site, path);
    site_wait_log(site, "coordinator",
                  key.public_key); /* turned away, by name of the key */
    site_wait_log(site, "worker", "refused at 'tcp://"); /* he who runs it reads why */
    assert_int_equal(site_count_rows(site, "workers", "@node"), 0);
    site_authorize(site, &key);
    site_wait_row(site, "workers", "\"state\": \"up\"");
    site_wait_log(site, "worker", "registered at");
    assert_int_equal(keys_revoke(site->home, &name, 1, NULL), 0);
    site_wait_row(site, "workers", "\"state\": \"lost\"");
    site_wait_row(site, "events", "was revoked");
    site_wait_log(site, "worker", "does not know this agent"); /* it does not sit still */
    site_authorize(site, &key);
    site_wait_row(site, "workers", "\"state\": \"up\"");
    assert_int_equal(site_count_in_log(site, "worker", key.secret), 0);
    assert_int_equal(site_count_in_log(site, "coordinator", key.secret), 0);
}

/* Another coordinator at the same port, that would even let the agent in. */
static void agent_refuses_a_coordinator_of_another_key(void **state)
{
    struct site *site = *state, other;
    struct key key;
    char path[128];

    write_worker_key(site, &key, path);
    site_authorize(site, &key);
    site_start_worker(site, path);
    site_wait_row(site, "workers", "\"state\": \"up\"");
    site_end(&site->coordinator);
    site_init(&other);
    memcpy(other.endpoint, site->endpoint, sizeof(other.endpoint));
    assert_int_equal(keys_init(other.home, NULL, NULL, NULL), 0);
    site_authorize(&other, &key);
    site_start_coordinator(&other);
    site_wait_log(&other, "coordinator", "no handshake");
    assert_int_equal(site_count_rows(&other, "workers", ""), 0);
    site_fini(&other);
    site_start_coordinator(site);
    site_wait_row(site, "workers", "\"state\": \"up\"");
}

/* ---- the commands ---- */

/* Exit status of `vneva ARGS` under the environment ENV; what it says goes to a file. */
static int says(const struct site *site, const char *env, const char *args,
                struct buf *out)
{
    char command[1024], path[128];
    int status;

    snprintf(path, sizeof(path), "%s/said", site->home);
    snprintf(command, sizeof(command),
             "cd '%s' && env -u VNEVA_KEY %s '%s/vneva' %s >%s 2>&1", site->home, env,
             getenv("VNEVA_BIN"), args, path);
    status = system(command);
    buf_reset(out);
    assert_int_equal(fs_read_file(out, path, 1 << 20, NULL), 0);
    return WEXITSTATUS(status);
}

static void expect_says(const struct site *site, const char *env, const char *args,
                        int status, const char *text)
{
    struct buf out = BUF_INIT;
    int got = says(site, env, args, &out);

    if (got != status || !strstr(buf_str(&out), text))
        fail_msg("vneva %s: status %d, not %d: %s", args, got, status, buf_str(&out));
    buf_fini(&out);
}

static void commands_make_and_take_keys(void **state)
{
    struct site *site = *state;
    char home[96], far[512], path[128];
    struct stat st;

    snprintf(home, sizeof(home), "VNEVA_HOME=%s", site->home);
    snprintf(far, sizeof(far), "VNEVA_HOME=/nonexistent VNEVA_ENDPOINT=%s",
             site->endpoint);
    expect_says(site, home, "keys init", 0, "the coordinator has a key");
    expect_says(site, home, "keys add eve --role viewer", 0, "eve.key");
    snprintf(path, sizeof(path), "%s/eve.key", site->home);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    expect_says(site, home, "keys add eve --role admin --out other.key", 2,
                "the name 'eve'");
    snprintf(path, sizeof(path), "%s/other.key", site->home);
    assert_false(fs_exists(path)); /* nothing is left of it */
    expect_says(site, home, "keys add bob --role boss", 2,
                "admin, user, worker and viewer");
    expect_says(site, home, "keys add ../bob --role user", 2, "no name for a key");
    expect_says(site, home, "keys list", 0, "viewer");
    expect_says(site, far, "status", 4, "--key");
    expect_says(site, "VNEVA_HOME=/nonexistent", "--key eve.key status", 0, "");
    expect_says(site, "VNEVA_HOME=/nonexistent", "status --key eve.key", 0, "");
    expect_says(site, "VNEVA_HOME=/nonexistent", "status --key", 2, "needs a value");
    expect_says(site, "VNEVA_HOME=/nonexistent", "worker --key eve.key", 4,
                "role admin or worker"); /* and does not try for ever */
    expect_says(site, "VNEVA_HOME=/nonexistent VNEVA_KEY=eve.key", "cancel 1", 4,
                "'eve' has role viewer");
    expect_says(site, home, "keys revoke eve", 0, "no longer");
    expect_says(site, home, "keys revoke eve", 2, "no key has the name 'eve'");
    expect_says(site, home, "keys add root --role admin", 0, "root.key");
    expect_says(site, "VNEVA_HOME=/nonexistent", "--key root.key down", 0, "stopped");
    assert_int_equal(waitpid(site->coordinator, NULL, 0), site->coordinator);
    site->coordinator = 0;
    expect_says(site, home, "keys sing", 2, "init, add, pair, revoke and list");
}

/* What `vneva up` started in the folder h of the site. */
static int tear_down_up(void **state)
{
    struct site *site = *state;
    char home[96];
    struct buf out = BUF_INIT;

    snprintf(home, sizeof(home), "VNEVA_HOME=%s/h", site->home);
    says(site, home, "down", &out);
    buf_fini(&out);
    return tear_down(state);
}

static void up_listens_for_others_when_asked_to(void **state)
{
    struct site *site = *state;
    char home[96];

    snprintf(home, sizeof(home), "VNEVA_HOME=%s/h", site->home);
    expect_says(site, home, "up --devices 1", 0, "up: coordinator and an agent");
    expect_says(site, home, "up --listen 'tcp://127.0.0.1:*'", 4, "`vneva down` first");
    expect_says(site, home, "down", 0, "stopped");
    expect_says(site, home, "up --devices 1 --listen 'tcp://127.0.0.1:*'", 0,
                "listening at tcp://127.0.0.1:");
    expect_says(site, home, "up --listen 'tcp://127.0.0.1:*'", 0, "runs already");
    expect_says(site, home, "keys add eve --role viewer", 0, "eve.key");
    expect_says(site, "VNEVA_HOME=/nonexistent", "--key eve.key workers", 0, "up");
}

static void pair_made_elsewhere_is_added_by_its_public_key(void **state)
{
    struct site *site = *state;
    struct key coordinator, pair;
    char home[96], args[512], path[128];

    snprintf(home, sizeof(home), "VNEVA_HOME=%s", site->home);
    assert_int_equal(keys_read_coordinator(&coordinator, site->home, NULL), 0);
    snprintf(args, sizeof(args),
             "keys pair bob --role user --coordinator '%s' --endpoint %s",
             coordinator.public_key, site->endpoint);
    expect_says(site, "VNEVA_HOME=/nonexistent", args, 0, "vneva keys add bob");
    snprintf(path, sizeof(path), "%s/bob.key", site->home);
    assert_int_equal(key_read(&pair, path, NULL), 0);
    snprintf(args, sizeof(args), "keys add bob --role user --public '%s'",
             pair.public_key);
    expect_says(site, home, args, 0, "bob may connect as user");
    expect_says(site, "VNEVA_HOME=/nonexistent", "--key bob.key cancel 1", 2, "no job 1");
}

/* ---- strangers ---- */

static void send_noise(const struct site *site, unsigned *seed)
{
    static const uint8_t greeting[] = {0xff, 0,    0, 0, 0,   0,   0,   0,
                                       1,    0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    uint8_t bytes[256];

    address.sin_port =
        htons((uint16_t)strtol(strrchr(site->endpoint, ':') + 1, NULL, 10));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)((*seed = *seed * 1103515245 + 12345) >> 16);
    if (*seed & 0x10000)
        memcpy(bytes, greeting, sizeof(greeting)); /* speaks plain ZeroMQ */
    (void)!send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
    close(fd);
}

/* Under a good key, so that it reaches the decoder: a true message with a byte changed. */
static void send_damaged(void *socket, unsigned *seed)
{
    struct wire message = registration("agent");
    struct buf packed = BUF_INIT;

    message.sequence = 1;
    assert_int_equal(wire_encode(&packed, &message, NULL), 0);
    for (int i = 0; i < 3; i++) {
        *seed = *seed * 1103515245 + 12345;
        packed.data[(*seed >> 8) % packed.n_bytes] = (char)(*seed >> 16);
    }
    zmq_send(socket, packed.data, packed.n_bytes, ZMQ_DONTWAIT);
    buf_fini(&packed);
}

static void noise_kills_nobody_and_fills_no_log(void **state)
{
    struct site *site = *state;
    struct key key = site_make_key(site, "admin", KEY_ADMIN);
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    struct wire request = {.type = MSG_PING}, reply;
    struct net_client *client;
    struct err err = {ERR_NONE, ""};
    const int none = 0;
    unsigned seed = 3;

    site_authorize(site, &key);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, key.coordinator, KEY_TEXT_BYTES);
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, key.public_key, KEY_TEXT_BYTES);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, key.secret, KEY_TEXT_BYTES);
    assert_int_equal(zmq_connect(socket, key.endpoint), 0);
    for (int i = 0; i < 300; i++) {
        send_noise(site, &seed);
        send_damaged(socket, &seed);
    }
    client = site_open_client(&key);
    for (int i = 0; i < 3; i++) {
        if (net_client_call(client, &request, &reply, SITE_DEADLINE_MS, &err) < 0)
            fail_msg("%s", err.text);
        wire_fini(&reply);
    }
    assert_int_equal(waitpid(site->coordinator, NULL, WNOHANG), 0);
    site_wait_log(site, "coordinator", "turned away");
    assert_true(site_count_in_log(site, "coordinator", "turned away") <=
                40); /* two windows */
    net_client_close(client);
    zmq_close(socket);
    zmq_ctx_term(context);
}

static void endpoint_file_lives_as_long_as_the_coordinator(void **state)
{
    struct site *site = *state;
    char path[128];

    snprintf(path, sizeof(path), "%s/endpoint", site->home);
    assert_true(fs_exists(path));
    kill(site->coordinator, SIGKILL);
    site_end(&site->coordinator);
    assert_true(
        fs_exists(path)); /* it could not remove it: the next one writes its own */
    site_start_coordinator(site);
    site_end(&site->coordinator);
    assert_false(fs_exists(path));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(each_role_does_what_it_may_and_no_more),
        TEST(workers_key_speaks_only_for_its_own_agents),
        TEST(events_name_whose_wish_it_was),
        TEST(agent_comes_in_when_authorized_and_goes_when_revoked),
        TEST(agent_refuses_a_coordinator_of_another_key),
        TEST(commands_make_and_take_keys),
        cmocka_unit_test_setup_teardown(up_listens_for_others_when_asked_to, set_up,
                                        tear_down_up),
        TEST(pair_made_elsewhere_is_added_by_its_public_key),
        TEST(noise_kills_nobody_and_fills_no_log),
        TEST(endpoint_file_lives_as_long_as_the_coordinator),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
