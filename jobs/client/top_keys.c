/* What keys do, and which jobs are listed. */
#define _GNU_SOURCE /* strcasestr */
#include "jobs/client/client.h"
#include "jobs/client/top.h"

#include <stdlib.h>
#include <string.h>

void top_data_fini(struct top_data *data)
{
    json_free(data->jobs);
    json_free(data->workers);
    json_free(data->states);
    json_free(data->ranks);
    json_free(data->curve);
    json_free(data->step);
    buf_fini(&data->log);
    memset(data, 0, sizeof(*data));
}

/* ---- the list ---- */

/* Running ones first, then what waits, then what has ended. */
static int order_of_state(const struct json *row)
{
    static const char *const states[] = {"stopping", "running",   "placed",
                                         "queued",   "submitted", "held"};

    for (int i = 0; i < 6; i++)
        if (strcmp(json_get_text(row, "state"), states[i]) == 0)
            return i;
    return 6;
}

static double progress_of(const struct json *row)
{
    double total = json_get_double(row, "total", 0);

    return total > 0 ? json_get_double(row, "done", 0) / total : 0;
}

static int by_id(const void *a, const void *b) /* the newest first */
{
    int64_t x = json_get_int(*(const struct json *const *)a, "id", 0);
    int64_t y = json_get_int(*(const struct json *const *)b, "id", 0);

    return x < y ? 1 : x > y ? -1 : 0;
}

static int by_state(const void *a, const void *b)
{
    int x = order_of_state(*(const struct json *const *)a);
    int y = order_of_state(*(const struct json *const *)b);

    return x != y ? x - y : by_id(a, b);
}

static int by_name(const void *a, const void *b)
{
    int order = strcmp(json_get_text(*(const struct json *const *)a, "name"),
                       json_get_text(*(const struct json *const *)b, "name"));

    return order ? order : by_id(a, b);
}

static int by_progress(const void *a, const void *b) /* the least done first */
{
    double x = progress_of(*(const struct json *const *)a);
    double y = progress_of(*(const struct json *const *)b);

    return x < y ? -1 : x > y ? 1 : by_id(a, b);
}

static bool is_listed(const struct top *top, const struct json *row)
{
    if (!top->shows_ended && is_job_ended(json_get_text(row, "state")))
        return false;
    return !top->filter[0] || strcasestr(json_get_text(row, "name"), top->filter) ||
           strcasestr(json_get_text(row, "kind"), top->filter) ||
           strcasestr(json_get_text(row, "state"), top->filter);
}

int top_list(const struct top *top, const struct top_data *data,
             const struct json *rows[TOP_JOBS_MAX])
{
    static int (*const orders[])(const void *, const void *) = {
        [TOP_BY_ID] = by_id,
        [TOP_BY_STATE] = by_state,
        [TOP_BY_NAME] = by_name,
        [TOP_BY_PROGRESS] = by_progress,
    };
    int n = 0;

    for (size_t i = 0; i < json_count(data->jobs) && n < TOP_JOBS_MAX; i++)
        if (is_listed(top, json_at(data->jobs, i)))
            rows[n++] = json_at(data->jobs, i);
    qsort(rows, (size_t)n, sizeof(rows[0]), orders[top->sort]);
    return n;
}

/* ---- keys ---- */

/* The chosen job, or its neighbour in the list; the first one when it is not listed. */
static void choose(struct top *top, const struct top_data *data, int step)
{
    const struct json *rows[TOP_JOBS_MAX];
    int n = top_list(top, data, rows), at = -1;

    for (int i = 0; i < n; i++)
        if (json_get_int(rows[i], "id", 0) == top->job)
            at = i;
    if (at < 0)
        at = 0;
    else
        at += step;
    if (at >= n)
        at = n - 1;
    if (n)
        top->job = json_get_int(rows[at < 0 ? 0 : at], "id", 0);
}

static void type(struct top *top, int key)
{
    size_t n = strlen(top->filter);

    if (key == TOP_KEY_ENTER) {
        top->is_typing = false;
    } else if (key == TOP_KEY_ESCAPE) {
        top->is_typing = false;
        top->filter[0] = '\0';
    } else if (key == TOP_KEY_BACKSPACE && n) {
        top->filter[n - 1] = '\0';
    } else if (key >= ' ' && key < 0x7f && n + 1 < sizeof(top->filter)) {
        top->filter[n] = (char)key;
        top->filter[n + 1] = '\0';
    }
}

/* Up and down: another job of the list, other ranks of the opened one. */
static void move(struct top *top, const struct top_data *data, int step)
{
    int n = (int)json_count(data->ranks), at = top->first_rank + step;

    if (top->page == TOP_JOBS)
        choose(top, data, step);
    else if (top->page == TOP_JOB)
        top->first_rank = at >= n ? n - 1 : at < 0 ? 0 : at;
}

static void leave(struct top *top)
{
    if (top->page == TOP_JOBS)
        top->is_over = true;
    else
        top->page = TOP_JOBS;
}

static void command(struct top *top, const struct top_data *data, int key)
{
    switch (key) {
    case TOP_KEY_UP:
    case 'k':
        move(top, data, -1);
        break;
    case TOP_KEY_DOWN:
    case 'j':
        move(top, data, 1);
        break;
    case TOP_KEY_ENTER:
        top->page = TOP_JOB;
        top->first_rank = 0;
        break;
    case 'l':
        top->page = TOP_LOG;
        break;
    case 's':
        top->sort = (enum top_sort)((top->sort + 1) % TOP_SORTS);
        break;
    case 'a':
        top->shows_ended = !top->shows_ended;
        break;
    case '/':
        top->is_typing = true;
        break;
    case TOP_KEY_ESCAPE:
        if (top->page == TOP_JOBS)
            top->filter[0] = '\0';
        else
            leave(top);
        break;
    case 'q':
        leave(top);
        break;
    default:
        break;
    }
}

void top_key(struct top *top, const struct top_data *data, int key)
{
    if (key == TOP_KEY_INTERRUPT)
        top->is_over = true;
    else if (key && top->is_typing)
        type(top, key);
    else if (key)
        command(top, data, key);
    if (top->page == TOP_JOBS) /* one is chosen, as soon as any is listed */
        choose(top, data, 0);
}
