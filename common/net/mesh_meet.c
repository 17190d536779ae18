/* How the ranks of a mesh meet: every lower rank is called, again and again until the
 * deadline, and calls of higher ranks are taken, all at once in one loop.
 *
 *     call:   waiting --time to try--> connecting --connected, hello sent--> asked
 *             asked --reply, begin sent--> proven --begun--> a stream
 *             any --refused, gone, too slow, not the secret--> waiting
 *     guest:  new --hello, reply sent--> asked --begin, begun sent--> a stream
 *             any --gone, too slow, not the secret--> turned away
 *
 * Whoever does not know the secret gets no byte of an answer; the log has a line. A guest
 * costs a socket until MESH_HAND_MS are over or, when MESH_GUESTS_MAX are there, until the
 * next one comes: so a port scanner can neither hang the meeting nor keep a rank out for
 * longer than its next try. A rank that has lost its stream before all have met may call
 * again: the newer stream counts.
 */
#include "common/base/clock.h"
#include "common/base/log_bound.h"
#include "common/base/stage.h"
#include "common/net/address.h"
#include "common/net/mesh_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESH_GUESTS_MAX 64
#define MESH_CONNECT_MS                                                                  \
    5000                   /* for a connection; the kernel itself would try for minutes */
#define MESH_HAND_MS 30000 /* for a handshake once there is a connection */
#define MESH_RETRY_FIRST_MS 20
#define MESH_RETRY_MAX_MS 1000

enum hand_state { HAND_NONE, HAND_WAITING, HAND_CONNECTING, HAND_ASKED, HAND_PROVEN };

struct hand {
    enum hand_state state;
    int fd, rank;     /* rank: the other one; -1 of a guest that said no hello yet */
    int64_t due_ms;   /* the next try, or the end of this one's patience */
    int64_t pause_ms; /* before the next try */
    struct sealed_hand sealed;
    size_t n_in; /* bytes of the message that is awaited */
    struct sealed_begin begin;
    struct sealed_begun begun;
    char address[NET_ADDRESS_BYTES]; /* of a guest */
};

struct meeting {
    struct net_mesh *mesh;
    const struct net_secret *secret;
    struct mesh_address *addresses; /* [rank], of the lower ranks */
    struct hand *calls;             /* [rank] */
    struct hand guests[MESH_GUESTS_MAX];
    struct pollfd *polls; /* [1 + rank + MESH_GUESTS_MAX] */
    int n_missing;        /* ranks without a stream */
    int n_turned_away;
    struct log_bound strangers;
    struct err last; /* why the last call failed */
};

/* ---- one hand ---- */

static void hand_close(struct hand *hand)
{
    if (hand->fd >= 0)
        close(hand->fd);
    sealed_forget(&hand->sealed, sizeof(hand->sealed));
    hand->fd = -1;
    hand->n_in = 0;
}

/* The message goes into an empty socket buffer, so it goes whole or not at all. */
static int hand_send(struct hand *hand, const void *bytes, size_t n_bytes,
                     struct err *err)
{
    if (send(hand->fd, bytes, n_bytes, MSG_NOSIGNAL) != (ssize_t)n_bytes)
        return err_set(err, ERR_PEER, "cannot send: %s", strerror(errno));
    return 0;
}

/* The rest of a message of n_bytes. 1: all of it is there, 0: not yet, -1: gone. */
static int hand_read(struct hand *hand, void *message, size_t n_bytes, struct err *err)
{
    ssize_t n = recv(hand->fd, (char *)message + hand->n_in, n_bytes - hand->n_in, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return err_set(err, ERR_PEER, "it hung up%s%s", n < 0 ? ": " : "",
                       n < 0 ? strerror(errno) : "");
    hand->n_in += (size_t)n;
    if (hand->n_in < n_bytes)
        return 0;
    hand->n_in = 0;
    return 1;
}

/* The hand's socket becomes the stream to its rank. */
static void hand_finish(struct meeting *meeting, struct hand *hand)
{
    struct stream *stream = &meeting->mesh->streams[hand->rank];

    if (stream->fd >= 0)
        close(stream->fd);
    else
        meeting->n_missing--;
    stream->fd = hand->fd;
    stream->sealed = hand->sealed.sealed;
    hand->fd = -1;
    hand_close(hand);
    hand->state = HAND_NONE;
}

/* ---- calls ---- */

static void call_failed(struct meeting *meeting, struct hand *call, const struct err *why)
{
    meeting->last = *why;
    err_wrap(&meeting->last, "rank %d", call->rank);
    hand_close(call);
    call->state = HAND_WAITING;
    call->due_ms = clock_mono_ms() + call->pause_ms;
    call->pause_ms *= 2;
    if (call->pause_ms > MESH_RETRY_MAX_MS)
        call->pause_ms = MESH_RETRY_MAX_MS;
}

static void call_begin(struct meeting *meeting, struct hand *call)
{
    const struct mesh_address *address = &meeting->addresses[call->rank];
    struct err err = {ERR_NONE, ""};

    call->fd = mesh_open_socket(address->any.ss_family, &err);
    call->state = HAND_CONNECTING;
    call->due_ms = clock_mono_ms() + MESH_CONNECT_MS;
    if (call->fd >= 0 &&
        connect(call->fd, (const struct sockaddr *)&address->any, address->n_bytes) < 0 &&
        errno != EINPROGRESS)
        err_set(&err, ERR_PEER, "cannot connect: %s", strerror(errno));
    if (err.code != ERR_NONE)
        call_failed(meeting, call, &err);
}

static int call_connected(struct meeting *meeting, struct hand *call, struct err *err)
{
    struct net_mesh *mesh = meeting->mesh;
    int failed = 0;
    socklen_t n_bytes = sizeof(failed);

    getsockopt(call->fd, SOL_SOCKET, SO_ERROR, &failed, &n_bytes);
    if (failed)
        return err_set(err, ERR_PEER, "cannot connect: %s", strerror(failed));
    sealed_hello(&call->sealed, meeting->secret, mesh->rank, call->rank, mesh->n_ranks);
    call->state = HAND_ASKED;
    call->due_ms = clock_mono_ms() + MESH_HAND_MS;
    return hand_send(call, &call->sealed.hello, sizeof(call->sealed.hello), err);
}

static int call_replied(struct meeting *meeting, struct hand *call, struct err *err)
{
    int rc = hand_read(call, &call->sealed.reply, sizeof(call->sealed.reply), err);

    if (rc <= 0)
        return rc;
    if (sealed_take_reply(&call->sealed, meeting->secret, &call->begin, err) < 0)
        return -1;
    call->state = HAND_PROVEN;
    return hand_send(call, &call->begin, sizeof(call->begin), err);
}

static int call_begun(struct meeting *meeting, struct hand *call, struct err *err)
{
    int rc = hand_read(call, &call->begun, sizeof(call->begun), err);

    if (rc > 0 && (rc = sealed_take_begun(&call->sealed, &call->begun, err)) == 0)
        hand_finish(meeting, call);
    return rc;
}

static void call_ready(struct meeting *meeting, struct hand *call)
{
    struct err err = {ERR_NONE, ""};
    int rc = 0;

    if (call->state == HAND_CONNECTING)
        rc = call_connected(meeting, call, &err);
    else if (call->state == HAND_ASKED)
        rc = call_replied(meeting, call, &err);
    else if (call->state == HAND_PROVEN)
        rc = call_begun(meeting, call, &err);
    if (rc < 0)
        call_failed(meeting, call, &err);
}

/* ---- guests ---- */

static void guest_turn_away(struct meeting *meeting, struct hand *guest)
{
    meeting->n_turned_away++;
    if (guest->rank < 0) /* not a rank that calls again */
        log_bound_warn(&meeting->strangers, clock_mono_ms(),
                       "turned away %s: it did not show the secret of this attempt",
                       guest->address);
    hand_close(guest);
    guest->state = HAND_NONE;
}

/* A free place, or that of the guest who has said nothing for longest; one that knows the
 * secret goes only when all do. */
static struct hand *guest_place(struct meeting *meeting)
{
    struct hand *oldest = NULL;

    for (int i = 0; i < MESH_GUESTS_MAX; i++) {
        struct hand *guest = &meeting->guests[i];
        bool is_stranger = guest->rank < 0;

        if (guest->state == HAND_NONE)
            return guest;
        if (!oldest || (is_stranger && oldest->rank >= 0) ||
            (is_stranger == (oldest->rank < 0) && guest->due_ms < oldest->due_ms))
            oldest = guest;
    }
    guest_turn_away(meeting, oldest);
    return oldest;
}

static int guests_accept(struct meeting *meeting, struct err *err)
{
    struct sockaddr_storage from;
    socklen_t n_bytes = sizeof(from);
    int fd = accept(meeting->mesh->listen_fd, (struct sockaddr *)&from, &n_bytes);
    struct hand *guest;

    if (fd < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOMEM
                   ? err_set(err, ERR_IO, "cannot accept a rank: %s", strerror(errno))
                   : 0; /* whoever it was is gone already */
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        close(fd);
        return err_set(err, ERR_IO, "cannot accept a rank: %s", strerror(errno));
    }
    mesh_set_up_socket(fd);
    guest = guest_place(meeting);
    *guest = (struct hand){.state = HAND_CONNECTING,
                           .fd = fd,
                           .rank = -1,
                           .due_ms = clock_mono_ms() + MESH_HAND_MS};
    if (getnameinfo((struct sockaddr *)&from, n_bytes, guest->address,
                    sizeof(guest->address), NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(guest->address, sizeof(guest->address), "somebody");
    return 0;
}

static int guest_greeted(struct meeting *meeting, struct hand *guest, struct err *err)
{
    const struct net_mesh *mesh = meeting->mesh;
    int rc = hand_read(guest, &guest->sealed.hello, sizeof(guest->sealed.hello), err);

    if (rc <= 0)
        return rc;
    if (sealed_take_hello(&guest->sealed, meeting->secret, mesh->rank, mesh->n_ranks,
                          &guest->rank, err) < 0)
        return -1;
    guest->state = HAND_ASKED;
    return hand_send(guest, &guest->sealed.reply, sizeof(guest->sealed.reply), err);
}

static int guest_began(struct meeting *meeting, struct hand *guest, struct err *err)
{
    int rc = hand_read(guest, &guest->begin, sizeof(guest->begin), err);

    if (rc <= 0)
        return rc;
    if (sealed_take_begin(&guest->sealed, &guest->begin, &guest->begun, err) < 0 ||
        hand_send(guest, &guest->begun, sizeof(guest->begun), err) < 0)
        return -1;
    hand_finish(meeting, guest);
    return 0;
}

/* What is wrong with a guest is nobody's error. */
static void guest_ready(struct meeting *meeting, struct hand *guest)
{
    struct err ignored;
    int rc = guest->state == HAND_CONNECTING ? guest_greeted(meeting, guest, &ignored)
                                             : guest_began(meeting, guest, &ignored);

    if (rc < 0)
        guest_turn_away(meeting, guest);
}

/* ---- the loop ---- */

static void check_time(struct meeting *meeting)
{
    struct err slow = {ERR_TIMEOUT, "no answer"};
    int64_t now_ms = clock_mono_ms();

    for (int i = 0; i < meeting->mesh->rank; i++) {
        struct hand *call = &meeting->calls[i];

        if (call->state == HAND_NONE || now_ms < call->due_ms)
            continue;
        if (call->state == HAND_WAITING)
            call_begin(meeting, call);
        else
            call_failed(meeting, call, &slow);
    }
    for (int i = 0; i < MESH_GUESTS_MAX; i++)
        if (meeting->guests[i].state != HAND_NONE && now_ms >= meeting->guests[i].due_ms)
            guest_turn_away(meeting, &meeting->guests[i]);
}

static struct pollfd poll_of(const struct hand *hand, int64_t *due_ms)
{
    bool is_open = hand->state != HAND_NONE && hand->state != HAND_WAITING;
    bool is_calling = hand->state == HAND_CONNECTING && hand->rank >= 0;

    if (hand->state != HAND_NONE && hand->due_ms < *due_ms)
        *due_ms = hand->due_ms;
    return (struct pollfd){.fd = is_open ? hand->fd : -1,
                           .events = is_calling ? POLLOUT : POLLIN};
}

static int meet_once(struct meeting *meeting, int64_t deadline_ms, struct err *err)
{
    int n_calls = meeting->mesh->rank;
    struct pollfd *polls = meeting->polls;

    polls[0] = (struct pollfd){.fd = meeting->mesh->listen_fd, .events = POLLIN};
    for (int i = 0; i < n_calls; i++)
        polls[1 + i] = poll_of(&meeting->calls[i], &deadline_ms);
    for (int i = 0; i < MESH_GUESTS_MAX; i++)
        polls[1 + n_calls + i] = poll_of(&meeting->guests[i], &deadline_ms);
    if (stage_poll(polls, (nfds_t)n_calls + MESH_GUESTS_MAX + 1,
                   mesh_left_ms(deadline_ms)) < 0)
        return errno == EINTR
                   ? 0
                   : err_set(err, ERR_IO, "cannot wait for ranks: %s", strerror(errno));
    for (int i = 0; i < n_calls; i++)
        if (polls[1 + i].fd >= 0 && polls[1 + i].revents)
            call_ready(meeting, &meeting->calls[i]);
    for (int i = 0; i < MESH_GUESTS_MAX; i++)
        if (polls[1 + n_calls + i].fd >= 0 && polls[1 + n_calls + i].revents)
            guest_ready(meeting, &meeting->guests[i]);
    return polls[0].revents ? guests_accept(meeting, err) : 0;
}

/* Who is missing at the deadline, and what is known of why. */
static int nobody_came(const struct meeting *meeting, const char *const *endpoints,
                       struct err *err)
{
    const struct net_mesh *mesh = meeting->mesh;
    char strangers[64] = "";
    int missing = 0;

    while (missing == mesh->rank || mesh->streams[missing].fd >= 0)
        missing++;
    if (missing < mesh->rank)
        return err_set(err, ERR_TIMEOUT,
                       "%d ranks did not meet in time; rank %d cannot reach rank %d at "
                       "'%s' (%s); do both hosts use one network (--address of their "
                       "agents), and does no firewall close it?",
                       meeting->n_missing, mesh->rank, missing, endpoints[missing],
                       meeting->last.text);
    if (meeting->n_turned_away)
        snprintf(strangers, sizeof(strangers), " (%d strangers were turned away)",
                 meeting->n_turned_away);
    return err_set(err, ERR_TIMEOUT,
                   "%d ranks did not meet in time; rank %d did not call rank %d at "
                   "'%s'%s",
                   meeting->n_missing, missing, mesh->rank, mesh->endpoint, strangers);
}

static int meeting_init(struct meeting *meeting, const char *const *endpoints,
                        struct err *err)
{
    int n_calls = meeting->mesh->rank;

    meeting->n_missing = meeting->mesh->n_ranks - 1;
    meeting->addresses = calloc((size_t)n_calls + 1, sizeof(*meeting->addresses));
    meeting->calls = calloc((size_t)n_calls + 1, sizeof(*meeting->calls));
    meeting->polls =
        calloc((size_t)n_calls + MESH_GUESTS_MAX + 1, sizeof(*meeting->polls));
    if (!meeting->addresses || !meeting->calls || !meeting->polls)
        return err_set(err, ERR_NOMEM, "no memory to meet %d ranks", n_calls);
    for (int i = 0; i < n_calls; i++) {
        meeting->calls[i] = (struct hand){
            .state = HAND_WAITING, .fd = -1, .rank = i, .pause_ms = MESH_RETRY_FIRST_MS};
        if (mesh_read_endpoint(&meeting->addresses[i], endpoints[i], err) < 0)
            return err_wrap(err, "rank %d", i);
    }
    return 0;
}

static void meeting_fini(struct meeting *meeting)
{
    for (int i = 0; meeting->calls && i < meeting->mesh->rank; i++)
        if (meeting->calls[i].state != HAND_NONE)
            hand_close(&meeting->calls[i]);
    for (int i = 0; i < MESH_GUESTS_MAX; i++)
        if (meeting->guests[i].state != HAND_NONE)
            hand_close(&meeting->guests[i]);
    free(meeting->addresses);
    free(meeting->calls);
    free(meeting->polls);
}

int mesh_meet(struct net_mesh *mesh, const char *const *endpoints,
              const struct net_secret *secret, int64_t timeout_ms, struct err *err)
{
    struct meeting meeting = {
        .mesh = mesh, .secret = secret, .last = {ERR_TIMEOUT, "no answer"}};
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    int rc = meeting_init(&meeting, endpoints, err);

    while (rc == 0 && meeting.n_missing) {
        check_time(&meeting);
        rc = mesh_left_ms(deadline_ms) ? meet_once(&meeting, deadline_ms, err)
                                       : nobody_came(&meeting, endpoints, err);
    }
    meeting_fini(&meeting);
    return rc;
}
