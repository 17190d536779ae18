/* The mesh of ranks: what is sent arrives, encrypted; and nobody without the secret of the
 * attempt gets in, hears anything or disturbs the others. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/net/address.h"
#include "common/net/mesh.h"
#include "common/net/sealed.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 20000
#define SHORT_MS 300
#define RANKS_MAX 5
#define LOOPBACK "127.0.0.1"

static const struct net_secret right = {"the secret of this attempt"};
static const struct net_secret wrong = {"the secret of another one"};

/* ---- ranks as threads ---- */

struct rank {
    int rank, n_ranks;
    const char *const *endpoints;
    const struct net_secret *secret;
    struct net_mesh *mesh;
    int64_t timeout_ms;
    size_t n_bytes; /* sent to every other rank; 0: only connect */
    int rc;
    struct err err;
};

/* What rank `from` sends to `to` at byte i. */
static uint8_t pattern(int from, int to, size_t i)
{
    return (uint8_t)(i * 31 + i / 251 + (size_t)(7 * from + to));
}

static void send_all(struct rank *r, uint8_t *bytes)
{
    for (int to = 0; to < r->n_ranks && r->rc == 0; to++) {
        for (size_t i = 0; i < r->n_bytes; i++)
            bytes[i] = pattern(r->rank, to, i);
        if (to == r->rank)
            continue;
        r->rc = net_mesh_post(r->mesh, to, bytes, 1, &r->err);
        if (r->rc == 0)
            r->rc = net_mesh_post(r->mesh, to, bytes + 1, r->n_bytes - 1, &r->err);
        if (r->rc == 0)
            r->rc = net_mesh_flush(r->mesh, r->timeout_ms, &r->err);
    }
}

/* In pieces other than those sent. */
static void receive_all(struct rank *r, uint8_t *bytes)
{
    for (int from = 0; from < r->n_ranks && r->rc == 0; from++) {
        for (size_t at = 0, n; from != r->rank && at < r->n_bytes && r->rc == 0;
             at += n) {
            n = r->n_bytes - at < 70001 ? r->n_bytes - at : 70001;
            r->rc = net_mesh_recv(r->mesh, from, bytes + at, n, r->timeout_ms, &r->err);
        }
        for (size_t i = 0; from != r->rank && i < r->n_bytes && r->rc == 0; i++)
            if (bytes[i] != pattern(from, r->rank, i))
                r->rc = err_set(&r->err, ERR_FORMAT, "byte %zu from rank %d", i, from);
    }
}

/* Everybody sends everything to everybody first and receives after that. */
static void *rank_main(void *argument)
{
    struct rank *r = argument;
    uint8_t *bytes = malloc(r->n_bytes + 1);

    r->rc = net_mesh_connect(r->mesh, r->rank, r->n_ranks, r->endpoints, r->secret,
                             r->timeout_ms, &r->err);
    if (r->rc == 0 && r->n_bytes) {
        send_all(r, bytes);
        receive_all(r, bytes);
    }
    free(bytes);
    return NULL;
}

struct world {
    struct rank ranks[RANKS_MAX];
    const char *endpoints[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    int n_ranks;
};

static void world_init(struct world *world, int n_ranks)
{
    *world = (struct world){.n_ranks = n_ranks};
    for (int i = 0; i < n_ranks; i++) {
        struct rank *r = &world->ranks[i];

        *r = (struct rank){.rank = i,
                           .n_ranks = n_ranks,
                           .endpoints = world->endpoints,
                           .secret = &right,
                           .timeout_ms = DEADLINE_MS};
        if (net_mesh_listen(&r->mesh, LOOPBACK, &r->err) < 0)
            fail_msg("%s", r->err.text);
        world->endpoints[i] = net_mesh_endpoint(r->mesh);
    }
}

static void world_start(struct world *world, int rank)
{
    assert_int_equal(
        pthread_create(&world->threads[rank], NULL, rank_main, &world->ranks[rank]), 0);
}

static void world_join(struct world *world, int rank)
{
    pthread_join(world->threads[rank], NULL);
}

static void expect_all_fine(struct world *world)
{
    for (int i = 0; i < world->n_ranks; i++)
        if (world->ranks[i].rc < 0)
            fail_msg("rank %d: %s", i, world->ranks[i].err.text);
}

static void world_fini(struct world *world)
{
    for (int i = 0; i < world->n_ranks; i++)
        net_mesh_close(world->ranks[i].mesh);
}

/* ---- streams ---- */

static void exchange(int n_ranks, size_t n_bytes)
{
    struct world world;

    world_init(&world, n_ranks);
    for (int i = 0; i < n_ranks; i++) {
        world.ranks[i].n_bytes = n_bytes;
        world_start(&world, i);
    }
    for (int i = 0; i < n_ranks; i++)
        world_join(&world, i);
    expect_all_fine(&world);
    world_fini(&world);
}

static void ranks_that_all_send_first_get_every_byte_in_order(void **state)
{
    (void)state;
    exchange(2, 1);
    exchange(2, 33 << 20);
    exchange(RANKS_MAX, 3 << 20);
}

static void connect_two(struct world *world)
{
    world_init(world, 2);
    for (int i = 0; i < 2; i++)
        world_start(world, i);
    for (int i = 0; i < 2; i++)
        world_join(world, i);
    expect_all_fine(world);
}

static void rank_that_is_gone_is_an_error_not_a_hang(void **state)
{
    struct world world;
    struct err err;
    char byte;

    (void)state;
    connect_two(&world);
    net_mesh_close(world.ranks[1].mesh);
    world.ranks[1].mesh = NULL;
    assert_int_equal(net_mesh_recv(world.ranks[0].mesh, 1, &byte, 1, DEADLINE_MS, &err),
                     -1);
    assert_int_equal(err.code, ERR_PEER);
    world_fini(&world);
}

static void rank_that_does_not_read_is_a_timeout(void **state)
{
    static uint8_t bytes[32 << 20];
    struct world world;
    struct err err;

    (void)state;
    connect_two(&world);
    assert_int_equal(net_mesh_post(world.ranks[0].mesh, 1, bytes, sizeof(bytes), &err),
                     0);
    assert_int_equal(net_mesh_flush(world.ranks[0].mesh, SHORT_MS, &err), -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
    world_fini(&world);
}

static void rank_that_does_not_come_is_named(void **state)
{
    struct world world;

    (void)state;
    world_init(&world, 2);
    for (int i = 0; i < 2; i++) {
        world.ranks[i].timeout_ms = SHORT_MS;
        world_start(&world, i);
        world_join(&world, i); /* alone */
        assert_int_equal(world.ranks[i].rc, -1);
        assert_int_equal(world.ranks[i].err.code, ERR_TIMEOUT);
    }
    assert_non_null(strstr(world.ranks[0].err.text, "rank 1 did not call rank 0"));
    assert_non_null(strstr(world.ranks[1].err.text, "rank 1 cannot reach rank 0"));
    world_fini(&world);
}

/* ---- strangers ---- */

static int stranger(const char *endpoint)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unsigned long port = strtoul(strrchr(endpoint, ':') + 1, NULL, 10);

    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Bytes that come until the other side hangs up. */
static size_t read_to_end(int fd, void *bytes, size_t n_bytes)
{
    size_t n = 0;
    ssize_t one;

    while (n < n_bytes && (one = recv(fd, (char *)bytes + n, n_bytes - n, 0)) > 0)
        n += (size_t)one;
    return n;
}

static void strangers_neither_hang_nor_disturb_the_meeting(void **state)
{
    enum { SILENT = 200 }; /* more than are kept */
    static const char request[] = "GET / HTTP/1.1\r\nHost: somebody\r\nAccept: */*\r\n"
                                  "User-Agent: a scanner of ports that has much to say "
                                  "before it waits for an answer\r\n\r\n";
    char answer[64], said[4096] = "";
    FILE *log = tmpfile();
    int kept = dup(STDERR_FILENO);
    struct world world;
    int fds[SILENT], talker;

    (void)state;
    assert_true(log && dup2(fileno(log), STDERR_FILENO) >= 0);
    world_init(&world, 3);
    for (int i = 0; i < SILENT; i++)
        fds[i] = stranger(world.endpoints[0]);
    talker = stranger(world.endpoints[0]);
    assert_true(send(talker, request, sizeof(request), 0) > 0);
    for (int i = 0; i < 3; i++) {
        world.ranks[i].n_bytes = 1000;
        world_start(&world, i);
    }
    assert_int_equal(read_to_end(talker, answer, sizeof(answer)), 0);
    for (int i = 0; i < 3; i++)
        world_join(&world, i);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    rewind(log);
    assert_true(fread(said, 1, sizeof(said) - 1, log) > 0);
    fclose(log);
    assert_non_null(strstr(said, "turned away 127.0.0.1: it did not show the secret"));
    assert_null(
        strstr(strstr(said, "turned away") + 1, "turned away")); /* once is enough */
    expect_all_fine(&world);
    for (int i = 0; i < SILENT; i++)
        close(fds[i]);
    close(talker);
    world_fini(&world);
}

/* Rank 1 with the wrong secret, given timeout_ms; what it says of its failure. */
static void call_with_wrong_secret(const struct world *world, int64_t timeout_ms,
                                   struct err *err)
{
    struct rank other = world->ranks[1];

    assert_int_equal(net_mesh_listen(&other.mesh, LOOPBACK, &other.err), 0);
    other.secret = &wrong;
    other.timeout_ms = timeout_ms;
    rank_main(&other);
    assert_int_equal(other.rc, -1);
    assert_int_equal(other.err.code, ERR_TIMEOUT);
    *err = other.err;
    net_mesh_close(other.mesh);
}

/* Rank 0 goes on waiting and takes the right one. */
static void wrong_secret_gets_nothing_and_the_right_one_gets_in(void **state)
{
    int64_t timeout_ms = SHORT_MS;
    struct world world;
    struct err err;

    (void)state;
    world_init(&world, 2);
    world_start(&world, 0);
    /* on a busy machine the first try may end before it gets anywhere */
    do
        call_with_wrong_secret(&world, timeout_ms, &err);
    while (!strstr(err.text, "hung up") && (timeout_ms *= 2) < DEADLINE_MS);
    assert_non_null(strstr(err.text, "hung up"));
    world_start(&world, 1);
    for (int i = 0; i < 2; i++)
        world_join(&world, i);
    expect_all_fine(&world);
    world_fini(&world);
}

static void meet_with_two_secrets(int64_t timeout_ms, struct err *err_of_0)
{
    struct world world;

    world_init(&world, 2);
    world.ranks[0].secret = &wrong;
    for (int i = 0; i < 2; i++) {
        world.ranks[i].timeout_ms = timeout_ms;
        world_start(&world, i);
    }
    for (int i = 0; i < 2; i++) {
        world_join(&world, i);
        assert_int_equal(world.ranks[i].rc, -1);
        assert_int_equal(world.ranks[i].err.code, ERR_TIMEOUT);
    }
    *err_of_0 = world.ranks[0].err;
    world_fini(&world);
}

/* A rank that calls somebody who listens there and does not know the secret. */
static void impostor_that_listens_is_found_out(void **state)
{
    int64_t timeout_ms = SHORT_MS;
    struct err err;

    (void)state;
    do
        meet_with_two_secrets(timeout_ms, &err);
    while (!strstr(err.text, "strangers were turned away") &&
           (timeout_ms *= 2) < DEADLINE_MS);
    assert_non_null(strstr(err.text, "strangers were turned away"));
}

/* ---- somebody on the way ---- */

/* Stands between rank 1 and rank 0, passes on what they say and keeps it; `flip` (not
 * negative) is the byte of what rank 1 says that is changed. */
struct relay {
    int listen_fd;
    char endpoint[64];
    const char *to;
    uint8_t said[1 << 16]; /* by rank 1 */
    size_t n_said;
    ssize_t flip;
};

static void relay_init(struct relay *relay, const char *to, ssize_t flip)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t n_bytes = sizeof(address);

    *relay = (struct relay){.to = to, .flip = flip};
    relay->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(relay->listen_fd, (struct sockaddr *)&address, n_bytes), 0);
    assert_int_equal(listen(relay->listen_fd, 1), 0);
    getsockname(relay->listen_fd, (struct sockaddr *)&address, &n_bytes);
    snprintf(relay->endpoint, sizeof(relay->endpoint), "tcp://" LOOPBACK ":%u",
             (unsigned)ntohs(address.sin_port));
}

static void *relay_main(void *argument)
{
    struct relay *relay = argument;
    struct pollfd polls[2] = {{.events = POLLIN}, {.events = POLLIN}};

    polls[0].fd = accept(relay->listen_fd, NULL, NULL);
    polls[1].fd = stranger(relay->to);
    while (poll(polls, 2, DEADLINE_MS) > 0) {
        int from = polls[0].revents ? 0 : 1;
        uint8_t *at = relay->said + relay->n_said, back[1024];
        ssize_t n = recv(polls[from].fd, from ? back : at, sizeof(back), 0);

        if (n <= 0)
            break;
        if (!from && relay->flip >= (ssize_t)relay->n_said &&
            relay->flip < (ssize_t)relay->n_said + n)
            relay->said[relay->flip] ^= 1;
        relay->n_said += from ? 0 : (size_t)n;
        send(polls[1 - from].fd, from ? back : at, (size_t)n, MSG_NOSIGNAL);
    }
    close(polls[0].fd);
    close(polls[1].fd);
    close(relay->listen_fd);
    return NULL;
}

/* Rank 1 sends rank 0 `text` through the relay; what rank 0 gets, or why not. */
static int send_through(struct relay *relay, ssize_t flip, const char *text, char *got,
                        struct err *err)
{
    struct world world;
    pthread_t thread;
    const char *seen_by_1[2];
    int rc;

    world_init(&world, 2);
    relay_init(relay, world.endpoints[0], flip);
    seen_by_1[0] = relay->endpoint;
    seen_by_1[1] = world.endpoints[1];
    world.ranks[1].endpoints = seen_by_1;
    assert_int_equal(pthread_create(&thread, NULL, relay_main, relay), 0);
    for (int i = 0; i < 2; i++)
        world_start(&world, i);
    for (int i = 0; i < 2; i++)
        world_join(&world, i);
    expect_all_fine(&world);
    assert_int_equal(net_mesh_post(world.ranks[1].mesh, 0, text, strlen(text), err), 0);
    assert_int_equal(net_mesh_flush(world.ranks[1].mesh, DEADLINE_MS, err), 0);
    rc = net_mesh_recv(world.ranks[0].mesh, 1, got, strlen(text), DEADLINE_MS, err);
    world_fini(&world);
    pthread_join(thread, NULL);
    return rc;
}

#define TEXT "gradients that are nobody's business"
#define HANDSHAKE_BYTES (sizeof(struct sealed_hello) + sizeof(struct sealed_begin))

static bool holds(const uint8_t *bytes, size_t n_bytes, const char *text)
{
    for (size_t i = 0; i + strlen(text) <= n_bytes; i++)
        if (memcmp(bytes + i, text, strlen(text)) == 0)
            return true;
    return false;
}

static void what_is_sent_cannot_be_read_or_changed_on_its_way(void **state)
{
    static struct relay relay;
    char got[sizeof(TEXT)] = "";
    struct err err;

    (void)state;
    assert_int_equal(send_through(&relay, -1, TEXT, got, &err), 0);
    assert_string_equal(got, TEXT);
    assert_int_equal(relay.n_said, HANDSHAKE_BYTES + strlen(TEXT) + SEALED_OVERHEAD);
    assert_false(holds(relay.said, relay.n_said, "gradients"));
    for (size_t i = HANDSHAKE_BYTES + SEALED_LENGTH_BYTES; i < relay.n_said; i += 7) {
        assert_int_equal(send_through(&relay, (ssize_t)i, TEXT, got, &err), -1);
        assert_int_equal(err.code, ERR_PEER);
    }
    /* the length, now longer than a record may be */
    assert_int_equal(send_through(&relay, HANDSHAKE_BYTES + 3, TEXT, got, &err), -1);
    assert_int_equal(err.code, ERR_PEER);
}

/* All that rank 1 said is said again, to a rank 0 with the same secret. */
static void recorded_session_opens_nothing(void **state)
{
    static struct relay relay;
    char got[sizeof(TEXT)] = "";
    uint8_t answer[4096];
    struct world world;
    struct err err;
    size_t n;
    int fd;

    (void)state;
    assert_int_equal(send_through(&relay, -1, TEXT, got, &err), 0);
    world_init(&world, 2);
    world.ranks[0].timeout_ms = 2 * SHORT_MS;
    world_start(&world, 0);
    fd = stranger(world.endpoints[0]);
    assert_int_equal(send(fd, relay.said, relay.n_said, 0), relay.n_said);
    n = read_to_end(fd, answer, sizeof(answer));
    assert_true(n <= sizeof(struct sealed_reply)); /* no stream came of it */
    close(fd);
    world_join(&world, 0);
    assert_int_equal(world.ranks[0].rc, -1);
    assert_int_equal(world.ranks[0].err.code, ERR_TIMEOUT);
    world_fini(&world);
}

/* ---- the handshake itself ---- */

/* Every byte of each message matters. */
static void handshake_with_any_byte_changed_is_refused(void **state)
{
    struct sealed_hand one, other;
    struct sealed_begin begin;
    struct sealed_begun begun;
    struct err err;
    int from;

    (void)state;
    sealed_hello(&one, &right, 1, 0, 2);
    for (size_t i = 0; i < sizeof(one.hello); i++) {
        memset(&other, 0, sizeof(other));
        other.hello = one.hello;
        ((uint8_t *)&other.hello)[i] ^= 1;
        assert_int_equal(sealed_take_hello(&other, &right, 0, 2, &from, &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
    }
    other.hello = one.hello;
    assert_int_equal(sealed_take_hello(&other, &right, 0, 2, &from, &err), 0);
    assert_int_equal(from, 1);
    for (size_t i = 0; i < sizeof(other.reply); i++) {
        one.reply = other.reply;
        ((uint8_t *)&one.reply)[i] ^= 1;
        assert_int_equal(sealed_take_reply(&one, &right, &begin, &err), -1);
    }
    one.reply = other.reply;
    assert_int_equal(sealed_take_reply(&one, &right, &begin, &err), 0);
    for (size_t i = 0; i < sizeof(begin); i++) {
        struct sealed_hand copy = other;

        ((uint8_t *)&begin)[i] ^= 1;
        assert_int_equal(sealed_take_begin(&copy, &begin, &begun, &err), -1);
        ((uint8_t *)&begin)[i] ^= 1;
    }
    assert_int_equal(sealed_take_begin(&other, &begin, &begun, &err), 0);
    assert_int_equal(sealed_take_begun(&one, &begun, &err), 0);
}

/* One rank's hello is not another's, and no stream has the keys of the one before. */
static void streams_share_neither_names_nor_keys(void **state)
{
    struct sealed_hand one, other;
    uint8_t first[sizeof(one.sealed.out.k)];
    struct err err;
    int from;

    (void)state;
    for (int i = 0; i < 2; i++) {
        sealed_hello(&one, &right, 2, 1, 3);
        other.hello = one.hello;
        assert_int_equal(sealed_take_hello(&other, &right, 0, 3, &from, &err), -1);
        assert_int_equal(sealed_take_hello(&other, &right, 1, 4, &from, &err), -1);
        assert_int_equal(sealed_take_hello(&other, &wrong, 1, 3, &from, &err), -1);
        assert_int_equal(sealed_take_hello(&other, &right, 1, 3, &from, &err), 0);
        if (i)
            assert_memory_not_equal(first, other.sealed.out.k, sizeof(first));
        memcpy(first, other.sealed.out.k, sizeof(first));
        assert_memory_not_equal(first, other.sealed.in.k, sizeof(first));
    }
}

/* ---- secrets and addresses ---- */

static void secret_is_of_one_attempt_and_the_same_after_a_restart(void **state)
{
    char folder[] = "/tmp/vneva-secret-XXXXXX", path[64];
    struct net_secret key, again, a, b;
    struct stat st;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/attempts.key", folder);
    if (net_secret_open(&key, path, &err) < 0 || net_secret_open(&again, path, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_memory_equal(&key, &again, sizeof(key));
    net_secret_derive(&a, &key, 1, 2);
    net_secret_derive(&b, &key, 1, 2);
    assert_memory_equal(&a, &b, sizeof(a));
    net_secret_derive(&b, &key, 2, 1);
    assert_memory_not_equal(&a, &b, sizeof(a));
    net_secret_derive(&b, &right, 1, 2);
    assert_memory_not_equal(&a, &b, sizeof(a));

    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(net_secret_open(&key, path, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 31), 0);
    assert_int_equal(net_secret_open(&key, path, &err), -1);
    assert_int_equal(err.code, ERR_FORMAT);
    fs_remove_tree(folder, NULL);
}

static void address_is_found_by_route_name_or_itself(void **state)
{
    char text[NET_ADDRESS_BYTES];
    struct err err;

    (void)state;
    assert_int_equal(net_address_towards(text, "tcp://127.0.0.1:7", &err), 0);
    assert_string_equal(text, LOOPBACK);
    assert_int_equal(net_address_towards(text, "tcp://localhost:7", &err), 0);
    assert_string_equal(text, LOOPBACK);
    assert_int_equal(net_address_towards(text, "ipc:///x", &err), 0);
    assert_string_equal(text, LOOPBACK);
    assert_int_equal(net_address_named(text, "lo", &err), 0);
    assert_string_equal(text, LOOPBACK);
    assert_int_equal(net_address_named(text, LOOPBACK, &err), 0);
    assert_true(net_mesh_is_loopback("tcp://127.0.0.1:7"));
    assert_true(net_mesh_is_loopback("tcp://[::1]:7"));
    assert_false(net_mesh_is_loopback("tcp://10.0.0.1:7"));
    assert_int_equal(net_address_named(text, "192.0.2.1", &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.text, "127.0.0.1 (lo)"));
    assert_int_equal(net_address_towards(text, "tcp://nowhere", &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_that_all_send_first_get_every_byte_in_order),
        cmocka_unit_test(rank_that_is_gone_is_an_error_not_a_hang),
        cmocka_unit_test(rank_that_does_not_read_is_a_timeout),
        cmocka_unit_test(rank_that_does_not_come_is_named),
        cmocka_unit_test(strangers_neither_hang_nor_disturb_the_meeting),
        cmocka_unit_test(wrong_secret_gets_nothing_and_the_right_one_gets_in),
        cmocka_unit_test(impostor_that_listens_is_found_out),
        cmocka_unit_test(what_is_sent_cannot_be_read_or_changed_on_its_way),
        cmocka_unit_test(recorded_session_opens_nothing),
        cmocka_unit_test(handshake_with_any_byte_changed_is_refused),
        cmocka_unit_test(streams_share_neither_names_nor_keys),
        cmocka_unit_test(secret_is_of_one_attempt_and_the_same_after_a_restart),
        cmocka_unit_test(address_is_found_by_route_name_or_itself),
    };

    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
