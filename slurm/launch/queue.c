#include "slurm/launch/queue.h"

#include "slurm/launch/launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID, STATE, NODES, SUBMITTED, STARTED, ENDED, NAME, REASON, N_FIELDS };

/* Slurm's words that are not those of an end (man squeue, "JOB STATE CODES"). One that
 * completes has no program of ours any more. */
static const struct {
    const char *word;
    enum queue_state state;
} words[] = {
    {"PENDING", QUEUE_PENDING},      {"CONFIGURING", QUEUE_PENDING},
    {"REQUEUED", QUEUE_PENDING},     {"REQUEUE_HOLD", QUEUE_PENDING},
    {"REQUEUE_FED", QUEUE_PENDING},  {"RESV_DEL_HOLD", QUEUE_PENDING},
    {"SPECIAL_EXIT", QUEUE_PENDING}, {"RUNNING", QUEUE_RUNNING},
    {"SUSPENDED", QUEUE_RUNNING},    {"STOPPED", QUEUE_RUNNING},
    {"RESIZING", QUEUE_RUNNING},     {"SIGNALING", QUEUE_RUNNING},
    {"STAGE_OUT", QUEUE_RUNNING},
};

const char *queue_state_name(enum queue_state state)
{
    static const char *const names[] = {"pending", "running", "ended"};

    return names[state];
}

static enum queue_state state_of(const char *word)
{
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (strcmp(words[i].word, word) == 0)
            return words[i].state;
    return QUEUE_ENDED;
}

/* Digits of a text at a place; -1: other bytes there. */
static int64_t digits_at(const char *text, size_t at, size_t n)
{
    int64_t value = 0;

    for (size_t i = at; i < at + n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

/* "2026-11-27T16:45:57", UTC; 0 for "N/A" and the like. */
static int64_t to_ms(const char *text)
{
    static const size_t places[] = {0, 5, 8, 11, 14, 17};
    int64_t numbers[6], days;

    if (strlen(text) != strlen("2026-11-27T16:45:57"))
        return 0;
    for (size_t i = 0; i < 6; i++)
        if ((numbers[i] = digits_at(text, places[i], i == 0 ? 4 : 2)) < 0)
            return 0;
    /* days since 1970 in the Gregorian calendar, years beginning in March */
    if (numbers[1] <= 2) {
        numbers[0]--;
        numbers[1] += 12;
    }
    days = 365 * numbers[0] + numbers[0] / 4 - numbers[0] / 100 + numbers[0] / 400 +
           (153 * (numbers[1] - 3) + 2) / 5 + numbers[2] - 719469;
    return (((days * 24 + numbers[3]) * 60 + numbers[4]) * 60 + numbers[5]) * 1000;
}

/* Cuts a line in place; the reason, the last, may hold anything. */
static int cut_fields(char *line, char **fields)
{
    int n = 0;

    for (char *at = line; at && n < N_FIELDS;) {
        fields[n++] = at;
        at = n < N_FIELDS ? strchr(at, '|') : NULL;
        if (at)
            *at++ = '\0';
    }
    return n == N_FIELDS ? 0 : -1;
}

static void fill_entry(struct queue_entry *entry, char *const *fields)
{
    static const int since[] = {SUBMITTED, STARTED, ENDED};

    memset(entry, 0, sizeof(*entry));
    snprintf(entry->id, sizeof(entry->id), "%s", fields[ID]);
    snprintf(entry->word, sizeof(entry->word), "%s", fields[STATE]);
    snprintf(entry->name, sizeof(entry->name), "%s", fields[NAME]);
    entry->state = state_of(fields[STATE]);
    entry->n_nodes = strtoll(fields[NODES], NULL, 10);
    entry->since_ms = to_ms(fields[since[entry->state]]);
    if (entry->state == QUEUE_ENDED)
        snprintf(entry->reason, sizeof(entry->reason), "%s", fields[STATE]);
    else if (strcmp(fields[REASON], "None") != 0)
        snprintf(entry->reason, sizeof(entry->reason), "%s", fields[REASON]);
}

static int by_number(const void *a, const void *b)
{
    const struct queue_entry *x = a, *y = b;
    long long i = strtoll(x->id, NULL, 10), j = strtoll(y->id, NULL, 10);

    return (i > j) - (i < j);
}

static int add_line(struct queue *queue, size_t *capacity, char *line, struct err *err)
{
    char *fields[N_FIELDS];

    if (cut_fields(line, fields) < 0)
        return err_set(err, ERR_FORMAT, "squeue answers '%.80s'", line);
    if (queue->n_entries == *capacity) {
        size_t more = *capacity ? *capacity * 2 : 64;
        struct queue_entry *grown = realloc(queue->entries, more * sizeof(*grown));

        if (!grown)
            return err_set(err, ERR_NOMEM, "no memory for %zu jobs", more);
        queue->entries = grown;
        *capacity = more;
    }
    fill_entry(&queue->entries[queue->n_entries++], fields);
    return 0;
}

int queue_parse(struct queue *out, const char *text, struct err *err)
{
    char *copy = strdup(text), *rest = copy, *line;
    size_t capacity = 0;
    int rc = copy ? 0 : err_set(err, ERR_NOMEM, "no memory for the queue");

    memset(out, 0, sizeof(*out));
    while (rc == 0 && (line = strtok_r(rest, "\n", &rest)))
        rc = add_line(out, &capacity, line, err);
    free(copy);
    if (rc < 0)
        queue_fini(out);
    else if (out->n_entries)
        qsort(out->entries, out->n_entries, sizeof(*out->entries), by_number);
    return rc;
}

void queue_fini(struct queue *queue)
{
    free(queue->entries);
    memset(queue, 0, sizeof(*queue));
}

/* ids: NULL for all of this user's. An id that is not known is an empty answer. */
static int ask(struct queue *out, const char *id, struct err *err)
{
    char of_job[64];
    const char *const argv[] = {
        "squeue", "--noheader", "--states=all", id ? of_job : "--me", QUEUE_FORMAT, NULL};
    struct spawn_said said;
    int rc;

    snprintf(of_job, sizeof(of_job), "--jobs=%s", id ? id : "");
    setenv("TZ", "UTC0", 1); /* squeue prints local times */
    setenv("SLURM_TIME_FORMAT", "standard", 1);
    unsetenv("SQUEUE_FORMAT");
    if (launch_call(&said, argv, err) < 0) {
        if (err->code == ERR_NOT_FOUND)
            return err_set(err, ERR_UNSUPPORTED,
                           "there is no squeue here: ask on a machine of the cluster");
        return -1;
    }
    if (said.status == 0)
        rc = queue_parse(out, buf_str(&said.out), err);
    else if (id && strstr(buf_str(&said.errors), "Invalid job id"))
        rc = queue_parse(out, "", err);
    else
        rc = err_set(err, ERR_TIMEOUT, "%s", launch_complaint(&said));
    spawn_said_fini(&said);
    return rc;
}

int queue_read(struct queue *out, struct err *err)
{
    return ask(out, NULL, err);
}

int queue_find(struct queue_entry *out, const char *id, struct err *err)
{
    struct queue queue = {NULL, 0};
    int rc = -1;

    if (ask(&queue, id, err) < 0)
        return -1;
    if (queue.n_entries) {
        *out = queue.entries[0];
        rc = 0;
    } else {
        err_set(err, ERR_NOT_FOUND, "Slurm does not know job %s any more", id);
    }
    queue_fini(&queue);
    return rc;
}
