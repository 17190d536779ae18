#include "model/backend/ref/ref.h"

#include "model/backend/rope.h"

#include <math.h>

/* Su et al. 2021, "RoFormer", with the halves paired as Hugging Face's LLaMA pairs them
 * (modeling_llama.py, rotate_half):
 *   x'[i]     = x[i] cos(a) - x[i + r/2] sin(a)
 *   x'[i+r/2] = x[i + r/2] cos(a) + x[i] sin(a),   a = position f(i), i < r/2
 * f is rope_frequency. The inverse turns by -a, which is also the transpose: the backward pass. */
static void rotate_head(struct tensor *x, int64_t start, double position,
                        const struct rope_args *args, double sign)
{
    int64_t r = args->rot_dims;

    for (int64_t i = 0; i < r / 2; i++) {
        double angle = position * rope_frequency(args, i);
        double c = cos(angle), s = sign * sin(angle);
        double x0 = ref_get(x, start + i), x1 = ref_get(x, start + i + r / 2);

        ref_put(x, start + i, x0 * c - x1 * s);
        ref_put(x, start + i + r / 2, x1 * c + x0 * s);
    }
}

int ref_rope(struct backend *b, struct tensor *x, int64_t n_heads,
             const struct tensor *positions, const struct rope_args *args, bool inverse,
             struct err *err)
{
    int64_t head_size = x->dims[x->n_dims - 1];
    int64_t n_heads_all = x->dims[x->n_dims - 2];
    int64_t n_rows = tensor_count(x) / (n_heads_all * head_size);
    const int32_t *position = positions->data;

    (void)b;
    (void)err;
    for (int64_t n = 0; n < n_rows; n++)
        for (int64_t h = 0; h < n_heads; h++)
            rotate_head(x, (n * n_heads_all + h) * head_size, position[n], args,
                        inverse ? -1 : 1);
    return 0;
}
