#include "worker/rank/order.h"

#include "common/base/rng.h"

int64_t order_n_micro(const struct order *order)
{
    return order->global / (order->micro * order->n_data);
}

int64_t order_sample(const struct order *order, int64_t position)
{
    uint64_t n = (uint64_t)order->n_samples, p = (uint64_t)position;

    return (int64_t)rng_permute(order->seed, p / n, p % n, n);
}

void order_train_batch(const struct order *order, int64_t k, int64_t *out)
{
    int64_t n_micro = order_n_micro(order);
    int64_t step = k / n_micro, m = k % n_micro;
    int64_t first =
        step * order->global + (order->data_rank * n_micro + m) * order->micro;

    for (int64_t i = 0; i < order->micro; i++)
        out[i] = order_sample(order, first + i);
}

int64_t order_valid_batch(const struct order *order, int64_t k, int64_t *out)
{
    int64_t first = (k * order->n_data + order->data_rank) * order->micro;
    int64_t count = 0;

    while (count < order->micro && first + count < order->n_samples) {
        out[count] = first + count;
        count++;
    }
    return count;
}
