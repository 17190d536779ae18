/* The report: every part is there, texts are escaped, pictures are inside. */
#include "fake_coordinator.h"
#include "spec_help.h"

#include "jobs/client/chart.h"
#include "jobs/client/html.h"

#include <math.h>

#define EVALUATE_JOB                                                                     \
    "[{\"id\": 4, \"name\": \"<b>name</b>\", \"kind\": \"evaluate\", \"state\": "        \
    "\"done\", \"reason\": \"\", \"done\": 4, \"total\": 4, \"started_ms\": 1000, "      \
    "\"ended_ms\": 61000, \"spec\": {\"kind\": \"evaluate\", "                           \
    "\"neva_model_file\": \"/home/jobs/3/checkpoints/\"}}]"

/* What a home folder of a small evaluation holds. Pictures: any bytes do. */
static void make_outputs(const char *home)
{
    static const struct {
        const char *name, *text;
    } files[] = {
        {"table.json", "{\"categories\": [{\"category\": \"motion<&>\", \"n\": 3, "
                       "\"correct\": 2, \"accuracy\": 0.6666666}, {\"category\": "
                       "\"colour\", \"n\": 1, \"correct\": 1, \"accuracy\": 1.0}], "
                       "\"n\": 4, \"accuracy\": 0.75, \"trained_on\": \"/a<b>.jsonl\"}"},
        {"examples/examples.json",
         "[{\"id\": \"a1\", \"category\": \"motion\", \"question\": "
         "\"<script>alert(1)</script>\", \"expected\": \"left & up\", \"given\": "
         "\"left & up\", \"is_correct\": true, \"frames\": [\"f0.png\", \"f1.png\"]}, "
         "{\"id\": \"a2\", \"category\": \"motion\", \"question\": \"q\", \"expected\": "
         "\"x\", \"given\": \"\", \"is_correct\": false, \"frames\": [\"f9.png\", "
         "\"../../secret.png\"]}]"},
        {"examples/f0.png", "frame zero"},
        {"examples/f1.png", "frame one"},
        {"secret.png", "not to be shown"},
    };
    char path[512];
    struct err err;

    snprintf(path, sizeof(path), "%s/jobs/4/examples", home);
    assert_int_equal(fs_make_dirs(path, 0700, &err), 0);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/jobs/4/%s", home, files[i].name);
        assert_int_equal(
            fs_write_file_atomic(path, files[i].text, strlen(files[i].text), &err), 0);
    }
}

/* Metrics of steps 1..n, every tenth validated; ids fall, as after steps done again. */
static void add_metrics(struct buf *out, int n)
{
    buf_add_char(out, '[');
    for (int step = n; step >= 1; step--) {
        buf_printf(out,
                   "%s{\"id\": %d, \"job\": 3, \"step\": %d, \"rank\": 0, \"json\": "
                   "{\"loss\": %g, \"lr\": %g, \"step_ms\": %g, \"wait_ms\": 2, "
                   "\"samples_per_s\": 40",
                   step == n ? "" : ", ", 1000 - step, step,
                   0.2 + 3 * exp(-step / 20.0) + 0.1 * sin(step), 1e-3 * step / n,
                   100 + 10 * cos(step));
        buf_add_str(out, ", \"videos_on_gpu\": 5, \"videos_on_cpu\": 3");
        if (step % 10 == 0)
            buf_printf(out, ", \"val_loss\": %g", 0.3 + 3 * exp(-step / 20.0));
        buf_add_str(out, "}}");
    }
    buf_add_char(out, ']');
}

static struct fake_rule rules[] = {
    FAKE_ROWS("job", EVALUATE_JOB),
    FAKE_ROWS("attempts",
              "[{\"id\": 1, \"attempt\": 1, \"n_ranks\": 2, \"state\": \"ended\", "
              "\"cause\": \"done\", \"reason\": \"all <done>\", \"started_ms\": 1000, "
              "\"ended_ms\": 61000}]"),
    FAKE_ROWS("checkpoints", "[{\"id\": 1, \"job\": 3, \"step\": 40, \"path\": "
                             "\"/home/jobs/3/checkpoints/step-40\"}]"),
    {.type = MSG_QUERY, .view = "metrics", .answer = MSG_ROWS},
    FAKE_ROWS("events",
              "[{\"id\": 1, \"kind\": \"attempt\", \"text\": \"attempt 1 starts: x\"}, "
              "{\"id\": 2, \"kind\": \"checkpoint\", \"text\": \"checkpoint of step 20: "
              "p\"}, {\"id\": 3, \"kind\": \"attempt\", \"text\": \"attempt 2 starts: "
              "y\"}]"),
    {.type = MSG_NONE},
};

/* The page of the evaluation above; the caller frees it. */
static char *make_page(void)
{
    struct buf metrics = BUF_INIT, page = BUF_INIT;
    struct fake *fake;
    struct said said;
    char path[256];
    struct err err;

    add_metrics(&metrics, 60);
    rules[3].text = buf_str(&metrics);
    fake = fake_start(rules);
    assert_non_null(fake);
    make_outputs(fake_home(fake));
    snprintf(path, sizeof(path), "%s/page.html", fake_home(fake));
    said = client_says(fake_home(fake),
                       (const char *const[]){"report", "4", "-o", path, NULL});
    if (said.status != EXIT_DONE)
        fail_msg("%s", said.err);
    assert_says(said.out, path);
    if (fs_read_file(&page, path, 1 << 24, &err) < 0)
        fail_msg("%s", err.text);
    said_fini(&said);
    fake_stop(fake);
    buf_fini(&metrics);
    return buf_take(&page);
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;

    for (; (text = strstr(text, part)); text++)
        n++;
    return n;
}

static void page_holds_every_part(void **state)
{
    char *page = make_page();

    (void)state;
    assert_says(page, "75.0 %");
    assert_says(page, "<h2>Answers</h2>");
    assert_says(page,
                "trained on samples of the same file, /a&lt;b&gt;.jsonl: this is what");
    assert_says(page,
                "<td>all</td><td class=\"number\">4</td><td class=\"number\">3</td>");
    assert_says(page, ">right 1</button>");
    assert_says(page, ">wrong 1</button>");
    assert_says(page, "Job 3, measured at 60 steps up to 60, 1 restart;");
    assert_says(page, "; of 480 videos of rank 0 the GPU decoded 300, the CPU 180.");
    assert_int_equal(count(page, "<svg "), 4);
    assert_says(page, "restart after step 20");
    assert_int_equal(count(page, "<circle class=\"line2\""), 6); /* validations */
    assert_says(page, "(nothing)"); /* an empty answer is said to be one */
    assert_says(page, "<summary>Specification</summary>");
    free(page);
}

static void page_needs_nothing_from_elsewhere(void **state)
{
    char *page = make_page();

    (void)state;
    assert_null(strstr(page, "http://"));
    assert_null(strstr(page, "https://"));
    assert_null(strstr(page, "<link"));
    assert_null(strstr(page, "url("));
    assert_null(strstr(page, "script src"));
    /* "frame zero" and "frame one" */
    assert_says(page, "src=\"data:image/png;base64,ZnJhbWUgemVybw==\"");
    assert_says(page, "src=\"data:image/png;base64,ZnJhbWUgb25l\"");
    free(page);
}

static void texts_are_escaped(void **state)
{
    char *page = make_page();

    (void)state;
    assert_null(strstr(page, "<script>alert"));
    assert_says(page, "&lt;script&gt;alert(1)&lt;/script&gt;");
    assert_says(page, "motion&lt;&amp;&gt;");
    assert_says(page, "&lt;b&gt;name&lt;/b&gt;");
    assert_null(strstr(page, "all <done>"));
    assert_int_equal(count(page, "<script>"), 1);
    free(page);
}

static void pictures_come_from_the_examples_folder_only(void **state)
{
    char *page = make_page();

    (void)state;
    assert_null(strstr(page, "bm90IHRvIGJlIHNob3du")); /* "not to be shown" */
    assert_says(page, "2 frames not found");
    free(page);
}

static void base64_pads(void **state)
{
    static const char *const table[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) { /* RFC 4648, 10 */
        struct buf out = BUF_INIT;

        html_base64(&out, table[i][0], strlen(table[i][0]));
        assert_string_equal(buf_str(&out), table[i][1]);
        buf_fini(&out);
    }
}

static void charts_take_any_numbers(void **state)
{
    static const double x[] = {1, 2, 3}, same[] = {5, 5, 5}, none[] = {NAN, NAN, NAN},
                        wide[] = {1e-4, 1, 1e4}, zero[] = {0, 0, 0};
    const double *const table[] = {same, wide, zero};
    struct chart chart = {.title = "t", .x_title = "x", .y_title = "y", .n_series = 1};
    struct buf out = BUF_INIT;

    (void)state;
    chart.series[0] =
        (struct chart_series){.name = "s", .style = "line1", .x = x, .y = none, .n = 3};
    assert_false(chart_write(&out, &chart));
    assert_int_equal(out.n_bytes, 0);
    for (int log = 0; log < 2; log++)
        for (size_t i = 0; i < 3; i++) {
            chart.may_be_log = log;
            chart.series[0].y = table[i];
            chart.series[0].is_area = i == 1;
            buf_reset(&out);
            assert_true(chart_write(&out, &chart));
            assert_null(strstr(buf_str(&out), "nan"));
            assert_null(strstr(buf_str(&out), "inf"));
            assert_int_equal(count(buf_str(&out), "<svg"),
                             count(buf_str(&out), "</svg>"));
        }
    chart.series[0].n = 1; /* a single point */
    assert_true(chart_write(&out, &chart));
    buf_fini(&out);
}

static void many_points_are_averaged(void **state)
{
    enum { N = 20000 };
    double *x = calloc(N, sizeof(*x)), *y = calloc(N, sizeof(*y));
    struct chart chart = {.title = "t", .x_title = "x", .y_title = "y", .n_series = 1};
    struct buf out = BUF_INIT;

    (void)state;
    assert_non_null(x);
    assert_non_null(y);
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = i % 2;
    }
    chart.series[0] =
        (struct chart_series){.name = "s", .style = "line1", .x = x, .y = y, .n = N};
    assert_true(chart_write(&out, &chart));
    assert_true(out.n_bytes < 20000);
    buf_fini(&out);
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_holds_every_part),
        cmocka_unit_test(page_needs_nothing_from_elsewhere),
        cmocka_unit_test(texts_are_escaped),
        cmocka_unit_test(pictures_come_from_the_examples_folder_only),
        cmocka_unit_test(base64_pads),
        cmocka_unit_test(charts_take_any_numbers),
        cmocka_unit_test(many_points_are_averaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
