/* http_talk.h - the dashboard's program and a plain HTTP client on sockets, for its tests
 *
 * The client sends the bytes it is given, reads till the server ends, and lets the
 * cluster's agents go on meanwhile.
 */
#ifndef VNEVA_TESTS_INTEGRATION_HTTP_TALK_H
#define VNEVA_TESTS_INTEGRATION_HTTP_TALK_H

#include "common/base/fs.h"
#include "common/base/json.h"
#include "tests/integration/cluster.h"

struct dashboard {
    pid_t pid;
    int port;
    int said_fd;
    char said
        [8192]; /* what it printed till it served; once it has ended, what it did then */
};

/* `vneva dashboard OPTIONS...` (NULL ends them) for the cluster's home; waits till it
 * serves. All fail the running test when something cannot be had. */
void dashboard_start(struct dashboard *dashboard, const struct cluster *cluster,
                     const char *const *options);
void dashboard_stop(struct dashboard *dashboard); /* by SIGTERM; it must end with 0 */
/* One that does not start: its exit status, and what it says. */
int dashboard_fails(const struct cluster *cluster, const char *const *options, char *said,
                    size_t n_bytes);

struct reply {
    int status;      /* 0: the connection ended without an answer */
    struct buf text; /* all of it */
    const char *body;
};

int talk_open(const struct dashboard *dashboard);          /* a connection */
void talk_send(int fd, const void *bytes, size_t n_bytes); /* what is refused is fine */
/* Till the server closes. Closes fd. */
void talk_finish(int fd, struct reply *reply, struct cluster *cluster);
void reply_fini(struct reply *reply);

/* METHOD TARGET with a Host of 127.0.0.1 and these headers ("Name: value\r\n..."). */
void talk(const struct dashboard *dashboard, struct cluster *cluster, struct reply *reply,
          const char *method, const char *target, const char *headers, const char *body);
/* GET that must have this status; the body as JSON, which the caller frees. */
struct json *talk_json(const struct dashboard *dashboard, struct cluster *cluster,
                       const char *target, int status);

#endif
