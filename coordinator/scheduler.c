#include "coordinator/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The devices as they are given away. */
struct room {
    int64_t n_nodes, n_devices, n_free;
    int64_t n_devices_here;
    int64_t tier_end[SCHED_TIERS], tier_free[SCHED_TIERS]; /* of each tier */
    int64_t *first;  /* [n_nodes]: of each node in is_busy */
    int64_t *n_left; /* [n_nodes] */
    bool *is_busy;   /* [n_devices] */
};

static void room_fini(struct room *room)
{
    free(room->first);
    free(room->n_left);
    free(room->is_busy);
}

static int room_init(struct room *room, const struct sched_node *nodes, int64_t n_nodes,
                     struct err *err)
{
    *room = (struct room){.n_nodes = n_nodes};
    for (int64_t i = 0; i < n_nodes; i++)
        room->n_devices += nodes[i].n_devices;
    room->first = calloc((size_t)n_nodes + 1, sizeof(*room->first));
    room->n_left = calloc((size_t)n_nodes + 1, sizeof(*room->n_left));
    room->is_busy = calloc((size_t)room->n_devices + 1, sizeof(*room->is_busy));
    if (!room->first || !room->n_left || !room->is_busy)
        return err_set(err, ERR_NOMEM, "no memory to plan");
    for (int64_t i = 0, at = 0; i < n_nodes; i++) {
        room->first[i] = at;
        for (int64_t d = 0; d < nodes[i].n_devices; d++) {
            room->is_busy[at++] = nodes[i].is_busy[d];
            room->n_left[i] += !nodes[i].is_busy[d];
        }
        room->n_free += room->n_left[i];
        room->tier_free[nodes[i].tier] += room->n_left[i];
        room->n_devices_here += nodes[i].tier == SCHED_HERE ? nodes[i].n_devices : 0;
    }
    for (int tier = 0; tier < SCHED_TIERS; tier++) {
        int64_t end = tier ? room->tier_end[tier - 1] : 0;

        while (end < n_nodes && (int)nodes[end].tier == tier)
            end++;
        room->tier_end[tier] = end;
    }
    return 0;
}

static int tier_of(const struct room *room, int64_t node)
{
    int tier = SCHED_HERE;

    while (node >= room->tier_end[tier])
        tier++;
    return tier;
}

static int64_t tier_first(const struct room *room, int tier)
{
    return tier ? room->tier_end[tier - 1] : 0;
}

static void take_device(struct room *room, int64_t node, struct sched_place *place)
{
    bool *is_busy = &room->is_busy[room->first[node]];
    int64_t device = 0;

    while (is_busy[device])
        device++;
    is_busy[device] = true;
    room->n_left[node]--;
    room->n_free--;
    room->tier_free[tier_of(room, node)]--;
    *place = (struct sched_place){node, device};
}

/* The node of a tier with least room that still has `wanted` devices; -1: none. */
static int64_t tightest_node(const struct room *room, int tier, int64_t wanted)
{
    int64_t best = -1;

    for (int64_t i = tier_first(room, tier); i < room->tier_end[tier]; i++)
        if (room->n_left[i] >= wanted &&
            (best < 0 || room->n_left[i] < room->n_left[best]))
            best = i;
    return best;
}

/* A node for the next ranks of a group that no node can hold whole: the emptiest of the
 * first tier with room, which is filled before the next one. */
static int64_t emptiest_node(const struct room *room)
{
    int tier = SCHED_HERE;
    int64_t best;

    while (room->tier_free[tier] == 0)
        tier++;
    best = tier_first(room, tier);
    for (int64_t i = best + 1; i < room->tier_end[tier]; i++)
        if (room->n_left[i] > room->n_left[best])
            best = i;
    return best;
}

/* The first tier that does, with those before it, for the whole attempt: nodes that are
 * there are not waited for others, nor is more asked for than comes already. */
static int last_tier(const struct room *room, const struct sched_job *job)
{
    int64_t n_free = room->tier_free[SCHED_HERE];
    int tier = SCHED_HERE;

    while (n_free < job->n_ranks)
        n_free += room->tier_free[++tier];
    return tier;
}

/* The caller has checked that there are n_ranks free devices. */
static void place_ranks(struct room *room, const struct sched_job *job,
                        struct sched_start *start)
{
    int last = last_tier(room, job);

    for (int64_t first = 0; first < job->n_ranks; first += job->group_size) {
        int64_t left = job->n_ranks - first;
        int64_t count = left < job->group_size ? left : job->group_size;
        int64_t node = -1;

        for (int tier = SCHED_HERE; tier <= last && node < 0; tier++)
            node = tightest_node(room, tier, count);
        for (int64_t r = 0; r < count; r++) {
            struct sched_place *place = &start->ranks[first + r];

            if (node < 0 || room->n_left[node] == 0)
                node = emptiest_node(room);
            take_device(room, node, place);
            start->n_awaited += node >= room->tier_end[SCHED_HERE];
        }
    }
}

static int add_start(struct sched_plan *plan, int64_t job, int64_t n_ranks,
                     struct err *err)
{
    struct sched_start *starts =
        realloc(plan->starts, (size_t)(plan->n_starts + 1) * sizeof(*starts));

    if (!starts)
        return err_set(err, ERR_NOMEM, "no memory to plan");
    plan->starts = starts;
    starts[plan->n_starts] = (struct sched_start){.job = job};
    starts[plan->n_starts].ranks = calloc((size_t)n_ranks, sizeof(struct sched_place));
    if (!starts[plan->n_starts].ranks)
        return err_set(err, ERR_NOMEM, "no memory to plan");
    plan->n_starts++;
    return 0;
}

static void explain(char *reason, const struct sched_job *job, const struct room *room)
{
    const char *plural = job->n_ranks == 1 ? "" : "s";

    if (room->n_devices_here < job->n_ranks)
        snprintf(reason, SCHED_REASON_MAX, "needs %lld device%s, there are %lld",
                 (long long)job->n_ranks, plural, (long long)room->n_devices_here);
    else
        snprintf(reason, SCHED_REASON_MAX, "needs %lld device%s, %lld free",
                 (long long)job->n_ranks, plural, (long long)room->tier_free[SCHED_HERE]);
}

/* Places what the job wants; says why when it is not all, or has to wait for nodes. */
static int plan_job(struct sched_plan *plan, struct room *room,
                    const struct sched_job *job, int64_t i, bool is_blocked,
                    struct err *err)
{
    int64_t n_wanted = job->n_wanted;
    char *reason = plan->reasons[i];

    for (; n_wanted > 0 && !is_blocked && room->n_free >= job->n_ranks; n_wanted--) {
        if (!*reason && room->tier_free[SCHED_HERE] < job->n_ranks)
            explain(reason, job, room);
        if (add_start(plan, i, job->n_ranks, err) < 0)
            return -1;
        place_ranks(room, job, &plan->starts[plan->n_starts - 1]);
    }
    plan->n_left[i] = n_wanted;
    if (n_wanted == 0)
        return 0;
    if (is_blocked && room->n_free >= job->n_ranks)
        snprintf(reason, SCHED_REASON_MAX, "waits behind an earlier job");
    else if (!*reason)
        explain(reason, job, room);
    return 0;
}

int scheduler_plan(struct sched_plan *plan, const struct sched_node *nodes,
                   int64_t n_nodes, const struct sched_job *jobs, int64_t n_jobs,
                   struct err *err)
{
    bool is_blocked = false; /* an earlier job waits for what is free */
    struct room room;

    *plan = (struct sched_plan){.n_jobs = n_jobs};
    if (room_init(&room, nodes, n_nodes, err) < 0)
        goto failed;
    plan->reasons = calloc((size_t)n_jobs + 1, sizeof(*plan->reasons));
    plan->n_left = calloc((size_t)n_jobs + 1, sizeof(*plan->n_left));
    if (!plan->reasons || !plan->n_left) {
        err_set(err, ERR_NOMEM, "no memory to plan");
        goto failed;
    }
    for (int64_t i = 0; i < n_jobs; i++) {
        if (plan_job(plan, &room, &jobs[i], i, is_blocked, err) < 0)
            goto failed;
        is_blocked |= plan->n_left[i] > 0 && room.n_devices >= jobs[i].n_ranks;
    }
    room_fini(&room);
    return 0;
failed:
    room_fini(&room);
    scheduler_plan_fini(plan);
    return -1;
}

void scheduler_plan_fini(struct sched_plan *plan)
{
    for (int64_t i = 0; i < plan->n_starts; i++)
        free(plan->starts[i].ranks);
    free(plan->starts);
    free(plan->reasons);
    free(plan->n_left);
    *plan = (struct sched_plan){0};
}
