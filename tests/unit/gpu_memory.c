/* What an agent says of its GPUs, over a library of the driver's name (fake_nvml.c). */
#include "worker/agent/gpu_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#define GIB ((int64_t)1 << 30)

static void every_rank_counts_on_the_smallest_gpu(void **state)
{
    (void)state;
    setenv("FAKE_NVML_DEVICES", "3", 1); /* of 80, 81 and 82 GiB */
    assert_int_equal(gpu_memory_bytes(1), 80 * GIB);
    assert_int_equal(gpu_memory_bytes(3), 240 * GIB);
    assert_int_equal(gpu_memory_bytes(8), 240 * GIB); /* ranks share them */
}

static void without_gpus_it_is_not_known(void **state)
{
    (void)state;
    setenv("FAKE_NVML_DEVICES", "0", 1);
    assert_int_equal(gpu_memory_bytes(2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_counts_on_the_smallest_gpu),
        cmocka_unit_test(without_gpus_it_is_not_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
