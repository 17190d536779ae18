/* A view's question as a SELECT.
 *
 *     condition := NAME OP VALUE     OP: = != < <= > >= ~ (has in it) !~
 *     where     := condition {"and" condition}
 *
 * Words may come apart or together ("loss<2", "loss" "<" "2"); "and" may be left out where
 * a word begins a condition of its own. Of "=" and "!=" several values may be given:
 * "state=running,queued". Names are checked against the view, values are bound: nothing
 * of what is asked becomes SQL.
 */
#include "common/base/json.h"
#include "coordinator/store/query_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct translation {
    struct query_select *out;
    const struct query_request *request;
    const struct query_view *view;
    int64_t now_ms;
    int n_conditions;
};

/* The longer ones first. */
static const char *const operators[] = {"!=", "!~", "<=", ">=", "==", "=", "<", ">", "~"};

#define N_OPERATORS (sizeof(operators) / sizeof(operators[0]))

static int add_value(struct query_select *out, struct query_value value, struct err *err)
{
    if (out->n_values == out->capacity) {
        size_t capacity = out->capacity ? 2 * out->capacity : 16;
        struct query_value *values = realloc(out->values, capacity * sizeof(*values));

        if (!values) {
            free(value.text);
            return err_set(err, ERR_NOMEM, "no memory for a condition");
        }
        out->values = values;
        out->capacity = capacity;
    }
    out->values[out->n_values++] = value;
    return 0;
}

void query_select_fini(struct query_select *select)
{
    for (size_t i = 0; i < select->n_values; i++)
        free(select->values[i].text);
    free(select->values);
    buf_fini(&select->sql);
    *select = (struct query_select){0};
}

/* ---- conditions ---- */

/* Where the operator begins in text, and which it is; NULL: there is none. */
static const char *find_operator(const char *text, const char **op)
{
    const char *at = text + strspn(text, " ");

    while (isalnum((unsigned char)*at) || *at == '_')
        at++;
    at += strspn(at, " ");
    for (size_t i = 0; i < N_OPERATORS; i++)
        if (strncmp(at, operators[i], strlen(operators[i])) == 0) {
            *op = operators[i];
            return at;
        }
    return NULL;
}

/* "job=3" and nothing else: rejects need only be read of that one. */
static void note_job(struct translation *t, const struct query_column *column,
                     const char *op, const struct query_value *value)
{
    if (strcmp(column->name, "job") == 0 && op[0] == '=' && value->type == QUERY_INT)
        t->out->job = value->whole;
}

static int add_word(struct translation *t, const struct query_column *column,
                    const char *op, const char *word, struct err *err)
{
    struct query_value value;
    bool is_text = strchr(op, '~') != NULL;
    const struct query_column text = {column->name, "text", "", false, NULL};

    if (query_read_value(&value, is_text ? &text : column, word, t->request, t->now_ms,
                         err) < 0)
        return -1;
    buf_add_char(&t->out->sql, '?');
    note_job(t, column, op, &value);
    return add_value(t->out, value, err);
}

/* One of several: "a,b". null is "there is none". */
static int add_any(struct translation *t, const struct query_column *column,
                   const char *op, char *value, struct err *err)
{
    bool is_not = op[0] == '!', is_several = strchr(value, ',') != NULL;
    char *save = NULL;
    int n = 0;

    if (strcmp(value, "null") == 0) {
        buf_printf(&t->out->sql, "\"%s\" IS %sNULL", column->name, is_not ? "NOT " : "");
        return 0;
    }
    buf_printf(&t->out->sql, "\"%s\" IS %sNULL %s \"%s\" %s(", column->name,
               is_not ? "" : "NOT ", is_not ? "OR" : "AND", column->name,
               is_not ? "NOT IN " : "IN ");
    if (!*value && add_word(t, column, op, value, err) < 0)
        return -1;
    for (char *word = strtok_r(value, ",", &save); word;
         word = strtok_r(NULL, ",", &save)) {
        if (n++)
            buf_add_char(&t->out->sql, ',');
        if (add_word(t, column, is_several ? "in" : op, word, err) < 0)
            return -1;
    }
    buf_add_char(&t->out->sql, ')');
    return 0;
}

static int add_comparison(struct translation *t, const struct query_column *column,
                          const char *op, char *value, struct err *err)
{
    if (strchr(op, '~')) {
        buf_printf(&t->out->sql, "instr(lower(coalesce(\"%s\", '')), lower(",
                   column->name);
        if (add_word(t, column, op, value, err) < 0)
            return -1;
        buf_printf(&t->out->sql, ")) %s 0", op[0] == '!' ? "=" : ">");
        return 0;
    }
    if (op[0] == '=' || op[0] == '!')
        return add_any(t, column, op, value, err);
    buf_printf(&t->out->sql, "\"%s\" %s ", column->name, op);
    return add_word(t, column, op, value, err);
}

static void trim(char **text)
{
    size_t n;

    *text += strspn(*text, " ");
    for (n = strlen(*text); n > 0 && (*text)[n - 1] == ' '; n--)
        ;
    (*text)[n] = '\0';
}

/* text is cut to pieces. */
static int add_condition(struct translation *t, char *text, struct err *err)
{
    const struct query_column *column;
    const char *op = NULL, *found = find_operator(text, &op);
    char *at = text + (found ? found - text : 0), *value;

    if (!found)
        return err_set(err, ERR_INVALID,
                       "'%s' is no condition; write NAME=VALUE, or != < <= > >= ~ !~ for "
                       "= (quoted, or the shell takes < and > for itself)",
                       text);
    if (++t->n_conditions > QUERY_CONDITIONS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d conditions", QUERY_CONDITIONS_MAX);
    value = at + strlen(op);
    *at = '\0';
    trim(&text);
    trim(&value);
    column = query_find_column(t->view, text, err);
    if (!column)
        return -1;
    buf_add_str(&t->out->sql, " AND (");
    if (add_comparison(t, column, op, value, err) < 0)
        return -1;
    buf_add_char(&t->out->sql, ')');
    return 0;
}

static int flush_condition(struct translation *t, struct buf *text, struct err *err)
{
    int rc = buf_check(text, err);

    if (rc == 0 && text->n_bytes)
        rc = add_condition(t, text->data, err);
    buf_reset(text);
    return rc;
}

/* Does the condition so far have its value, so that a word may begin another? */
static bool is_complete(const struct buf *text)
{
    const char *op = NULL, *found = find_operator(buf_str(text), &op);

    return found && found[strlen(op)] != '\0';
}

static int take_word(struct translation *t, struct buf *text, const char *word,
                     struct err *err)
{
    bool is_and = strcmp(word, "and") == 0;
    const char *op = NULL;

    if ((is_and || (is_complete(text) && find_operator(word, &op) > word)) &&
        flush_condition(t, text, err) < 0)
        return -1;
    if (is_and)
        return 0;
    if (text->n_bytes)
        buf_add_char(text, ' ');
    buf_add_str(text, word);
    return 0;
}

static int add_words(struct translation *t, const struct json *words, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < json_count(words); i++) {
        const char *word = json_string(json_at(words, i));

        rc = word ? take_word(t, &text, word, err)
                  : err_set(err, ERR_INVALID, "a word of the condition is no text");
    }
    if (rc == 0)
        rc = flush_condition(t, &text, err);
    buf_fini(&text);
    return rc;
}

static int add_where(struct translation *t, struct err *err)
{
    struct json *words;
    int rc;

    if (json_parse(&words, t->request->where, strlen(t->request->where), err) < 0)
        return err_wrap(err, "the list of conditions");
    rc = json_type(words) == JSON_ARRAY
             ? add_words(t, words, err)
             : err_set(err, ERR_FORMAT, "the conditions are no list");
    json_free(words);
    return rc;
}

/* ---- columns and order ---- */

static int add_columns(struct translation *t, struct err *err)
{
    const char *names = t->request->columns;
    char name[64];
    int n = 0;

    for (const struct query_column *c = t->view->columns; !*names && c->name; c++)
        if (!t->request->is_short || c->is_short)
            buf_printf(&t->out->sql, "%s\"%s\"", n++ ? ", " : "", c->name);
    while (*names) {
        size_t n_bytes = strcspn(names, ",");
        const struct query_column *c;

        snprintf(name, sizeof(name), "%.*s", (int)n_bytes, names);
        c = query_find_column(t->view, name, err);
        if (!c)
            return -1;
        buf_printf(&t->out->sql, "%s\"%s\"", n++ ? ", " : "", c->name);
        names += n_bytes + (names[n_bytes] == ',');
    }
    if (t->request->has_id)
        buf_add_str(&t->out->sql, ", \"id\"");
    return 0;
}

/* "loss,-id": rows without a value come last, whichever the direction. */
static int add_order(struct translation *t, struct err *err)
{
    const char *names = t->request->sort;
    char name[64];

    buf_add_str(&t->out->sql, " ORDER BY ");
    while (*names) {
        size_t n_bytes = strcspn(names, ",");
        bool is_down = *names == '-';
        const struct query_column *c;

        snprintf(name, sizeof(name), "%.*s", (int)n_bytes - is_down, names + is_down);
        c = query_find_column(t->view, name, err);
        if (!c)
            return -1;
        buf_printf(&t->out->sql, "\"%s\"%s NULLS LAST, ", c->name,
                   is_down ? " DESC" : "");
        names += n_bytes + (names[n_bytes] == ',');
    }
    buf_add_str(&t->out->sql, "\"id\"");
    return 0;
}

int query_translate(struct query_select *out, const struct query_request *request,
                    int64_t now_ms, struct err *err)
{
    struct translation t = {.out = out, .request = request, .now_ms = now_ms};

    *out = (struct query_select){0};
    t.view = query_find_view(request->view, err);
    if (!t.view)
        return -1;
    if (request->after < 0 || request->limit < 0)
        return err_set(err, ERR_INVALID, "a negative limit");
    buf_add_str(&out->sql, "SELECT ");
    if (add_columns(&t, err) < 0)
        return -1;
    buf_printf(&out->sql, " FROM \"%s\" WHERE \"id\" > %lld", t.view->name,
               (long long)request->after);
    if (add_where(&t, err) < 0 || add_order(&t, err) < 0)
        return -1;
    if (request->limit > 0)
        buf_printf(&out->sql, " LIMIT %lld", (long long)request->limit);
    return buf_check(&out->sql, err);
}
