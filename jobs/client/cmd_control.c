/* vneva cancel, hold, release: wishes about jobs. */
#include "jobs/client/client.h"

#include <inttypes.h>

/* Asks for each job named; goes on after a refusal and returns the first one's code. */
static int ask_each(struct client *client, const struct args *args, enum msg_type type,
                    const char *done)
{
    const char *reason = args_value(args, "reason");
    int status = EXIT_DONE;

    for (int i = 0; i < args->n_words; i++) {
        struct wire request = {.type = type}, reply = {.type = MSG_NONE};
        int64_t job = 0;
        struct err err;
        int rc = client_read_job(args->words[i], &job, &err);

        if (type == MSG_CANCEL) {
            request.cancel.job = job;
            request.cancel.reason = reason ? reason : "";
        } else if (type == MSG_HOLD) {
            request.hold.job = job;
        } else {
            request.release.job = job;
        }
        if (rc == 0)
            rc = client_call(client, &request, &reply, &err);
        if (rc < 0) {
            int failed = client_fail(client, &err);

            status = status ? status : failed;
            continue;
        }
        wire_fini(&reply);
        fprintf(client->out, "job %" PRId64 " %s\n", job, done);
    }
    return status;
}

int cmd_cancel(struct client *client, const struct args *args)
{
    return ask_each(client, args, MSG_CANCEL, "is being cancelled");
}

int cmd_hold(struct client *client, const struct args *args)
{
    return ask_each(client, args, MSG_HOLD, "is held");
}

int cmd_release(struct client *client, const struct args *args)
{
    return ask_each(client, args, MSG_RELEASE, "is released");
}
