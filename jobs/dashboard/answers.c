#include "jobs/dashboard/answers.h"
#include "common/base/clock.h"
#include "jobs/client/query_print.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SQL_MAX 4096
#define API "/api/"
#define JOB "/data/job/"

/* ---- pieces that all need ---- */

int answers_take_buf(struct ask_text *out, struct buf *buf, struct err *err)
{
    if (buf_check(buf, err) < 0) {
        buf_fini(buf);
        return -1;
    }
    out->n_bytes = buf->n_bytes;
    out->bytes = buf_take(buf);
    return 0;
}

int answers_take_json(struct ask_text *out, struct json *json, struct err *err)
{
    struct buf text = BUF_INIT;

    if (!json)
        return err_set(err, ERR_NOMEM, "no memory for an answer");
    json_write(&text, json, 0);
    json_free(json);
    buf_add_char(&text, '\n');
    out->type = "application/json";
    return answers_take_buf(out, &text, err);
}

int answers_put_rows(struct answers *answers, struct json *object, const char *key,
                     struct err *err, const char *sql, ...)
{
    struct json *rows;
    char text[SQL_MAX];
    va_list args;
    int n;

    va_start(args, sql);
    n = vsnprintf(text, sizeof(text), sql, args);
    va_end(args);
    if (n < 0 || n >= (int)sizeof(text))
        return err_set(err, ERR_LIMIT, "a question of more than %d bytes", SQL_MAX);
    if (client_select_sql(answers->client, &rows, text, err) < 0)
        return -1;
    return json_set(object, key, rows, err);
}

/* ---- is the coordinator there? ---- */

static int ping(struct answers *answers, struct err *err)
{
    struct wire request = {.type = MSG_PING}, reply = {.type = MSG_NONE};

    if (client_call_within(answers->client, &request, &reply, ANSWERS_PING_MS, err) < 0)
        return -1;
    wire_fini(&reply);
    answers->heard_mono_ms = clock_mono_ms();
    return 0;
}

/* What was sent and not answered is forgotten with the connection. */
int answers_check(struct answers *answers, struct err *err)
{
    int64_t now_ms = clock_mono_ms();

    if (answers->heard_mono_ms && now_ms - answers->heard_mono_ms < ANSWERS_TRUST_MS)
        return 0;
    if (answers->failed_mono_ms && now_ms - answers->failed_mono_ms < ANSWERS_RETRY_MS) {
        *err = answers->failure;
        return -1;
    }
    answers->failed_mono_ms = 0;
    if (ping(answers, err) == 0)
        return 0;
    client_fini(answers->client);
    answers->failure = *err;
    answers->failed_mono_ms = clock_mono_ms();
    return -1;
}

/* ---- views ---- */

struct printing {
    struct query_printer printer;
    int64_t limit;
};

static int print_part(void *state, const struct json *part, struct err *err)
{
    struct printing *p = state;

    return query_print_part(&p->printer, part, p->limit - p->printer.n_rows, err);
}

/* Every "where" is words as on the command line, parted by spaces. */
static int list_words(struct json *words, const struct url *url, struct err *err)
{
    for (int i = 0; i < url->n_params; i++) {
        const char *at = url->params[i].value;

        if (strcmp(url->params[i].name, "where") != 0)
            continue;
        while (*(at += strspn(at, " "))) {
            char word[URL_MAX];
            size_t n = strcspn(at, " ");

            snprintf(word, sizeof(word), "%.*s", (int)n, at);
            if (json_append(words, json_new_string(word), err) < 0)
                return -1;
            at += n;
        }
        if (json_append(words, json_new_string("and"), err) < 0)
            return -1;
    }
    return 0;
}

static const char *param_or_empty(const struct url *url, const char *name)
{
    const char *value = url_param(url, name);

    return value ? value : "";
}

/* As `vneva query VIEW --format json` prints it. */
static int print_view(struct answers *answers, const struct msg_select *question,
                      struct ask_text *out, struct err *err)
{
    struct printing p = {.printer = {.format = QUERY_JSON}, .limit = question->limit};
    int rc;

    p.printer.out = open_memstream(&out->bytes, &out->n_bytes);
    if (!p.printer.out)
        return err_set(err, ERR_NOMEM, "no memory for an answer");
    rc = client_select(answers->client, question, print_part, &p, err);
    if (rc == 0)
        query_print_end(&p.printer);
    else
        query_printer_fini(&p.printer);
    if (fclose(p.printer.out) != 0 && rc == 0)
        rc = err_set(err, ERR_NOMEM, "no memory for an answer");
    out->type = "application/json";
    return rc;
}

static int answer_view(struct answers *answers, const char *view, const struct url *url,
                       struct ask_text *out, struct err *err)
{
    static const char *const known[] = {"where", "columns", "sort",
                                        "limit", "after",   NULL};
    struct msg_select question = {.sql = "",
                                  .view = view,
                                  .columns = param_or_empty(url, "columns"),
                                  .sort = param_or_empty(url, "sort")};
    struct json *words = json_new(JSON_ARRAY);
    struct buf where = BUF_INIT;
    int rc = -1;

    if (url_check_params(url, known, err) == 0 &&
        url_param_int(url, "limit", 1, ANSWERS_API_ROWS_MAX, ANSWERS_API_ROWS,
                      &question.limit, err) == 0 &&
        url_param_int(url, "after", 0, INT64_MAX, 0, &question.after, err) == 0 &&
        list_words(words, url, err) == 0) {
        json_write(&where, words, 0);
        question.where = buf_str(&where);
        rc = buf_check(&where, err);
        if (rc == 0)
            rc = print_view(answers, &question, out, err);
    }
    json_free(words);
    buf_fini(&where);
    return rc;
}

/* ---- all of them ---- */

static int status_of(enum err_code code)
{
    switch (code) {
    case ERR_TIMEOUT:
        return 503;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_INVALID:
    case ERR_FORMAT:
    case ERR_LIMIT:
        return 400;
    case ERR_DENIED:
        return 403;
    case ERR_PEER:
        return 502;
    default:
        return 500;
    }
}

static void write_error(struct ask_text *out, const struct err *failure)
{
    struct json *error = json_new(JSON_OBJECT), *all = json_new(JSON_OBJECT);
    struct err err;

    free(out->bytes);
    *out = (struct ask_text){.status = status_of(failure->code), .type = "text/plain"};
    if (json_set(error, "code", json_new_string(err_code_name(failure->code)), &err) <
            0 ||
        json_set(error, "text", json_new_string(failure->text), &err) < 0) {
        json_free(error);
        json_free(all);
    } else if (json_set(all, "error", error, &err) < 0) {
        json_free(all);
    } else {
        (void)answers_take_json(out, all, &err);
    }
}

/* "/data/job/12/log": 12 and "log". */
static bool split_job(const char *path, int64_t *job, const char **rest)
{
    const char *digits = path + strlen(JOB);
    size_t n = strspn(digits, "0123456789");

    if (n == 0 || n > 18 || (digits[n] && digits[n] != '/'))
        return false;
    *job = strtoll(digits, NULL, 10);
    *rest = digits + n + (digits[n] == '/');
    return true;
}

static int answer_path(struct answers *answers, const struct url *url,
                       struct ask_text *out, struct err *err)
{
    const char *path = url->path, *rest;
    int64_t job;

    if (answers_check(answers, err) < 0)
        return -1;
    if (strncmp(path, API, strlen(API)) == 0)
        return answer_view(answers, path + strlen(API), url, out, err);
    if (strcmp(path, "/data/overview") == 0)
        return answers_overview(answers, out, err);
    if (strncmp(path, JOB, strlen(JOB)) == 0 && split_job(path, &job, &rest))
        return answers_job(answers, job, rest, url, out, err);
    return err_set(err, ERR_NOT_FOUND, "there is nothing at '%s'", path);
}

void answers_write(void *state, const char *question, struct ask_text *out)
{
    struct answers *answers = state;
    struct err err = {ERR_NONE, ""};
    struct url url;
    int rc = url_parse(&url, question, &err);

    if (rc == 0) {
        if (strcmp(url.path, "/metrics") == 0)
            rc = answers_metrics(answers, out, &err);
        else
            rc = answer_path(answers, &url, out, &err);
        url_fini(&url);
    }
    if (rc < 0)
        write_error(out, &err);
    else
        answers->heard_mono_ms = clock_mono_ms();
}
