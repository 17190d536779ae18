/* Which samples a step has: every one once an epoch, whatever the layout. */
#include "worker/rank/groups.h"
#include "worker/rank/order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_SAMPLES 37
#define GLOBAL 12
#define STEPS 40

struct split {
    int64_t micro, n_data;
};

static const struct split splits[] = {{12, 1}, {4, 1}, {1, 1}, {6, 2}, {3, 2},
                                      {1, 2},  {4, 3}, {2, 3}, {3, 4}, {1, 12}};
#define N_SPLITS (sizeof(splits) / sizeof(splits[0]))

static struct order make_order(const struct split *split, int64_t data_rank)
{
    return (struct order){.seed = 5,
                          .n_samples = N_SAMPLES,
                          .micro = split->micro,
                          .global = GLOBAL,
                          .data_rank = data_rank,
                          .n_data = split->n_data};
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* All samples of a step, gathered from the data ranks, in the order of the ranks. */
static void gather_step(const struct split *split, int64_t step, int64_t out[GLOBAL])
{
    int64_t n = 0;

    for (int64_t d = 0; d < split->n_data; d++) {
        struct order order = make_order(split, d);
        int64_t n_micro = order_n_micro(&order);

        for (int64_t m = 0; m < n_micro; m++, n += split->micro)
            order_train_batch(&order, step * n_micro + m, out + n);
    }
    assert_int_equal(n, GLOBAL);
}

static void samples_of_a_step_do_not_depend_on_the_layout(void **state)
{
    (void)state;
    for (int64_t step = 0; step < STEPS; step++) {
        int64_t first[GLOBAL], other[GLOBAL];

        gather_step(&splits[0], step, first);
        for (size_t s = 1; s < N_SPLITS; s++) {
            gather_step(&splits[s], step, other);
            assert_memory_equal(first, other, sizeof(first));
        }
    }
}

static void every_sample_comes_once_an_epoch(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SPLITS; s++) {
        int64_t all[STEPS * GLOBAL];

        for (int64_t step = 0; step < STEPS; step++)
            gather_step(&splits[s], step, all + step * GLOBAL);
        for (int64_t epoch = 0; epoch < STEPS * GLOBAL / N_SAMPLES; epoch++) {
            int64_t sorted[N_SAMPLES];

            memcpy(sorted, all + epoch * N_SAMPLES, sizeof(sorted));
            qsort(sorted, N_SAMPLES, sizeof(sorted[0]), compare);
            for (int64_t i = 0; i < N_SAMPLES; i++)
                assert_int_equal(sorted[i], i);
        }
    }
}

static void epochs_have_different_orders(void **state)
{
    struct order order = make_order(&splits[0], 0);
    int n_same = 0;

    (void)state;
    for (int64_t i = 0; i < N_SAMPLES; i++)
        n_same += order_sample(&order, i) == order_sample(&order, N_SAMPLES + i);
    assert_true(n_same < N_SAMPLES / 2);
}

static void validation_takes_every_sample_once(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SPLITS; s++) {
        int seen[N_SAMPLES] = {0};

        for (int64_t d = 0; d < splits[s].n_data; d++) {
            struct order order = make_order(&splits[s], d);
            int64_t numbers[GLOBAL], n;

            for (int64_t k = 0; (n = order_valid_batch(&order, k, numbers)) > 0; k++)
                for (int64_t i = 0; i < n; i++)
                    seen[numbers[i]]++;
        }
        for (int i = 0; i < N_SAMPLES; i++)
            assert_int_equal(seen[i], 1);
    }
}

static void layout_puts_tensor_ranks_side_by_side(void **state)
{
    struct layout layout;
    struct err err;

    (void)state;
    for (int64_t rank = 0; rank < 8; rank++) {
        assert_int_equal(layout_make(&layout, 8, rank, 2, &err), 0);
        assert_int_equal(layout.n_tensor, 2);
        assert_int_equal(layout.n_data, 4);
        assert_int_equal(layout.tensor_rank, rank % 2);
        assert_int_equal(layout.data_rank, rank / 2);
        assert_int_equal(layout_rank(&layout, layout.data_rank, layout.tensor_rank),
                         rank);
    }
}

static void ranks_that_do_not_divide_are_refused(void **state)
{
    struct layout layout;
    struct err err;

    (void)state;
    assert_int_equal(layout_make(&layout, 3, 0, 2, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.text, "tensor_model_parallel_size"));
    assert_int_equal(layout_make(&layout, 2, 2, 1, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_of_a_step_do_not_depend_on_the_layout),
        cmocka_unit_test(every_sample_comes_once_an_epoch),
        cmocka_unit_test(epochs_have_different_orders),
        cmocka_unit_test(validation_takes_every_sample_once),
        cmocka_unit_test(layout_puts_tensor_ranks_side_by_side),
        cmocka_unit_test(ranks_that_do_not_divide_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
