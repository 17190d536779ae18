/* vneva why: what a job waits for, in one sentence. */
#include "jobs/client/client.h"
#include "jobs/client/why.h"

#include <stdio.h>

int cmd_why(struct client *client, const struct args *args)
{
    struct buf text = BUF_INIT;
    struct err err;
    int64_t job;
    int status = EXIT_DONE;

    if (args_job(args->words[0], &job, &err) < 0 || why_ask(&text, client, job, &err) < 0)
        status = client_fail(client, &err);
    else
        fprintf(client->out, "%s\n", buf_str(&text));
    buf_fini(&text);
    return status;
}
