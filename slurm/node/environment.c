#include "slurm/node/environment.h"

#include "slurm/node/exchange.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of a variable; NULL when it is not set or empty, which launchers mix up. */
static const char *find(const char *const *variables, const char *name)
{
    size_t n = strlen(name);

    for (; *variables; variables++)
        if (strncmp(*variables, name, n) == 0 && (*variables)[n] == '=')
            return (*variables)[n + 1] ? *variables + n + 1 : NULL;
    return NULL;
}

static int to_number(int *out, const char *name, const char *text, int min, int max,
                     struct err *err)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < min || value > max)
        return err_set(err, ERR_INVALID,
                       "%s is '%s', not a whole number from %d to %d: the launcher sets "
                       "it, and nothing else should",
                       name, text, min, max);
    *out = (int)value;
    return 0;
}

/* Which of how many, by two variables that must both be there. */
static int read_place(struct environment *out, const char *const *variables,
                      const char *node_name, const char *count_name, struct err *err)
{
    const char *node = find(variables, node_name), *count = find(variables, count_name);

    if (!node || !count)
        return err_set(err, ERR_INVALID, "%s is not set beside %s",
                       node ? count_name : node_name, node ? node_name : count_name);
    if (to_number(&out->n_nodes, count_name, count, 1, EXCHANGE_NODES_MAX, err) < 0)
        return -1;
    return to_number(&out->node, node_name, node, 0, out->n_nodes - 1, err);
}

static int read_devices(struct environment *out, const char *const *variables,
                        const char *name, struct err *err)
{
    const char *text = find(variables, name);

    if (!text)
        return 0;
    return to_number(&out->n_devices, name, text, 0, ENVIRONMENT_DEVICES_MAX, err);
}

/* A file name of it: what may not be in one becomes '_'. */
static void set_token(struct environment *out, const char *launcher, const char *id,
                      const char *restart, const char *step)
{
    snprintf(out->token, sizeof(out->token), "%s-%s-%s-%s", launcher, id, restart, step);
    for (char *c = out->token; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '.')
            *c = '_';
}

static int set_master(struct environment *out, const char *text, size_t n,
                      struct err *err)
{
    if (n >= sizeof(out->master))
        return err_set(err, ERR_INVALID, "a host name of %zu bytes: '%.64s...'", n, text);
    memcpy(out->master, text, n);
    out->master[n] = '\0';
    return 0;
}

/* The first host of Slurm's list: "n1" of "n1,n7", "gpu03" of "gpu[03-08,11]", "r1n4" of
 * "r[1-2]n[4-5]". In a step that is where task 0 runs. */
static int set_first_host(struct environment *out, const char *list, struct err *err)
{
    char host[ENVIRONMENT_HOST_MAX];
    size_t n = 0;
    const char *c = list;

    while (*c && *c != ',') {
        if (*c == '[') {
            c++;
            while (isalnum((unsigned char)*c) && n < sizeof(host))
                host[n++] = *c++;
            c += strcspn(c, "]");
            if (*c != ']')
                return err_set(err, ERR_INVALID,
                               "the list of hosts '%s' has a '[' that "
                               "nothing closes",
                               list);
            c++;
        } else if (n < sizeof(host)) {
            host[n++] = *c++;
        } else {
            break;
        }
    }
    return set_master(out, host, n, err);
}

static int read_openmpi(struct environment *out, const char *const *variables,
                        struct err *err)
{
    const char *id = find(variables, "PMIX_NAMESPACE");

    out->launcher = LAUNCHER_OPENMPI;
    if (!id)
        id = find(variables, "OMPI_MCA_ess_base_jobid");
    if (read_place(out, variables, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", err) <
        0)
        return -1;
    set_token(out, "mpi", id ? id : "0", "0", "0");
    return 0;
}

static int read_slurm(struct environment *out, const char *const *variables,
                      struct err *err)
{
    const char *restart = find(variables, "SLURM_RESTART_COUNT"); /* not set at first */
    const char *hosts = find(variables, "SLURM_STEP_NODELIST");

    out->launcher = LAUNCHER_SLURM;
    if (read_place(out, variables, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", err) < 0)
        return -1;
    set_token(out, "slurm", find(variables, "SLURM_JOB_ID"), restart ? restart : "0",
              find(variables, "SLURM_STEP_ID"));
    return hosts ? set_first_host(out, hosts, err) : 0;
}

/* The batch script's own shell, or one of salloc: only a step reaches the other nodes. */
static int check_unstepped(const char *const *variables, struct err *err)
{
    const char *name = "SLURM_JOB_NUM_NODES", *text = find(variables, name);
    int n_nodes = 1;

    if (text && to_number(&n_nodes, name, text, 1, EXCHANGE_NODES_MAX, err) < 0)
        return -1;
    if (n_nodes == 1)
        return 0;
    return err_set(err, ERR_STATE,
                   "this Slurm job has %d nodes and srun did not start this program, so "
                   "that it would run on one only; put `srun --mpi=pmix "
                   "--ntasks-per-node=1` in front of it",
                   n_nodes);
}

static int read_ngc(struct environment *out, const char *const *variables,
                    struct err *err)
{
    const char *index =
        find(variables, "NGC_ARRAY_INDEX") ? "NGC_ARRAY_INDEX" : "NGC_REPLICA_ID";
    const char *count = find(variables, "NGC_ARRAY_SIZE");
    const char *job = find(variables, "NGC_JOB_ID");

    out->launcher = LAUNCHER_NGC;
    if (strcmp(count, "1") == 0)
        return 0; /* one replica: not every job has an index then */
    if (read_place(out, variables, index, "NGC_ARRAY_SIZE", err) < 0)
        return -1;
    set_token(out, "ngc", job ? job : "0", "0", "0");
    return 0;
}

/* NGC's variables hold whoever started the process: bcprun alone, or mpirun for it. */
static int read_ngc_master(struct environment *out, const char *const *variables,
                           struct err *err)
{
    const char *master = find(variables, "NGC_MASTER_ADDR");
    const char *job = find(variables, "NGC_JOB_ID");
    char service[ENVIRONMENT_HOST_MAX];

    if (master)
        return set_master(out, master, strlen(master), err);
    if (!job || out->n_nodes == 1)
        return 0;
    snprintf(service, sizeof(service), "launcher-svc-%s", job);
    return set_master(out, service, strlen(service), err);
}

int environment_read(struct environment *out, const char *const *variables,
                     struct err *err)
{
    bool is_ngc = find(variables, "NGC_ARRAY_SIZE") != NULL;
    bool is_step = find(variables, "SLURM_JOB_ID") && find(variables, "SLURM_STEP_ID");
    int rc = 0;

    memset(out, 0, sizeof(*out));
    out->n_nodes = 1;
    if (find(variables, "OMPI_COMM_WORLD_SIZE"))
        rc = read_openmpi(out, variables, err);
    else if (is_step)
        rc = read_slurm(out, variables, err);
    else if (is_ngc)
        rc = read_ngc(out, variables, err);
    else
        rc = check_unstepped(variables, err);
    if (rc < 0 || (is_ngc && read_ngc_master(out, variables, err) < 0) ||
        read_devices(out, variables, "SLURM_GPUS_ON_NODE", err) < 0)
        return -1;
    return is_ngc ? read_devices(out, variables, "NGC_GPUS_PER_NODE", err) : 0;
}
