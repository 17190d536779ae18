#include "jobs/client/format.h"
#include "jobs/client/html.h"
#include "jobs/client/report.h"

#include <inttypes.h>
#include <string.h>

static void add_tile(struct buf *out, const char *value, const char *name)
{
    buf_add_str(out, "<div class=\"tile\"><b>");
    html_text(out, value);
    buf_printf(out, "</b><span>%s</span></div>", name);
}

static void add_tiles(struct buf *out, const struct report *r)
{
    int64_t start = json_get_int(r->job, "started_ms", 0);
    int64_t end = json_get_int(r->job, "ended_ms", 0);
    struct buf text = BUF_INIT;

    buf_add_str(out, "<div class=\"tiles\">");
    add_tile(out, json_get_string(r->job, "state"), "state");
    if (r->table) {
        buf_printf(&text, "%.1f %%", 100 * json_get_double(r->table, "accuracy", 0));
        add_tile(out, buf_str(&text), "of answers right");
        buf_reset(&text);
        buf_printf(&text, "%" PRId64, json_get_int(r->table, "n", 0));
        add_tile(out, buf_str(&text), "questions");
    }
    if (json_get_int(r->job, "total", 0) > 0) {
        buf_reset(&text);
        buf_printf(&text, "%" PRId64 " / %" PRId64, json_get_int(r->job, "done", 0),
                   json_get_int(r->job, "total", 0));
        add_tile(out, buf_str(&text), "done");
    }
    if (start > 0 && end > 0) {
        buf_reset(&text);
        format_duration(&text, end - start);
        add_tile(out, buf_str(&text), "from start to end");
    }
    buf_add_str(out, "</div>\n");
    buf_fini(&text);
}

static void add_category(struct buf *out, const char *name, int64_t n, int64_t n_right,
                         const char *style)
{
    double share = n > 0 ? 100 * (double)n_right / (double)n : 0;

    buf_printf(out, "<tr class=\"%s\"><td>", style);
    html_text(out, name);
    buf_printf(out,
               "</td><td class=\"number\">%" PRId64 "</td><td class=\"number\">%" PRId64
               "</td><td class=\"number\">%.1f %%</td><td class=\"bar\"><i "
               "style=\"width:%.1f%%\"></i></td></tr>\n",
               n, n_right, share, share);
}

static void add_table(struct buf *out, const struct json *table)
{
    const struct json *rows = json_get(table, "categories");
    int64_t n = 0, n_right = 0;

    if (!table)
        return;
    buf_add_str(out,
                "<section><h2>Answers</h2><p class=\"note\">Right is the whole answer, "
                "letter for letter.");
    if (json_get_string(table, "trained_on")) {
        buf_add_str(out, " The model was trained on samples of the same file, ");
        html_text(out, json_get_string(table, "trained_on"));
        buf_add_str(out, ": this is what it remembers.");
    }
    buf_add_str(out, "</p><table><tr><th>kind of question</th>"
                     "<th class=\"number\">questions</th><th class=\"number\">right</th>"
                     "<th class=\"number\">share</th><th></th></tr>\n");
    for (size_t i = 0; i < json_count(rows); i++) {
        const struct json *row = json_at(rows, i);

        add_category(out, json_get_string(row, "category"), json_get_int(row, "n", 0),
                     json_get_int(row, "correct", 0), "");
        n += json_get_int(row, "n", 0);
        n_right += json_get_int(row, "correct", 0);
    }
    add_category(out, "all", n, n_right, "sum");
    buf_add_str(out, "</table></section>\n");
}

static void add_attempt(struct buf *out, const struct json *row)
{
    int64_t start = json_get_int(row, "started_ms", 0);

    buf_printf(out,
               "<tr><td class=\"number\">%" PRId64 "</td><td class=\"number\">%" PRId64
               "</td><td>",
               json_get_int(row, "attempt", 0), json_get_int(row, "n_ranks", 0));
    if (start > 0)
        format_time(out, start);
    buf_add_str(out, "</td><td class=\"number\">");
    format_span(out, row);
    buf_add_str(out, "</td><td>");
    html_text(out, json_get_string(row, "cause"));
    buf_add_str(out, "</td><td>");
    html_text(out, json_get_string(row, "reason"));
    buf_add_str(out, "</td></tr>\n");
}

static void add_attempts(struct buf *out, const struct json *attempts)
{
    if (!json_count(attempts))
        return;
    buf_add_str(out,
                "<section><h2>Attempts</h2><table><tr><th class=\"number\">number</th>"
                "<th class=\"number\">ranks</th><th>started</th>"
                "<th class=\"number\">time</th><th>end</th><th>reason</th></tr>\n");
    for (size_t i = 0; i < json_count(attempts); i++)
        add_attempt(out, json_at(attempts, i));
    buf_add_str(out, "</table></section>\n");
}

static void add_json(struct buf *out, const char *title, const struct json *json)
{
    struct buf text = BUF_INIT;

    if (!json_count(json))
        return;
    json_write(&text, json, 2);
    buf_printf(out, "<section><details><summary>%s</summary><pre>", title);
    html_text(out, buf_str(&text));
    buf_add_str(out, "</pre></details></section>\n");
    buf_fini(&text);
}

static void add_heading(struct buf *out, const struct report *r, bool is_title)
{
    buf_printf(out, is_title ? "Job %" PRId64 ": " : "Job %" PRId64 " <small>",
               json_get_int(r->job, "id", 0));
    html_text(out, json_get_string(r->job, "kind"));
    buf_add_str(out, is_title ? " " : "</small> ");
    html_text(out, json_get_string(r->job, "name"));
}

int report_write(struct buf *out, const struct report *r, struct err *err)
{
    buf_add_str(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                     "<meta name=\"viewport\" content=\"width=device-width\"><title>");
    add_heading(out, r, true);
    buf_printf(out, "</title><style>%s</style></head><body>\n<h1>", report_style);
    add_heading(out, r, false);
    buf_add_str(out, "</h1>\n");
    if (json_get_string(r->job, "reason") && *json_get_string(r->job, "reason")) {
        buf_add_str(out, "<p class=\"note\">");
        html_text(out, json_get_string(r->job, "reason"));
        buf_add_str(out, "</p>");
    }
    add_tiles(out, r);
    add_table(out, r->table);
    report_add_examples(out, r);
    report_add_curves(out, &r->curves);
    add_attempts(out, r->attempts);
    add_json(out, "Result", json_get(r->job, "result"));
    add_json(out, "Specification", json_get(r->job, "spec"));
    buf_printf(out, "<script>%s</script></body></html>\n", report_script);
    return buf_check(out, err);
}
