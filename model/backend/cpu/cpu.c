#include "model/backend/cpu/cpu.h"

#include "model/backend/cpu/cpu_ops.h"
#include "model/backend/cpu/onednn.h"
#include "model/backend/create.h"
#include "model/backend/half.h"
#include "model/backend/host_memory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 1024

static void cpu_destroy(struct backend *b)
{
    struct cpu *cpu = cpu_of(b);

    onednn_destroy(cpu->onednn);
    host_free(b, cpu->scratch);
    free(cpu->rope);
    free(cpu);
}

static bool cpu_is_fast(const struct backend *b, enum dtype dtype)
{
    const struct cpu *cpu = (const struct cpu *)b;

    return dtype == DTYPE_F32 || (dtype == DTYPE_BF16 && onednn_has_bf16(cpu->onednn));
}

static const struct backend_ops cpu_ops = {
    .name = "cpu",
    .is_host = true,
    .destroy = cpu_destroy,
    .is_fast = cpu_is_fast,
    .alloc = host_alloc,
    .free = host_free,
    .memory = host_memory,
    .upload = host_copy,
    .download = host_copy,
    .download_begin = host_copy,
    .download_end = host_download_end,
    .copy = host_copy,
    .zero = host_zero,
    .sync = host_sync,
    .matmul = cpu_matmul,
    .bias_bwd = cpu_bias_bwd,
    .layernorm_fwd = cpu_layernorm_fwd,
    .add_layernorm_fwd = cpu_add_layernorm_fwd,
    .layernorm_bwd = cpu_layernorm_bwd,
    .rmsnorm_fwd = cpu_rmsnorm_fwd,
    .add_rmsnorm_fwd = cpu_add_rmsnorm_fwd,
    .rmsnorm_bwd = cpu_rmsnorm_bwd,
    .rope = cpu_rope,
    .attention_fwd = cpu_attention_fwd,
    .attention_bwd = cpu_attention_bwd,
    .act_fwd = cpu_act_fwd,
    .act_bwd = cpu_act_bwd,
    .swiglu_fwd = cpu_swiglu_fwd,
    .swiglu_bwd = cpu_swiglu_bwd,
    .add = cpu_add,
    .scale = cpu_scale,
    .cast = cpu_cast,
    .embed_fwd = cpu_embed_fwd,
    .embed_bwd = cpu_embed_bwd,
    .scatter_rows = cpu_scatter_rows,
    .gather_rows = cpu_gather_rows,
    .patchify = cpu_patchify,
    .xent_max = cpu_xent_max,
    .xent_sum = cpu_xent_sum,
    .xent_bwd = cpu_xent_bwd,
    .xent_total = cpu_xent_total,
    .argmax = cpu_argmax,
    .sample = cpu_sample,
    .sum_squares = cpu_sum_squares,
    .judge = cpu_judge,
    .adamw = cpu_adamw,
};

/* As many as asked for; for 0, as many as there are processors. */
static int choose_threads(int n_threads)
{
    long n = n_threads > 0 ? n_threads : sysconf(_SC_NPROCESSORS_ONLN);

    if (n < 1)
        n = 1;
    return n < THREADS_MAX ? (int)n : THREADS_MAX;
}

int cpu_create(struct backend **out, int n_threads, const char *level, struct err *err)
{
    struct cpu *cpu = calloc(1, sizeof(*cpu));

    if (!cpu)
        return err_set(err, ERR_NOMEM, "cannot allocate backend 'cpu'");
    cpu->base.ops = &cpu_ops;
    cpu->n_threads = choose_threads(n_threads);
    cpu->kern = kern_find(level);
    if (!cpu->kern) {
        err_set(err, ERR_UNSUPPORTED, "this machine has no instruction set '%s'", level);
        goto fail;
    }
    if (onednn_create(&cpu->onednn, cpu->n_threads, err) < 0) {
        err_wrap(err, "cannot create backend 'cpu'");
        goto fail;
    }
    *out = &cpu->base;
    return 0;
fail:
    cpu_destroy(&cpu->base);
    return -1;
}

int backend_cpu_create(struct backend **out, int n_threads, struct err *err)
{
    return cpu_create(out, n_threads, NULL, err);
}

void cpu_parallel(const struct cpu *cpu, int64_t n, int64_t grain, cpu_part_fn *part,
                  void *context)
{
    int64_t wanted = n / (grain > 0 ? grain : 1);
    int n_threads = wanted < cpu->n_threads ? (int)wanted : cpu->n_threads;

    if (n <= 0)
        return;
    if (n_threads <= 1) {
        part(context, 0, n, 0);
        return;
    }
    /* a loop over shares, not the thread's number: a runtime may give fewer threads */
#pragma omp parallel for schedule(static, 1) num_threads(n_threads)
    for (int t = 0; t < n_threads; t++)
        part(context, n * t / n_threads, n * (t + 1) / n_threads, t);
}

int cpu_scratch(struct cpu *cpu, int64_t n_shared, int64_t n_each,
                struct cpu_scratch *out, struct err *err)
{
    int64_t shared = (n_shared + 15) / 16 * 16;
    int64_t stride = (n_each + 15) / 16 * 16;
    size_t n = (size_t)(shared + stride * cpu->n_threads);
    void *grown;

    if (n > cpu->scratch_floats) {
        host_free(&cpu->base, cpu->scratch);
        cpu->scratch = NULL;
        cpu->scratch_floats = 0;
        if (host_alloc(&cpu->base, &grown, n * sizeof(float), err) < 0)
            return err_wrap(err, "scratch of backend 'cpu'");
        cpu->scratch = grown;
        cpu->scratch_floats = n;
    }
    *out = (struct cpu_scratch){cpu->scratch, cpu->scratch + shared, stride};
    return 0;
}

const float *cpu_read(const struct cpu *cpu, const struct tensor *x, int64_t first,
                      int64_t n, float *buf)
{
    switch (x->dtype) {
    case DTYPE_F32:
        return (const float *)x->data + first;
    case DTYPE_BF16:
        cpu->kern->convert->from_bf16(buf, (const uint16_t *)x->data + first, n);
        break;
    case DTYPE_F16:
        cpu->kern->convert->from_f16(buf, (const uint16_t *)x->data + first, n);
        break;
    case DTYPE_I32:
        for (int64_t i = 0; i < n; i++)
            buf[i] = (float)((const int32_t *)x->data)[first + i];
        break;
    case DTYPE_U8:
        for (int64_t i = 0; i < n; i++)
            buf[i] = (float)((const uint8_t *)x->data)[first + i];
        break;
    }
    return buf;
}

void cpu_write(const struct cpu *cpu, const struct tensor *y, int64_t first, int64_t n,
               const float *values)
{
    if (y->dtype == DTYPE_BF16)
        cpu->kern->convert->to_bf16((uint16_t *)y->data + first, values, n);
    else if (y->dtype == DTYPE_F16)
        cpu->kern->convert->to_f16((uint16_t *)y->data + first, values, n);
    else if (values != (const float *)y->data + first)
        memcpy((float *)y->data + first, values, (size_t)n * sizeof(float));
}
