/* test_cuda_ops.c - the CUDA backend over host stand-ins (tests/cuda_host), against `ref`
 *
 * libvneva_cuda.so beside this program is made of the plugin's own sources. The order in
 * which the threads of a kernel run must not matter: a race shows as other bits.
 */
#include "tests/op/op_compare.h"

#include <stdlib.h>
#include <string.h>

static const char *const orders[] = {"forward", "reverse", "scrambled"};
#define N_ORDERS (sizeof(orders) / sizeof(orders[0]))

static struct backend *open_cuda(struct check *check, const char *order)
{
    struct backend *b = NULL;
    struct err err = {0};

    setenv("CUDA_HOST_ORDER", order, 1);
    check_that(check, backend_create(&b, "cuda", 0, 0, &err) == 0, "%s", err.text);
    return b;
}

static void every_operation_agrees_with_ref(struct check *check)
{
    struct backend *b = open_cuda(check, "forward");

    if (b)
        op_check_backend(check, b);
    backend_destroy(b);
}

static void bits_do_not_depend_on_the_order_of_threads(struct check *check)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    struct backend *b[N_ORDERS];

    for (size_t i = 0; i < N_ORDERS; i++)
        b[i] = open_cuda(check, orders[i]);
    for (int c = 0; c < op_n_cases && b[0] && b[1] && b[2]; c++)
        for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
            struct op_run want, got;

            op_run(&want, b[0], &op_cases[c], types[t]);
            for (size_t i = 1; i < N_ORDERS; i++) {
                op_run(&got, b[i], &op_cases[c], types[t]);
                check_that(check, !got.has_failed && op_has_same_bits(&want, &got),
                           "'%s' gives other bits with threads in order '%s'",
                           op_cases[c].name, orders[i]);
                op_run_free(&got);
            }
            op_run_free(&want);
        }
    for (size_t i = 0; i < N_ORDERS; i++)
        backend_destroy(b[i]);
}

/* More than the ring holds, while nobody waits for the device. */
static void host_memory_may_change_as_soon_as_an_upload_returns(struct check *check)
{
    enum { N = 3 << 20, TIMES = 5 };
    struct backend *b = open_cuda(check, "forward");
    float *host = malloc(N * sizeof(float));
    void *parts[TIMES];
    struct err err = {0};

    for (int i = 0; b && i < TIMES; i++) {
        for (int j = 0; j < N; j++)
            host[j] = (float)(i * N + j);
        check_that(check,
                   b->ops->alloc(b, &parts[i], N * sizeof(float), &err) == 0 &&
                       b->ops->upload(b, parts[i], host, N * sizeof(float), &err) == 0,
                   "%s", err.text);
        memset(host, 0, N * sizeof(float));
    }
    for (int i = 0; b && i < TIMES; i++) {
        int n_wrong = 0;

        check_that(check,
                   b->ops->download(b, host, parts[i], N * sizeof(float), &err) == 0,
                   "%s", err.text);
        for (int j = 0; j < N; j++)
            n_wrong += host[j] != (float)(i * N + j);
        check_that(check, n_wrong == 0, "%d wrong numbers in part %d", n_wrong, i);
        b->ops->free(b, parts[i]);
    }
    free(host);
    backend_destroy(b);
}

/* Ids are read when the kernel runs, which is after the caller has used the array again. */
static void indices_may_change_as_soon_as_an_operation_returns(struct check *check)
{
    struct backend *b = open_cuda(check, "forward");
    float host[6] = {1, 2, 3, 4, 5, 6}, out[6] = {0};
    int32_t rows[3] = {2, 0, 1};
    struct tensor x = {0}, y = {0};
    struct err err = {0};

    if (!b)
        return;
    check_that(check,
               backend_tensor(b, &x, DTYPE_F32, 2, (const int64_t[]){3, 2}, &err) == 0 &&
                   backend_tensor(b, &y, DTYPE_F32, 2, (const int64_t[]){3, 2}, &err) ==
                       0 &&
                   b->ops->upload(b, x.data, host, sizeof(host), &err) == 0 &&
                   b->ops->gather_rows(b, &y, &x, rows, 3, &err) == 0,
               "%s", err.text);
    memset(rows, 0x7f, sizeof(rows));
    check_that(check, b->ops->download(b, out, y.data, sizeof(out), &err) == 0, "%s",
               err.text);
    check_that(check, out[0] == 5 && out[2] == 1 && out[5] == 4, "rows came wrong");
    b->ops->free(b, x.data);
    b->ops->free(b, y.data);
    backend_destroy(b);
}

static void too_much_memory_is_an_error_that_says_what_would_help(struct check *check)
{
    struct backend *b = open_cuda(check, "forward");
    struct err err = {0};
    void *data;

    if (!b)
        return;
    setenv("CUDA_HOST_MEMORY", "100000000", 1);
    check_that(check,
               b->ops->alloc(b, &data, (size_t)1 << 30, &err) < 0 &&
                   err.code == ERR_NOMEM && strstr(err.text, "1024 MiB on GPU 0") &&
                   strstr(err.text, "smaller micro batch"),
               "'%s'", err.text);
    unsetenv("CUDA_HOST_MEMORY");
    check_that(check, b->ops->alloc(b, &data, 1000, &err) == 0, "%s", err.text);
    b->ops->free(b, data);
    check_that(check, b->ops->sync(b, &err) == 0, "%s", err.text);
    backend_destroy(b);
}

static void without_a_gpu_auto_takes_the_cpu(struct check *check)
{
    struct backend *b = NULL;
    struct err err = {0};

    setenv("CUDA_HOST_DEVICES", "0", 1);
    check_that(check,
               backend_create(&b, "cuda", 0, 1, &err) < 0 && err.code == ERR_UNSUPPORTED,
               "code %d: %s", (int)err.code, err.text);
    check_that(check, strstr(err.text, "no GPU is there") != NULL, "'%s'", err.text);
    check_that(check, backend_create(&b, "auto", 0, 1, &err) == 0 && b->ops->is_host,
               "%s", err.text);
    backend_destroy(b);
    setenv("CUDA_HOST_DEVICES", "2", 1);
    check_that(check,
               backend_create(&b, "cuda", 2, 1, &err) < 0 && err.code == ERR_INVALID &&
                   strstr(err.text, "there is no GPU 2"),
               "'%s'", err.text);
    check_that(check, backend_create(&b, "auto", 1, 1, &err) == 0 && !b->ops->is_host,
               "%s", err.text);
    backend_destroy(b);
    unsetenv("CUDA_HOST_DEVICES");
}

int main(void)
{
    struct check check = {0};

    check_run(&check, every_operation_agrees_with_ref);
    check_run(&check, bits_do_not_depend_on_the_order_of_threads);
    check_run(&check, host_memory_may_change_as_soon_as_an_upload_returns);
    check_run(&check, indices_may_change_as_soon_as_an_operation_returns);
    check_run(&check, too_much_memory_is_an_error_that_says_what_would_help);
    check_run(&check, without_a_gpu_auto_takes_the_cpu);
    return check_end(&check);
}
