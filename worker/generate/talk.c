#include "worker/generate/talk.h"

#include "dataprep/annotations/annotations.h"
#include "worker/generate/prompt.h"
#include "worker/rank/results.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int talk_fail(const struct err *err)
{
    fprintf(stderr, "vneva generate: %s\n", err->text);
    return err_exit_status(err);
}

void talk_tell_guess(const struct talk *talk)
{
    const struct guess *guess = &session_folder(talk->session)->guess;

    if (guess->template)
        fprintf(stderr,
                "vneva generate: template %s (guessed: %s); --template chooses another\n",
                guess->template, guess->reason);
}

/* ---- answers ---- */

static int64_t n_ints(const struct buf *ints)
{
    return (int64_t)(ints->n_bytes / sizeof(int32_t));
}

static void tell_times(const struct talk *talk, const struct answer *answer)
{
    int64_t n = n_ints(&answer->tokens);
    double rest_s = (double)answer->rest_ns / 1e9;

    if (!talk->options->is_verbose)
        return;
    fprintf(stderr,
            "vneva generate: %" PRId64 " frames in %.0f ms; prompt of %" PRId64
            " tokens, first token after %.0f ms; %" PRId64 " tokens, %.1f tokens/s\n",
            answer->n_frames, (double)answer->frames_ns / 1e6, n_ints(&answer->prompt),
            (double)answer->first_ns / 1e6, n,
            n > 1 && rest_s > 0 ? (double)(n - 1) / rest_s : 0);
}

static struct json *ints_json(const struct buf *ints, struct err *err)
{
    struct json *list = json_new(JSON_ARRAY);

    for (int64_t i = 0; i < n_ints(ints) && list; i++) {
        int32_t value;

        memcpy(&value, ints->data + (size_t)i * sizeof(value), sizeof(value));
        if (json_append(list, json_new_int(value), err) < 0) {
            json_free(list);
            return NULL;
        }
    }
    return list;
}

/* The record's fields, then those of an evaluation's line, then token numbers. */
static int add_fields(struct json *line, const struct talk *talk,
                      const struct answer *answer, struct err *err)
{
    if (results_fill(line, buf_str(&answer->full), buf_str(&answer->text), err) < 0)
        return -1;
    if (!talk->options->is_json)
        return 0;
    if (json_set(line, "tokens", ints_json(&answer->tokens, err), err) < 0)
        return -1;
    return json_set(line, "prompt_tokens", ints_json(&answer->prompt, err), err);
}

static int print_line(const struct talk *talk, const struct json *record,
                      const struct answer *answer, struct err *err)
{
    struct json *line = json_clone(record);
    struct buf text = BUF_INIT;
    int rc = line ? add_fields(line, talk, answer, err)
                  : err_set(err, ERR_NOMEM, "out of memory");

    if (rc == 0) {
        json_write(&text, line, 0);
        rc = buf_check(&text, err);
    }
    if (rc == 0 && (puts(buf_str(&text)) == EOF || fflush(stdout) != 0))
        rc = err_set(err, ERR_IO, "cannot write the answer: %s", strerror(errno));
    buf_fini(&text);
    json_free(line);
    return rc;
}

/* Answers and prints. *said (NULL: not wanted): the text, appended. */
static int answer_record(struct talk *talk, const struct json *record, bool as_line,
                         struct buf *said, struct err *err)
{
    struct answer answer;
    int rc = session_ask(talk->session, &answer, record, as_line ? NULL : stdout, err);

    if (rc == 0 && as_line)
        rc = print_line(talk, record, &answer, err);
    if (rc == 0)
        tell_times(talk, &answer);
    if (rc == 0 && said)
        buf_add_str(said, buf_str(&answer.text));
    answer_fini(&answer);
    return rc;
}

int talk_question(struct talk *talk)
{
    struct err err = {0};
    struct json *record = prompt_record("question", talk->options->question, &err);
    int rc =
        record ? answer_record(talk, record, talk->options->is_json, NULL, &err) : -1;

    json_free(record);
    return rc < 0 ? talk_fail(&err) : TALK_DONE;
}

/* ---- a file ---- */

/* What is wrong with one question does not keep the others from being answered; what is
 * wrong with this machine or the output does. */
static bool is_fatal(enum err_code code)
{
    return code == ERR_NOMEM || code == ERR_IO || code == ERR_STATE;
}

static int answer_annotation(void *state, const struct annotation *annotation,
                             struct err *err)
{
    struct talk *talk = state;
    struct json *record = NULL;
    struct err wrong = {0};
    int rc = json_parse_at(&record, annotation->text, (size_t)annotation->n_bytes,
                           annotation->line, annotation->column, &wrong);

    if (rc == 0 && json_type(record) != JSON_OBJECT)
        rc = err_set(&wrong, ERR_FORMAT, "the record is no object");
    if (rc == 0)
        rc = answer_record(talk, record, true, NULL, &wrong);
    json_free(record);
    if (rc == 0)
        return 0;
    if (is_fatal(wrong.code)) {
        *err = wrong;
        return -1;
    }
    fprintf(stderr, "vneva generate: '%s' line %" PRId64 ": %s\n",
            talk->options->questions, annotation->line, wrong.text);
    talk->n_failed++;
    return 0;
}

static int answer_input(struct talk *talk, struct err *err)
{
    struct annotation annotation = {.line = 0, .column = 1};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    int rc = 0;

    while (rc == 0 && (n = getline(&line, &capacity, stdin)) > 0) {
        annotation.line++;
        if (n > ANNOTATION_MAX_BYTES)
            rc = err_set(err, ERR_LIMIT, "line %" PRId64 " has more than %d bytes",
                         annotation.line, ANNOTATION_MAX_BYTES);
        annotation.n_bytes = n;
        annotation.text = line;
        if (rc == 0 && strspn(line, " \t\r\n") < (size_t)n)
            rc = answer_annotation(talk, &annotation, err);
    }
    free(line);
    return rc;
}

int talk_file(struct talk *talk)
{
    const char *path = talk->options->questions;
    struct err err = {0};
    int rc = strcmp(path, "-") == 0
                 ? answer_input(talk, &err)
                 : annotations_scan(path, answer_annotation, talk, &err);

    if (rc < 0)
        return talk_fail(&err);
    return talk->n_failed ? TALK_FAILED : TALK_DONE;
}

/* ---- a person ---- */

static void read_question(char *line, ssize_t n)
{
    while (n > 0 && strchr("\r\n", line[n - 1]))
        line[--n] = '\0';
}

/* Asks within the dialogue so far; a question that fails leaves it as it was. */
static int answer_turn(struct talk *talk, struct json **dialogue, const char *question,
                       struct err *err)
{
    struct json *next = *dialogue ? json_clone(*dialogue) : NULL;
    struct buf said = BUF_INIT;
    int rc = 0;

    if (!*dialogue)
        next = prompt_record("question", question, err);
    else if (next)
        rc = prompt_add_turn(next, "human", question, err);
    else
        err_set(err, ERR_NOMEM, "out of memory");
    if (!next)
        return -1;
    if (rc == 0)
        rc = answer_record(talk, next, talk->options->is_json, &said, err);
    if (rc == 0)
        rc = prompt_add_turn(next, "gpt", buf_str(&said), err);
    buf_fini(&said);
    if (rc < 0) {
        json_free(next);
        return -1;
    }
    json_free(*dialogue);
    *dialogue = next;
    return 0;
}

int talk_person(struct talk *talk)
{
    struct json *dialogue = NULL;
    struct err err = {0};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    int status = TALK_DONE;

    fputs("Ask; /new forgets what was said, an empty line or Ctrl-D ends.\n", stderr);
    while (status == TALK_DONE) {
        fputs("> ", stderr);
        n = getline(&line, &capacity, stdin);
        read_question(line, n);
        if (n < 0 || !*line)
            break;
        if (strcmp(line, "/new") == 0) {
            json_free(dialogue);
            dialogue = NULL;
        } else if (answer_turn(talk, &dialogue, line, &err) < 0) {
            int code = talk_fail(&err);

            status = is_fatal(err.code) ? code : TALK_DONE;
        }
    }
    json_free(dialogue);
    free(line);
    return status;
}
