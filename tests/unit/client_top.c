/* The screens of `vneva top`, read as text, and what keys do to them. */
#include "jobs/client/top.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS 1000000

static struct json *parse(const char *text)
{
    struct json *json;
    struct err err;

    if (json_parse(&json, text, strlen(text), &err) < 0)
        fail_msg("%s in %s", err.text, text);
    return json;
}

struct view {
    struct top top;
    struct top_data data;
    struct top_screen screen;
};

static int set_up(void **state)
{
    static struct view view;

    view = (struct view){.top = {.sort = TOP_BY_STATE},
                         .screen = {.width = 120, .height = 40}};
    view.data.now_ms = NOW_MS;
    view.data.jobs = parse(
        "[{\"id\": 4, \"name\": \"later\", \"kind\": \"pretrain\", \"state\": \"queued\","
        "  \"reason\": \"needs 2 devices, 0 free\", \"done\": 0, \"total\": 100},"
        " {\"id\": 3, \"name\": \"alpha\", \"kind\": \"finetune\", \"state\": "
        "\"running\","
        "  \"reason\": \"\", \"done\": 25, \"total\": 100, \"started_ms\": 900000},"
        " {\"id\": 2, \"name\": \"old\", \"kind\": \"prepare\", \"state\": \"done\","
        "  \"reason\": \"\", \"done\": 7, \"total\": 7}]");
    view.data.states = parse("[{\"state\": \"running\", \"n\": 1},"
                             " {\"state\": \"queued\", \"n\": 2001}]");
    view.data.workers = parse("[{\"n_devices\": 4, \"n_busy\": 2}]");
    view.data.ranks = parse(
        "[{\"rank\": 0, \"host\": \"n1\", \"device\": 0, \"pid\": 70, \"stage\": "
        "\"all-reduce of group tensor\", \"since_ms\": 999000, \"seen_ms\": 999900, "
        "\"memory_bytes\": 2097152},"
        " {\"rank\": 1, \"host\": \"n2\", \"device\": 1, \"pid\": 71, \"stage\": "
        "\"forward\", \"since_ms\": 905000, \"seen_ms\": 990000}]");
    view.data.step =
        parse("[{\"loss\": 2.5, \"val_loss\": null, \"step_ms\": 200.0, "
              "\"comm_ms\": 40.0, \"wait_ms\": 10.0, \"samples_per_s\": 40.0}]");
    view.data.curve =
        parse("[{\"step\": 1, \"loss\": 5.0}, {\"step\": 13, \"loss\": 3.0},"
              " {\"step\": 25, \"loss\": 1.0}]");
    *state = &view;
    return 0;
}

static int tear_down(void **state)
{
    struct view *view = *state;

    top_screen_fini(&view->screen);
    top_data_fini(&view->data);
    return 0;
}

static void draw(struct view *view)
{
    top_draw(&view->screen, &view->top, &view->data);
    assert_true(view->screen.n_lines <= view->screen.height);
}

/* "\n" first: a line that begins with the rest. */
static const struct top_line *find_line(const struct view *view, const char *text)
{
    for (int i = 0; i < view->screen.n_lines; i++) {
        const char *line = view->screen.lines[i].text;

        if (text[0] == '\n' ? strstr(line, text + 1) == line : strstr(line, text) != NULL)
            return &view->screen.lines[i];
    }
    return NULL;
}

static void assert_shows(struct view *view, const char *text)
{
    draw(view);
    if (!find_line(view, text)) {
        for (int i = 0; i < view->screen.n_lines; i++)
            fprintf(stderr, "|%s\n", view->screen.lines[i].text);
        fail_msg("no '%s' on the screen", text);
    }
}

static void assert_hides(struct view *view, const char *text)
{
    draw(view);
    if (find_line(view, text))
        fail_msg("'%s' is on the screen", text);
}

static void press(struct view *view, int key)
{
    top_key(&view->top, &view->data, key);
}

static void type(struct view *view, const char *text)
{
    for (; *text; text++)
        press(view, *text);
}

static void list_shows_what_runs_first_with_progress_and_time_left(void **state)
{
    struct view *view = *state;

    press(view, 0); /* the first one is chosen by itself */
    assert_int_equal(view->top.job, 3);
    assert_shows(view, "2 of 4 devices busy, 1 worker up");
    assert_shows(view, "1 running, 2001 queued, 0 held, 0 failed, by state");
    assert_shows(view, "    3  finetune  alpha           running    "
                       "[====>           ]  25%   5 min 00 s");
    assert_int_equal(find_line(view, "alpha  ")->look, TOP_REVERSE);
    assert_shows(view, "needs 2 devices, 0 free");
    assert_true(find_line(view, "alpha  ") < find_line(view, "later  "));
    assert_hides(view, "old");
    press(view, 'a');
    assert_shows(view, "old");
}

static void chosen_job_shows_its_step_curve_and_ranks(void **state)
{
    struct view *view = *state;

    press(view, 0);
    assert_shows(view,
                 "job 3 'alpha'  running  25 of 100 done  loss 2.5000  40 samples/s");
    assert_shows(view, "[##############################========..]  # compute 75%  "
                       "= communication 20%  . data 5%");
    assert_shows(view, "   0  n1                          0       70  all-reduce of "
                       "group tensor              1 s    2.0 MiB");
    /* not heard of for 10 s: what it did then is not what it does */
    assert_shows(view, "   1  n2                          1       71  not heard of");
    assert_shows(view, "        5 ");
    assert_shows(view, "        1 ");
}

static void curve_falls_from_left_to_right(void **state)
{
    struct view *view = *state;
    const struct top_line *top_row, *bottom_row;

    press(view, 0);
    draw(view);
    top_row = find_line(view, "        5 ");
    bottom_row = find_line(view, "        1 ");
    assert_int_equal(bottom_row - top_row, 4);
    assert_int_equal(top_row->text[10], '|');
    assert_int_equal(top_row->text[118], ' ');
    assert_int_equal(bottom_row->text[10], '|');
    assert_int_equal(bottom_row->text[118], '.');
    view->top.is_utf8 = true;
    assert_shows(view, "█");
    assert_shows(view, "▁");
}

static void keys_choose_open_and_go_back(void **state)
{
    struct view *view = *state;

    press(view, 0);
    press(view, TOP_KEY_DOWN);
    assert_int_equal(view->top.job, 4);
    press(view, TOP_KEY_DOWN); /* the last one */
    assert_int_equal(view->top.job, 4);
    press(view, 'k');
    assert_int_equal(view->top.job, 3);
    press(view, TOP_KEY_ENTER);
    assert_int_equal(view->top.page, TOP_JOB);
    assert_hides(view, "PROGRESS");
    assert_shows(view, "job 3 'alpha'");
    press(view, 'l');
    buf_add_str(&view->data.log, "first\nstep 1\tof 9\nlast\n");
    assert_shows(view, "step 1?of 9"); /* no control characters */
    assert_shows(view, "last");
    press(view, 'q');
    assert_int_equal(view->top.page, TOP_JOBS);
    assert_false(view->top.is_over);
    press(view, 'q');
    assert_true(view->top.is_over);
    buf_fini(&view->data.log);
}

static void order_goes_round(void **state)
{
    struct view *view = *state;

    press(view, 's');
    assert_shows(view, "by name");
    assert_true(find_line(view, "alpha  ") < find_line(view, "later  "));
    press(view, 's');
    assert_shows(view, "by least done");
    assert_true(find_line(view, "later  ") < find_line(view, "alpha  "));
    press(view, 's');
    assert_shows(view, "by newest");
    assert_true(find_line(view, "later  ") < find_line(view, "alpha  "));
    press(view, 's');
    assert_shows(view, "by state");
}

static void filter_is_typed_kept_and_taken_back(void **state)
{
    struct view *view = *state;

    press(view, '/');
    type(view, "LATERq"); /* large and small letters are the same */
    assert_shows(view, "filter: LATERq_");
    press(view, TOP_KEY_BACKSPACE);
    press(view, TOP_KEY_ENTER);
    assert_int_equal(view->top.job, 4); /* what is not listed is not chosen */
    assert_hides(view, "alpha  ");
    press(view, TOP_KEY_ESCAPE);
    assert_shows(view, "alpha  ");
    press(view, '/');
    type(view, "zebra");
    assert_shows(view, "no job fits the filter");
    press(view, TOP_KEY_ESCAPE);
    assert_shows(view, "alpha  ");
}

static void interrupt_ends_it_while_a_filter_is_typed(void **state)
{
    struct view *view = *state;

    press(view, '/');
    press(view, TOP_KEY_INTERRUPT);
    assert_true(view->top.is_over);
}

/* What is asked for most fits the terminal that nobody has made larger. */
static void terminal_of_80_columns_shows_what_matters(void **state)
{
    struct view *view = *state;

    view->screen.width = 80;
    view->screen.height = 24;
    press(view, 0);
    assert_shows(view, "0 failed");
    assert_shows(view, " 25%   5 min 00 s");
    assert_shows(view, ". data 5%");
    assert_shows(view, "   0  n1          0       70  all-reduce of group tensor         "
                       " 1 s    2.0 MiB");
    assert_shows(view, "q quit");
}

static void low_terminal_shows_ranks_and_keys_rather_than_the_curve(void **state)
{
    struct view *view = *state;

    view->screen.height = 7;
    press(view, 0);
    press(view, TOP_KEY_ENTER);
    assert_shows(view, "   0  n1");
    assert_shows(view, "   1  n2");
    assert_shows(view, "q back");
    assert_hides(view, "|||");
}

static void opened_job_shows_other_ranks_with_up_and_down(void **state)
{
    struct view *view = *state;

    json_free(view->data.ranks);
    view->data.ranks = parse("[{\"rank\": 0}, {\"rank\": 1}, {\"rank\": 2},"
                             " {\"rank\": 3}, {\"rank\": 4}, {\"rank\": 5}]");
    view->screen.height = 8;
    press(view, 0);
    press(view, TOP_KEY_ENTER);
    assert_shows(view, "... 2 of 6 ranks");
    assert_shows(view, "\n   0  ");
    for (int i = 0; i < 9; i++)
        press(view, TOP_KEY_DOWN);
    assert_shows(view, "\n   5  ");
    assert_hides(view, "\n   0  ");
    assert_int_equal(view->top.job, 3);
    for (int i = 0; i < 9; i++)
        press(view, TOP_KEY_UP);
    assert_shows(view, "\n   0  ");
}

static void job_that_waits_says_why_below_the_list(void **state)
{
    struct view *view = *state;

    view->screen.width = 80;
    press(view, 0);
    press(view, TOP_KEY_DOWN);
    assert_shows(view, "\nneeds 2 devices, 0 free");
}

static void long_lines_of_a_log_are_folded_and_the_last_stay(void **state)
{
    struct view *view = *state;

    view->screen.width = 10;
    view->screen.height = 7;
    view->top.job = 3;
    view->top.page = TOP_LOG;
    buf_add_str(&view->data.log, "zero\none\n0123456789abcdefghijXYZ\nlast\n");
    assert_shows(view, "\n0123456789");
    assert_shows(view, "\nabcdefghij");
    assert_shows(view, "\nXYZ");
    assert_shows(view, "\nlast");
    assert_hides(view, "one");
    buf_fini(&view->data.log);
}

static void ascii_terminal_gets_no_other_characters(void **state)
{
    struct view *view = *state;

    json_free(view->data.jobs);
    view->data.jobs = parse("[{\"id\": 3, \"name\": \"gr\u00fc\u00df \u65e5\","
                            " \"state\": \"running\"}]");
    press(view, 0);
    assert_shows(view, "gr?? ?");
    view->top.is_utf8 = true;
    assert_shows(view, "gr\u00fc\u00df \u65e5");
}

/* A job that ends while it is looked at does not give its place to another. */
static void opened_job_stays_when_it_leaves_the_list(void **state)
{
    struct view *view = *state;

    press(view, 0);
    press(view, TOP_KEY_ENTER);
    json_free(view->data.jobs);
    view->data.jobs = parse("[{\"id\": 4, \"name\": \"later\", \"state\": \"running\"},"
                            " {\"id\": 3, \"name\": \"alpha\", \"state\": \"done\"}]");
    press(view, 0);
    assert_int_equal(view->top.job, 3);
    assert_shows(view, "job 3 'alpha'  done");
}

static void every_size_of_terminal_is_drawn(void **state)
{
    struct view *view = *state;

    press(view, 0);
    for (int page = TOP_JOBS; page <= TOP_LOG; page++)
        for (int height = 1; height < 50; height += 3)
            for (int width = 1; width < 200; width += 7) {
                view->screen.width = width;
                view->screen.height = height;
                view->top.page = (enum top_page)page;
                draw(view);
                for (int i = 0; i < view->screen.n_lines; i++)
                    assert_true(strlen(view->screen.lines[i].text) <= (size_t)width);
            }
}

static void lost_coordinator_is_said_and_the_rest_stays(void **state)
{
    struct view *view = *state;

    snprintf(view->data.error, sizeof(view->data.error), "no coordinator answers");
    assert_shows(view, "no coordinator answers");
    assert_shows(view, "alpha");
}

static void nothing_known_is_an_empty_screen(void **state)
{
    struct view *view = *state;

    top_data_fini(&view->data);
    press(view, TOP_KEY_DOWN);
    assert_shows(view, "no jobs but ended ones");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(list_shows_what_runs_first_with_progress_and_time_left),
        TEST(chosen_job_shows_its_step_curve_and_ranks),
        TEST(curve_falls_from_left_to_right),
        TEST(keys_choose_open_and_go_back),
        TEST(order_goes_round),
        TEST(filter_is_typed_kept_and_taken_back),
        TEST(interrupt_ends_it_while_a_filter_is_typed),
        TEST(terminal_of_80_columns_shows_what_matters),
        TEST(low_terminal_shows_ranks_and_keys_rather_than_the_curve),
        TEST(opened_job_shows_other_ranks_with_up_and_down),
        TEST(job_that_waits_says_why_below_the_list),
        TEST(long_lines_of_a_log_are_folded_and_the_last_stay),
        TEST(ascii_terminal_gets_no_other_characters),
        TEST(opened_job_stays_when_it_leaves_the_list),
        TEST(every_size_of_terminal_is_drawn),
        TEST(lost_coordinator_is_said_and_the_rest_stays),
        TEST(nothing_known_is_an_empty_screen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
