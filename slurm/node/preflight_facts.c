#define _GNU_SOURCE /* sched_getaffinity */
#include "slurm/node/preflight_facts.h"

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/hash.h"
#include "slurm/node/gpus.h"
#include "slurm/node/probe.h"
#include "slurm/node/process.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LOAD_MS 5000    /* for the loader to find a program's libraries */
#define GPUS_MS 20000   /* for nvidia-smi, which wakes drivers up */
#define PATHS_MS 15000  /* for all folders and files that a job names */
#define PLACES_MS 10000 /* for /dev/shm and the folder of temporary files */
#define PROGRAM_BYTES_MAX (512u << 20)

int facts_string(struct json *facts, const char *key, const char *value, struct err *err)
{
    return json_set(facts, key, json_new_string(value), err);
}

int facts_int(struct json *facts, const char *key, int64_t value, struct err *err)
{
    return json_set(facts, key, json_new_int(value), err);
}

/* ---- programs ---- */

/* What the loader does not find ("libx.so.1 => not found") of a program; asked as ldd asks
 * it, without running the program. */
static void missing_libraries(struct buf *out, const char *path)
{
    static const char *const variables[] = {"LD_TRACE_LOADED_OBJECTS=1", NULL};
    const char *const argv[] = {path, NULL};
    struct spawn how = {.argv = argv, .variables = variables, .err_fd = -1, PROCESS_DEAF};
    struct spawn_said said;
    char *rest;
    int n = 0;

    (void)spawn_run(&said, &how, LOAD_MS, NULL);
    rest = said.out.data;
    for (char *line; rest && (line = strtok_r(rest, "\n", &rest));) {
        char *arrow = strstr(line, " => not found");

        if (!arrow)
            continue;
        *arrow = '\0';
        buf_printf(out, "%s%s", n++ ? ", " : "", line + strspn(line, " \t"));
    }
    if (said.is_late && !n)
        buf_printf(out, "its loader does not answer");
    spawn_said_fini(&said);
}

static int add_program(struct json *programs, const char *folder, const char *name,
                       struct err *err)
{
    struct buf why = BUF_INIT, text = BUF_INIT;
    char path[FS_PATH_MAX];
    int rc = fs_path(path, err, "%s/%s", folder, name);

    if (rc == 0 && access(path, X_OK) < 0) {
        buf_printf(&text, "cannot run '%.200s': %s", path, strerror(errno));
    } else if (rc == 0) {
        missing_libraries(&why, path);
        if (why.n_bytes)
            buf_printf(&text, "%s does not find %.300s", name, buf_str(&why));
    }
    if (rc == 0 && text.n_bytes)
        rc = json_append(programs, json_new_string(buf_str(&text)), err);
    buf_fini(&why);
    buf_fini(&text);
    return rc;
}

static int facts_of_programs(struct json *facts, const char *folder, struct err *err)
{
    static const char *const names[] = {"vneva-coordinator", "vneva-worker", "vneva-rank",
                                        "vneva-decode", "vneva"};
    struct json *programs = json_new(JSON_ARRAY);
    char path[FS_PATH_MAX], build[24] = "";
    struct buf rank = BUF_INIT;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (add_program(programs, folder, names[i], err) < 0) {
            json_free(programs);
            return -1;
        }
    if (fs_path(path, err, "%s/vneva-rank", folder) == 0 &&
        fs_read_file(&rank, path, PROGRAM_BYTES_MAX, NULL) == 0)
        snprintf(build, sizeof(build), "%016" PRIx64, hash64(rank.data, rank.n_bytes, 0));
    buf_fini(&rank);
    if (json_set(facts, "programs", programs, err) < 0)
        return -1;
    return facts_string(facts, "build", build, err);
}

/* ---- the machine ---- */

static int64_t n_cpus(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return sysconf(_SC_NPROCESSORS_ONLN);
    return CPU_COUNT(&set);
}

/* The number in kB of a line of /proc/meminfo, in bytes; -1. */
static int64_t meminfo(const char *name)
{
    struct buf text = BUF_INIT;
    int64_t bytes = -1;
    const char *at;

    if (fs_read_file(&text, "/proc/meminfo", 1 << 16, NULL) == 0 &&
        (at = strstr(buf_str(&text), name)))
        bytes = strtoll(at + strlen(name), NULL, 10) * 1024;
    buf_fini(&text);
    return bytes;
}

/* What the process's control group (version 2) leaves of its limit; -1: no limit. */
static int64_t cgroup_left(void)
{
    struct buf group = BUF_INIT, limit = BUF_INIT, used = BUF_INIT;
    char path[FS_PATH_MAX];
    const char *name = NULL;
    int64_t left = -1;

    if (fs_read_file(&group, "/proc/self/cgroup", 1 << 16, NULL) == 0 &&
        (name = strstr(buf_str(&group), "0::")) &&
        fs_path(path, NULL, "/sys/fs/cgroup%.*s/memory.max", (int)strcspn(name + 3, "\n"),
                name + 3) == 0 &&
        fs_read_file(&limit, path, 64, NULL) == 0 && *buf_str(&limit) != 'm' &&
        fs_path(path, NULL, "/sys/fs/cgroup%.*s/memory.current",
                (int)strcspn(name + 3, "\n"), name + 3) == 0 &&
        fs_read_file(&used, path, 64, NULL) == 0)
        left = strtoll(buf_str(&limit), NULL, 10) - strtoll(buf_str(&used), NULL, 10);
    buf_fini(&group);
    buf_fini(&limit);
    buf_fini(&used);
    return left;
}

static int facts_of_limits(struct json *facts, struct err *err)
{
    int64_t memory = meminfo("MemAvailable:"), left = cgroup_left(), files = -1;
    struct rlimit limit;

    if (left >= 0 && (memory < 0 || left < memory))
        memory = left;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) /* programs raise theirs to the hard one */
        files = limit.rlim_max == RLIM_INFINITY ? -1 : (int64_t)limit.rlim_max;
    if (facts_int(facts, "memory_bytes", memory, err) < 0)
        return -1;
    return facts_int(facts, "open_files", files, err);
}

static int add_place(struct json *facts, const char *key, const char *path,
                     const char *why, struct err *err)
{
    struct json *place = json_new(JSON_OBJECT);
    uint64_t n_free = 0;
    struct err no;

    if (!*why && fs_free_bytes(&n_free, path, &no) < 0)
        why = no.text;
    if (facts_string(place, "path", path, err) < 0 ||
        facts_string(place, "why", why, err) < 0 ||
        (!*why && facts_int(place, "free_bytes", (int64_t)n_free, err) < 0)) {
        json_free(place);
        return -1;
    }
    return json_set(facts, key, place, err);
}

static int facts_of_places(struct json *facts, struct err *err)
{
    const char *tmp = getenv("TMPDIR");
    char shm_path[] = "/dev/shm", tmp_path[FS_PATH_MAX];
    struct probe probes[] = {{.kind = PROBE_MAKE, .path = shm_path},
                             {.kind = PROBE_MAKE, .path = tmp_path}};

    if (fs_path(tmp_path, err, "%s", tmp && *tmp ? tmp : "/tmp") < 0 ||
        probe_all(probes, 2, PLACES_MS, err) < 0 ||
        add_place(facts, "shm", shm_path, probes[0].why, err) < 0)
        return -1;
    return add_place(facts, "tmp", tmp_path, probes[1].why, err);
}

static int facts_of_devices(struct json *facts, const struct preflight_ask *ask,
                            int64_t n_devices, struct err *err)
{
    struct json *gpus;

    if (facts_int(facts, "cpus", n_cpus(), err) < 0 ||
        facts_int(facts, "devices", n_devices, err) < 0 ||
        json_set(facts, "wants_gpus", json_new_bool(ask->wants_gpus), err) < 0)
        return -1;
    if (!ask->wants_gpus)
        return 0;
    if (gpus_look(&gpus, GPUS_MS, err) < 0)
        return -1;
    return json_set(facts, "gpus", gpus, err);
}

int facts_of_machine(struct json *facts, const struct preflight_ask *ask,
                     int64_t n_devices, struct err *err)
{
    char own[FS_PATH_MAX];
    const char *folder = ask->program_folder;

    if (!folder) {
        if (fs_program_folder(own, err) < 0)
            return -1;
        folder = own;
    }
    if (facts_string(facts, "host", ask->host, err) < 0 ||
        facts_string(facts, "version",
                     fault_hit("preflight.version") ? "0.0.0-other" : VNEVA_VERSION,
                     err) < 0 ||
        facts_of_programs(facts, folder, err) < 0 ||
        facts_of_devices(facts, ask, n_devices, err) < 0 ||
        facts_of_places(facts, err) < 0)
        return -1;
    return facts_of_limits(facts, err);
}

/* ---- files ---- */

static int add_room(struct json *run, const char *folder, struct err *err)
{
    struct statvfs st;

    if (statvfs(folder, &st) < 0)
        return 0; /* that it cannot be used is told by why */
    if (facts_int(run, "free_bytes", (int64_t)((uint64_t)st.f_bavail * st.f_frsize),
                  err) < 0)
        return -1;
    if (st.f_files == 0) /* btrfs, some network file systems: no such limit */
        return 0;
    return facts_int(run, "free_inodes", (int64_t)st.f_favail, err);
}

static int add_path(struct json *paths, const struct probe *probe, struct err *err)
{
    struct json *one = json_new(JSON_OBJECT);
    char print[24] = "";

    if (probe->print)
        snprintf(print, sizeof(print), "%016" PRIx64, probe->print);
    if (facts_string(one, "why", probe->why, err) < 0 ||
        facts_int(one, "bytes", probe->n_bytes, err) < 0 ||
        facts_int(one, "entries", probe->n_entries, err) < 0 ||
        facts_string(one, "print", print, err) < 0) {
        json_free(one);
        return -1;
    }
    return json_append(paths, one, err);
}

static struct probe probe_of(const struct json *asked, const char *nonce)
{
    struct probe probe = {.kind = PROBE_READ,
                          .path = (char *)json_get_string(asked, "path"),
                          .text = (char *)nonce};

    if (json_bool(json_get(asked, "is_mark"), false))
        probe.kind = PROBE_EQUALS;
    else if (json_bool(json_get(asked, "is_made"), false))
        probe.kind = PROBE_MAKE;
    return probe;
}

int facts_of_files(struct json *facts, const char *run_folder, const struct json *paths,
                   const char *file, const char *nonce, struct err *err)
{
    struct probe probes[PREFLIGHT_ASKED_MAX + 1] = {
        {.kind = PROBE_EQUALS, .path = (char *)file, .text = (char *)nonce}};
    struct json *run = json_get(facts, "run"), *looked = json_new(JSON_ARRAY);
    int n = 1, rc;

    for (size_t i = 0; i < json_count(paths) && n <= PREFLIGHT_ASKED_MAX; i++)
        if (json_get_string(json_at(paths, i), "path"))
            probes[n++] = probe_of(json_at(paths, i), nonce);
    rc = probe_all(probes, n, PATHS_MS, err);
    for (int i = 1; rc == 0 && i < n; i++)
        rc = add_path(looked, &probes[i], err);
    if (rc < 0)
        json_free(looked);
    else if (json_set(facts, "paths", looked, err) < 0 ||
             facts_string(run, "seen_why", probes[0].why, err) < 0)
        rc = -1;
    return rc == 0 ? add_room(run, run_folder, err) : -1;
}
