#include "model/backend/ref/ref.h"

#include "model/backend/create.h"
#include "model/backend/host_memory.h"

#include <stdlib.h>

static void ref_destroy(struct backend *b)
{
    free(b);
}

static bool ref_is_fast(const struct backend *b, enum dtype dtype)
{
    (void)b;
    (void)dtype;
    return false;
}

static const struct backend_ops ref_ops = {
    .name = "ref",
    .is_host = true,
    .destroy = ref_destroy,
    .is_fast = ref_is_fast,
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
    .matmul = ref_matmul,
    .bias_bwd = ref_bias_bwd,
    .layernorm_fwd = ref_layernorm_fwd,
    .add_layernorm_fwd = ref_add_layernorm_fwd,
    .layernorm_bwd = ref_layernorm_bwd,
    .rmsnorm_fwd = ref_rmsnorm_fwd,
    .add_rmsnorm_fwd = ref_add_rmsnorm_fwd,
    .rmsnorm_bwd = ref_rmsnorm_bwd,
    .rope = ref_rope,
    .attention_fwd = ref_attention_fwd,
    .attention_bwd = ref_attention_bwd,
    .act_fwd = ref_act_fwd,
    .act_bwd = ref_act_bwd,
    .swiglu_fwd = ref_swiglu_fwd,
    .swiglu_bwd = ref_swiglu_bwd,
    .add = ref_add,
    .scale = ref_scale,
    .cast = ref_cast,
    .embed_fwd = ref_embed_fwd,
    .embed_bwd = ref_embed_bwd,
    .scatter_rows = ref_scatter_rows,
    .gather_rows = ref_gather_rows,
    .patchify = ref_patchify,
    .xent_max = ref_xent_max,
    .xent_sum = ref_xent_sum,
    .xent_bwd = ref_xent_bwd,
    .xent_total = ref_xent_total,
    .argmax = ref_argmax,
    .sample = ref_sample,
    .sum_squares = ref_sum_squares,
    .judge = ref_judge,
    .adamw = ref_adamw,
};

int backend_ref_create(struct backend **out, struct err *err)
{
    struct backend *b = calloc(1, sizeof(*b));

    if (!b)
        return err_set(err, ERR_NOMEM, "cannot allocate backend 'ref'");
    b->ops = &ref_ops;
    *out = b;
    return 0;
}
