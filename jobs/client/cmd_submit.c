/* vneva submit: reads a specification, looks at what it asks for, hands it in. */
#include "common/base/suggest.h"
#include "jobs/client/client.h"
#include "jobs/client/preflight.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SUBMIT_TRIES 2 /* the same request: one job, however often it is asked */
#define REQUEST_ID_BYTES 16

static int read_kind(const struct args *args, enum spec_kind *kind, struct err *err)
{
    const char *name = args_value(args, "kind");

    *kind = SPEC_NONE;
    if (!name)
        return 0;
    *kind = spec_kind_find(name);
    for (int k = SPEC_NONE + 1; *kind == SPEC_NONE && k < SPEC_KIND_COUNT; k++)
        if (suggest_is_near(suggest_distance(name, spec_kind_name(k)), strlen(name)))
            return err_set(err, ERR_INVALID, "no kind '%s'; did you mean '%s'?", name,
                           spec_kind_name(k));
    if (*kind == SPEC_NONE)
        return err_set(err, ERR_INVALID,
                       "no kind '%s'; there are prepare, pretrain, finetune, evaluate",
                       name);
    return 0;
}

static int make_request_id(char out[2 * REQUEST_ID_BYTES + 1], struct err *err)
{
    uint8_t bytes[REQUEST_ID_BYTES];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return err_set(err, ERR_IO, "no random numbers to be had: %s", strerror(errno));
    for (int i = 0; i < REQUEST_ID_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

/* given: the request's id when the caller has one, else NULL. */
static int send_job(struct client *client, const struct spec *spec, const char *given,
                    struct json **answer, struct err *err)
{
    char made[2 * REQUEST_ID_BYTES + 1];
    const char *request_id = given ? given : made;
    struct buf tree = BUF_INIT;
    struct wire reply = {.type = MSG_NONE};
    int rc = given ? 0 : make_request_id(made, err);

    json_write(&tree, spec->tree, 0);
    if (rc == 0)
        rc = buf_check(&tree, err);
    for (int try = 0; rc == 0 && try < SUBMIT_TRIES; try++) {
        struct wire request = {.type = MSG_SUBMIT};

        request.submit.request_id = request_id;
        request.submit.kind = spec_kind_name(spec->kind);
        request.submit.name = spec->name;
        request.submit.spec = buf_str(&tree);
        if (client_call(client, &request, &reply, err) == 0)
            break;
        if (err->code != ERR_TIMEOUT || try + 1 == SUBMIT_TRIES)
            rc = -1;
    }
    buf_fini(&tree);
    if (rc < 0)
        return -1;
    *answer = json_new(JSON_OBJECT);
    if (json_set(*answer, "job", json_new_int(reply.submitted.job), err) < 0 ||
        json_set(*answer, "is_new", json_new_bool(reply.submitted.is_new != 0), err) <
            0) {
        json_free(*answer);
        rc = -1;
    }
    wire_fini(&reply);
    return rc;
}

/* The job of this request is there already: with these settings? */
static int warn_of_other_settings(struct client *client, const struct spec *spec,
                                  int64_t job, struct err *err)
{
    struct buf mine = BUF_INIT, there = BUF_INIT;
    struct json *row;
    int rc;

    if (client_get_job(client, &row, job, err) < 0)
        return -1;
    json_write(&mine, spec->tree, 0);
    json_write(&there, json_get(row, "spec"), 0);
    rc = buf_check(&mine, err) < 0 || buf_check(&there, err) < 0 ? -1 : 0;
    if (rc == 0 && strcmp(buf_str(&mine), buf_str(&there)) != 0)
        fprintf(client->err,
                "vneva: job %" PRId64 " was handed in with other settings and keeps them "
                "(`vneva show %" PRId64 " --json`)\n",
                job, job);
    buf_fini(&mine);
    buf_fini(&there);
    json_free(row);
    return rc;
}

/* Everything that stands against handing it in, and the exit code for it. */
static int print_refused(struct client *client, const struct spec_notes *notes)
{
    for (int64_t i = 0; i < notes->refused.count; i++)
        fprintf(client->err, "vneva: refused: %s\n", notes->refused.items[i]);
    return EXIT_USAGE;
}

static int submit(struct client *client, const struct args *args, const struct spec *spec)
{
    bool is_json = args_has(args, "json");
    struct json *answer;
    struct err err;
    int64_t job;

    if (send_job(client, spec, args_value(args, "request-id"), &answer, &err) < 0)
        return client_fail(client, &err);
    job = json_get_int(answer, "job", 0);
    if (!json_bool(json_get(answer, "is_new"), true) &&
        warn_of_other_settings(client, spec, job, &err) < 0) {
        json_free(answer);
        return client_fail(client, &err);
    }
    if (is_json)
        client_print_json(client, answer);
    else if (args_has(args, "quiet"))
        fprintf(client->out, "%" PRId64 "\n", job);
    else
        fprintf(client->out, "submitted job %" PRId64 ": %s '%s'\n", job,
                spec_kind_name(spec->kind), spec->name);
    fflush(client->out);
    json_free(answer);
    return args_has(args, "wait") ? wait_for_job(client, job, -1, -1) : EXIT_DONE;
}

static int check_and_submit(struct client *client, const struct args *args,
                            const struct spec *spec, struct spec_notes *notes)
{
    struct json *report;
    struct device device;
    struct err err;
    int status = EXIT_DONE;

    if (device_find(&device, client, args, spec, &err) < 0 ||
        preflight(&report, spec, &device, notes, &err) < 0)
        return client_fail(client, &err);
    if (args_has(args, "check") && args_has(args, "json"))
        client_print_json(client, report);
    else if (args_has(args, "check"))
        preflight_print(client->out, report);
    if (args_has(args, "check"))
        status = notes->refused.count ? EXIT_JOB_FAILED : EXIT_DONE;
    else if (notes->refused.count)
        status = print_refused(client, notes);
    else {
        preflight_print_shared(client->err, "vneva: ", report);
        status = submit(client, args, spec);
    }
    json_free(report);
    return status;
}

int cmd_submit(struct client *client, const struct args *args)
{
    struct spec_notes notes;
    struct spec *spec = NULL;
    enum spec_kind kind;
    struct err err;
    int status;

    if (args_has(args, "keys")) {
        struct buf text = BUF_INIT;

        spec_describe(&text);
        fputs(buf_str(&text), client->out);
        buf_fini(&text);
        return EXIT_DONE;
    }
    if (!args->n_words) {
        fprintf(client->err, "vneva: usage: vneva submit FILE [KEY=VALUE ...] (--help "
                             "says more)\n");
        return EXIT_USAGE;
    }
    if (read_kind(args, &kind, &err) < 0 ||
        spec_read(&spec, &notes, args->words[0], kind, args->words + 1, args->n_words - 1,
                  &err) < 0)
        return client_fail(client, &err);
    status = check_and_submit(client, args, spec, &notes);
    spec_free(spec);
    spec_notes_fini(&notes);
    return status;
}
