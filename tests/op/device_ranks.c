#include "tests/op/device_ranks.h"

#include "model/nn/nn.h"
#include "tests/op/expect.h"

#include <pthread.h>
#include <stdlib.h>

static void *rank_main(void *arg)
{
    struct device_rank *rank = arg;
    struct err err = {0};

    if (EXPECT_OK(nn_open_group(rank->b, rank->comm, &err), &err) &&
        EXPECT_OK(nn_open_group(rank->b, rank->second, &err), &err))
        rank->body(rank);
    return NULL;
}

void device_ranks_run_main(int n_ranks, int n_devices, int64_t timeout_ms,
                           void *(*thread)(void *rank),
                           void (*body)(struct device_rank *rank))
{
    struct comm *comms[DEVICE_RANKS_MAX], *seconds[DEVICE_RANKS_MAX];
    struct device_rank ranks[DEVICE_RANKS_MAX];
    pthread_t threads[DEVICE_RANKS_MAX];
    struct err err = {0};
    char text[16];

    snprintf(text, sizeof(text), "%d", n_devices);
    setenv("CUDA_HOST_DEVICES", text, 1);
    EXPECT_OK(comm_create_threads(comms, "tensor", n_ranks, timeout_ms, &err), &err);
    EXPECT_OK(comm_create_threads(seconds, "data", n_ranks, timeout_ms, &err), &err);
    for (int i = 0; i < n_ranks; i++) {
        ranks[i] = (struct device_rank){i, n_ranks, comms[i], seconds[i], NULL, body};
        EXPECT_OK(backend_create(&ranks[i].b, "cuda", i % n_devices, 1, &err), &err);
    }
    for (int i = 0; i < n_ranks; i++)
        EXPECT(pthread_create(&threads[i], NULL, thread, &ranks[i]) == 0);
    for (int i = 0; i < n_ranks; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < n_ranks; i++) {
        if (i % 2)
            comm_destroy(ranks[i].comm);
        backend_destroy(ranks[i].b);
        if (i % 2 == 0)
            comm_destroy(ranks[i].comm);
        comm_destroy(ranks[i].second);
    }
}

void device_ranks_run(int n_ranks, int n_devices, int64_t timeout_ms,
                      void (*body)(struct device_rank *rank))
{
    device_ranks_run_main(n_ranks, n_devices, timeout_ms, rank_main, body);
}

void device_ranks_fill(float *x, int64_t n, int rank)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((i * 7 + rank * 13) % 101 - 50);
}

struct tensor device_ranks_tensor(struct device_rank *rank, int64_t n)
{
    struct tensor x = {0};
    struct err err = {0};
    float host[DEVICE_RANKS_NUMBERS_MAX];

    device_ranks_fill(host, n, rank->rank);
    EXPECT_OK(backend_tensor(rank->b, &x, DTYPE_F32, 1, &n, &err), &err);
    EXPECT_OK(rank->b->ops->upload(rank->b, x.data, host, tensor_bytes(&x), &err), &err);
    return x;
}
