#include "jobs/client/why.h"
#include "jobs/client/format.h"

#include <inttypes.h>
#include <string.h>

#define SLOW_MS 10000  /* a rank longer than this at one thing is worth naming */
#define SLOW_PART 4    /* or longer than this part of its limit */
#define SILENT_MS 5000 /* so long without a word from an agent is too */
#define HOLDERS_MAX 4  /* jobs named as holding devices */

static int64_t since(const struct why_facts *f, const struct json *row, const char *key)
{
    int64_t ms = f->now_ms - json_get_int(row, key, f->now_ms);

    return ms > 0 ? ms : 0;
}

static void add_since(struct buf *out, const struct why_facts *f)
{
    buf_add_str(out, " (since ");
    format_duration(out, since(f, f->job, "state_ms"));
    buf_add_char(out, ')');
}

static int64_t sum(const struct json *rows, const char *key)
{
    int64_t total = 0;

    for (size_t i = 0; i < json_count(rows); i++)
        total += json_get_int(json_at(rows, i), key, 0);
    return total;
}

/* ---- waiting for devices ---- */

/* ", held by job 1 (2), job 2 (1)" */
static void add_holders(struct buf *out, const struct why_facts *f)
{
    size_t n = json_count(f->holders);

    for (size_t i = 0; i < n && i < HOLDERS_MAX; i++)
        buf_printf(out, "%s job %" PRId64 " (%" PRId64 ")", i ? "," : ", held by",
                   json_get_int(json_at(f->holders, i), "job", 0),
                   json_get_int(json_at(f->holders, i), "n", 0));
    if (n > HOLDERS_MAX)
        buf_add_str(out, " and others");
}

/* The first of the pool's nodes that is not there yet; NULL: none is asked for. */
static const struct json *find_pending(const struct why_facts *f)
{
    for (size_t i = 0; i < json_count(f->allocations); i++) {
        const struct json *one = json_at(f->allocations, i);
        const char *state = json_get_text(one, "state");

        if (strcmp(state, "pending") == 0 || strcmp(state, "intended") == 0 ||
            (strcmp(state, "running") == 0 && !*json_get_text(one, "host")))
            return one;
    }
    return NULL;
}

/* ": allocation 12 of it is pending for 5 min 00 s (Resources)", or why nothing is */
static void write_pool(struct buf *out, const struct why_facts *f)
{
    const struct json *pending = find_pending(f);
    const char *reason = json_get_text(pending, "reason");
    const char *submits = json_get_text(f->pool, "submits");

    buf_printf(out, " %s", json_get_text(f->job, "reason"));
    add_since(out, f);
    if (!pending) {
        if (*submits)
            buf_printf(out, "; the pool %s", submits);
        return;
    }
    buf_printf(out, ": allocation %s of it is %s for ",
               *json_get_text(pending, "allocation")
                   ? json_get_text(pending, "allocation")
                   : json_get_text(pending, "name"),
               json_get_text(pending, "state"));
    format_duration(out, json_get_int(pending, "started_ms", 0)
                             ? since(f, pending, "started_ms")
                             : since(f, pending, "created_ms"));
    /* of one that could not be submitted the job's own reason has told */
    if (*reason && strcmp(json_get_text(pending, "state"), "intended") != 0)
        buf_printf(out, " (%s)", reason);
}

static void write_waiting(struct buf *out, const struct why_facts *f)
{
    int64_t n_wanted = json_get_int(f->job, "n_ranks", 1);
    int64_t n_devices = sum(f->workers, "n_devices"), n_busy = sum(f->workers, "n_busy");
    const char *reason = json_get_text(f->job, "reason");
    const char *plural = n_wanted == 1 ? "" : "s";

    if (strncmp(reason, "attempt ", 8) == 0) { /* it tells of the attempt before */
        buf_printf(out, " waits to be tried again: %s", reason);
        add_since(out, f);
    } else if (f->pool) {
        write_pool(out, f);
    } else if (!json_count(f->workers)) {
        buf_printf(out, " waits for %" PRId64 " device%s, and no worker is up", n_wanted,
                   plural);
        add_since(out, f);
        buf_add_str(out, "; `vneva up` or `vneva worker` starts one");
    } else if (n_devices < n_wanted) {
        buf_printf(out,
                   " waits for %" PRId64 " device%s at once, and all workers that are up "
                   "have %" PRId64,
                   n_wanted, plural, n_devices);
        add_since(out, f);
    } else if (n_devices - n_busy >= n_wanted && *reason) {
        buf_printf(out, " %s", reason); /* "waits behind an earlier job" */
        add_since(out, f);
    } else {
        buf_printf(out,
                   " waits for %" PRId64 " device%s: %" PRId64 " of %" PRId64 " are free",
                   n_wanted, plural, n_devices - n_busy, n_devices);
        add_since(out, f);
        add_holders(out, f);
    }
}

/* ---- ranks ---- */

/* Does it wait for other ranks, or for the coordinator? One that gives no sign of it any
 * more has a limit. */
static bool is_waiting(const struct json *rank)
{
    const char *stage = json_get_text(rank, "stage");

    if (json_get_int(rank, "limit_ms", 0) > 0)
        return false;
    return strstr(stage, " of group ") || strncmp(stage, "waiting", 7) == 0 ||
           strncmp(stage, "meeting", 7) == 0;
}

/* The rank that is at one thing for longest, among those that wait or among those that
 * do not; NULL: there is none. */
static const struct json *find_longest(const struct why_facts *f, bool waits)
{
    const struct json *longest = NULL;

    for (size_t i = 0; i < json_count(f->ranks); i++) {
        const struct json *rank = json_at(f->ranks, i);

        if (*json_get_text(rank, "stage") && is_waiting(rank) == waits &&
            (!longest || since(f, rank, "since_ms") > since(f, longest, "since_ms")))
            longest = rank;
    }
    return longest;
}

static const struct json *find_silent(const struct why_facts *f)
{
    for (size_t i = 0; i < json_count(f->ranks); i++)
        if (since(f, json_at(f->ranks, i), "seen_ms") > SILENT_MS)
            return json_at(f->ranks, i);
    return NULL;
}

/* "rank 1 of 2 on n1 (device 1, process 4711)" */
static void add_rank(struct buf *out, const struct why_facts *f, const struct json *rank)
{
    buf_printf(out, "rank %" PRId64 " of %" PRId64 " on %s (device %" PRId64,
               json_get_int(rank, "rank", 0), json_get_int(f->job, "n_ranks", 1),
               json_get_text(rank, "host"), json_get_int(rank, "device", 0));
    if (json_get_int(rank, "pid", 0) > 0)
        buf_printf(out, ", process %" PRId64, json_get_int(rank, "pid", 0));
    buf_add_char(out, ')');
}

/* "in forward of step 40 for 95 s" */
static void add_stage(struct buf *out, const struct why_facts *f, const struct json *rank)
{
    buf_printf(out, "in %s", json_get_text(rank, "stage"));
    if (json_get_int(rank, "step", -1) >= 0)
        buf_printf(out, " of step %" PRId64, json_get_int(rank, "step", 0));
    buf_add_str(out, " for ");
    format_duration(out, since(f, rank, "since_ms"));
}

static void write_silent(struct buf *out, const struct why_facts *f,
                         const struct json *rank)
{
    buf_printf(out, " waits for a word of the agent on %s, which has ",
               json_get_text(rank, "host"));
    add_rank(out, f, rank);
    buf_add_str(out, " and was silent for ");
    format_duration(out, since(f, rank, "seen_ms"));
}

static void write_slow(struct buf *out, const struct why_facts *f,
                       const struct json *rank)
{
    const struct json *other = find_longest(f, true);

    buf_add_str(out, " waits for ");
    add_rank(out, f, rank);
    buf_add_str(out, ", which has been ");
    add_stage(out, f, rank);
    if (other && strstr(json_get_text(other, "stage"), " of group "))
        buf_printf(out, "; rank %" PRId64 " waits for it in %s",
                   json_get_int(other, "rank", 0), json_get_text(other, "stage"));
    if (json_get_int(rank, "limit_ms", 0) > 0) {
        buf_add_str(out, "; after ");
        format_duration(out, json_get_int(rank, "limit_ms", 0));
        buf_add_str(out, " it counts as stuck and the attempt ends");
    }
}

static void write_all_wait(struct buf *out, const struct why_facts *f,
                           const struct json *rank)
{
    buf_printf(out, ": all its ranks wait, ");
    add_rank(out, f, rank);
    buf_add_str(out, " the longest, ");
    add_stage(out, f, rank);
}

/* Nothing is slow: where it is. */
static void write_progress(struct buf *out, const struct why_facts *f,
                           const struct json *rank)
{
    int64_t done = json_get_int(f->job, "done", 0),
            total = json_get_int(f->job, "total", 0);

    buf_printf(out, " %s and waits for nothing",
               strcmp(json_get_text(f->job, "state"), "placed") == 0 ? "starts" : "runs");
    if (total > 0)
        buf_printf(out, ": %" PRId64 " of %" PRId64 " done", done, total);
    if (rank) {
        buf_add_str(out, total > 0 ? ", " : ": ");
        add_rank(out, f, rank);
        buf_printf(out, " is in %s", json_get_text(rank, "stage"));
    }
}

static bool is_slow(const struct why_facts *f, const struct json *rank)
{
    int64_t limit_ms = json_get_int(rank, "limit_ms", 0);
    int64_t slow_ms =
        limit_ms > 0 && limit_ms / SLOW_PART < SLOW_MS ? limit_ms / SLOW_PART : SLOW_MS;

    return rank && since(f, rank, "since_ms") >= slow_ms;
}

static void write_running(struct buf *out, const struct why_facts *f)
{
    const struct json *silent = find_silent(f), *slow = find_longest(f, false);
    const struct json *waiting = find_longest(f, true);

    if (silent)
        write_silent(out, f, silent);
    else if (is_slow(f, slow))
        write_slow(out, f, slow);
    else if (!slow && is_slow(f, waiting))
        write_all_wait(out, f, waiting);
    else
        write_progress(out, f, slow ? slow : waiting);
}

static void write_stopping(struct buf *out, const struct why_facts *f)
{
    const char *reason = json_get_text(f->job, "reason");

    buf_printf(out, " is being stopped%s%s", *reason ? ", " : "", reason);
    add_since(out, f);
    if (json_count(f->ranks)) {
        buf_add_str(out, ": ");
        add_rank(out, f, json_at(f->ranks, 0));
        buf_add_str(out, " has not ended yet");
    }
}

static void write_ended(struct buf *out, const struct why_facts *f, const char *state)
{
    const char *reason = json_get_text(f->job, "reason");

    buf_printf(out, "%s%s ", strcmp(state, "failed") == 0 ? " " : " is ", state);
    if (*reason)
        buf_printf(out, "(%s) ", reason);
    buf_add_str(out, "since ");
    format_duration(out, since(f, f->job, "state_ms"));
    if (strcmp(state, "held") == 0)
        buf_printf(out, "; `vneva release %" PRId64 "` lets it go on",
                   json_get_int(f->job, "id", 0));
}

void why_write(struct buf *out, const struct why_facts *facts)
{
    const char *state = json_get_text(facts->job, "state");

    buf_printf(out, "job %" PRId64, json_get_int(facts->job, "id", 0));
    if (strcmp(state, "queued") == 0 || strcmp(state, "submitted") == 0)
        write_waiting(out, facts);
    else if (strcmp(state, "running") == 0 || strcmp(state, "placed") == 0)
        write_running(out, facts);
    else if (strcmp(state, "stopping") == 0)
        write_stopping(out, facts);
    else
        write_ended(out, facts, state);
}
