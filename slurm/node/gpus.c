#include "slurm/node/gpus.h"

#include "slurm/node/process.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPUS_MAX 64
#define BUSY_MAX 16 /* processes told of; more change nothing */
#define FIELD_MAX 64
#define WHY_MAX 80

struct gpu {
    char index[FIELD_MAX], uuid[FIELD_MAX];
    bool is_visible;
};

/* The next field of a CSV line, without blanks around it; what follows it. */
static const char *field(char *out, const char *at)
{
    size_t n = strcspn(at, ",\n"), skip = strspn(at, " ");
    const char *from = at + (skip < n ? skip : n);
    size_t n_from = (size_t)(at + n - from);

    while (n_from && isspace((unsigned char)from[n_from - 1]))
        n_from--;
    snprintf(out, FIELD_MAX, "%.*s", (int)n_from, from);
    return at[n] == ',' ? at + n + 1 : at + n;
}

static const char *next_line(const char *at)
{
    at += strcspn(at, "\n");
    return *at ? at + 1 : at;
}

/* Whether a list as CUDA_VISIBLE_DEVICES names the GPU: by number, by UUID or the
 * beginning of one. CUDA stops at the first that it does not know; so does -1. */
static bool is_named(const char *list, const struct gpu *gpu)
{
    char name[FIELD_MAX];

    for (const char *at = list; *at;) {
        at = field(name, at);
        if (strcmp(name, gpu->index) == 0 ||
            (strncmp(name, "GPU-", 4) == 0 &&
             strncmp(gpu->uuid, name, strlen(name)) == 0))
            return true;
        if (*name == '-')
            return false;
    }
    return false;
}

static int read_devices(struct gpu *gpus, const char *text, const char *visible)
{
    int n = 0;

    for (const char *at = text; *at && n < GPUS_MAX; at = next_line(at)) {
        struct gpu *gpu = &gpus[n];

        field(gpu->uuid, field(gpu->index, at));
        if (!isdigit((unsigned char)*gpu->index))
            continue; /* "No devices were found" */
        gpu->is_visible = !visible || is_named(visible, gpu);
        n++;
    }
    return n;
}

static int add_busy(struct json *busy, const struct gpu *gpu, const char *pid,
                    const char *mb, struct err *err)
{
    struct json *one = json_new(JSON_OBJECT);

    if (json_set(one, "gpu", json_new_string(gpu->index), err) < 0 ||
        json_set(one, "pid", json_new_int(strtol(pid, NULL, 10)), err) < 0 ||
        json_set(one, "mb", json_new_int(strtol(mb, NULL, 10)), err) < 0) {
        json_free(one);
        return -1;
    }
    return json_append(busy, one, err);
}

static int read_apps(struct json *busy, const struct gpu *gpus, int n, const char *text,
                     struct err *err)
{
    for (const char *at = text; *at && json_count(busy) < BUSY_MAX; at = next_line(at)) {
        char uuid[FIELD_MAX], pid[FIELD_MAX], mb[FIELD_MAX];

        field(mb, field(pid, field(uuid, at)));
        for (int i = 0; i < n; i++)
            if (gpus[i].is_visible && strcmp(gpus[i].uuid, uuid) == 0 &&
                add_busy(busy, &gpus[i], pid, mb, err) < 0)
                return -1;
    }
    return 0;
}

static int make(struct json **out, const char *why, int n_visible, struct json *busy,
                struct err *err)
{
    struct json *gpus = json_new(JSON_OBJECT);

    if (json_set(gpus, "busy", busy, err) < 0 ||
        json_set(gpus, "why", json_new_string(why), err) < 0 ||
        json_set(gpus, "visible", json_new_int(n_visible), err) < 0) {
        json_free(gpus);
        return -1;
    }
    *out = gpus;
    return 0;
}

int gpus_parse(struct json **out, const char *devices, const char *apps,
               const char *visible, struct err *err)
{
    struct gpu gpus[GPUS_MAX];
    int n = read_devices(gpus, devices, visible), n_visible = 0;
    struct json *busy = json_new(JSON_ARRAY);

    for (int i = 0; i < n; i++)
        n_visible += gpus[i].is_visible;
    if (read_apps(busy, gpus, n, apps, err) < 0) {
        json_free(busy);
        return -1;
    }
    return make(out, n ? "" : "nvidia-smi lists none", n_visible, busy, err);
}

/* why: what is wrong, where there is no answer. */
static void ask(struct buf *out, char why[WHY_MAX], const char *question,
                int64_t timeout_ms)
{
    const char *const argv[] = {"nvidia-smi", question, "--format=csv,noheader,nounits",
                                NULL};
    struct spawn how = {.argv = argv, .err_fd = -1, PROCESS_DEAF};
    struct spawn_said said;
    struct err err;
    int rc = spawn_run(&said, &how, timeout_ms, &err);

    if (said.is_late)
        snprintf(why, WHY_MAX, "nvidia-smi does not answer within %.0f s",
                 (double)timeout_ms / 1000);
    else if (rc < 0)
        snprintf(why, WHY_MAX, "%.70s",
                 err.code == ERR_NOT_FOUND ? "there is no nvidia-smi" : err.text);
    else if (said.status)
        snprintf(why, WHY_MAX, "nvidia-smi fails: %.50s", buf_str(&said.out));
    why[strcspn(why, "\n")] = '\0';
    buf_add(out, buf_str(&said.out), said.out.n_bytes);
    spawn_said_fini(&said);
}

int gpus_look(struct json **out, int64_t timeout_ms, struct err *err)
{
    struct buf devices = BUF_INIT, apps = BUF_INIT;
    char why[WHY_MAX] = "";
    int rc;

    ask(&devices, why, "--query-gpu=index,uuid", timeout_ms / 2);
    if (!*why)
        ask(&apps, why, "--query-compute-apps=gpu_uuid,pid,used_memory", timeout_ms / 2);
    rc = *why ? make(out, why, 0, json_new(JSON_ARRAY), err)
              : gpus_parse(out, buf_str(&devices), buf_str(&apps),
                           getenv("CUDA_VISIBLE_DEVICES"), err);
    buf_fini(&devices);
    buf_fini(&apps);
    return rc;
}
