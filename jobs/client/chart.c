#include "jobs/client/chart.h"

#include "jobs/client/html.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define WIDTH 640.0
#define HEIGHT 270.0
#define LEFT 62.0 /* room for numbers and the axis's name */
#define RIGHT 14.0
#define TOP 38.0 /* room for title and key */
#define BOTTOM 40.0
#define N_TICKS 5
#define LOG_SPAN 50.0 /* max / min from which an axis is logarithmic */

struct axes {
    double x0, x1, y0, y1; /* of the data; y in log10 when is_log */
    bool is_log;
};

static double place_x(const struct axes *a, double x)
{
    return LEFT + (x - a->x0) / (a->x1 - a->x0) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct axes *a, double y)
{
    double at = a->is_log ? log10(fmax(y, 1e-300)) : y;

    return HEIGHT - BOTTOM - (at - a->y0) / (a->y1 - a->y0) * (HEIGHT - TOP - BOTTOM);
}

/* The step of 1, 2 or 5 times a power of ten that divides span into about N_TICKS. */
static double nice_step(double span)
{
    double rough = span / N_TICKS, power = pow(10, floor(log10(rough)));
    double part = rough / power;

    return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static bool find_range(const struct chart *chart, struct axes *a)
{
    bool has_point = false;

    for (int s = 0; s < chart->n_series; s++)
        for (size_t i = 0; i < chart->series[s].n; i++) {
            double x = chart->series[s].x[i], y = chart->series[s].y[i];

            if (!isfinite(x) || !isfinite(y))
                continue;
            a->x0 = has_point ? fmin(a->x0, x) : x;
            a->x1 = has_point ? fmax(a->x1, x) : x;
            a->y0 = has_point ? fmin(a->y0, y) : y;
            a->y1 = has_point ? fmax(a->y1, y) : y;
            has_point = true;
        }
    return has_point;
}

/* Rounds the ranges so that no point lies on the rim and no span is zero. */
static void settle_axes(const struct chart *chart, struct axes *a)
{
    double step;

    a->is_log = chart->may_be_log && a->y0 > 0 && a->y1 / a->y0 > LOG_SPAN;
    if (a->is_log) {
        a->y0 = log10(a->y0) - 0.05;
        a->y1 = log10(a->y1) + 0.05;
    } else {
        if (chart->from_zero)
            a->y0 = fmin(a->y0, 0);
        if (a->y1 <= a->y0)
            a->y1 = a->y0 + fmax(fabs(a->y0) * 0.1, 1e-12);
        step = nice_step(a->y1 - a->y0);
        a->y0 = floor(a->y0 / step) * step;
        a->y1 = ceil(a->y1 / step) * step;
    }
    if (a->x1 <= a->x0)
        a->x1 = a->x0 + 1;
}

static void add_number(struct buf *out, double value)
{
    if (value != 0 && (fabs(value) >= 1e6 || fabs(value) < 1e-3))
        buf_printf(out, "%.0e", value);
    else
        buf_printf(out, "%.6g", value);
}

static void add_y_tick(struct buf *out, const struct axes *a, double value)
{
    double y = place_y(a, value);

    buf_printf(out, "<line class=\"grid\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>",
               LEFT, WIDTH - RIGHT, y, y);
    buf_printf(out, "<text class=\"tick\" text-anchor=\"end\" x=\"%g\" y=\"%.1f\">",
               LEFT - 7, y + 3.5);
    add_number(out, value);
    buf_add_str(out, "</text>\n");
}

static void add_y_axis(struct buf *out, const struct axes *a)
{
    static const double parts[] = {1, 2, 5};
    bool has_many = a->is_log && a->y1 - a->y0 > 2.5; /* decades only */

    if (!a->is_log) {
        double step = nice_step(a->y1 - a->y0);

        for (int i = 0; a->y0 + i * step <= a->y1 + step * 0.01; i++) {
            double value = a->y0 + i * step;

            add_y_tick(out, a, fabs(value) < step * 1e-6 ? 0 : value);
        }
        return;
    }
    for (int decade = (int)floor(a->y0); decade <= a->y1; decade++)
        for (int i = 0; i < (has_many ? 1 : 3); i++) {
            double value = parts[i] * pow(10, decade);

            if (log10(value) >= a->y0 && log10(value) <= a->y1)
                add_y_tick(out, a, value);
        }
}

static void add_x_axis(struct buf *out, const struct axes *a, const char *title)
{
    double step = fmax(nice_step(a->x1 - a->x0), 1);
    double first = ceil(a->x0 / step) * step;

    for (int i = 0; first + i * step <= a->x1; i++) {
        double x = first + i * step;

        buf_printf(out,
                   "<text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%g\">",
                   place_x(a, x), HEIGHT - BOTTOM + 16);
        add_number(out, x);
        buf_add_str(out, "</text>\n");
    }
    buf_printf(out, "<text class=\"axis\" text-anchor=\"middle\" x=\"%g\" y=\"%g\">",
               (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6);
    html_text(out, title);
    buf_add_str(out, "</text>\n");
}

/* ---- the lines ---- */

/* The next point: the mean of up to `group` neighbours; false at a gap. */
static bool next_point(const struct chart_series *s, size_t *i, size_t group, double *x,
                       double *y)
{
    size_t n = 0;

    *x = *y = 0;
    for (; *i < s->n && n < group && isfinite(s->y[*i]); (*i)++, n++) {
        *x += s->x[*i];
        *y += s->y[*i];
    }
    if (!n) {
        (*i)++;
        return false;
    }
    *x /= (double)n;
    *y /= (double)n;
    return true;
}

static void add_area(struct buf *out, const struct axes *a, const struct chart_series *s,
                     size_t group)
{
    double base = HEIGHT - BOTTOM, x = 0, y, last = 0;
    bool is_open = false;

    buf_printf(out, "<path class=\"%s\" d=\"", s->style);
    for (size_t i = 0; i < s->n;) {
        if (!next_point(s, &i, group, &x, &y))
            continue;
        last = place_x(a, x);
        if (!is_open)
            buf_printf(out, "M%.1f %.1f", last, base);
        buf_printf(out, "L%.1f %.1f", last, place_y(a, y));
        is_open = true;
    }
    if (is_open)
        buf_printf(out, "L%.1f %.1fZ", last, base);
    buf_add_str(out, "\"/>\n");
}

/* Gaps are bridged: validation has values at few steps only. */
static void add_line(struct buf *out, const struct axes *a, const struct chart_series *s,
                     size_t group)
{
    double x, y;

    buf_printf(out, "<polyline class=\"%s\" points=\"", s->style);
    for (size_t i = 0; i < s->n;)
        if (next_point(s, &i, group, &x, &y))
            buf_printf(out, "%.1f,%.1f ", place_x(a, x), place_y(a, y));
    buf_add_str(out, "\"/>\n");
    for (size_t i = 0; s->has_dots && i < s->n;)
        if (next_point(s, &i, group, &x, &y)) {
            buf_printf(out,
                       "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>",
                       s->style, place_x(a, x), place_y(a, y));
            buf_printf(out, "%g: %.5g</title></circle>\n", x, y);
        }
}

static void add_marks(struct buf *out, const struct axes *a, const struct chart *chart)
{
    for (int i = 0; i < chart->n_marks; i++) {
        double x = place_x(a, chart->marks[i]);

        if (chart->marks[i] < a->x0 || chart->marks[i] > a->x1)
            continue;
        buf_printf(out,
                   "<line class=\"mark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\">"
                   "<title>",
                   x, x, TOP, HEIGHT - BOTTOM);
        html_text(out, chart->mark_name);
        buf_printf(out, " after step %g</title></line>\n", chart->marks[i]);
    }
}

static double add_key_entry(struct buf *out, double x, const char *style, bool is_area,
                            const char *name)
{
    if (is_area)
        buf_printf(out,
                   "<rect class=\"%s\" x=\"%.1f\" y=\"22\" width=\"14\" "
                   "height=\"8\"/>",
                   style, x);
    else
        buf_printf(out,
                   "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"26\" "
                   "y2=\"26\"/>",
                   style, x, x + 14);
    buf_printf(out, "<text class=\"tick\" x=\"%.1f\" y=\"29.5\">", x + 19);
    html_text(out, name);
    buf_add_str(out, "</text>\n");
    for (; *name; name++)
        x += 5.8; /* the width of a letter at this size, about */
    return x + 36;
}

static void add_key(struct buf *out, const struct chart *chart)
{
    double x = LEFT;

    for (int s = 0; s < chart->n_series; s++)
        if (chart->series[s].name)
            x = add_key_entry(out, x, chart->series[s].style, chart->series[s].is_area,
                              chart->series[s].name);
    if (chart->n_marks)
        add_key_entry(out, x, "mark", false, chart->mark_name);
}

bool chart_write(struct buf *out, const struct chart *chart)
{
    struct axes a = {0};

    if (!find_range(chart, &a))
        return false;
    settle_axes(chart, &a);
    buf_printf(out, "<svg class=\"chart\" viewBox=\"0 0 %g %g\" role=\"img\">", WIDTH,
               HEIGHT);
    buf_printf(out, "<text class=\"title\" x=\"%g\" y=\"13\">", LEFT);
    html_text(out, chart->title);
    buf_add_str(out, "</text>\n");
    add_y_axis(out, &a);
    add_x_axis(out, &a, chart->x_title);
    buf_printf(out,
               "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate(12 %g) "
               "rotate(-90)\">",
               (TOP + HEIGHT - BOTTOM) / 2);
    html_text(out, chart->y_title);
    buf_add_str(out, "</text>\n");
    for (int s = 0; s < chart->n_series; s++) {
        const struct chart_series *series = &chart->series[s];
        size_t group = series->n / CHART_POINTS_MAX + 1;

        if (series->is_area)
            add_area(out, &a, series, group);
        else
            add_line(out, &a, series, group);
    }
    add_marks(out, &a, chart);
    add_key(out, chart);
    buf_add_str(out, "</svg>\n");
    return true;
}
