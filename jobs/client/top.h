/* top.h - the full-screen view: what it knows, what keys do to it, how it looks
 *
 * Three parts that do not know each other: cmd_top.c asks the coordinator, top_screen.c
 * makes lines of text of what it said, top_curses.c alone knows the terminal. Keys change
 * a struct top; all but top_curses.c and cmd_top.c is pure, so that tests can read screens.
 * Units: ms since 1970, columns and lines of the terminal.
 */
#ifndef VNEVA_JOBS_CLIENT_TOP_H
#define VNEVA_JOBS_CLIENT_TOP_H

#include "common/base/buf.h"
#include "common/base/json.h"

#include <stdbool.h>

#define TOP_LINES_MAX 300        /* of a screen */
#define TOP_JOBS_MAX 1000        /* listed */
#define TOP_FILTER_MAX 64        /* bytes */
#define TOP_CURVE_POINTS 240     /* of the loss, asked for */
#define TOP_LOG_BYTES (64 << 10) /* of a log, kept */

enum top_page { TOP_JOBS, TOP_JOB, TOP_LOG };
enum top_sort { TOP_BY_ID, TOP_BY_STATE, TOP_BY_NAME, TOP_BY_PROGRESS, TOP_SORTS };

/* What was chosen with keys. */
struct top {
    enum top_page page;
    enum top_sort sort;
    bool shows_ended, is_typing, is_over;
    char filter[TOP_FILTER_MAX];
    int64_t job;    /* the chosen one; 0: none yet */
    int first_rank; /* shown of an opened job, where there is not room for all */
    bool is_utf8;   /* the terminal shows block characters */
};

/* What the coordinator said. Rows are objects of the views; any may be NULL. */
struct top_data {
    struct json *jobs, *workers;
    struct json *states;      /* [{"state", "n"}] of all jobs, also those not listed */
    struct json *ranks;       /* of the chosen job, those that have not ended */
    struct json *curve;       /* [{"step", "loss"}], in order of step */
    struct json *step;        /* the newest row of metrics of the chosen job, in a list */
    struct buf log;           /* of the chosen job's rank 0: the end of it */
    char error[ERR_TEXT_MAX]; /* why the rest is old; "" */
    int64_t now_ms;
};

void top_data_fini(struct top_data *data);

/* ---- keys ---- */

enum { /* besides characters */
       TOP_KEY_UP = 0x100,
       TOP_KEY_DOWN,
       TOP_KEY_ENTER,
       TOP_KEY_ESCAPE,
       TOP_KEY_BACKSPACE,
       TOP_KEY_INTERRUPT, /* Ctrl-C: the end, whatever is on the screen */
       TOP_KEY_OTHER,
};

void top_key(struct top *top, const struct top_data *data, int key);

/* The rows of jobs that are shown, in order: into rows [TOP_JOBS_MAX]; how many. */
int top_list(const struct top *top, const struct top_data *data,
             const struct json *rows[TOP_JOBS_MAX]);

/* ---- the screen ---- */

enum top_look { TOP_PLAIN, TOP_BOLD, TOP_REVERSE, TOP_DIM };

struct top_line {
    char *text; /* UTF-8, at most as many characters as the screen is wide */
    enum top_look look;
};

struct top_screen {
    int width, height;
    int n_lines;
    struct top_line lines[TOP_LINES_MAX];
};

/* Fills a screen of that size; what was in it is freed. */
void top_draw(struct top_screen *screen, const struct top *top,
              const struct top_data *data);
void top_screen_fini(struct top_screen *screen);

/* ---- the terminal (top_curses.c) ---- */

int top_terminal_open(struct err *err);
void top_terminal_close(void);
void top_terminal_size(int *width, int *height);
void top_terminal_show(const struct top_screen *screen);
/* Waits; a key, or 0 when none came or the size has changed. */
int top_terminal_key(int64_t wait_ms);

#endif
