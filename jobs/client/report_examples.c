#include "jobs/client/html.h"
#include "jobs/client/report.h"

#include <string.h>

static bool is_right(const struct json *example)
{
    return json_bool(json_get(example, "is_correct"), false);
}

/* The picture as a data address; false when it is not to be had. */
static bool add_frame(struct buf *out, const char *folder, const char *name,
                      size_t *n_used)
{
    char path[FS_PATH_MAX];
    struct buf bytes = BUF_INIT;
    bool is_there = name && !strchr(name, '/') &&
                    fs_path(path, NULL, "%s/examples/%s", folder, name) == 0 &&
                    fs_read_file(&bytes, path, REPORT_FRAME_MAX, NULL) == 0 &&
                    *n_used + bytes.n_bytes <= REPORT_FRAMES_MAX;

    if (is_there) {
        *n_used += bytes.n_bytes;
        buf_add_str(out, "<img alt=\"frame\" src=\"data:image/png;base64,");
        html_base64(out, buf_str(&bytes), bytes.n_bytes);
        buf_add_str(out, "\">");
    }
    buf_fini(&bytes);
    return is_there;
}

static void add_frames(struct buf *out, const struct json *frames, const char *folder,
                       size_t *n_used)
{
    size_t n_missing = 0;

    buf_add_str(out, "<div class=\"frames\">");
    for (size_t i = 0; i < json_count(frames); i++)
        n_missing += !add_frame(out, folder, json_string(json_at(frames, i)), n_used);
    buf_add_str(out, "</div>");
    if (n_missing)
        buf_printf(out, "<p class=\"note\">%zu frame%s not found</p>", n_missing,
                   n_missing == 1 ? "" : "s");
}

static void add_line(struct buf *out, const char *title, const char *text,
                     const char *style)
{
    buf_printf(out, "<dt>%s</dt><dd class=\"%s\">", title, style);
    html_text(out, text && *text ? text : "(nothing)");
    buf_add_str(out, "</dd>");
}

static void add_example(struct buf *out, const struct json *example, const char *folder,
                        size_t *n_used)
{
    const char *mark = is_right(example) ? "right" : "wrong";

    buf_printf(out, "<article class=\"example %s\">", mark);
    add_frames(out, json_get(example, "frames"), folder, n_used);
    buf_printf(out, "<p class=\"head\"><span class=\"badge %s\">%s</span> ", mark,
               is_right(example) ? "&#10003; right" : "&#10007; wrong");
    html_text(out, json_get_string(example, "category"));
    buf_add_str(out, " <span class=\"id\">");
    html_text(out, json_get_string(example, "id"));
    buf_add_str(out, "</span></p><dl>");
    add_line(out, "question", json_get_string(example, "question"), "");
    add_line(out, "expected", json_get_string(example, "expected"), "expected");
    add_line(out, "given", json_get_string(example, "given"), mark);
    buf_add_str(out, "</dl></article>\n");
}

static void add_filter(struct buf *out, const struct json *examples)
{
    size_t n = json_count(examples), n_right = 0;

    for (size_t i = 0; i < n; i++)
        n_right += is_right(json_at(examples, i));
    buf_printf(
        out,
        "<p class=\"filter\"><button class=\"on\" data-show=\"all\">all %zu</button>"
        "<button data-show=\"right\">right %zu</button>"
        "<button data-show=\"wrong\">wrong %zu</button></p>",
        n, n_right, n - n_right);
}

void report_add_examples(struct buf *out, const struct report *report)
{
    size_t n_used = 0;

    if (!json_count(report->examples))
        return;
    buf_add_str(out, "<section><h2>Examples</h2><p class=\"note\">Questions of the "
                     "dataset evaluated, with the frames the model was given.</p>");
    add_filter(out, report->examples);
    buf_add_str(out, "<div id=\"examples\" class=\"examples\" data-show=\"all\">\n");
    for (size_t i = 0; i < json_count(report->examples); i++)
        add_example(out, json_at(report->examples, i), report->folder, &n_used);
    buf_add_str(out, "</div></section>\n");
}
