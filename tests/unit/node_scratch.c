/* Folders of node programs that begin and end beside each other, and those that were left. */
#include "slurm/node/scratch.h"

#include "tests/op/expect.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN 8
#define TIMES 300

static char parent[] = "/tmp/vneva-scratch-XXXXXX";

static int count_entries(void)
{
    DIR *folder = opendir(parent);
    const struct dirent *entry;
    int n = 0;

    while (folder && (entry = readdir(folder)) != NULL)
        n += entry->d_name[0] != '.';
    if (folder)
        closedir(folder);
    return n;
}

static bool can_write(const struct scratch *scratch)
{
    char path[FS_PATH_MAX];
    FILE *file;

    if (fs_path(path, NULL, "%s/key", scratch->path) < 0)
        return false;
    file = fopen(path, "w");
    return file && fclose(file) == 0;
}

/* Status 1: could not begin; 2: the folder went while it was in use. */
static void begin_and_end(void)
{
    for (int i = 0; i < TIMES; i++) {
        struct scratch scratch = {.lock = -1};
        struct err err = {0};

        if (scratch_open(&scratch, &err) < 0) {
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
        if (!can_write(&scratch))
            _exit(2);
        scratch_close(&scratch);
    }
    _exit(0);
}

static void none_loses_its_folder_to_another_that_begins(void)
{
    int status, n_wrong = 0;

    for (int i = 0; i < CHILDREN; i++)
        if (fork() == 0)
            begin_and_end();
    for (int i = 0; i < CHILDREN; i++) {
        EXPECT(wait(&status) > 0);
        n_wrong += status != 0;
    }
    EXPECT_MSG(n_wrong == 0, "%d of %d could not begin or lost theirs", n_wrong,
               CHILDREN);
    EXPECT(count_entries() == 0);
}

static void that_of_a_killed_one_goes_with_the_next(void)
{
    struct scratch scratch = {.lock = -1};
    struct err err = {0};
    int status;

    if (fork() == 0) {
        _exit(scratch_open(&scratch, &err) < 0); /* and its lock ends with it */
    }
    EXPECT(wait(&status) > 0 && status == 0);
    EXPECT(count_entries() == 1);
    EXPECT_OK(scratch_open(&scratch, &err), &err);
    EXPECT(count_entries() == 1 && can_write(&scratch));
    scratch_close(&scratch);
    EXPECT(count_entries() == 0);
}

int main(void)
{
    if (!mkdtemp(parent) || setenv("TMPDIR", parent, 1) < 0)
        return 1;
    EXPECT_RUN(none_loses_its_folder_to_another_that_begins);
    EXPECT_RUN(that_of_a_killed_one_goes_with_the_next);
    rmdir(parent);
    return expect_end();
}
