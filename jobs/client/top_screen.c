/* The pages of top: the list of jobs, a job, a log. */
#include "jobs/client/client.h"
#include "jobs/client/format.h"
#include "jobs/client/top_draw.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BAR_WIDTH 16
#define BAR_WIDTH_SMALL 8 /* of a terminal narrower than BAR_COLUMNS */
#define BAR_COLUMNS 100
#define JOB_COLUMNS 43      /* of a job's line, besides name, bar and reason */
#define CURVE_LINES 5       /* of the list's page */
#define CURVE_LINES_TALL 12 /* of a job's own page */
#define DETAIL_LINES 12     /* the chosen job's part below the list */
#define LIST_LINES_MIN 3

/* ---- the head ---- */

static int64_t sum(const struct json *rows, const char *key)
{
    int64_t total = 0;

    for (size_t i = 0; i < json_count(rows); i++)
        total += json_get_int(json_at(rows, i), key, 0);
    return total;
}

/* Of all jobs, not only those that are listed. */
static int64_t count_state(const struct top_data *data, const char *state)
{
    for (size_t i = 0; i < json_count(data->states); i++)
        if (strcmp(json_get_text(json_at(data->states, i), "state"), state) == 0)
            return json_get_int(json_at(data->states, i), "n", 0);
    return 0;
}

static void draw_list_head(struct top_drawing *d)
{
    static const char *const sorts[] = {"newest", "state", "name", "least done"};
    static const char *const states[] = {"running", "queued", "held", "failed"};

    for (int i = 0; i < 4; i++)
        buf_printf(&d->line, "%" PRId64 " %s, ", count_state(d->data, states[i]),
                   states[i]);
    buf_printf(&d->line, "by %s%s", sorts[d->top->sort],
               d->top->shows_ended ? ", ended ones too" : "");
    if (d->top->is_typing || d->top->filter[0])
        buf_printf(&d->line, "  filter: %s%s", d->top->filter,
                   d->top->is_typing ? "_" : "");
    top_end_line(d, TOP_DIM);
}

static void draw_head(struct top_drawing *d)
{
    const struct top_data *data = d->data;
    size_t n_workers = json_count(data->workers);

    buf_add_str(&d->line, "vneva top  ");
    format_time(&d->line, data->now_ms);
    buf_printf(&d->line, "  %" PRId64 " of %" PRId64 " devices busy, %zu worker%s up",
               sum(data->workers, "n_busy"), sum(data->workers, "n_devices"), n_workers,
               n_workers == 1 ? "" : "s");
    top_end_line(d, TOP_BOLD);
    if (data->error[0]) {
        buf_add_str(&d->line, data->error);
        top_end_line(d, TOP_REVERSE);
    }
    if (d->top->page == TOP_JOBS)
        draw_list_head(d);
}

static void draw_foot(struct top_drawing *d)
{
    static const char *const keys[] = {
        [TOP_JOBS] = "q quit  Enter open  l log  s sort  / filter  a ended ones  up/down "
                     "choose",
        [TOP_JOB] = "q back  l log  up/down ranks",
        [TOP_LOG] = "q back  Enter job",
    };

    while (top_lines_left(d) > 1)
        top_end_line(d, TOP_PLAIN);
    buf_add_str(&d->line, d->top->is_typing
                              ? "text in name, kind or state; Enter keep  Esc none"
                              : keys[d->top->page]);
    top_end_line(d, TOP_DIM);
}

/* ---- jobs ---- */

/* "[======>   ]  42%" */
static void add_progress(struct buf *line, const struct json *row, int width)
{
    int64_t done = json_get_int(row, "done", 0), total = json_get_int(row, "total", 0);
    int filled = total > 0 ? (int)(done * width / total) : 0;

    buf_add_char(line, '[');
    for (int i = 0; i < width; i++)
        buf_add_char(line, i < filled ? '=' : i == filled && done ? '>' : ' ');
    if (total > 0)
        buf_printf(line, "] %3" PRId64 "%%  ", 100 * done / total);
    else
        buf_add_str(line, "]       ");
}

/* From how long what is done has taken; a training job that resumed is faster than that. */
static void add_left(struct buf *line, const struct top_drawing *d,
                     const struct json *row)
{
    int64_t done = json_get_int(row, "done", 0), total = json_get_int(row, "total", 0);
    struct buf text = BUF_INIT;

    if (strcmp(json_get_text(row, "state"), "running") == 0 && done > 0 && total > done)
        format_duration(&text, (int64_t)((double)top_since(d, row, "started_ms") *
                                         (double)(total - done) / (double)done));
    top_add_cell(line, buf_str(&text), 11, true);
    buf_fini(&text);
}

static int bar_width(const struct top_drawing *d)
{
    return d->screen->width < BAR_COLUMNS ? BAR_WIDTH_SMALL : BAR_WIDTH;
}

/* A third of the screen is for the reason. */
static int name_width(const struct top_drawing *d)
{
    int width = d->screen->width;

    return top_clamp(width - JOB_COLUMNS - bar_width(d) - 7 - width / 3, 12, 40);
}

static void draw_job_titles(struct top_drawing *d)
{
    top_add_cell(&d->line, "JOB", 5, true);
    top_add_cell(&d->line, "KIND", 8, false);
    top_add_cell(&d->line, "NAME", name_width(d), false);
    top_add_cell(&d->line, "STATE", 9, false);
    top_add_cell(&d->line, "PROGRESS", bar_width(d) + 7, false);
    top_add_cell(&d->line, "LEFT", 11, true);
    buf_add_str(&d->line, "REASON");
    top_end_line(d, TOP_BOLD);
}

static void draw_job_row(struct top_drawing *d, const struct json *row)
{
    top_add_int_cell(&d->line, row, "id", 5);
    top_add_cell(&d->line, json_get_text(row, "kind"), 8, false);
    top_add_cell(&d->line, json_get_text(row, "name"), name_width(d), false);
    top_add_cell(&d->line, json_get_text(row, "state"), 9, false);
    add_progress(&d->line, row, bar_width(d));
    add_left(&d->line, d, row);
    buf_add_str(&d->line, json_get_text(row, "reason"));
    top_end_line(d, json_get_int(row, "id", 0) == d->top->job ? TOP_REVERSE : TOP_PLAIN);
}

/* So many rows that the chosen one is among them. */
static void draw_jobs(struct top_drawing *d, int n_lines)
{
    const struct json *rows[TOP_JOBS_MAX];
    int n = top_list(d->top, d->data, rows), first = 0;

    draw_job_titles(d);
    n_lines--;
    for (int i = 0; i < n; i++)
        if (json_get_int(rows[i], "id", 0) == d->top->job && i >= n_lines)
            first = i - n_lines + 1;
    for (int i = first; i < n && i < first + n_lines; i++)
        draw_job_row(d, rows[i]);
    if (n == 0) {
        buf_add_str(&d->line, d->top->filter[0] ? "no job fits the filter"
                              : d->top->shows_ended
                                  ? "no jobs"
                                  : "no jobs but ended ones, if any (a)");
        top_end_line(d, TOP_PLAIN);
    }
}

/* ---- log ---- */

/* Lines of the screen that a line of a log takes: at least one. */
static int count_pieces(const char *text, size_t n_bytes, int width)
{
    int n = 0, n_columns;

    for (size_t at = 0; at < n_bytes || n == 0; n++) {
        size_t piece = format_beginning(text + at, width, &n_columns);

        if (piece == 0)
            return n + 1;
        at += piece;
    }
    return n;
}

/* Where the last lines begin that fit into so many of the screen. */
static const char *find_tail(const char *text, const char *end, int n_lines, int width)
{
    const char *at = end;

    while (at > text) {
        const char *line = at - 1;

        while (line > text && line[-1] != '\n')
            line--;
        n_lines -= count_pieces(line, (size_t)(at - 1 - line), width);
        if (n_lines < 0 && at < end) /* the last one is shown in any case */
            break;
        at = line;
    }
    return at;
}

/* Long lines are folded. */
static void draw_log_line(struct top_drawing *d, const char *text, size_t n_bytes)
{
    struct buf line = BUF_INIT;
    int n_columns;

    buf_add(&line, text, n_bytes);
    format_clean(&line, 0);
    text = buf_str(&line);
    do {
        size_t piece = format_beginning(text, d->screen->width, &n_columns);

        buf_add(&d->line, text, piece);
        top_end_line(d, TOP_PLAIN);
        text = piece ? text + piece : "";
    } while (*text && top_lines_left(d) > 1);
    buf_fini(&line);
}

static void draw_log(struct top_drawing *d)
{
    const char *text = buf_str(&d->data->log), *end = text + d->data->log.n_bytes, *at;

    buf_printf(&d->line, "log of rank 0 of job %" PRId64, d->top->job);
    top_end_line(d, TOP_BOLD);
    at = find_tail(text, end, top_lines_left(d) - 1, d->screen->width);
    while (at < end && top_lines_left(d) > 1) {
        size_t n_bytes = strcspn(at, "\n");

        draw_log_line(d, at, n_bytes);
        at += n_bytes + 1;
    }
}

void top_draw(struct top_screen *screen, const struct top *top,
              const struct top_data *data)
{
    struct top_drawing d = {.screen = screen, .top = top, .data = data};

    top_screen_fini(screen);
    draw_head(&d);
    if (top->page == TOP_LOG) {
        draw_log(&d);
    } else if (top->page == TOP_JOB) {
        top_draw_chosen(&d, CURVE_LINES_TALL);
    } else {
        int n = top_lines_left(&d) - 1 - DETAIL_LINES;

        draw_jobs(&d, n < LIST_LINES_MIN ? top_lines_left(&d) - 1 : n);
        if (n >= LIST_LINES_MIN) {
            top_end_line(&d, TOP_PLAIN);
            top_draw_chosen(&d, CURVE_LINES);
        }
    }
    draw_foot(&d);
}
