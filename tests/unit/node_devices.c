#include "slurm/node/devices.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct devices decide(const struct devices_facts *facts)
{
    struct devices devices;
    struct err err;

    if (devices_decide(&devices, facts, &err) < 0)
        fail_msg("%s", err.text);
    return devices;
}

static void expect(struct devices_facts facts, int64_t n, bool are_gpus,
                   const char *visible)
{
    struct devices devices;

    if (!facts.n_local)
        facts.n_local = 1;
    devices = decide(&facts);
    assert_int_equal(devices.n, n);
    assert_int_equal(devices.are_gpus, are_gpus);
    assert_string_equal(devices.visible, visible);
}

static void what_was_asked_for_wins(void **state)
{
    (void)state;
    expect((struct devices_facts){.asked = 3, .n_spec = 8}, 3, false, "");
    expect((struct devices_facts){.asked = 3, .n_said = 8}, 3, true, "");
}

static void without_gpus_the_job_says_how_many(void **state)
{
    (void)state;
    expect((struct devices_facts){.n_spec = 4}, 4, false, "");
    expect((struct devices_facts){0}, 1, false, "");
}

static void one_on_each_gpu(void **state)
{
    (void)state;
    expect((struct devices_facts){.n_files = 8, .n_spec = 2}, 8, true, "");
    expect((struct devices_facts){.n_files = 8, .n_said = 4}, 4, true, "");
    expect((struct devices_facts){.n_files = 8, .n_said = 4, .visible = "1,GPU-ab"}, 2,
           true, "");
}

static void a_list_ends_at_what_is_no_device(void **state)
{
    (void)state;
    expect((struct devices_facts){.visible = "0,-1,2"}, 1, true, "");
    expect((struct devices_facts){.visible = "-1", .n_files = 8, .n_spec = 2}, 2, false,
           "");
    expect((struct devices_facts){.visible = "", .n_files = 8}, 1, false, "");
    expect((struct devices_facts){.visible = "NoDevFiles", .n_said = 8}, 1, false, "");
}

static void programs_of_one_host_share_its_gpus(void **state)
{
    (void)state;
    expect((struct devices_facts){.n_files = 8, .local = 1, .n_local = 2}, 4, true,
           "4,5,6,7");
    expect((struct devices_facts){.visible = "GPU-a,GPU-b,GPU-c,GPU-d",
                                  .local = 1,
                                  .n_local = 2},
           2, true, "GPU-c,GPU-d");
    /* more programs than GPUs: they take turns */
    expect((struct devices_facts){.n_files = 2, .local = 3, .n_local = 4}, 1, true, "1");
    /* CPUs are divided by the ranks themselves */
    expect((struct devices_facts){.n_spec = 2, .local = 1, .n_local = 2}, 2, false, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_asked_for_wins),
        cmocka_unit_test(without_gpus_the_job_says_how_many),
        cmocka_unit_test(one_on_each_gpu),
        cmocka_unit_test(a_list_ends_at_what_is_no_device),
        cmocka_unit_test(programs_of_one_host_share_its_gpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
