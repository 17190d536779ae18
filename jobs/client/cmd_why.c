/* vneva why: what a job waits for, in one sentence. */
#include "jobs/client/client.h"
#include "jobs/client/why.h"

#include <stdio.h>

static int print_json(struct client *client, int64_t job, struct err *err)
{
    struct json *answer;

    if (why_ask_json(&answer, client, job, err) < 0)
        return -1;
    client_print_json(client, answer);
    json_free(answer);
    return 0;
}

static int print_sentence(struct client *client, int64_t job, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = why_ask(&text, client, job, err);

    if (rc == 0)
        fprintf(client->out, "%s\n", buf_str(&text));
    buf_fini(&text);
    return rc;
}

int cmd_why(struct client *client, const struct args *args)
{
    struct err err;
    int64_t job;
    int rc = client_read_job(args->words[0], &job, &err);

    if (rc == 0)
        rc = args_has(args, "json") ? print_json(client, job, &err)
                                    : print_sentence(client, job, &err);
    return rc < 0 ? client_fail(client, &err) : EXIT_DONE;
}
