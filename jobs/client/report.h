/* report.h - one page about a job, with everything it needs in it
 *
 * report_gather asks the coordinator and reads the job's folder; report_write turns that
 * into HTML without asking anything. Of a training job: curves. Of an evaluation: the
 * table and the examples, and the curves of the run its checkpoint came from, when the
 * coordinator knows it.
 * Owns: a struct report owns what it points to.
 */
#ifndef VNEVA_JOBS_CLIENT_REPORT_H
#define VNEVA_JOBS_CLIENT_REPORT_H

#include "jobs/client/client.h"

#define REPORT_FRAME_MAX (4u << 20)   /* bytes of one picture */
#define REPORT_FRAMES_MAX (64u << 20) /* bytes of all of them */
#define REPORT_JSON_MAX (64u << 20)

struct report_curves { /* of one training job, by step; NAN where nothing was measured */
    int64_t job;       /* 0: none */
    size_t n;
    double *step, *loss, *smooth_loss, *val_loss, *lr, *wait_ms, *step_ms, *samples_per_s;
    int64_t n_on_gpu, n_on_cpu; /* videos that rank 0 had decoded there */
    double *restarts;           /* steps from which a later attempt went on */
    size_t n_restarts;
};

struct report {
    struct json *job;      /* row of view "job" */
    struct json *attempts; /* rows */
    struct json *table;    /* table.json, or NULL */
    struct json *examples; /* examples.json, or NULL */
    struct report_curves curves;
    char folder[FS_PATH_MAX]; /* of the job */
};

int report_gather(struct report *out, struct client *client, int64_t job,
                  struct err *err);
void report_fini(struct report *report);

/* The whole page, appended. Pictures that are missing are said to be. */
int report_write(struct buf *out, const struct report *report, struct err *err);

/* Pieces of the page, a file each. */
void report_add_curves(struct buf *out, const struct report_curves *curves);
void report_add_examples(struct buf *out, const struct report *report);
extern const char report_style[], report_script[];

#endif
