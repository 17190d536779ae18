/* options.h - the command line of vneva-node
 *
 * Borrows argv. Errors: ERR_INVALID.
 */
#ifndef VNEVA_SLURM_NODE_OPTIONS_H
#define VNEVA_SLURM_NODE_OPTIONS_H

#include "common/base/args.h"

#define NODE_GRACE_MS 60000 /* when nobody says more */
#define NODE_STRANDED_MS 60000

enum node_check { CHECK_ON, CHECK_WARN, CHECK_OFF };
enum node_way { WAY_AUTO, WAY_PMIX, WAY_FILES, WAY_SOLO };

struct node_options {
    const char *run_dir;
    const char *connect, *key; /* a coordinator elsewhere; NULL */
    const char *address;       /* how others reach this node; NULL: its name */
    const char *host;          /* what this machine is called; NULL: its host name */
    const char *token;         /* of this start; NULL: the launcher's */
    const char *pool;          /* what its agents are for; NULL */
    int64_t n_devices;         /* 0: as many as there are */
    int64_t node, n_nodes;     /* -1, 0: the launcher says */
    int64_t grace_ms, stranded_ms, idle_ms;
    enum node_way way;
    enum node_check check;     /* preflight */
    const char *const *submit; /* SPEC.yaml key=value ..., ended by NULL; NULL: no job */
    bool is_help;
    struct args args;
};

extern const char node_usage[];

int node_options_parse(struct node_options *out, int argc, char *const *argv,
                       struct err *err);

#endif
