/* Lines of text from rows and what was chosen. Widths are columns of the terminal. */
#include "common/base/utf8.h"
#include "jobs/client/client.h"
#include "jobs/client/format.h"
#include "jobs/client/top.h"
#include "jobs/client/top_curve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BAR_WIDTH 16
#define SPLIT_WIDTH 40
#define CURVE_LINES 5       /* of the list's page */
#define CURVE_LINES_TALL 12 /* of a job's own page */
#define CURVE_LABEL 9       /* columns left of the curve */
#define DETAIL_LINES 12     /* the chosen job's part below the list */
#define LIST_LINES_MIN 3
#define SILENT_MS 5000 /* a rank not heard of for so long is not what it says any more */

struct drawing {
    struct top_screen *screen;
    const struct top *top;
    const struct top_data *data;
    struct buf line; /* the one being made */
};

static int64_t since(const struct drawing *d, const struct json *row, const char *key)
{
    int64_t ms = d->data->now_ms - json_get_int(row, key, d->data->now_ms);

    return ms > 0 ? ms : 0;
}

/* ---- lines ---- */

void top_screen_fini(struct top_screen *screen)
{
    for (int i = 0; i < screen->n_lines; i++)
        free(screen->lines[i].text);
    screen->n_lines = 0;
}

/* The part of a text that fits; a reversed line is filled up with spaces. */
static char *fit(struct buf *line, int width, bool is_filled)
{
    int n_columns;
    size_t n = format_beginning(buf_str(line), width, &n_columns);

    if (line->n_bytes > n) {
        line->n_bytes = n;
        line->data[n] = '\0';
    }
    for (; is_filled && n_columns < width; n_columns++)
        buf_add_char(line, ' ');
    return buf_take(line);
}

/* What the terminal's locale cannot show. */
static void to_ascii(struct buf *line)
{
    size_t n = 0, n_bytes;

    for (size_t at = 0; at < line->n_bytes; at += n_bytes) {
        utf8_columns(line->data + at, &n_bytes);
        line->data[n++] = n_bytes > 1 || line->data[at] < 0 ? '?' : line->data[at];
    }
    if (line->n_bytes)
        line->data[n] = '\0';
    line->n_bytes = n;
}

/* The line so far becomes one of the screen, if there is room. */
static void end_line(struct drawing *d, enum top_look look)
{
    struct top_screen *s = d->screen;

    format_clean(&d->line, 0);
    if (!d->top->is_utf8)
        to_ascii(&d->line);
    if (s->n_lines < s->height && s->n_lines < TOP_LINES_MAX) {
        char *text = fit(&d->line, s->width, look == TOP_REVERSE);

        if (text)
            s->lines[s->n_lines++] = (struct top_line){text, look};
    }
    buf_fini(&d->line);
}

static int lines_left(const struct drawing *d)
{
    return d->screen->height - d->screen->n_lines;
}

/* A cell of a column: cut or filled up to width. */
static void add_cell(struct buf *line, const char *text, int width, bool is_right)
{
    int n;
    size_t bytes = format_beginning(text, width, &n);

    for (int i = n; is_right && i < width; i++)
        buf_add_char(line, ' ');
    buf_add(line, text, bytes);
    for (int i = n; !is_right && i < width; i++)
        buf_add_char(line, ' ');
    buf_add_str(line, "  ");
}

static void add_int_cell(struct buf *line, const struct json *row, const char *key,
                         int width)
{
    char text[32] = "";

    if (json_type(json_get(row, key)) == JSON_INT)
        snprintf(text, sizeof(text), "%" PRId64, json_get_int(row, key, 0));
    add_cell(line, text, width, true);
}

/* ---- the head ---- */

static int64_t sum(const struct json *rows, const char *key)
{
    int64_t total = 0;

    for (size_t i = 0; i < json_count(rows); i++)
        total += json_get_int(json_at(rows, i), key, 0);
    return total;
}

static int count_state(const struct json *rows, const char *state)
{
    int n = 0;

    for (size_t i = 0; i < json_count(rows); i++)
        n += strcmp(json_get_text(json_at(rows, i), "state"), state) == 0;
    return n;
}

static void draw_head(struct drawing *d)
{
    static const char *const sorts[] = {"newest", "state", "name", "least done"};
    const struct top_data *data = d->data;

    buf_add_str(&d->line, "vneva top  ");
    format_time(&d->line, data->now_ms);
    buf_printf(&d->line, "  %" PRId64 " of %" PRId64 " devices busy, %zu workers up  ",
               sum(data->workers, "n_busy"), sum(data->workers, "n_devices"),
               json_count(data->workers));
    buf_printf(&d->line, "%d running, %d queued, %d held, %d failed",
               count_state(data->jobs, "running"), count_state(data->jobs, "queued"),
               count_state(data->jobs, "held"), count_state(data->jobs, "failed"));
    end_line(d, TOP_BOLD);
    if (data->error[0]) {
        buf_add_str(&d->line, data->error);
        end_line(d, TOP_REVERSE);
    }
    if (d->top->page != TOP_JOBS)
        return;
    buf_printf(&d->line, "by %s%s", sorts[d->top->sort],
               d->top->shows_ended ? ", ended ones too" : "");
    if (d->top->is_typing || d->top->filter[0])
        buf_printf(&d->line, "  filter: %s%s", d->top->filter,
                   d->top->is_typing ? "_" : "");
    end_line(d, TOP_DIM);
}

static void draw_foot(struct drawing *d)
{
    static const char *const keys[] = {
        [TOP_JOBS] = "up/down choose  Enter open  l log  s sort  / filter  a ended ones  "
                     "q quit",
        [TOP_JOB] = "l log  q back",
        [TOP_LOG] = "Enter job  q back",
    };

    while (lines_left(d) > 1)
        end_line(d, TOP_PLAIN);
    buf_add_str(&d->line, d->top->is_typing
                              ? "text in name, kind or state; Enter keep  Esc none"
                              : keys[d->top->page]);
    end_line(d, TOP_DIM);
}

/* ---- jobs ---- */

/* "[======>   ]  42%" */
static void add_progress(struct buf *line, const struct json *row)
{
    int64_t done = json_get_int(row, "done", 0), total = json_get_int(row, "total", 0);
    int filled = total > 0 ? (int)(done * BAR_WIDTH / total) : 0;

    buf_add_char(line, '[');
    for (int i = 0; i < BAR_WIDTH; i++)
        buf_add_char(line, i < filled ? '=' : i == filled && done ? '>' : ' ');
    if (total > 0)
        buf_printf(line, "] %3" PRId64 "%%  ", 100 * done / total);
    else
        buf_add_str(line, "]       ");
}

/* From how long what is done has taken; a training job that resumed is faster than that. */
static void add_left(struct buf *line, const struct drawing *d, const struct json *row)
{
    int64_t done = json_get_int(row, "done", 0), total = json_get_int(row, "total", 0);
    struct buf text = BUF_INIT;

    if (strcmp(json_get_text(row, "state"), "running") == 0 && done > 0 && total > done)
        format_duration(&text, (int64_t)((double)since(d, row, "started_ms") *
                                         (double)(total - done) / (double)done));
    add_cell(line, buf_str(&text), 11, true);
    buf_fini(&text);
}

static void draw_job_titles(struct drawing *d)
{
    add_cell(&d->line, "JOB", 5, true);
    add_cell(&d->line, "KIND", 9, false);
    add_cell(&d->line, "NAME", 20, false);
    add_cell(&d->line, "STATE", 9, false);
    add_cell(&d->line, "PROGRESS", BAR_WIDTH + 7, false);
    add_cell(&d->line, "LEFT", 11, true);
    buf_add_str(&d->line, "REASON");
    end_line(d, TOP_BOLD);
}

static void draw_job_row(struct drawing *d, const struct json *row)
{
    add_int_cell(&d->line, row, "id", 5);
    add_cell(&d->line, json_get_text(row, "kind"), 9, false);
    add_cell(&d->line, json_get_text(row, "name"), 20, false);
    add_cell(&d->line, json_get_text(row, "state"), 9, false);
    add_progress(&d->line, row);
    add_left(&d->line, d, row);
    buf_add_str(&d->line, json_get_text(row, "reason"));
    end_line(d, json_get_int(row, "id", 0) == d->top->job ? TOP_REVERSE : TOP_PLAIN);
}

/* So many rows that the chosen one is among them. */
static void draw_jobs(struct drawing *d, int n_lines)
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
        end_line(d, TOP_PLAIN);
    }
}

/* ---- the chosen job ---- */

static const struct json *chosen_job(const struct drawing *d)
{
    for (size_t i = 0; i < json_count(d->data->jobs); i++)
        if (json_get_int(json_at(d->data->jobs, i), "id", 0) == d->top->job)
            return json_at(d->data->jobs, i);
    return NULL;
}

static void draw_job_line(struct drawing *d, const struct json *job)
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
    end_line(d, TOP_BOLD);
}

static void add_times(struct buf *line, char c, double n)
{
    for (int i = 0; i < (int)(n + 0.5); i++)
        buf_add_char(line, c);
}

/* What is neither communication nor waiting is computing. */
static void draw_split(struct drawing *d)
{
    const struct json *step = json_at(d->data->step, 0);
    double all = json_get_double(step, "step_ms", 0);
    double comm = json_get_double(step, "comm_ms", 0);
    double wait = json_get_double(step, "wait_ms", 0);
    double compute = all - comm - wait > 0 ? all - comm - wait : 0;

    if (all <= 0)
        return;
    buf_printf(&d->line, "a step takes %.4g ms  [", all);
    add_times(&d->line, '#', SPLIT_WIDTH * compute / all);
    add_times(&d->line, '=', SPLIT_WIDTH * comm / all);
    add_times(&d->line, '.', SPLIT_WIDTH * wait / all);
    buf_printf(&d->line, "]  # compute %.0f%%  = communication %.0f%%  . data %.0f%%",
               100 * compute / all, 100 * comm / all, 100 * wait / all);
    end_line(d, TOP_PLAIN);
}

/* ---- the curve ---- */

static void draw_curve(struct drawing *d, int n_rows)
{
    struct top_curve curve = {.width = d->screen->width - CURVE_LABEL - 1};

    if (json_count(d->data->curve) < 2 || curve.width < 10)
        return;
    top_curve_fit(&curve, d->data->curve);
    for (int row = 0; row < n_rows && lines_left(d) > 1; row++) {
        if (row == 0)
            buf_printf(&d->line, "%*.4g ", CURVE_LABEL, curve.high);
        else if (row == n_rows - 1)
            buf_printf(&d->line, "%*.4g ", CURVE_LABEL, curve.low);
        else
            buf_printf(&d->line, "%*s ", CURVE_LABEL, row == n_rows / 2 ? "loss" : "");
        top_curve_add_row(&curve, &d->line, row, n_rows, d->top->is_utf8);
        end_line(d, TOP_PLAIN);
    }
}

/* ---- ranks and log ---- */

static void draw_rank(struct drawing *d, const struct json *rank)
{
    struct buf text = BUF_INIT;
    bool is_silent = since(d, rank, "seen_ms") > SILENT_MS;

    add_int_cell(&d->line, rank, "rank", 4);
    add_cell(&d->line, json_get_text(rank, "host"), 16, false);
    add_int_cell(&d->line, rank, "device", 6);
    add_int_cell(&d->line, rank, "pid", 8);
    add_cell(&d->line, is_silent ? "not heard of" : json_get_text(rank, "stage"), 30,
             false);
    format_duration(&text, since(d, rank, is_silent ? "seen_ms" : "since_ms"));
    add_cell(&d->line, buf_str(&text), 11, true);
    buf_reset(&text);
    if (json_get_int(rank, "memory_bytes", 0) > 0)
        format_bytes(&text, (uint64_t)json_get_int(rank, "memory_bytes", 0));
    add_cell(&d->line, buf_str(&text), 9, true);
    buf_fini(&text);
    end_line(d, is_silent ? TOP_BOLD : TOP_PLAIN);
}

static void draw_ranks(struct drawing *d)
{
    size_t n = json_count(d->data->ranks);

    if (!n)
        return;
    add_cell(&d->line, "RANK", 4, true);
    add_cell(&d->line, "HOST", 16, false);
    add_cell(&d->line, "DEVICE", 6, true);
    add_cell(&d->line, "PROCESS", 8, true);
    add_cell(&d->line, "STAGE", 30, false);
    add_cell(&d->line, "FOR", 11, true);
    add_cell(&d->line, "MEMORY", 9, true);
    end_line(d, TOP_BOLD);
    for (size_t i = 0; i < n && lines_left(d) > 1; i++) {
        if (lines_left(d) == 2 && i + 1 < n) {
            buf_printf(&d->line, "... and %zu more ranks", n - i);
            end_line(d, TOP_DIM);
            return;
        }
        draw_rank(d, json_at(d->data->ranks, i));
    }
}

static void draw_chosen(struct drawing *d, int curve_lines)
{
    const struct json *job = chosen_job(d);

    if (!job)
        return;
    draw_job_line(d, job);
    draw_split(d);
    draw_curve(d, curve_lines);
    draw_ranks(d);
}

/* The last lines that fit. */
static void draw_log(struct drawing *d)
{
    const char *text = buf_str(&d->data->log), *at = text + d->data->log.n_bytes;
    int n = 0;

    buf_printf(&d->line, "log of rank 0 of job %" PRId64, d->top->job);
    end_line(d, TOP_BOLD);
    if (at > text && at[-1] == '\n')
        at--;
    for (; at > text; at--)
        if (at[-1] == '\n' && ++n >= lines_left(d) - 1)
            break;
    while (*at && lines_left(d) > 1) {
        size_t n_bytes = strcspn(at, "\n");

        buf_add(&d->line, at, n_bytes);
        end_line(d, TOP_PLAIN);
        at += n_bytes + (at[n_bytes] == '\n');
    }
}

void top_draw(struct top_screen *screen, const struct top *top,
              const struct top_data *data)
{
    struct drawing d = {.screen = screen, .top = top, .data = data};

    top_screen_fini(screen);
    draw_head(&d);
    if (top->page == TOP_LOG) {
        draw_log(&d);
    } else if (top->page == TOP_JOB) {
        draw_chosen(&d, CURVE_LINES_TALL);
    } else {
        int n = lines_left(&d) - 1 - DETAIL_LINES;

        draw_jobs(&d, n < LIST_LINES_MIN ? lines_left(&d) - 1 : n);
        if (n >= LIST_LINES_MIN) {
            end_line(&d, TOP_PLAIN);
            draw_chosen(&d, CURVE_LINES);
        }
    }
    draw_foot(&d);
}
