#include "slurm/node/preflight_decide.h"

#include "common/base/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define US_PER_S 1e6
#define MB(bytes) ((bytes) >> 20)

struct judge {
    const struct preflight_case *c;
    struct json *faults;
    const struct json *facts; /* of the node being looked at */
    const char *host;
    int node;
    struct err *err;
    int rc;
};

enum weight { WARNING, FAULT };

/* remedy: no format. */
static void add(struct judge *j, enum weight weight, const char *check,
                const char *remedy, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static void add(struct judge *j, enum weight weight, const char *check,
                const char *remedy, const char *format, ...)
{
    struct json *fault = json_new(JSON_OBJECT);
    char cause[ERR_TEXT_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(cause, sizeof(cause), format, args);
    va_end(args);
    utf8_mend(cause);
    if (json_set(fault, "node", json_new_int(j->node), j->err) < 0 ||
        json_set(fault, "host", json_new_string(j->host), j->err) < 0 ||
        json_set(fault, "check", json_new_string(check), j->err) < 0 ||
        json_set(fault, "is_fault", json_new_bool(weight == FAULT), j->err) < 0 ||
        json_set(fault, "cause", json_new_string(cause), j->err) < 0 ||
        json_set(fault, "remedy", json_new_string(remedy), j->err) < 0) {
        json_free(fault);
        j->rc = -1;
    } else if (json_append(j->faults, fault, j->err) < 0) {
        j->rc = -1;
    }
}

static const char *why_of(const struct judge *j, const char *key)
{
    return json_get_text(json_get(j->facts, key), "why");
}

static const char *first_host(const struct judge *j)
{
    return json_get_text(j->c->facts[0], "host");
}

/* ---- programs ---- */

static void check_version(struct judge *j)
{
    const struct json *first = j->c->facts[0];
    const char *mine = json_get_text(j->facts, "version"),
               *theirs = json_get_text(first, "version");
    const char *build = json_get_text(j->facts, "build"),
               *other = json_get_text(first, "build");

    if (strcmp(mine, theirs) != 0)
        add(j, FAULT, "version",
            "install the same vneva on all nodes, or unpack one bundle in a folder that "
            "they "
            "share",
            "runs vneva %s, but %s runs %s", mine, first_host(j), theirs);
    else if (*build && *other && strcmp(build, other) != 0)
        add(j, WARNING, "version",
            "install the same files on all nodes: different builds of one version may "
            "differ in the last bits of results",
            "vneva %s is another build here than on %s", mine, first_host(j));
}

static void check_programs(struct judge *j)
{
    const struct json *programs = json_get(j->facts, "programs");

    for (size_t i = 0; i < json_count(programs); i++)
        add(j, FAULT, "programs",
            "install all of vneva's programs and the libraries they need on this node, "
            "or "
            "unpack the bundle, which has them",
            "%s", json_string(json_at(programs, i)));
}

static void check_pmix(struct judge *j)
{
    const char *way = json_get_text(j->facts, "way"),
               *wire = json_get_text(j->facts, "wire");
    const char *first = json_get_text(j->c->facts[0], "wire");
    long major = strtol(wire, NULL, 10);

    if (*j->c->way && strcmp(way, j->c->way) != 0)
        add(j, FAULT, "pmix",
            "start it with `srun --mpi=pmix` (`srun --mpi=list` shows what Slurm has) or "
            "mpirun, and have libpmix.so.2 on the nodes",
            "wire-up by %s was asked for, but it is by %s here", j->c->way, way);
    if (strcmp(way, "pmix") != 0 || !*wire)
        return;
    if (major < PREFLIGHT_PMIX_MAJOR)
        add(j, FAULT, "pmix", "update PMIx on this node",
            "PMIx %s is older than %d, the first that will do", wire,
            PREFLIGHT_PMIX_MAJOR);
    else if (major != strtol(first, NULL, 10))
        add(j, WARNING, "pmix", "have one version of PMIx on all nodes",
            "PMIx %s here, %s on %s", wire, first, first_host(j));
}

/* ---- the coordinator ---- */

static void check_coordinator(struct judge *j)
{
    const char *why = why_of(j, "coordinator");
    const char *theirs = json_get_text(json_get(j->facts, "coordinator"), "version");

    if (*why)
        add(j, FAULT, "coordinator",
            "let this node reach that address and port (firewall, network interface, "
            "name "
            "lookup), and check that the key is one of the coordinator's",
            "does not reach the coordinator at %s: %s", j->c->endpoint, why);
    else if (*theirs && strcmp(theirs, json_get_text(j->facts, "version")) != 0)
        add(j, FAULT, "version", "run the coordinator and the nodes with the same vneva",
            "runs vneva %s, but the coordinator at %s runs %s",
            json_get_text(j->facts, "version"), j->c->endpoint, theirs);
}

/* ---- folders and paths ---- */

static void check_run_folder(struct judge *j)
{
    const struct json *run = json_get(j->facts, "run");
    const struct json *unseen = json_get(run, "unseen");

    if (*json_get_text(run, "why"))
        add(j, FAULT, "run folder",
            "choose a run folder that this user may write on every node (--run-dir)",
            "cannot write in '%s': %s", j->c->run_folder, json_get_text(run, "why"));
    /* where node 0 could not write, there is nothing to see */
    if (*json_get_text(run, "seen_why") &&
        !*json_get_text(json_get(j->c->facts[0], "run"), "why"))
        add(j, FAULT, "run folder",
            "choose a run folder on a file system that all nodes mount (--run-dir), such "
            "as "
            "NFS or Lustre",
            "'%s' is not shared: what %s wrote there cannot be read here: %s",
            j->c->run_folder, first_host(j), json_get_text(run, "seen_why"));
    for (size_t i = 0; i < json_count(unseen); i++) {
        const struct json *one = json_at(unseen, i);
        int node = (int)json_get_int(one, "node", -1);

        if (node < 0 || node >= j->c->n_nodes || !j->c->facts[node] ||
            *json_get_text(json_get(j->c->facts[node], "run"), "why"))
            continue; /* it could not write, and says so itself */
        add(j, FAULT, "run folder",
            "choose a run folder that all nodes share, and one user with one number on "
            "all",
            "cannot read what %s wrote in '%s': %s",
            json_get_text(j->c->facts[node], "host"), j->c->run_folder,
            json_get_text(one, "why"));
    }
}

#define SAME_DATA                                                                        \
    "make sure that all nodes read the same data (is it mounted everywhere?)"

/* Data that this node and node 0 can both read have to be the same. */
static void compare_data(struct judge *j, const char *key, const char *path,
                         const struct json *mine, const struct json *theirs)
{
    int64_t bytes = json_get_int(mine, "bytes", -1),
            first_bytes = json_get_int(theirs, "bytes", -1);
    int64_t entries = json_get_int(mine, "entries", -1),
            first_entries = json_get_int(theirs, "entries", -1);
    bool is_same =
        strcmp(json_get_text(mine, "print"), json_get_text(theirs, "print")) == 0;

    if ((entries < 0) != (first_entries < 0))
        add(j, FAULT, "paths", SAME_DATA, "%s: '%s' is a %s here and a %s on %s", key,
            path, entries < 0 ? "file" : "folder", entries < 0 ? "folder" : "file",
            first_host(j));
    else if (bytes != first_bytes)
        add(j, FAULT, "paths", SAME_DATA,
            "%s: '%s' is not the same as on %s (%" PRId64 " and %" PRId64 " bytes)", key,
            path, first_host(j), bytes, first_bytes);
    else if ((entries == 0) != (first_entries == 0))
        add(j, FAULT, "paths", SAME_DATA,
            "%s: folder '%s' is empty %s: it has %" PRId64 " entries here and %" PRId64
            " on %s",
            key, path, entries ? "there" : "here", entries, first_entries, first_host(j));
    else if (!is_same) /* a list of names may be a minute old on NFS: no reason to end */
        add(j, entries < 0 ? FAULT : WARNING, "paths", SAME_DATA,
            entries < 0 ? "%s: '%s' has other contents than on %s"
                        : "%s: folder '%s' has other names in it than on %s",
            key, path, first_host(j));
}

/* What node 0 has left where the job makes something. */
static void check_mark(struct judge *j, const char *key, const char *path,
                       const struct json *mine)
{
    if (*json_get_text(mine, "why"))
        add(j, FAULT, "paths",
            "choose a path on a file system that all nodes mount, such as NFS or Lustre",
            "%s: the folder '%.*s' is not shared: what %s wrote there cannot be read "
            "here: %s",
            key, (int)(strrchr(path, '/') - path), path, first_host(j),
            json_get_text(mine, "why"));
}

/* A path is judged on every node. */
static void check_path(struct judge *j, size_t i)
{
    const struct json *asked = json_at(j->c->paths, i);
    const struct json *mine = json_at(json_get(j->facts, "paths"), i);
    const struct json *theirs = json_at(json_get(j->c->facts[0], "paths"), i);
    const char *key = json_get_text(asked, "key"), *path = json_get_text(asked, "path");
    bool is_made = json_bool(json_get(asked, "is_made"), false);
    const char *why = json_get_text(mine, "why");

    if (!*why && j->node == 0)
        why = json_get_text(asked, "unwritten");
    if (!mine)
        add(j, FAULT, "paths", "look at this node's log", "has not looked at %s: '%s'",
            key, path);
    else if (json_bool(json_get(asked, "is_mark"), false))
        check_mark(j, key, path, mine);
    else if (*why)
        add(j, FAULT, "paths",
            is_made ? "let this user write there on every node"
                    : "put it where every node can read it, under the same path",
            "%s: '%s': %s", key, path, why);
    else if (theirs && !is_made && !*json_get_text(theirs, "why"))
        compare_data(j, key, path, mine, theirs);
}

static void check_paths(struct judge *j)
{
    for (size_t i = 0; i < json_count(j->c->paths); i++)
        check_path(j, i);
}

/* ---- devices ---- */

static void check_gpus(struct judge *j)
{
    const struct json *gpus = json_get(j->facts, "gpus");
    const struct json *busy = json_get(gpus, "busy");
    int64_t asked = json_get_int(j->facts, "devices", 0);
    int64_t visible = json_get_int(gpus, "visible", 0);

    if (visible < asked)
        add(j, FAULT, "devices",
            "ask for GPUs (--gpus-per-node), for fewer devices, or have the node's "
            "driver "
            "seen to (`nvidia-smi` must list them)",
            "%" PRId64 " GPUs are asked for, %" PRId64 " can be seen%s%s", asked, visible,
            *json_get_text(gpus, "why") ? ": " : "", json_get_text(gpus, "why"));
    for (size_t i = 0; i < json_count(busy); i++) {
        const struct json *one = json_at(busy, i);

        add(j, FAULT, "devices",
            "end that process, or leave this node out (`--exclude`) and tell who runs "
            "the "
            "cluster",
            "GPU %s is not free: process %" PRId64 " has %" PRId64 " MB of it",
            json_get_text(one, "gpu"), json_get_int(one, "pid", 0),
            json_get_int(one, "mb", 0));
    }
}

static void check_devices(struct judge *j)
{
    int64_t asked = json_get_int(j->facts, "devices", 0);
    int64_t cpus = json_get_int(j->facts, "cpus", 0);

    if (json_bool(json_get(j->facts, "wants_gpus"), false))
        check_gpus(j);
    else if (cpus < asked) /* some share them on purpose */
        add(j, asked > PREFLIGHT_RANKS_A_CPU * cpus ? FAULT : WARNING, "devices",
            "ask for fewer devices, or for more CPUs a node (--cpus-per-task)",
            "%" PRId64 " devices are asked for, but only %" PRId64 " CPUs may be used",
            asked, cpus);
}

/* ---- clocks ---- */

int preflight_clock(int64_t *least, int64_t *most, const struct json *first,
                    const struct json *node)
{
    const struct json *mine = json_get(node, "clock"), *theirs = json_get(first, "clock");

    *least = INT64_MIN;
    *most = INT64_MAX;
    for (size_t i = 0; i < json_count(mine) && i < json_count(theirs); i++) {
        const struct json *a = json_at(mine, i), *b = json_at(theirs, i);
        int64_t low = json_int(json_at(a, 0), 0) - json_int(json_at(b, 1), 0);
        int64_t high = json_int(json_at(a, 1), 0) - json_int(json_at(b, 0), 0);

        *least = low > *least ? low : *least;
        *most = high < *most ? high : *most;
    }
    return *least == INT64_MIN ? -1 : 0;
}

#define CLOCK_REMEDY "let all nodes follow one time server (chrony or ntpd)"

static void check_clock(struct judge *j)
{
    int64_t least, most, middle;

    if (j->node == 0 || preflight_clock(&least, &most, j->c->facts[0], j->facts) < 0)
        return;
    middle = least / 2 + most / 2;
    if (least > most)
        add(j, WARNING, "clock", CLOCK_REMEDY,
            "the clock here or on %s was set while it was looked at", first_host(j));
    else if (least > PREFLIGHT_CLOCK_US || most < -PREFLIGHT_CLOCK_US)
        add(j, FAULT, "clock", CLOCK_REMEDY,
            "the clock is %.2f s %s that of %s (to within %.2f s); 1 s is allowed",
            (double)llabs(middle) / US_PER_S, middle > 0 ? "ahead of" : "behind",
            first_host(j), (double)(most - least) / 2 / US_PER_S);
    else if (most > PREFLIGHT_CLOCK_US || least < -PREFLIGHT_CLOCK_US)
        add(j, WARNING, "clock", CLOCK_REMEDY,
            "the clock may be %.2f s off that of %s; the nodes answer too slowly to tell",
            (double)(most > -least ? most : -least) / US_PER_S, first_host(j));
}

/* Two nodes may each be near node 0 and far from each other. */
static void check_clock_spread(struct judge *j)
{
    int64_t ahead = 0,
            behind = 0; /* at least so far ahead; at least so far behind, < 0 */
    int last = 0;

    for (int node = 1; node < j->c->n_nodes; node++) {
        int64_t least, most;

        if (!j->c->facts[node] ||
            preflight_clock(&least, &most, j->c->facts[0], j->c->facts[node]) < 0)
            continue;
        if (least > PREFLIGHT_CLOCK_US || most < -PREFLIGHT_CLOCK_US)
            return; /* told already */
        ahead = least > ahead ? least : ahead;
        if (most < behind) {
            behind = most;
            last = node;
        }
    }
    if (ahead - behind <= PREFLIGHT_CLOCK_US)
        return;
    j->node = last;
    j->host = json_get_text(j->c->facts[last], "host");
    add(j, FAULT, "clock", CLOCK_REMEDY,
        "the clock is at least %.2f s behind that of another node; 1 s is allowed",
        (double)(ahead - behind) / US_PER_S);
}

/* ---- room ---- */

static void check_free(struct judge *j, const char *key, const char *path, uint64_t need,
                       const char *remedy)
{
    const struct json *place = json_get(j->facts, key);
    int64_t has = json_get_int(place, "free_bytes", -1);

    if (*json_get_text(place, "why") && strcmp(key, "run") != 0)
        add(j, FAULT, "disk", remedy, "'%s': %s", path, json_get_text(place, "why"));
    else if (has >= 0 && (uint64_t)has < need)
        add(j, FAULT, "disk", remedy,
            "'%s' has %" PRId64 " MB free, %" PRIu64 " MB are wanted", path, MB(has),
            MB(need));
}

static void check_disk(struct judge *j)
{
    const struct preflight_need *need = &j->c->need;
    int64_t inodes = json_get_int(json_get(j->facts, "run"), "free_inodes", -1);

    check_free(j, "run", j->c->run_folder, need->run_bytes,
               "free some, or choose another run folder (--run-dir)");
    if (inodes >= 0 && (uint64_t)inodes < need->run_inodes)
        add(j, FAULT, "disk", "remove files, or choose another run folder (--run-dir)",
            "'%s' has room for only %" PRId64 " more files", j->c->run_folder, inodes);
    check_free(
        j, "shm", "/dev/shm", need->shm_bytes,
        "make it larger (in a container: --shm-size, or mount the host's): ranks of "
        "one host meet in it");
    check_free(j, "tmp", json_get_text(json_get(j->facts, "tmp"), "path"),
               need->tmp_bytes, "free some, or set TMPDIR to a folder with room");
}

static void check_limits(struct judge *j)
{
    const struct preflight_need *need = &j->c->need;
    int64_t memory = json_get_int(j->facts, "memory_bytes", -1);
    int64_t files = json_get_int(j->facts, "open_files", -1);

    if (memory >= 0 && (uint64_t)memory < need->memory_bytes)
        add(j, FAULT, "memory", "ask for more memory (--mem) or more nodes",
            "%" PRId64 " MB of memory may be used, the ranks here want %" PRIu64 " MB",
            MB(memory), MB(need->memory_bytes));
    if (files >= 0 && files < need->open_files)
        add(j, FAULT, "open files",
            "raise it: `ulimit -n` before the launch, or LimitNOFILE of slurmd's service",
            "a process may open only %" PRId64 " files, %" PRId64 " are wanted", files,
            need->open_files);
}

static void (*const checks[])(struct judge *j) = {
    check_version, check_programs, check_pmix,  check_coordinator, check_run_folder,
    check_paths,   check_devices,  check_clock, check_disk,        check_limits,
};

int preflight_decide(struct json **faults, const struct preflight_case *c,
                     struct err *err)
{
    struct judge j = {.c = c, .faults = json_new(JSON_ARRAY), .err = err};

    for (int node = 0; node < c->n_nodes; node++) {
        j.node = node;
        j.facts = c->facts[node];
        j.host = json_get_text(j.facts, "host");
        if (!j.facts)
            add(&j, FAULT, "facts", "look at this node's log",
                "node %d has not told what it has", node);
    }
    for (size_t i = 0; c->facts[0] && i < sizeof(checks) / sizeof(checks[0]); i++)
        for (int node = 0; node < c->n_nodes; node++) {
            j.node = node;
            j.facts = c->facts[node];
            j.host = json_get_text(j.facts, "host");
            if (j.facts)
                checks[i](&j);
        }
    if (c->facts[0])
        check_clock_spread(&j);
    if (j.rc < 0)
        json_free(j.faults);
    else
        *faults = j.faults;
    return j.rc;
}
