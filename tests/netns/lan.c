#define _GNU_SOURCE /* setns, unshare */
#include "tests/netns/lan.h"

#include "common/base/clock.h"
#include "common/base/rng.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FRAME_MAX (66 << 10) /* one that was to be cut by the card, and its header */
#define FRAMES_MAX 16384     /* on the wire; more are lost */
#define ROOM_BYTES (8 << 20) /* asked for each packet socket */
#define COMMAND_MAX 512
#define TICK_MS 50 /* how soon the wire sees that it is to end */
#define SEED 42

struct frame {
    int64_t due_ms;
    int from;
    size_t n_bytes;
    uint8_t *bytes;
};

struct host {
    int space_fd;  /* its namespace */
    int packet_fd; /* the wire's end of its cable */
    atomic_bool is_mute, is_deaf;
};

struct lan {
    struct host hosts[LAN_HOSTS_MAX];
    int n_hosts;
    pthread_t wire;
    bool has_wire;
    atomic_bool is_ending;
    _Atomic int64_t latency_ms, n_lost;
    atomic_int loss_per_mille;
    struct frame *frames; /* [FRAMES_MAX] a ring: they are due in order */
    size_t first, n_frames;
    uint64_t n_drawn;
};

static int sys_failed(struct err *err, const char *what)
{
    return err_set(err, errno == EPERM ? ERR_DENIED : ERR_IO, "%s: %s", what,
                   strerror(errno));
}

/* ---- the wire ---- */

static void put_out(struct lan *lan, const struct frame *frame)
{
    if (lan->hosts[frame->from].is_mute)
        return;
    for (int i = 0; i < lan->n_hosts; i++)
        if (i != frame->from && !lan->hosts[i].is_deaf &&
            send(lan->hosts[i].packet_fd, frame->bytes, frame->n_bytes, MSG_DONTWAIT) < 0)
            continue; /* a cable that is pulled out, or a full buffer: so it is lost */
}

static void put_out_due(struct lan *lan)
{
    while (lan->n_frames && lan->frames[lan->first].due_ms <= clock_mono_ms()) {
        struct frame *frame = &lan->frames[lan->first];

        put_out(lan, frame);
        free(frame->bytes);
        lan->first = (lan->first + 1) % FRAMES_MAX;
        lan->n_frames--;
    }
}

static bool is_lost(struct lan *lan)
{
    struct rng_key key = {SEED, rng_stream("loss")};

    return (int)rng_below(key, lan->n_drawn++, 1000) < lan->loss_per_mille;
}

/* Keeps a copy until it is due; without latency it goes on at once. */
static void keep(struct lan *lan, int from, uint8_t *bytes, size_t n_bytes)
{
    struct frame frame = {clock_mono_ms() + lan->latency_ms, from, n_bytes, bytes};

    if (is_lost(lan) || lan->n_frames == FRAMES_MAX) {
        lan->n_lost++;
        return;
    }
    if (!lan->n_frames && !lan->latency_ms) {
        put_out(lan, &frame);
        return;
    }
    frame.bytes = malloc(n_bytes);
    if (!frame.bytes)
        return;
    memcpy(frame.bytes, bytes, n_bytes);
    lan->frames[(lan->first + lan->n_frames++) % FRAMES_MAX] = frame;
}

static void take_in(struct lan *lan, int host)
{
    static _Thread_local uint8_t bytes[FRAME_MAX];
    struct sockaddr_ll from = {.sll_family = AF_PACKET};
    socklen_t n_from = sizeof(from);
    ssize_t n;

    while ((n = recvfrom(lan->hosts[host].packet_fd, bytes, sizeof(bytes), MSG_DONTWAIT,
                         (struct sockaddr *)&from, &n_from)) > 0)
        if (from.sll_pkttype != PACKET_OUTGOING) /* else it is what we sent ourselves */
            keep(lan, host, bytes, (size_t)n);
}

static void *wire_main(void *argument)
{
    struct lan *lan = argument;
    struct pollfd polls[LAN_HOSTS_MAX];

    while (!lan->is_ending) {
        int64_t wait_ms = TICK_MS;

        if (lan->n_frames && lan->frames[lan->first].due_ms - clock_mono_ms() < wait_ms)
            wait_ms = lan->frames[lan->first].due_ms - clock_mono_ms();
        for (int i = 0; i < lan->n_hosts; i++)
            polls[i] = (struct pollfd){.fd = lan->hosts[i].packet_fd, .events = POLLIN};
        poll(polls, (nfds_t)lan->n_hosts, wait_ms > 0 ? (int)wait_ms : 0);
        for (int i = 0; i < lan->n_hosts; i++)
            if (polls[i].revents)
                take_in(lan, i);
        put_out_due(lan);
    }
    return NULL;
}

/* ---- commands ---- */

/* Runs in the namespace space_fd (-1: where we are); only calls that are safe after fork. */
static pid_t start(int space_fd, int out_fd, char *const *argv)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (space_fd >= 0 && setns(space_fd, CLONE_NEWNET) < 0)
        _exit(126);
    if (out_fd >= 0) {
        dup2(out_fd, STDOUT_FILENO);
        dup2(out_fd, STDERR_FILENO);
    }
    execvp(argv[0], argv);
    _exit(127);
}

/* `ip` with these words. */
static int ip(int space_fd, struct err *err, const char *format, ...)
{
    char text[COMMAND_MAX], *argv[32] = {"ip"}, *rest = NULL;
    va_list arguments;
    int n = 1, status = -1;
    pid_t pid;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    for (char *word = strtok_r(text, " ", &rest); word && n < 31;
         word = strtok_r(NULL, " ", &rest))
        argv[n++] = word;
    pid = start(space_fd, -1, argv);
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return sys_failed(err, "cannot run ip");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return err_set(err, ERR_IO, "ip %s ... failed (status %d)", argv[1], status);
}

void lan_address(char out[16], int host)
{
    snprintf(out, 16, LAN_ADDRESS, host + 1);
}

/* ---- opening ---- */

static int open_space(struct err *err)
{
    int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

    return fd < 0 ? sys_failed(err, "cannot open the network namespace") : fd;
}

/* A namespace for the host; afterwards we are in the wire's again. */
static int make_space(struct host *host, int wire_space, struct err *err)
{
    if (unshare(CLONE_NEWNET) < 0)
        return sys_failed(err, "cannot make a network namespace");
    host->space_fd = open_space(err);
    if (setns(wire_space, CLONE_NEWNET) < 0)
        return sys_failed(err, "cannot enter a network namespace");
    return host->space_fd < 0 ? -1 : 0;
}

static int open_packets(struct host *host, int index, struct err *err)
{
    const int on = 1, room = ROOM_BYTES;
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(ETH_P_ALL)};
    char name[16];

    snprintf(name, sizeof(name), "wire%d", index);
    address.sll_ifindex = (int)if_nametoindex(name);
    host->packet_fd =
        socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    /* With a header, so that checksums the card was to make are made at the other end. */
    if (host->packet_fd < 0 ||
        bind(host->packet_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(host->packet_fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0)
        return sys_failed(err, "cannot open a packet socket");
    setsockopt(host->packet_fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    setsockopt(host->packet_fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    return 0;
}

/* gso_max_segs 1: a frame is a packet, so that a loss loses one. */
static int make_host(struct lan *lan, int index, int wire_space, struct err *err)
{
    struct host *host = &lan->hosts[index];
    char address[16];

    lan_address(address, index);
    if (make_space(host, wire_space, err) < 0 ||
        ip(host->space_fd, err, "link add eth0 type veth peer name wire%d netns %d",
           index, (int)getpid()) < 0 ||
        ip(host->space_fd, err, "address add %s/24 dev eth0", address) < 0 ||
        ip(host->space_fd, err, "link set eth0 gso_max_segs 1 up") < 0 ||
        ip(host->space_fd, err, "link set lo up") < 0 ||
        ip(-1, err, "link set wire%d up", index) < 0)
        return err_wrap(err, "host %d", index);
    return open_packets(host, index, err);
}

int lan_create(struct lan **out, int n_hosts, struct err *err)
{
    struct lan *lan = calloc(1, sizeof(*lan));
    int wire_space;

    if (lan)
        lan->frames = calloc(FRAMES_MAX, sizeof(*lan->frames));
    if (!lan || !lan->frames || n_hosts > LAN_HOSTS_MAX) {
        free(lan);
        return err_set(err, ERR_NOMEM, "no memory for a network of %d hosts", n_hosts);
    }
    for (int i = 0; i < LAN_HOSTS_MAX; i++)
        lan->hosts[i].space_fd = lan->hosts[i].packet_fd = -1;
    lan->n_hosts = n_hosts;
    if (unshare(CLONE_NEWNET) < 0) {
        sys_failed(err, "cannot make a network namespace");
        goto fail;
    }
    wire_space = open_space(err);
    for (int i = 0; i < n_hosts; i++)
        if (wire_space < 0 || make_host(lan, i, wire_space, err) < 0)
            goto fail;
    close(wire_space);
    lan->has_wire = pthread_create(&lan->wire, NULL, wire_main, lan) == 0;
    if (!lan->has_wire) {
        err_set(err, ERR_IO, "cannot start a thread");
        goto fail;
    }
    *out = lan;
    return 0;
fail:
    lan_destroy(lan);
    return -1;
}

void lan_destroy(struct lan *lan)
{
    if (!lan)
        return;
    lan->is_ending = true;
    if (lan->has_wire)
        pthread_join(lan->wire, NULL);
    for (int i = 0; i < lan->n_hosts; i++) {
        if (lan->hosts[i].space_fd >= 0)
            close(lan->hosts[i].space_fd);
        if (lan->hosts[i].packet_fd >= 0)
            close(lan->hosts[i].packet_fd);
    }
    for (; lan->n_frames; lan->n_frames--, lan->first = (lan->first + 1) % FRAMES_MAX)
        free(lan->frames[lan->first].bytes);
    free(lan->frames);
    free(lan);
}

/* ---- what happens to it ---- */

void lan_set_weather(struct lan *lan, int64_t latency_ms, int loss_per_mille)
{
    lan->latency_ms = latency_ms;
    lan->loss_per_mille = loss_per_mille;
}

int64_t lan_n_lost(const struct lan *lan)
{
    return lan->n_lost;
}

int lan_set_link(struct lan *lan, int host, bool is_up, struct err *err)
{
    (void)lan;
    return ip(-1, err, "link set wire%d %s", host, is_up ? "up" : "down");
}

void lan_set_wire(struct lan *lan, int host, bool is_heard, bool hears)
{
    lan->hosts[host].is_mute = !is_heard;
    lan->hosts[host].is_deaf = !hears;
}

int lan_start(struct lan *lan, int host, const char *log, char *const *argv, pid_t *pid,
              struct err *err)
{
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (fd < 0)
        return sys_failed(err, "cannot open a log");
    *pid = start(lan->hosts[host].space_fd, fd, argv);
    close(fd);
    return *pid < 0 ? sys_failed(err, "cannot fork") : 0;
}

static bool is_inside(const char *process, const struct stat *space)
{
    char path[64];
    struct stat its;

    snprintf(path, sizeof(path), "/proc/%.20s/ns/net", process);
    return stat(path, &its) == 0 && its.st_ino == space->st_ino &&
           its.st_dev == space->st_dev;
}

int lan_signal(struct lan *lan, int host, int signal)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    struct stat space;
    int n = 0;

    if (!processes || fstat(lan->hosts[host].space_fd, &space) < 0)
        return 0;
    while ((entry = readdir(processes))) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);

        if (pid > 1 && !*end && is_inside(entry->d_name, &space) &&
            kill((pid_t)pid, signal) == 0)
            n++;
    }
    closedir(processes);
    return n;
}
