#include "model/tools/tool.h"

#include <stdio.h>

int tool_fail(const struct tool_command *command, const struct err *err)
{
    fprintf(stderr, "vneva %s: %s\n", command->said, err->text);
    return err_exit_status(err);
}

int tool_print_json(const struct json *json, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc;

    json_write(&text, json, 2);
    rc = buf_check(&text, err);
    if (rc == 0)
        puts(buf_str(&text));
    buf_fini(&text);
    return rc;
}

int tool_words(int argc, char **argv, int n, const char *what, struct err *err)
{
    if (argc - optind == n)
        return 0;
    if (argc - optind > n)
        return err_set(err, ERR_INVALID, "'%s' is one word too many: %s is expected",
                       argv[optind + n], what);
    return err_set(err, ERR_INVALID, "%s is expected", what);
}

const char *tool_size(char out[32], double n_bytes)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    int unit = 0;

    while (n_bytes >= 1000 && unit < 4) {
        n_bytes /= 1000;
        unit++;
    }
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", n_bytes, units[unit]);
    return out;
}
