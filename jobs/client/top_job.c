/* What top shows of the chosen job: its step, its curve, its ranks. */
#include "jobs/client/client.h"
#include "jobs/client/format.h"
#include "jobs/client/top_curve.h"
#include "jobs/client/top_draw.h"

#include <inttypes.h>
#include <string.h>

#define RANK_COLUMNS 46 /* of a rank's line, besides host and stage */
#define SPLIT_WIDTH 40
#define CURVE_LINES_MIN 3
#define CURVE_LABEL 9  /* columns left of the curve */
#define RANK_LINES 5   /* the curve leaves room for them: titles and some ranks */
#define SILENT_MS 5000 /* a rank not heard of for so long is not what it says any more */

static const struct json *chosen_job(const struct top_drawing *d)
{
    for (size_t i = 0; i < json_count(d->data->jobs); i++)
        if (json_get_int(json_at(d->data->jobs, i), "id", 0) == d->top->job)
            return json_at(d->data->jobs, i);
    return NULL;
}

static void draw_job_line(struct top_drawing *d, const struct json *job)
{
    const struct json *step = json_at(d->data->step, 0);

    buf_printf(&d->line, "job %" PRId64 " '%s'  %s  %" PRId64 " of %" PRId64 " done",
               json_get_int(job, "id", 0), json_get_text(job, "name"),
               json_get_text(job, "state"), json_get_int(job, "done", 0),
               json_get_int(job, "total", 0));
    if (json_type(json_get(step, "loss")) == JSON_DOUBLE)
        buf_printf(&d->line, "  loss %.4f", json_get_double(step, "loss", 0));
    if (json_type(json_get(step, "val_loss")) == JSON_DOUBLE)
        buf_printf(&d->line, "  validation %.4f", json_get_double(step, "val_loss", 0));
    if (json_get_double(step, "samples_per_s", 0) > 0)
        buf_printf(&d->line, "  %.3g samples/s",
                   json_get_double(step, "samples_per_s", 0));
    top_end_line(d, TOP_BOLD);
}

static void add_times(struct buf *line, char c, double n)
{
    for (int i = 0; i < (int)(n + 0.5); i++)
        buf_add_char(line, c);
}

/* What is neither communication nor waiting is computing. */
static void draw_split(struct top_drawing *d)
{
    const struct json *step = json_at(d->data->step, 0);
    double all = json_get_double(step, "step_ms", 0);
    double comm = json_get_double(step, "comm_ms", 0);
    double wait = json_get_double(step, "wait_ms", 0);
    double compute = all - comm - wait > 0 ? all - comm - wait : 0;
    struct buf legend = BUF_INIT;
    int width;

    if (all <= 0)
        return;
    buf_printf(&legend, "]  # compute %.0f%%  = communication %.0f%%  . data %.0f%%",
               100 * compute / all, 100 * comm / all, 100 * wait / all);
    buf_printf(&d->line, "a step takes %.4g ms  [", all);
    width = d->screen->width - (int)(d->line.n_bytes + legend.n_bytes);
    width = top_clamp(width - 1, 4, SPLIT_WIDTH); /* rounding may add one */
    add_times(&d->line, '#', width * compute / all);
    add_times(&d->line, '=', width * comm / all);
    add_times(&d->line, '.', width * wait / all);
    buf_add_str(&d->line, buf_str(&legend));
    buf_fini(&legend);
    top_end_line(d, TOP_PLAIN);
}

/* ---- the curve ---- */

static void draw_curve(struct top_drawing *d, int n_rows)
{
    struct top_curve curve = {.width = d->screen->width - CURVE_LABEL - 1};

    if (json_count(d->data->curve) < 2 || curve.width < 10)
        return;
    top_curve_fit(&curve, d->data->curve);
    for (int row = 0; row < n_rows && top_lines_left(d) > 1; row++) {
        if (row == 0)
            buf_printf(&d->line, "%*.4g ", CURVE_LABEL, curve.high);
        else if (row == n_rows - 1)
            buf_printf(&d->line, "%*.4g ", CURVE_LABEL, curve.low);
        else
            buf_printf(&d->line, "%*s ", CURVE_LABEL, row == n_rows / 2 ? "loss" : "");
        top_curve_add_row(&curve, &d->line, row, n_rows, d->top->is_utf8);
        top_end_line(d, TOP_PLAIN);
    }
}

/* ---- ranks and log ---- */

static int stage_width(const struct top_drawing *d)
{
    return top_clamp(d->screen->width - RANK_COLUMNS - 8, 12, 30);
}

static int host_width(const struct top_drawing *d)
{
    return top_clamp(d->screen->width - RANK_COLUMNS - stage_width(d), 6, 24);
}

static void draw_rank(struct top_drawing *d, const struct json *rank)
{
    struct buf text = BUF_INIT;
    bool is_silent = top_since(d, rank, "seen_ms") > SILENT_MS;

    top_add_int_cell(&d->line, rank, "rank", 4);
    top_add_cell(&d->line, json_get_text(rank, "host"), host_width(d), false);
    top_add_int_cell(&d->line, rank, "device", 3);
    top_add_int_cell(&d->line, rank, "pid", 7);
    top_add_cell(&d->line, is_silent ? "not heard of" : json_get_text(rank, "stage"),
                 stage_width(d), false);
    format_duration(&text, top_since(d, rank, is_silent ? "seen_ms" : "since_ms"));
    top_add_cell(&d->line, buf_str(&text), 11, true);
    buf_reset(&text);
    if (json_get_int(rank, "memory_bytes", 0) > 0)
        format_bytes(&text, (uint64_t)json_get_int(rank, "memory_bytes", 0));
    top_add_cell(&d->line, buf_str(&text), 9, true);
    buf_fini(&text);
    top_end_line(d, is_silent ? TOP_BOLD : TOP_PLAIN);
}

static void draw_ranks(struct top_drawing *d)
{
    int n = (int)json_count(d->data->ranks), n_lines = top_lines_left(d) - 2, first = 0;
    bool is_cut = n > n_lines;

    if (!n || n_lines < 1)
        return;
    top_add_cell(&d->line, "RANK", 4, true);
    top_add_cell(&d->line, "HOST", host_width(d), false);
    top_add_cell(&d->line, "DEV", 3, true);
    top_add_cell(&d->line, "PROCESS", 7, true);
    top_add_cell(&d->line, "STAGE", stage_width(d), false);
    top_add_cell(&d->line, "FOR", 11, true);
    top_add_cell(&d->line, "MEMORY", 9, true);
    top_end_line(d, TOP_BOLD);
    n_lines -= is_cut;
    if (is_cut && d->top->page == TOP_JOB)
        first = top_clamp(d->top->first_rank, 0, n - n_lines);
    for (int i = first; i < n && i < first + n_lines; i++)
        draw_rank(d, json_at(d->data->ranks, (size_t)i));
    if (is_cut) {
        buf_printf(&d->line, "... %d of %d ranks", n_lines, n);
        top_end_line(d, TOP_DIM);
    }
}

static void draw_reason(struct top_drawing *d, const struct json *job)
{
    const char *reason = json_get_text(job, "reason");

    if (!*reason || strcmp(json_get_text(job, "state"), "running") == 0)
        return;
    buf_add_str(&d->line, reason);
    top_end_line(d, TOP_PLAIN);
}

void top_draw_chosen(struct top_drawing *d, int curve_lines)
{
    const struct json *job = chosen_job(d);
    int n_left;

    if (!job)
        return;
    draw_job_line(d, job);
    draw_reason(d, job);
    draw_split(d);
    n_left = top_lines_left(d) - 1 - (json_count(d->data->ranks) ? RANK_LINES : 0);
    if (n_left >= CURVE_LINES_MIN)
        draw_curve(d, n_left < curve_lines ? n_left : curve_lines);
    draw_ranks(d);
}
