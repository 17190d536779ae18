#include "jobs/client/top_curve.h"

#include <math.h>

/* The points, drawn into so many columns: the mean of those in each; NAN: none. */
static void resample(double *out, int width, const struct json *curve)
{
    double first = json_get_double(json_at(curve, 0), "step", 0);
    double last = json_get_double(json_at(curve, json_count(curve) - 1), "step", 0);
    int counts[TOP_CURVE_WIDTH_MAX] = {0};

    for (int i = 0; i < width; i++)
        out[i] = 0;
    for (size_t i = 0; i < json_count(curve); i++) {
        const struct json *point = json_at(curve, i);
        double part = last > first
                          ? (json_get_double(point, "step", 0) - first) / (last - first)
                          : 0;
        int at = (int)(part * (width - 1) + 0.5);

        if (json_type(json_get(point, "loss")) == JSON_NULL)
            continue;
        out[at] += json_get_double(point, "loss", 0);
        counts[at]++;
    }
    for (int i = 0; i < width; i++)
        out[i] = counts[i] ? out[i] / counts[i] : NAN;
}

/* Columns without a point lie on the line between their neighbours. */
static void fill_gaps(double *y, int width)
{
    int before = -1;

    for (int i = 0; i < width; i++) {
        if (isnan(y[i]))
            continue;
        for (int j = before + 1; before >= 0 && j < i; j++)
            y[j] = y[before] + (y[i] - y[before]) * (j - before) / (i - before);
        before = i;
    }
}

static void find_range(struct top_curve *curve)
{
    curve->low = INFINITY;
    curve->high = -INFINITY;
    for (int i = 0; i < curve->width; i++) {
        curve->low = fmin(curve->low, curve->y[i]);
        curve->high = fmax(curve->high, curve->y[i]);
    }
    if (curve->high <= curve->low) /* a flat one is drawn at the bottom */
        curve->high = curve->low + 1;
}

/* One line of a column that is filled up to y: full, empty, or eighths of a block. */
static void add_block(struct buf *line, const struct top_curve *curve, double y, int row,
                      int n_rows, bool is_utf8)
{
    static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double part = (y - curve->low) / (curve->high - curve->low);
    double eighths = 1 + part * (8 * n_rows - 1);
    int here = (int)(eighths + 0.5) - 8 * (n_rows - 1 - row);

    if (isnan(y) || here <= 0)
        buf_add_char(line, ' ');
    else if (is_utf8)
        buf_add_str(line, blocks[here > 8 ? 8 : here]);
    else
        buf_add_char(line, here >= 8 ? '|' : here > 4 ? '*' : '.');
}

void top_curve_fit(struct top_curve *curve, const struct json *points)
{
    if (curve->width > TOP_CURVE_WIDTH_MAX)
        curve->width = TOP_CURVE_WIDTH_MAX;
    resample(curve->y, curve->width, points);
    fill_gaps(curve->y, curve->width);
    find_range(curve);
}

void top_curve_add_row(const struct top_curve *curve, struct buf *line, int row,
                       int n_rows, bool is_utf8)
{
    for (int i = 0; i < curve->width; i++)
        add_block(line, curve, curve->y[i], row, n_rows, is_utf8);
}
