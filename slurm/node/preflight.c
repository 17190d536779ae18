#include "slurm/node/preflight.h"

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/json_file.h"
#include "common/base/utf8.h"
#include "slurm/node/preflight_facts.h"
#include "slurm/node/probe.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define NONCE_TEXT 33     /* 16 bytes in hexadecimal, with the NUL */
#define WRITE_MS 10000    /* for a small file in the run folder */
#define READ_ALL_MS 15000 /* for node 0 to read those of all */
#define UNSEEN_MAX 8      /* of which it tells why it cannot */
#define CLOCK_FENCES 3    /* the first aligns the nodes, the others measure */
#define CLOCK_FAULT_US 5000000
#define VERDICT_MAX 480

#define ASK_KEY "preflight.ask"
#define NONCE_KEY "preflight.nonce"
#define FACTS_KEY "preflight.facts"
#define VERDICT_KEY "preflight.verdict"
#define VERDICT_WELL "ok"

struct flight {
    struct exchange *exchange;
    const struct preflight_ask *ask;
    struct json *facts; /* of this node */
    struct json *asked; /* node 0's question: {"paths"} */
    char nonce[NONCE_TEXT], file[FS_PATH_MAX];
    int64_t began_ms, deadline_ms; /* monotonic */
    struct json **all;             /* node 0: the facts of all nodes */
    struct json *faults;           /* node 0 */
};

static int meet(struct flight *f, struct err *err)
{
    int64_t left_ms = f->deadline_ms - clock_mono_ms();

    return exchange_fence(f->exchange, left_ms > 1 ? left_ms : 1, err);
}

/* ---- the run folder: a file of every node ---- */

/* A name that was never there, so that no NFS client remembers its absence. */
static int name_file(char *out, const struct flight *f, int node, const char *nonce,
                     struct err *err)
{
    return fs_path(out, err, "%s/preflight/%d-%s", f->ask->run_folder, node, nonce);
}

static int write_nonce(struct flight *f, struct err *err)
{
    struct json *run = json_new(JSON_OBJECT);
    uint8_t random[(NONCE_TEXT - 1) / 2];
    struct probe probe = {.kind = PROBE_WRITE, .path = f->file, .text = f->nonce};
    int rc = 0;

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        rc = err_set(err, ERR_IO, "no random numbers to be had");
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(f->nonce + 2 * i, 3, "%02x", random[i]);
    if (rc == 0 && name_file(f->file, f, f->exchange->node, f->nonce, err) == 0 &&
        probe_all(&probe, 1, WRITE_MS, err) == 0 &&
        facts_string(run, "why", probe.why, err) == 0)
        return json_set(f->facts, "run", run, err);
    json_free(run);
    return -1;
}

/* Node 0 tells what is to be looked at. */
static int put_ask(struct flight *f, struct err *err)
{
    const struct err *failed = f->ask->failed;
    struct json *ask = json_new(JSON_OBJECT);
    struct json *paths = f->ask->paths ? json_clone(f->ask->paths) : json_new(JSON_ARRAY);
    struct buf text = BUF_INIT;
    int rc = marks_leave(paths, f->nonce, err);

    if (rc < 0)
        json_free(paths);
    else
        rc = json_set(ask, "paths", paths, err);
    if (rc == 0)
        rc = facts_int(ask, "devices", f->ask->n_default, err);
    if (rc == 0 && failed &&
        (facts_string(ask, "failed", failed->text, err) < 0 ||
         facts_int(ask, "code", failed->code, err) < 0))
        rc = -1;
    json_write(&text, ask, 0);
    if (rc == 0)
        rc = exchange_put(f->exchange, ASK_KEY, buf_str(&text), err);
    buf_fini(&text);
    json_free(ask);
    return rc;
}

static int add_unseen(struct json *unseen, int node, const char *why, struct err *err)
{
    struct json *one = json_new(JSON_OBJECT);

    if (facts_int(one, "node", node, err) < 0 || facts_string(one, "why", why, err) < 0) {
        json_free(one);
        return -1;
    }
    return json_append(unseen, one, err);
}

struct reading { /* node 0: of the files of all others */
    struct probe *probes;
    char (*paths)[FS_PATH_MAX];
};

static int read_all(struct flight *f, struct reading *r, struct json *unseen,
                    struct err *err)
{
    int n = f->exchange->n_nodes, told = 0;

    for (int node = 0; node < n; node++) {
        const char *nonce;

        if (exchange_get(f->exchange, node, NONCE_KEY, &nonce, err) < 0 ||
            name_file(r->paths[node], f, node, nonce, err) < 0)
            return -1;
        r->probes[node] = (struct probe){
            .kind = PROBE_EQUALS, .path = r->paths[node], .text = (char *)nonce};
    }
    if (probe_all(r->probes, n, READ_ALL_MS, err) < 0)
        return -1;
    for (int node = 0; node < n && told < UNSEEN_MAX; node++)
        if (*r->probes[node].why) {
            told++;
            if (add_unseen(unseen, node, r->probes[node].why, err) < 0)
                return -1;
        }
    return 0;
}

static int see_others(struct flight *f, struct err *err)
{
    size_t n = (size_t)f->exchange->n_nodes;
    struct reading r = {calloc(n, sizeof(*r.probes)), calloc(n, sizeof(*r.paths))};
    struct json *unseen = json_new(JSON_ARRAY);
    int rc;

    if (!r.probes || !r.paths)
        rc = err_set(err, ERR_NOMEM, "no memory to look at the files of %zu nodes", n);
    else
        rc = read_all(f, &r, unseen, err);
    free(r.probes);
    free(r.paths);
    if (rc < 0) {
        json_free(unseen);
        return -1;
    }
    return json_set(json_get(f->facts, "run"), "unseen", unseen, err);
}

/* What node 0 asks; or its reason why it cannot. */
static int take_ask(struct flight *f, struct err *err)
{
    const char *text, *failed;

    if (exchange_get(f->exchange, 0, ASK_KEY, &text, err) < 0 ||
        json_parse(&f->asked, text, strlen(text), err) < 0)
        return -1;
    failed = json_get_string(f->asked, "failed");
    if (!failed)
        return 0;
    return err_set(err, (enum err_code)json_get_int(f->asked, "code", ERR_STATE), "%s",
                   failed);
}

/* What it asks for, and its file. */
static int look_at_files(struct flight *f, struct err *err)
{
    const char *nonce;
    char file[FS_PATH_MAX];

    if (exchange_get(f->exchange, 0, NONCE_KEY, &nonce, err) < 0 ||
        name_file(file, f, 0, nonce, err) < 0 ||
        facts_of_files(f->facts, f->ask->run_folder, json_get(f->asked, "paths"), file,
                       nonce, err) < 0)
        return -1;
    return f->exchange->node == 0 ? see_others(f, err) : 0;
}

/* ---- clocks ---- */

static int64_t wall_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int add_times(struct json *clock, int64_t before, int64_t after, struct err *err)
{
    struct json *pair = json_new(JSON_ARRAY);

    if (json_append(pair, json_new_int(before), err) < 0 ||
        json_append(pair, json_new_int(after), err) < 0) {
        json_free(pair);
        return -1;
    }
    return json_append(clock, pair, err);
}

static int look_at_clock(struct flight *f, struct err *err)
{
    int64_t shift = fault_hit("preflight.clock") ? CLOCK_FAULT_US : 0;
    struct json *clock = json_new(JSON_ARRAY);
    int rc = 0;

    for (int i = 0; rc == 0 && i < CLOCK_FENCES; i++) {
        int64_t before = wall_us() + shift;

        rc = meet(f, err);
        if (rc == 0)
            rc = add_times(clock, before, wall_us() + shift, err);
    }
    if (rc < 0) {
        json_free(clock);
        return -1;
    }
    return json_set(f->facts, "clock", clock, err);
}

/* ---- the verdict ---- */

static int take_facts(struct flight *f, struct err *err)
{
    f->all = calloc((size_t)f->exchange->n_nodes, sizeof(struct json *));
    if (!f->all)
        return err_set(err, ERR_NOMEM, "no memory for the facts of all nodes");
    for (int node = 0; node < f->exchange->n_nodes; node++) {
        const char *text;

        if (exchange_get(f->exchange, node, FACTS_KEY, &text, err) < 0 ||
            json_parse(&f->all[node], text, strlen(text), err) < 0)
            return -1;
    }
    return 0;
}

/* "ok", or how many faults and the first. */
static void sum_up(char *out, const struct json *faults)
{
    const struct json *first = NULL;
    int n = 0;

    for (size_t i = 0; i < json_count(faults); i++) {
        const struct json *fault = json_at(faults, i);

        if (!json_bool(json_get(fault, "is_fault"), false))
            continue;
        if (n++ == 0)
            first = fault;
    }
    if (n == 0)
        snprintf(out, VERDICT_MAX, VERDICT_WELL);
    else
        snprintf(out, VERDICT_MAX, "%d fault%s: %s: %s: %.300s", n,
                 n > 1 ? "s, the first" : "", json_get_string(first, "host"),
                 json_get_string(first, "check"), json_get_string(first, "cause"));
    utf8_mend(out);
}

static int judge(struct flight *f, struct err *err)
{
    struct preflight_case c = {.facts = (const struct json *const *)f->all,
                               .n_nodes = f->exchange->n_nodes,
                               .paths = json_get(f->asked, "paths"),
                               .run_folder = f->ask->run_folder,
                               .endpoint = f->ask->endpoint ? f->ask->endpoint : "",
                               .way = f->ask->way,
                               .need = f->ask->need};
    char verdict[VERDICT_MAX];

    if (take_facts(f, err) < 0)
        return -1;
    c.facts = (const struct json *const *)f->all;
    if (preflight_decide(&f->faults, &c, err) < 0)
        return -1;
    sum_up(verdict, f->faults);
    if (f->ask->is_advisory)
        snprintf(verdict, sizeof(verdict), VERDICT_WELL);
    return exchange_put(f->exchange, VERDICT_KEY, verdict, err);
}

/* The facts of all nodes, with what their clocks are ahead by; they move out of f->all. */
static int add_nodes(struct json *report, struct flight *f, struct err *err)
{
    struct json *nodes = json_new(JSON_ARRAY);
    int64_t least, most;

    for (int node = f->exchange->n_nodes - 1; node >= 0; node--)
        if (preflight_clock(&least, &most, f->all[0], f->all[node]) == 0) {
            struct json *ahead = json_new(JSON_ARRAY);

            if (json_append(ahead, json_new_double((double)least / 1000), err) < 0 ||
                json_append(ahead, json_new_double((double)most / 1000), err) < 0 ||
                json_set(f->all[node], "clock_ms", ahead, err) < 0) {
                json_free(nodes);
                return -1;
            }
        }
    for (int node = 0; node < f->exchange->n_nodes; node++) {
        struct json *facts = f->all[node];

        f->all[node] = NULL;
        json_remove(facts, "clock");
        if (json_append(nodes, facts, err) < 0) {
            json_free(nodes);
            return -1;
        }
    }
    return json_set(report, "nodes", nodes, err);
}

/* Node 0: what is kept of it. */
static int make_report(struct json **out, struct flight *f, struct err *err)
{
    struct json *report = json_new(JSON_OBJECT), *faults = f->faults;

    f->faults = NULL;
    if (json_set(report, "faults", faults, err) < 0 ||
        facts_string(report, "host", f->ask->host, err) < 0 ||
        facts_int(report, "at_ms", clock_wall_ms(), err) < 0 ||
        facts_int(report, "took_ms", clock_mono_ms() - f->began_ms, err) < 0 ||
        add_nodes(report, f, err) < 0) {
        json_free(report);
        return -1;
    }
    *out = report;
    return 0;
}

/* ---- in order ---- */

static int gather(struct flight *f, struct err *err)
{
    int64_t n_devices;

    if (facts_string(f->facts, "way", f->exchange->ops->name, err) < 0 ||
        facts_string(f->facts, "wire", f->exchange->version, err) < 0 ||
        write_nonce(f, err) < 0 || (f->exchange->node == 0 && put_ask(f, err) < 0) ||
        exchange_put(f->exchange, NONCE_KEY, f->nonce, err) < 0 || meet(f, err) < 0)
        return -1;
    if (fault_hit("preflight.gather"))
        return err_set(err, ERR_IO, "fault point preflight.gather");
    if (take_ask(f, err) < 0 || look_at_files(f, err) < 0)
        return -1;
    n_devices =
        f->ask->n_devices ? f->ask->n_devices : json_get_int(f->asked, "devices", 1);
    if (facts_of_machine(f->facts, f->ask, n_devices, err) < 0)
        return -1;
    if (f->ask->endpoint &&
        facts_of_coordinator(f->facts, f->ask->endpoint, f->ask->key, err) < 0)
        return -1;
    return look_at_clock(f, err);
}

static int fly(struct flight *f, struct err *err)
{
    struct buf text = BUF_INIT;
    const char *verdict;
    int rc = gather(f, err);

    json_write(&text, f->facts, 0);
    if (rc == 0)
        rc = exchange_put(f->exchange, FACTS_KEY, buf_str(&text), err);
    buf_fini(&text);
    if (rc < 0 || meet(f, err) < 0 || (f->exchange->node == 0 && judge(f, err) < 0) ||
        meet(f, err) < 0 || exchange_get(f->exchange, 0, VERDICT_KEY, &verdict, err) < 0)
        return -1;
    if (strcmp(verdict, VERDICT_WELL) != 0)
        return err_set(err, ERR_STATE, "%s", verdict);
    return 0;
}

static void flight_fini(struct flight *f)
{
    for (int node = 0; f->all && node < f->exchange->n_nodes; node++)
        json_free(f->all[node]);
    free(f->all);
    json_free(f->facts);
    if (f->exchange->node == 0)
        marks_remove(json_get(f->asked, "paths"));
    json_free(f->asked);
    json_free(f->faults);
    if (*f->file)
        fs_remove_tree(f->file, NULL); /* all have read it */
}

int preflight_run(struct json **report, struct exchange *exchange,
                  const struct preflight_ask *ask, struct err *err)
{
    int64_t now_ms = clock_mono_ms();
    struct flight f = {.exchange = exchange,
                       .ask = ask,
                       .facts = json_new(JSON_OBJECT),
                       .began_ms = now_ms,
                       .deadline_ms =
                           now_ms + (ask->timeout_ms ? ask->timeout_ms : PREFLIGHT_MS)};
    struct err also;
    int rc = fly(&f, err);

    *report = NULL;
    if (exchange->node == 0 && f.faults && make_report(report, &f, &also) == 0 &&
        json_file_write(ask->run_folder, "preflight.json", *report, &also) < 0 && rc == 0)
        rc = err_set(err, also.code, "%s", also.text);
    flight_fini(&f);
    return rc;
}

/* ---- for people ---- */

void preflight_print(FILE *out, const struct json *report)
{
    const struct json *faults = json_get(report, "faults");
    int n = 0;

    for (size_t i = 0; i < json_count(faults); i++) {
        const struct json *fault = json_at(faults, i);
        bool is_fault = json_bool(json_get(fault, "is_fault"), false);

        n += is_fault;
        fprintf(out, "preflight: %s: %s: %s: %s\n    mend it: %s\n",
                is_fault ? "fault" : "warning", json_get_string(fault, "host"),
                json_get_string(fault, "check"), json_get_string(fault, "cause"),
                json_get_string(fault, "remedy"));
    }
    fprintf(out, "preflight: %zu node%s looked at in %.1f s, %d fault%s, %zu warning%s\n",
            json_count(json_get(report, "nodes")),
            json_count(json_get(report, "nodes")) == 1 ? "" : "s",
            (double)json_get_int(report, "took_ms", 0) / 1000, n, n == 1 ? "" : "s",
            json_count(faults) - (size_t)n,
            json_count(faults) - (size_t)n == 1 ? "" : "s");
}
