/* lan.h - a network of hosts on one machine: namespaces, veth pairs and the wire between
 *
 * Every host is a network namespace of its own with one interface, eth0, the other end of
 * which lies in a namespace for the wire. Between those ends a thread carries frames (packet
 * sockets; a hub, for a handful of hosts) with the latency and loss asked for: so it does not
 * depend on netem, which many kernels lack, and which frame is lost is drawn with a seed.
 * All of it is without names and ends with the process: nothing is left behind.
 * Needs root, iproute2 (`ip`) and packet sockets.
 * Owns: namespaces, sockets, the thread. Threads: one caller. Units: ms, per mille.
 */
#ifndef VNEVA_TESTS_NETNS_LAN_H
#define VNEVA_TESTS_NETNS_LAN_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LAN_HOSTS_MAX 8
#define LAN_ADDRESS "10.77.0.%d" /* of host i: i + 1 */

struct lan;

/* ERR_DENIED when this user may make no namespaces. The caller's main thread is in the
 * wire's namespace from here on: it must be the process's only one, and may run no `ip` of
 * its own by mistake on the machine's real network. */
int lan_create(struct lan **out, int n_hosts, struct err *err);
void lan_destroy(struct lan *lan);

void lan_address(char out[16], int host);
/* Every frame takes that long, one way, and every n-th of 1000 is lost, by chance. */
void lan_set_weather(struct lan *lan, int64_t latency_ms, int loss_per_mille);
int64_t lan_n_lost(const struct lan *lan);

/* The cable of a host: pulled out (both ends see it), or put in again. */
int lan_set_link(struct lan *lan, int host, bool is_up, struct err *err);
/* Whether the wire carries what the host says, and what is said to it; nobody sees why
 * not. */
void lan_set_wire(struct lan *lan, int host, bool is_heard, bool hears);

/* Runs a program on a host; its output is appended to the file log. */
int lan_start(struct lan *lan, int host, const char *log, char *const *argv, pid_t *pid,
              struct err *err);
/* A signal to every process of the host, those its processes started too. How many. */
int lan_signal(struct lan *lan, int host, int signal);

#endif
