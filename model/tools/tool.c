#include "model/tools/tool.h"

#include <stdio.h>

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
