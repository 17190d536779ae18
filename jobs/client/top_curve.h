/* top_curve.h - a curve of the loss as lines of characters; pure */
#ifndef VNEVA_JOBS_CLIENT_TOP_CURVE_H
#define VNEVA_JOBS_CLIENT_TOP_CURVE_H

#include "common/base/buf.h"
#include "common/base/json.h"

#define TOP_CURVE_WIDTH_MAX 400

struct top_curve {
    int width;                     /* columns, at most TOP_CURVE_WIDTH_MAX */
    double y[TOP_CURVE_WIDTH_MAX]; /* of each column; NAN: none */
    double low, high;
};

/* Fits points, [{"step", "loss"}] in order of step, at least one, into curve->width columns
 * or the most there are. */
void top_curve_fit(struct top_curve *curve, const struct json *points);
/* Line `row` of n_rows, counted from the top. */
void top_curve_add_row(const struct top_curve *curve, struct buf *line, int row,
                       int n_rows, bool is_utf8);

#endif
