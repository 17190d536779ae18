/* chart.h - line charts as SVG
 *
 * Pure: numbers in, text out. Colours come from the page's style, by class: line1..line4,
 * area1, area2, grid, mark.
 */
#ifndef VNEVA_JOBS_CLIENT_CHART_H
#define VNEVA_JOBS_CLIENT_CHART_H

#include "common/base/buf.h"

#include <stdbool.h>

#define CHART_SERIES_MAX 4
#define CHART_MARKS_MAX 64
#define CHART_POINTS_MAX 700 /* points drawn; of more, neighbours are averaged */

struct chart_series {
    const char *name, *style; /* style: a class of the page; name NULL: not in the key */
    const double *x, *y;      /* borrowed; NAN in y: no point */
    size_t n;
    bool is_area; /* filled down to zero */
    bool has_dots;
};

struct chart {
    const char *title, *x_title, *y_title;
    struct chart_series series[CHART_SERIES_MAX];
    int n_series;
    double marks[CHART_MARKS_MAX]; /* vertical lines */
    int n_marks;
    const char *mark_name; /* what the lines are, for the key */
    bool from_zero;        /* the y axis holds zero */
    bool may_be_log;       /* logarithmic when the values span more than a factor of 50 */
};

/* Nothing is written when there is no point at all; false then. */
bool chart_write(struct buf *out, const struct chart *chart);

#endif
