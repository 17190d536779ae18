/* listen.h - the socket a dashboard listens at */
#ifndef VNEVA_JOBS_DASHBOARD_LISTEN_H
#define VNEVA_JOBS_DASHBOARD_LISTEN_H

#include "common/base/err.h"

#include <stdbool.h>

#define LISTEN_TEXT_MAX 512
#define LISTEN_WAITING_MAX 64 /* connections not taken yet */

struct listen_at {
    int fd;
    bool is_loopback;           /* nobody on another machine reaches it */
    char name[LISTEN_TEXT_MAX]; /* "127.0.0.1:8420", as it stands in an address */
};

/* address: "HOST:PORT", "[::1]:PORT", ":PORT" and "*:PORT" for every address of this
 * machine; port 0: one that is free. ERR_EXISTS where somebody listens already. The
 * caller closes fd. */
int listen_open(struct listen_at *out, const char *address, struct err *err);

#endif
