/* vneva report: one page about a job, to be looked at anywhere. */
#include "jobs/client/report.h"

#include <inttypes.h>

int cmd_report(struct client *client, const struct args *args)
{
    const char *path = args_value(args, "output");
    struct buf page = BUF_INIT;
    struct report report;
    struct err err;
    int64_t job;
    int rc;

    if (!path)
        path = "report.html";
    if (client_read_job(args->words[0], &job, &err) < 0 ||
        report_gather(&report, client, job, &err) < 0)
        return client_fail(client, &err);
    rc = report_write(&page, &report, &err);
    if (rc == 0)
        rc = fs_write_file_atomic(path, buf_str(&page), page.n_bytes, &err);
    report_fini(&report);
    if (rc == 0)
        fprintf(client->out, "%s: %zu bytes\n", path, page.n_bytes);
    buf_fini(&page);
    return rc < 0 ? client_fail(client, &err) : EXIT_DONE;
}
