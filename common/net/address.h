/* address.h - by which of its addresses this machine is reached
 *
 * Nodes of a cluster have several networks. Ranks listen on the one over which their agent
 * reaches the coordinator, unless the agent was told another.
 * Owns: nothing. Threads: any.
 */
#ifndef VNEVA_COMMON_NET_ADDRESS_H
#define VNEVA_COMMON_NET_ADDRESS_H

#include "common/base/err.h"

#define NET_ADDRESS_BYTES 46 /* INET6_ADDRSTRLEN */

/* The address that `name` means: one this machine has (IPv4, or IPv6 that is not link-local),
 * or the name of a network interface ("ib0"). ERR_INVALID says which there are. */
int net_address_named(char out[NET_ADDRESS_BYTES], const char *name, struct err *err);
/* The address packets to "tcp://host:port" leave from, as the routes are now (nothing is
 * sent). 127.0.0.1 for an endpoint that no other machine reaches: ipc, or on loopback. A
 * name that stands for loopback here alone (as Debian's /etc/hosts has it for the machine's
 * own) gives the address of the default route, else the first there is. */
int net_address_towards(char out[NET_ADDRESS_BYTES], const char *endpoint,
                        struct err *err);

#endif
