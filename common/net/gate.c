#include "common/net/gate.h"
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/base/log_bound.h"
#include "common/net/keys_file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_FRAMES 7 /* version, request, domain, address, identity, mechanism, key */
#define ZAP_TURN_MAX 64
#define MONITOR_TURN_MAX 256
#define CURVE_BYTES 32
#define KNOWN_PEERS 256 /* connections whose address is remembered until their end */

/* The address behind a file descriptor of ZeroMQ's, to name who failed the handshake. */
struct known_peer {
    int fd; /* -1: none */
    char address[INET6_ADDRSTRLEN];
};

struct gate {
    void *zap, *monitor;
    char home[FS_PATH_MAX], path[FS_PATH_MAX]; /* of the list */
    struct authorized_list list;
    struct stat seen; /* of the list as it was read */
    unsigned version; /* of the list: counts what was read */
    bool is_broken;   /* the list could not be read; said once */
    int64_t looked_mono_ms;
    struct known_peer known[KNOWN_PEERS];
    bool has_failed;              /* the handshake of the connection that ends next */
    struct log_bound turned_away; /* there is nobody else to tell */
};

/* ---- the list ---- */

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* A list that is gone lets nobody in. One that cannot be read (a disk that hiccups, a slip
 * of an editor) changes nothing, and is said once. */
static int read_list(struct gate *gate, const struct stat *st, struct err *err)
{
    struct authorized_list list;

    if (keys_read_authorized(&list, gate->home, err) < 0)
        return -1;
    authorized_fini(&gate->list);
    gate->list = list;
    gate->seen = *st;
    gate->version++;
    return 0;
}

static int look(struct gate *gate, struct err *err)
{
    struct stat st;
    int fd, rc;

    gate->looked_mono_ms = clock_mono_ms();
    /* Opened, and not only looked at: a network file system then asks its server. */
    fd = keys_file_open(gate->path, &st, err);
    if (fd < 0) {
        if (err->code == ERR_NOT_FOUND && gate->list.n_items) {
            authorized_fini(&gate->list);
            gate->version++;
        }
        memset(&gate->seen, 0, sizeof(gate->seen));
        return -1;
    }
    rc = is_same_file(&st, &gate->seen) ? 0 : read_list(gate, &st, err);
    close(fd);
    return rc;
}

static void look_again(struct gate *gate)
{
    struct err err = {ERR_NONE, ""};

    if (look(gate, &err) == 0) {
        gate->is_broken = false;
    } else if (!gate->is_broken) {
        gate->is_broken = true;
        log_error("cannot read who is authorized: %s", err.text);
    }
}

/* ---- ZAP ---- */

struct question {
    char frames[ZAP_FRAMES][256];
    size_t n_bytes[ZAP_FRAMES];
    int n_frames;
};

/* One request; longer frames are cut, more frames dropped. */
static bool receive_question(struct gate *gate, struct question *question)
{
    int more = 1;
    size_t size = sizeof(more);

    memset(question, 0, sizeof(*question));
    while (more) {
        char scratch[256];
        bool is_kept = question->n_frames < ZAP_FRAMES;
        char *to = is_kept ? question->frames[question->n_frames] : scratch;
        int n = zmq_recv(gate->zap, to, sizeof(scratch) - 1, ZMQ_DONTWAIT);

        if (n < 0)
            return false;
        n = n < (int)sizeof(scratch) ? n : (int)sizeof(scratch) - 1;
        if (is_kept)
            question->n_bytes[question->n_frames] = (size_t)n;
        question->n_frames++;
        if (zmq_getsockopt(gate->zap, ZMQ_RCVMORE, &more, &size) < 0)
            return false;
    }
    return true;
}

/* 200: welcome. 300, unlike 400, gets the stranger no answer at all: the connection ends,
 * and a client whose key is authorized later comes in by itself. */
static void answer(struct gate *gate, const struct question *question, bool is_welcome,
                   const char *user)
{
    const char *parts[] = {is_welcome ? "200" : "300", "", user, ""};

    zmq_send(gate->zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(gate->zap, question->frames[1], question->n_bytes[1], ZMQ_SNDMORE);
    for (int i = 0; i < 4; i++)
        zmq_send(gate->zap, parts[i], strlen(parts[i]), i < 3 ? ZMQ_SNDMORE : 0);
}

/* The user of a connection is its public key: a name may be given to another key later. */
static void decide(struct gate *gate, const struct question *question)
{
    char public_key[KEY_TEXT_BYTES] = "";
    const struct authorized *key = NULL;

    if (question->n_frames == ZAP_FRAMES && strcmp(question->frames[5], "CURVE") == 0 &&
        question->n_bytes[6] == CURVE_BYTES &&
        zmq_z85_encode(public_key, (const uint8_t *)question->frames[6], CURVE_BYTES))
        key = authorized_find(&gate->list, public_key);
    if (!key)
        log_bound_warn(&gate->turned_away, clock_mono_ms(),
                       "turned away %s: its key '%s' is not authorized",
                       question->frames[3], public_key);
    answer(gate, question, key != NULL, key ? public_key : "");
}

/* ---- who does not even get that far ---- */

static struct known_peer *known_peer(struct gate *gate, int fd)
{
    return &gate->known[(unsigned)fd % KNOWN_PEERS];
}

static void remember(struct gate *gate, int fd)
{
    struct known_peer *peer = known_peer(gate, fd);
    struct sockaddr_storage address;
    socklen_t n_bytes = sizeof(address);
    const void *number = NULL;

    peer->fd = -1; /* it may have gone meanwhile, and its descriptor be another's */
    if (getpeername(fd, (struct sockaddr *)&address, &n_bytes) < 0)
        return;
    if (address.ss_family == AF_INET6)
        number = &((struct sockaddr_in6 *)&address)->sin6_addr;
    else if (address.ss_family == AF_INET)
        number = &((struct sockaddr_in *)&address)->sin_addr;
    if (number &&
        inet_ntop(address.ss_family, number, peer->address, sizeof(peer->address)))
        peer->fd = fd;
}

static void forget(struct gate *gate, int fd)
{
    struct known_peer *peer = known_peer(gate, fd);

    if (gate->has_failed)
        log_bound_warn(&gate->turned_away, clock_mono_ms(),
                       "turned away %s: no handshake (no key, another coordinator's, or "
                       "not vneva)",
                       peer->fd == fd ? peer->address : "somebody");
    gate->has_failed = false;
    if (peer->fd == fd)
        peer->fd = -1;
}

/* ZeroMQ tells of a failed handshake first and then which connection ended; a key that was
 * not authorized is said in decide(). */
static void take_event(struct gate *gate, int event, int value)
{
    if (event == ZMQ_EVENT_ACCEPTED)
        remember(gate, value);
    else if (event == ZMQ_EVENT_DISCONNECTED)
        forget(gate, value);
    else /* a handshake failed */
        gate->has_failed = true;
}

/* ---- what server.c calls ---- */

void gate_sockets(const struct gate *gate, void *out[GATE_SOCKETS])
{
    out[0] = gate->zap;
    out[1] = gate->monitor;
}

void gate_turn(struct gate *gate)
{
    struct question question;
    int event, value;

    if (clock_mono_ms() - gate->looked_mono_ms >= GATE_LOOK_MS)
        look_again(gate);
    log_bound_turn(&gate->turned_away, clock_mono_ms());
    for (int i = 0;
         i < MONITOR_TURN_MAX && net_monitor_next(gate->monitor, &event, &value); i++)
        take_event(gate, event, value);
    for (int i = 0; i < ZAP_TURN_MAX && receive_question(gate, &question); i++) {
        if (i == 0)
            look_again(gate);
        decide(gate, &question);
    }
}

unsigned gate_version(const struct gate *gate)
{
    return gate->version;
}

enum key_role gate_role(const struct gate *gate, const char *public_key)
{
    const struct authorized *key = authorized_find(&gate->list, public_key);

    return key ? key->role : KEY_NONE;
}

bool gate_identify(struct gate *gate, void *frame, struct net_peer *from)
{
    const char *public_key = zmq_msg_gets(frame, "User-Id");
    const char *address = zmq_msg_gets(frame, "Peer-Address");
    const struct authorized *key;

    if (clock_mono_ms() - gate->looked_mono_ms >= GATE_LOOK_MS)
        look_again(gate);
    key = public_key ? authorized_find(&gate->list, public_key) : NULL;
    if (!key) {
        log_bound_warn(&gate->turned_away, clock_mono_ms(),
                       "dropped a message of %s: its key '%s' was revoked",
                       address ? address : "somebody", public_key ? public_key : "");
        return false;
    }
    from->role = key->role;
    memcpy(from->key_name, key->name, sizeof(from->key_name));
    memcpy(from->public_key, key->public_key, sizeof(from->public_key));
    return true;
}

static int open_zap(struct gate *gate, struct net_socket *socket, struct err *err)
{
    static const char domain[] = "vneva"; /* without one ZeroMQ would not ask */

    gate->zap = zmq_socket(socket->context, ZMQ_REP);
    if (gate->zap && zmq_bind(gate->zap, ZAP_ENDPOINT) == 0 &&
        zmq_setsockopt(socket->socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) == 0)
        return 0;
    return err_set(err, ERR_IO, "cannot set up the check of keys: %s",
                   zmq_strerror(errno));
}

int gate_open(struct gate **out, struct net_socket *socket, const char *home,
              struct err *err)
{
    const int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
    struct gate *gate = calloc(1, sizeof(*gate));

    if (!gate)
        return err_set(err, ERR_NOMEM, "no memory for the keys");
    for (int i = 0; i < KNOWN_PEERS; i++)
        gate->known[i].fd = -1;
    if (fs_path(gate->home, err, "%s", home) == 0 &&
        fs_path(gate->path, err, "%s/keys/authorized", home) == 0 &&
        look(gate, err) == 0 && open_zap(gate, socket, err) == 0 &&
        (gate->monitor = net_monitor_open(socket, events, err)) != NULL) {
        *out = gate;
        return 0;
    }
    gate_close(gate);
    return -1;
}

void gate_close(struct gate *gate)
{
    if (!gate)
        return;
    if (gate->zap)
        zmq_close(gate->zap);
    if (gate->monitor)
        zmq_close(gate->monitor);
    authorized_fini(&gate->list);
    free(gate);
}
