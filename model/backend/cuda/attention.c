#include "model/backend/cuda/attention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHOICE_VARIABLE "VNEVA_CUDA_ATTENTION"

static int read_choice(enum attention_choice *out, struct err *err)
{
    static const char *const names[] = {
        [ATTENTION_AUTO] = "auto",
        [ATTENTION_OWN] = "own",
        [ATTENTION_CUDNN] = "cudnn",
        [ATTENTION_CUDNN_ANY_ORDER] = "cudnn-any-order",
    };
    const char *name = getenv(CHOICE_VARIABLE);

    *out = ATTENTION_AUTO;
    if (!name || !name[0])
        return 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum attention_choice)i;
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "unknown attention '%s' in " CHOICE_VARIABLE
                   ": auto, own, cudnn and cudnn-any-order are known",
                   name);
}

int cuda_attention_init(struct cuda *cuda, struct err *err)
{
    cuda->attention = "";
    if (read_choice(&cuda->attention_choice, err) < 0)
        return -1;
#ifdef VNEVA_HAVE_CUDNN
    return sdpa_init(cuda, err);
#else
    return 0;
#endif
}

void cuda_attention_fini(struct cuda *cuda)
{
#ifdef VNEVA_HAVE_CUDNN
    sdpa_fini(cuda);
#else
    (void)cuda;
#endif
}

void cuda_attention_about(const struct cuda *cuda, char *out, size_t n_bytes)
{
#ifdef VNEVA_HAVE_CUDNN
    sdpa_about(cuda, out, n_bytes);
#else
    (void)cuda;
    snprintf(out, n_bytes, "no cuDNN");
#endif
}

static struct attention_shape shape_of(const struct tensor *q, const struct tensor *k,
                                       const struct attention_args *args)
{
    return (struct attention_shape){
        .b = q->dims[0],
        .tq = q->dims[1],
        .tk = k->dims[1],
        .h = args->n_heads,
        .g = args->n_kv_heads,
        .k = q->dims[2] / args->n_heads,
        .q_stride = args->q_stride ? args->q_stride : q->dims[2],
        .kv_stride = args->kv_stride ? args->kv_stride : k->dims[2],
        .lens = args->kv_lens ? args->kv_lens->data : NULL,
        .scale = args->scale,
        .is_causal = args->causal,
        .one_off = args->one_off,
    };
}

/* cuDNN where it is there and does the case, else own kernels. */
static int run(struct cuda *cuda, const struct attention_shape *shape,
               const struct attention_tensors *x, bool is_bwd, struct err *err)
{
#ifdef VNEVA_HAVE_CUDNN
    bool is_done = false;

    cuda->attention = "cuDNN";
    if (cuda->attention_choice != ATTENTION_OWN &&
        sdpa_run(cuda, &is_done, shape, x, is_bwd, err) < 0)
        return -1;
    if (is_done)
        return 0;
#endif
    cuda->attention = "own kernels";
    return (is_bwd ? kernel_attention_bwd : kernel_attention_fwd)(cuda, shape, x, err);
}

int cuda_attention_fwd(struct backend *b, struct tensor *o, struct tensor *lse,
                       const struct tensor *q, const struct tensor *k,
                       const struct tensor *v, const struct attention_args *args,
                       struct err *err)
{
    struct attention_tensors x = {.o = o, .lse = lse, .q = q, .k = k, .v = v};
    struct attention_shape shape;

    if (tensor_count(q) == 0)
        return 0;
    shape = shape_of(q, k, args);
    return run(cuda_of(b), &shape, &x, false, err);
}

int cuda_attention_bwd(struct backend *b, struct tensor *dq, struct tensor *dk,
                       struct tensor *dv, const struct tensor *d_o,
                       const struct tensor *q, const struct tensor *k,
                       const struct tensor *v, const struct tensor *o,
                       const struct tensor *lse, const struct attention_args *args,
                       struct err *err)
{
    struct tensor o_read = *o, lse_read = *lse;
    struct attention_tensors x = {.o = &o_read,
                                  .lse = &lse_read,
                                  .dq = dq,
                                  .dk = dk,
                                  .dv = dv,
                                  .d_o = d_o,
                                  .q = q,
                                  .k = k,
                                  .v = v};
    struct attention_shape shape;

    if (tensor_count(q) == 0)
        return 0;
    shape = shape_of(q, k, args);
    return run(cuda_of(b), &shape, &x, true, err);
}
