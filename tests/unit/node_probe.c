/* What preflight looks at: files and folders, also ones that do not answer. */
#include "common/base/fs.h"
#include "slurm/node/probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PROBE_MS 300
#define ENOUGH_MS 30000
#define NOBODY 65534

/* Who opens a pipe that nobody writes to waits, as on a file server that is gone. */
static void what_does_not_answer_is_told_and_not_waited_for(void **state)
{
    const char *tmp = getenv("TMPDIR");
    char folder[200], fifo[220], fresh[220], text[] = "nonce";
    struct probe probes[] = {{.kind = PROBE_READ, .path = folder},
                             {.kind = PROBE_WRITE, .path = fresh, .text = text},
                             {.kind = PROBE_EQUALS, .path = fresh, .text = text},
                             {.kind = PROBE_EQUALS, .path = fresh, .text = fifo},
                             {.kind = PROBE_READ, .path = fifo},
                             {.kind = PROBE_READ, .path = folder}};
    struct err err;

    (void)state;
    snprintf(folder, sizeof(folder), "%s/vneva-probe-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(fifo, sizeof(fifo), "%s/pipe", folder);
    snprintf(fresh, sizeof(fresh), "%s/a/b", folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(probe_all(probes, 6, PROBE_MS, &err), 0);
    for (int i = 0; i < 3; i++)
        assert_string_equal(probes[i].why, "");
    assert_string_equal(probes[3].why, "it holds something else");
    assert_string_equal(probes[4].why, "it does not answer within 0.3 s");
    assert_non_null(strstr(probes[5].why, "not looked at"));
    assert_int_equal(fs_remove_tree(folder, &err), 0);
}

static void what_is_in_a_file_or_folder_gives_its_print(void **state)
{
    const char *tmp = getenv("TMPDIR");
    char folder[200], a[220], b[220], nowhere[240], text[200000];
    struct probe probes[] = {{.kind = PROBE_READ, .path = a},
                             {.kind = PROBE_READ, .path = b},
                             {.kind = PROBE_READ, .path = folder},
                             {.kind = PROBE_MAKE, .path = nowhere},
                             {.kind = PROBE_MAKE, .path = a}};
    struct err err;

    (void)state;
    snprintf(folder, sizeof(folder), "%s/vneva-probe-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(a, sizeof(a), "%s/a", folder);
    snprintf(b, sizeof(b), "%s/b", folder);
    snprintf(nowhere, sizeof(nowhere), "%s/x/y", folder);
    memset(text, 'x', sizeof(text));
    assert_int_equal(fs_write_file_atomic(a, text, sizeof(text), &err), 0);
    text[sizeof(text) - 1] = 'y';
    assert_int_equal(fs_write_file_atomic(b, text, sizeof(text), &err), 0);
    assert_int_equal(probe_all(probes, 5, ENOUGH_MS, &err), 0);
    assert_int_equal(probes[0].n_bytes, sizeof(text));
    assert_int_equal(probes[0].n_entries, -1);
    assert_int_equal(probes[1].n_bytes, sizeof(text));
    assert_true(probes[0].print != probes[1].print); /* they differ in the last byte */
    assert_int_equal(probes[2].n_bytes, -1);
    assert_int_equal(probes[2].n_entries, 2);
    assert_true(probes[2].print != 0);
    assert_int_equal(probes[3].n_bytes, strlen(folder));
    assert_int_equal(probes[4].n_bytes, strlen(folder));
    assert_int_equal(fs_remove_tree(folder, &err), 0);
}

/* Root may list everything, so it asks as somebody else. */
static void a_folder_that_cannot_be_listed_is_told(void **state)
{
    const char *tmp = getenv("TMPDIR");
    const uid_t me = geteuid();
    char folder[200], closed[220];
    struct probe probe = {.kind = PROBE_READ, .path = closed};
    struct err err;

    (void)state;
    snprintf(folder, sizeof(folder), "%s/vneva-probe-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0755), 0);
    snprintf(closed, sizeof(closed), "%s/closed", folder);
    assert_int_equal(mkdir(closed, 0), 0);
    assert_int_equal(me == 0 ? seteuid(NOBODY) : 0, 0);
    assert_int_equal(probe_all(&probe, 1, ENOUGH_MS, &err), 0);
    assert_int_equal(me == 0 ? seteuid(me) : 0, 0);
    assert_string_equal(probe.why, "cannot list it: Permission denied");
    assert_int_equal(fs_remove_tree(folder, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_answer_is_told_and_not_waited_for),
        cmocka_unit_test(what_is_in_a_file_or_folder_gives_its_print),
        cmocka_unit_test(a_folder_that_cannot_be_listed_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
