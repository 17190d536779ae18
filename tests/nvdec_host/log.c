#include "tests/nvdec_host/log.h"

#include "tests/integration/media_clips.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void nvdec_log_start(void)
{
    char path[CLIP_PATH_BYTES];

    clip_path(path, "log");
    setenv("NVDEC_HOST_LOG", path, 1);
}

void nvdec_log_clear(void)
{
    remove(getenv("NVDEC_HOST_LOG"));
}

int nvdec_log_count(const char *what)
{
    FILE *file = fopen(getenv("NVDEC_HOST_LOG"), "r");
    char line[64];
    int n = 0;

    while (file && fgets(line, sizeof(line), file))
        n += strncmp(line, what, strlen(what)) == 0;
    if (file)
        fclose(file);
    return n;
}
