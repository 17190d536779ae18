/* top_draw.h - lines of text for the screens of `vneva top`, one after another
 *
 * Owns: nothing; the lines are the screen's. Threads: one caller.
 */
#ifndef VNEVA_JOBS_CLIENT_TOP_DRAW_H
#define VNEVA_JOBS_CLIENT_TOP_DRAW_H

#include "jobs/client/top.h"

struct top_drawing {
    struct top_screen *screen;
    const struct top *top;
    const struct top_data *data;
    struct buf line; /* the one being made */
};

/* The line so far becomes one of the screen, if there is room: cut to its width, without
 * what would steer the terminal. */
void top_end_line(struct top_drawing *d, enum top_look look);
int top_lines_left(const struct top_drawing *d);

/* A cell of a column: cut or filled up to width. */
void top_add_cell(struct buf *line, const char *text, int width, bool is_right);
void top_add_int_cell(struct buf *line, const struct json *row, const char *key,
                      int width);

/* ms from what a row says till now; 0 where it says nothing. */
int64_t top_since(const struct top_drawing *d, const struct json *row, const char *key);
int top_clamp(int x, int low, int high);

/* The chosen job, if it is there: its line, step, curve and ranks (top_job.c). */
void top_draw_chosen(struct top_drawing *d, int curve_lines);

#endif
