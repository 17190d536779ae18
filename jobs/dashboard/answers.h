/* answers.h - what the dashboard knows: questions of browsers, put to the coordinator
 *
 *     /api/VIEW?where=&columns=&sort=&limit=&after=   rows of a view (docs/query.md)
 *     /data/overview                                  jobs, devices, steps of those that run
 *     /data/job/N                                     all about a job but the next ones
 *     /data/job/N/curve                               its steps, CURVE_POINTS of them
 *     /data/job/N/log?rank=R                          the end of a log
 *     /data/job/N/examples                            of an evaluation; files of its folder
 *     /data/job/N/frames/NAME.png                     a picture of one
 *     /metrics                                        for Prometheus
 *
 * All but the last two are JSON; an error is {"error": {"code", "text"}} with a fitting
 * status. That the coordinator is down is found by a PING and told to all at once.
 * Threads: one, that of ask.h. Blocks as long as an answer takes.
 */
#ifndef VNEVA_JOBS_DASHBOARD_ANSWERS_H
#define VNEVA_JOBS_DASHBOARD_ANSWERS_H

#include "jobs/client/client.h"
#include "jobs/dashboard/ask.h"
#include "jobs/dashboard/url.h"

#define ANSWERS_API_ROWS 1000      /* of a view, where no limit is given */
#define ANSWERS_API_ROWS_MAX 20000 /* the most that may be asked for at once */
#define ANSWERS_PING_MS 3000       /* after which the coordinator counts as down */
#define ANSWERS_TRUST_MS 1000      /* who answered so lately is not pinged */
#define ANSWERS_RETRY_MS 1000      /* how long "it is down" is said without asking */
#define ANSWERS_CURVE_POINTS 300
#define ANSWERS_LOG_BYTES (48 << 10)   /* of the end of a log */
#define ANSWERS_EXAMPLES_MAX (4 << 20) /* bytes of examples.json or table.json */
#define ANSWERS_PICTURE_MAX (4 << 20)  /* bytes of a picture */
#define ANSWERS_JOBS_MAX 500           /* that have not ended, listed */
#define ANSWERS_ENDED_MAX 30           /* that have, the last ones */
#define ANSWERS_ROWS_MAX 1000          /* of ranks, workers */

struct answers {
    struct client *client;  /* borrowed */
    int64_t heard_mono_ms;  /* of the last answer; 0: none yet */
    int64_t failed_mono_ms; /* of the last PING without one; 0: none */
    struct err failure;
};

/* question: a target, as url_parse takes it. For ask_create. */
void answers_write(void *answers, const char *question, struct ask_text *out);

/* ---- pieces, a file each; they fill out or fail ---- */

int answers_overview(struct answers *answers, struct ask_text *out, struct err *err);
/* rest: what stands behind "/data/job/N", without a "/". */
int answers_job(struct answers *answers, int64_t job, const char *rest,
                const struct url *url, struct ask_text *out, struct err *err);
int answers_files(struct answers *answers, int64_t job, const char *rest,
                  struct ask_text *out, struct err *err);
int answers_metrics(struct answers *answers, struct ask_text *out, struct err *err);
/* Whether the coordinator answers; asked at most once in a while. */
int answers_check(struct answers *answers, struct err *err);

/* Rows of a SELECT, which is a printf format with numbers, into object[key]. */
int answers_put_rows(struct answers *answers, struct json *object, const char *key,
                     struct err *err, const char *sql, ...)
    __attribute__((format(printf, 5, 6)));
/* The text of json becomes the answer; json is freed, NULL is out of memory. */
int answers_take_json(struct ask_text *out, struct json *json, struct err *err);
/* buf becomes the answer; it is empty afterwards. */
int answers_take_buf(struct ask_text *out, struct buf *buf, struct err *err);

#endif
