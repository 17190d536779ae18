#include "jobs/client/chart.h"
#include "jobs/client/report.h"

#include <math.h>

static void add_marks(struct chart *chart, const struct report_curves *c)
{
    chart->mark_name = "restart";
    for (size_t i = 0; i < c->n_restarts && chart->n_marks < CHART_MARKS_MAX; i++)
        chart->marks[chart->n_marks++] = c->restarts[i];
}

static void add_loss(struct buf *out, const struct report_curves *c)
{
    struct chart chart = {
        .title = "Loss",
        .x_title = "step",
        .y_title = "nats a token",
        .series = {{.style = "line1 faint", .x = c->step, .y = c->loss, .n = c->n},
                   {.name = "training (running mean)",
                    .style = "line1",
                    .x = c->step,
                    .y = c->smooth_loss,
                    .n = c->n},
                   {.name = "validation",
                    .style = "line2",
                    .x = c->step,
                    .y = c->val_loss,
                    .n = c->n,
                    .has_dots = true}},
        .n_series = 3,
        .may_be_log = true,
    };

    add_marks(&chart, c);
    chart_write(out, &chart);
}

static void add_rate(struct buf *out, const struct report_curves *c)
{
    struct chart chart = {
        .title = "Learning rate",
        .x_title = "step",
        .y_title = "rate",
        .series = {{.style = "line3", .x = c->step, .y = c->lr, .n = c->n}},
        .n_series = 1,
        .from_zero = true,
    };

    chart_write(out, &chart);
}

/* The whole step behind, the waiting part in front. */
static void add_times(struct buf *out, const struct report_curves *c)
{
    struct chart chart = {
        .title = "Step time",
        .x_title = "step",
        .y_title = "ms",
        .series = {{.name = "compute",
                    .style = "area1",
                    .x = c->step,
                    .y = c->step_ms,
                    .n = c->n,
                    .is_area = true},
                   {.name = "waiting for data",
                    .style = "area2",
                    .x = c->step,
                    .y = c->wait_ms,
                    .n = c->n,
                    .is_area = true}},
        .n_series = 2,
        .from_zero = true,
    };

    add_marks(&chart, c);
    chart_write(out, &chart);
}

static void add_speed(struct buf *out, const struct report_curves *c)
{
    struct chart chart = {
        .title = "Speed",
        .x_title = "step",
        .y_title = "samples a second",
        .series = {{.style = "line4", .x = c->step, .y = c->samples_per_s, .n = c->n}},
        .n_series = 1,
        .from_zero = true,
    };

    chart_write(out, &chart);
}

static double sum(const double *values, size_t n)
{
    double total = 0;

    for (size_t i = 0; i < n; i++)
        total += isfinite(values[i]) ? values[i] : 0;
    return total;
}

/* Rank 0 stands for all: they decode alike. */
static void add_decoding(struct buf *out, const struct report_curves *c)
{
    long long n_gpu = (long long)c->n_on_gpu, n_cpu = (long long)c->n_on_cpu;

    if (n_gpu && n_cpu)
        buf_printf(out, "; of %lld videos of rank 0 the GPU decoded %lld, the CPU %lld",
                   n_gpu + n_cpu, n_gpu, n_cpu);
    else if (n_gpu || n_cpu)
        buf_printf(out, "; videos were decoded on the %s", n_gpu ? "GPU" : "CPU");
}

void report_add_curves(struct buf *out, const struct report_curves *c)
{
    double step_ms = sum(c->step_ms, c->n), wait_ms = sum(c->wait_ms, c->n);

    if (!c->n)
        return;
    buf_printf(out,
               "<section><h2>Training</h2><p class=\"note\">Job %lld, measured at %zu "
               "steps up to %.0f",
               (long long)c->job, c->n, c->step[c->n - 1]);
    if (c->n_restarts)
        buf_printf(out, ", %zu restart%s", c->n_restarts, c->n_restarts == 1 ? "" : "s");
    if (step_ms > 0)
        buf_printf(out, "; ranks waited for data %.2f %% of the time",
                   100 * wait_ms / step_ms);
    add_decoding(out, c);
    buf_add_str(out, ".</p><div class=\"charts\">\n");
    add_loss(out, c);
    add_times(out, c);
    add_rate(out, c);
    add_speed(out, c);
    buf_add_str(out, "</div></section>\n");
}
