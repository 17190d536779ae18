/* test_op_ref.c - `ref` against values worked out independently, roundings, creation */
#include "model/backend/backend.h"
#include "model/backend/half.h"
#include "model/backend/rope.h"
#include "tests/op/check.h"

#include <stdlib.h>
#include <string.h>

static struct backend *open_ref(void)
{
    struct backend *b;

    if (backend_create(&b, "ref", 0, 1, NULL) < 0)
        abort(); /* a few bytes: the machine is unusable */
    return b;
}

#define VIEW(array, ...)                                                                 \
    tensor_of(array, DTYPE_F32,                                                          \
              (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                 \
              (const int64_t[]){__VA_ARGS__})

/* ---- roundings ---- */

/* The nearest of all 65,536 is found by trying the neighbours of what was returned. */
static bool is_nearest(float x, uint16_t got, float (*value)(uint16_t), uint16_t infinity)
{
    double error = fabs((double)value(got) - x);

    for (int step = -1; step <= 1; step += 2) {
        uint16_t other = (uint16_t)(got + step);
        double distance = fabs((double)value(other) - x);

        if ((other & 0x7fffU) > infinity || isnan(distance))
            continue;
        if (distance < error || (distance == error && (got & 1) && !(other & 1)))
            return false;
    }
    return true;
}

static void halves_round_to_nearest_even(struct check *check)
{
    int n_bad[4] = {0};

    for (uint32_t h = 0; h < 0x7f80; h++) { /* every finite bf16 comes back */
        n_bad[0] += bf16_of_float(bf16_to_float((uint16_t)h)) != h;
        if (h < 0x7c00) {
            float x = f16_to_float((uint16_t)h);
            float next = f16_to_float((uint16_t)(h + 1));

            n_bad[1] += f16_of_float(x) != h;
            if (h + 1 < 0x7c00) { /* and half way between two goes to the even one */
                uint16_t even = (uint16_t)(h + (h & 1));

                n_bad[2] += f16_of_float(x + (next - x) / 2) != even;
                n_bad[3] += !is_nearest(x + (next - x) * 0.4F, f16_of_float(x),
                                        f16_to_float, 0x7bff);
            }
        }
    }
    check_that(check, n_bad[0] == 0, "%d bf16 values do not come back", n_bad[0]);
    check_that(check, n_bad[1] == 0, "%d fp16 values do not come back", n_bad[1]);
    check_that(check, n_bad[2] == 0, "%d fp16 ties do not go to even", n_bad[2]);
    check_that(check, n_bad[3] == 0, "%d fp16 values are not nearest", n_bad[3]);
    check_that(check, bf16_of_float(0x1.01p0F) == 0x3f80,
               "a bf16 tie goes to even, down");
    check_that(check, bf16_of_float(0x1.03p0F) == 0x3f82, "a bf16 tie goes to even, up");
    check_that(check, isnan(bf16_to_float(bf16_of_float(NAN))), "NaN stays NaN in bf16");
    check_that(check, isnan(f16_to_float(f16_of_float(NAN))), "NaN stays NaN in fp16");
    check_that(check, f16_of_float(65520) == 0x7c00, "fp16 overflows to infinity");
    check_that(check, f16_of_float(65519) == 0x7bff, "fp16 keeps its largest value");
    check_that(check, f16_of_float(-0x1p-25F) == 0x8000, "half the smallest fp16 is -0");
}

/* ---- operations ---- */

static void matmul_is_the_textbook_product(struct check *check)
{
    struct backend *b = open_ref();
    float a_data[6] = {1, 2, 3, 4, 5, 6}, b_data[6] = {7, 8, 9, 10, 11, 12};
    float c_data[4] = {100, 200, 300, 400}, bias_data[2] = {0.5F, -0.5F};
    struct tensor a = VIEW(a_data, 2, 3), bb = VIEW(b_data, 3, 2), c = VIEW(c_data, 2, 2);
    struct tensor bias = VIEW(bias_data, 2);
    struct matmul_args args = {.beta = 1, .bias = &bias};
    const float want[4] = {158.5F, 263.5F, 439.5F, 553.5F};

    b->ops->matmul(b, &c, &a, &bb, &args, NULL);
    for (int i = 0; i < 4; i++)
        check_near(check, c_data[i], want[i], 0, "element of c");
    backend_destroy(b);
}

/* x = 1, from tables of the normal distribution and of the logistic function */
static void activations_have_their_known_values(struct check *check)
{
    static const struct {
        enum activation act;
        double y;
    } known[] = {{ACT_NONE, 1},
                 {ACT_GELU, 0.841344746068543},
                 {ACT_GELU_TANH, 0.841191990607477},
                 {ACT_QUICK_GELU, 0.845795766},
                 {ACT_RELU_SQUARED, 1}};
    struct backend *b = open_ref();
    float x_data[2] = {1, -2}, y_data[2];
    struct tensor x = VIEW(x_data, 2), y = VIEW(y_data, 2);

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        b->ops->act_fwd(b, &y, &x, known[i].act, NULL);
        check_near(check, y_data[0], known[i].y, 1e-6, "activation of 1");
    }
    check_near(check, y_data[1], 0, 0, "squared ReLU of -2");
    backend_destroy(b);
}

static void norms_give_unit_rows(struct check *check)
{
    struct backend *b = open_ref();
    float x_data[4] = {1, 2, 3, 6}, y_data[4], mean_data[1], rstd_data[1];
    float w_data[4] = {1, 1, 1, 1}, bias_data[4] = {0};
    struct tensor x = VIEW(x_data, 1, 4), y = VIEW(y_data, 1, 4), w = VIEW(w_data, 4);
    struct tensor bias = VIEW(bias_data, 4), mean = VIEW(mean_data, 1);
    struct tensor rstd = VIEW(rstd_data, 1);

    b->ops->layernorm_fwd(b, &y, &mean, &rstd, &x, &w, &bias, 0, 0, NULL);
    check_near(check, mean_data[0], 3, 0, "mean"); /* variance (4+1+0+9)/4 = 3.5 */
    check_near(check, rstd_data[0], 1 / sqrt(3.5), 1e-7, "rstd of LayerNorm");
    check_near(check, y_data[3], 3 / sqrt(3.5), 1e-6, "LayerNorm");
    b->ops->layernorm_fwd(b, &y, &mean, &rstd, &x, &w, &bias, 1, 0, NULL);
    check_near(check, y_data[3], 2 * 3 / sqrt(3.5), 1e-6, "LayerNorm1P");
    b->ops->rmsnorm_fwd(b, &y, &rstd, &x, &w, 0, NULL);
    check_near(check, rstd_data[0], 1 / sqrt(12.5), 1e-7, "rstd of RMSNorm");
    check_near(check, y_data[3], 6 / sqrt(12.5), 1e-6, "RMSNorm");
    backend_destroy(b);
}

static void rope_turns_the_pairs_of_hugging_face_and_back(struct check *check)
{
    struct backend *b = open_ref();
    float data[8] = {1, 0, 0, 0, 5, 6, 7, 8}, before[8];
    struct tensor x = VIEW(data, 1, 2, 4);
    const struct rope_args args = {.rot_dims = 4, .theta = 100};
    int32_t three = 3;
    const struct tensor position = tensor_of(&three, DTYPE_I32, 1, (const int64_t[]){1});

    memcpy(before, data, sizeof(data));
    b->ops->rope(b, &x, 1, &position, &args, false, NULL);
    /* element 0 pairs with element 2, angle 3; the second head is not turned */
    check_near(check, data[0], cos(3), 1e-7, "x[0]");
    check_near(check, data[2], sin(3), 1e-7, "x[2]");
    for (int i = 4; i < 8; i++)
        check_near(check, data[i], before[i], 0, "a head past n_heads");
    b->ops->rope(b, &x, 1, &position, &args, true, NULL);
    for (int i = 0; i < 4; i++)
        check_near(check, data[i], before[i], 1e-7, "turned back");
    backend_destroy(b);
}

static void scaled_rope_slows_what_turns_slowly(struct check *check)
{
    /* frequencies 1, 0.1, 0.01, 0.001: over 100 positions 15.9, 1.59, 0.159, 0.0159 turns */
    struct rope_args args = {.rot_dims = 8,
                             .theta = 10000,
                             .scaling = ROPE_LINEAR,
                             .factor = 4,
                             .low_freq_factor = 1,
                             .high_freq_factor = 4,
                             .original_positions = 100};
    double share = (10 / (2 * acos(-1)) - 1) / 3;

    check_near(check, rope_frequency(&args, 0), 0.25, 1e-12, "linear, first pair");
    check_near(check, rope_frequency(&args, 3), 0.00025, 1e-12, "linear, last pair");
    args.scaling = ROPE_LLAMA3;
    check_near(check, rope_frequency(&args, 0), 1, 1e-12, "llama3, fast");
    check_near(check, rope_frequency(&args, 1), 0.1 * share + 0.025 * (1 - share), 1e-12,
               "llama3, between");
    check_near(check, rope_frequency(&args, 2), 0.0025, 1e-12, "llama3, slow");
    args.scaling = ROPE_PLAIN;
    check_near(check, rope_frequency(&args, 2), 0.01, 1e-12, "plain");
}

static void attention_weighs_values_by_the_keys_it_sees(struct check *check)
{
    struct backend *b = open_ref();
    float q_data[2] = {1, 1}, k_data[2] = {0, 2}, v_data[2] = {10, 20};
    float o_data[2], lse_data[2];
    struct tensor q = VIEW(q_data, 1, 2, 1), k = VIEW(k_data, 1, 2, 1);
    struct tensor v = VIEW(v_data, 1, 2, 1), o = VIEW(o_data, 1, 2, 1);
    struct tensor lse = VIEW(lse_data, 1, 1, 2);
    struct attention_args args = {
        .n_heads = 1, .n_kv_heads = 1, .causal = true, .scale = 0.5F};
    double e = exp(1.0);

    b->ops->attention_fwd(b, &o, &lse, &q, &k, &v, &args, NULL);
    check_near(check, o_data[0], 10, 0, "query 0 sees key 0 only");
    check_near(check, o_data[1], (10 + 20 * e) / (1 + e), 1e-5, "query 1 sees both");
    check_near(check, lse_data[1], log(1 + e), 1e-6, "log-sum-exp");
    backend_destroy(b);
}

static void adamw_follows_the_formula(struct check *check)
{
    struct backend *b = open_ref();
    float w_data[1] = {0.5F}, m_data[1] = {0.1F}, v_data[1] = {0.2F}, g_data[1] = {3};
    struct update_item item = {.master = w_data,
                               .m = m_data,
                               .v = v_data,
                               .grad = g_data,
                               .n = 1,
                               .has_decay = true};
    const struct update_list list = {
        .items = &item, .n_items = 1, .n_chunks = 1, .dtype = DTYPE_F32};
    const struct update_verdict verdict = {.scale = 0.5F, .is_finite = true};
    struct adamw_args args = {.lr = 0.01F,
                              .beta1 = 0.9F,
                              .beta2 = 0.99F,
                              .eps = 1e-3F,
                              .weight_decay = 0.1F,
                              .step = 2};
    double m1 = 0.9 * 0.1 + 0.1 * 1.5, v1 = 0.99 * 0.2 + 0.01 * 1.5 * 1.5;
    double m_hat = m1 / (1 - 0.81), v_hat = v1 / (1 - 0.9801);
    double w1 = 0.5 - 0.01 * 0.1 * 0.5 - 0.01 * m_hat / (sqrt(v_hat) + 1e-3);

    b->ops->adamw(b, &list, &verdict, &args, NULL);
    check_near(check, m_data[0], m1, 1e-7, "m");
    check_near(check, v_data[0], v1, 1e-7, "v");
    check_near(check, w_data[0], w1, 1e-7, "weight");
    check_near(check, g_data[0], 0, 0, "gradient");
    backend_destroy(b);
}

/* Two gradients of norm 5; a divisor of 2 makes that 2.5, and 10 and 1 are bounds. */
static void a_norm_above_the_bound_is_scaled_down_to_it(struct check *check)
{
    struct backend *b = open_ref();
    const double squares[2] = {9, 16}, bad[2] = {9, INFINITY};
    struct update_verdict verdict;

    b->ops->judge(b, &verdict, squares, 2, 2, 10, NULL);
    check_near(check, verdict.norm, 2.5, 0, "norm");
    check_near(check, (double)verdict.scale, 0.5, 0, "scale of a small norm");
    check_that(check, verdict.is_finite, "5 is finite");
    b->ops->judge(b, &verdict, squares, 2, 2, 1, NULL);
    check_near(check, verdict.norm, 2.5, 0, "norm before it is clipped");
    check_near(check, (double)verdict.scale, 0.5 / 2.5, 1e-6, "scale of a large norm");
    b->ops->judge(b, &verdict, squares, 2, 2, 0, NULL);
    check_near(check, (double)verdict.scale, 0.5, 0, "scale without a bound");
    b->ops->judge(b, &verdict, bad, 2, 2, 1, NULL);
    check_that(check, !verdict.is_finite, "infinity is not finite");
    backend_destroy(b);
}

static void argmax_takes_the_first_of_equals_and_no_padding(struct check *check)
{
    struct backend *b = open_ref();
    float x_data[5] = {1, 7, 7, 2, 9}, value_data[1];
    int32_t index_data[1];
    struct tensor x = VIEW(x_data, 1, 5), value = VIEW(value_data, 1);
    struct tensor index = tensor_of(index_data, DTYPE_I32, 1, (const int64_t[]){1});

    b->ops->argmax(b, &value, &index, &x, 4, NULL);
    check_that(check, index_data[0] == 1, "index is %d, not 1", index_data[0]);
    check_near(check, value_data[0], 7, 0, "largest");
    backend_destroy(b);
}

static void patchify_orders_columns_as_the_convolution_weight(struct check *check)
{
    struct backend *b = open_ref();
    uint8_t rgb[4 * 4 * 3];
    float y_data[4 * 12];
    const float mean[3] = {0, 0, 0}, std[3] = {1, 1, 1};
    struct tensor pixels = tensor_of(rgb, DTYPE_U8, 4, (const int64_t[]){1, 4, 4, 3});
    struct tensor y = VIEW(y_data, 4, 12);

    for (int i = 0; i < 48; i++)
        rgb[i] = (uint8_t)i;
    b->ops->patchify(b, &y, &pixels, 2, mean, std, NULL);
    /* patch 3 (row 1, column 1), colour 1, pixel (1,0): row 3, column 2 of the frame */
    check_near(check, y_data[3 * 12 + 4 + 2] * 255.0, (3 * 4 + 2) * 3 + 1, 1e-4, "pixel");
    backend_destroy(b);
}

/* ---- creation ---- */

static void what_is_not_here_is_unsupported_and_says_what_to_do(struct check *check)
{
    struct backend *b;
    struct err err = {0};

    check_that(check,
               backend_create(&b, "tpu", 0, 1, &err) < 0 && err.code == ERR_INVALID,
               "an unknown backend is invalid");
    check_that(check, backend_create(&b, "ref", 0, -1, &err) < 0, "threads below 0");
    if (backend_create(&b, "cuda", 0, 1, &err) < 0)
        check_that(check,
                   err.code == ERR_UNSUPPORTED && strstr(err.text, "libvneva_cuda"),
                   "a missing plugin is named: %s", err.text);
    else
        backend_destroy(b);
#ifndef VNEVA_HAVE_ONEDNN
    check_that(check,
               backend_create(&b, "cpu", 0, 1, &err) < 0 && err.code == ERR_UNSUPPORTED &&
                   strstr(err.text, "libdnnl-dev"),
               "the package to install is named: %s", err.text);
#endif
    check_that(check, backend_create(&b, "auto", 0, 1, &err) == 0, "auto: %s", err.text);
    backend_destroy(b);
    backend_destroy(NULL);
}

static void a_tensor_too_large_for_a_number_is_refused(struct check *check)
{
    struct backend *b = open_ref();
    struct tensor x;
    struct err err = {0};
    const int64_t dims[3] = {INT64_MAX / 8, 16, 16};

    check_that(check,
               backend_tensor(b, &x, DTYPE_F32, 3, dims, &err) < 0 &&
                   err.code == ERR_INVALID,
               "size overflow is refused: %s", err.text);
#ifndef __SANITIZE_ADDRESS__ /* which ends the program instead */
    check_that(check,
               backend_tensor(b, &x, DTYPE_F32, 1, (const int64_t[]){1LL << 55}, &err) <
                       0 &&
                   err.code == ERR_NOMEM,
               "too much memory is refused: %s", err.text);
#endif
    backend_destroy(b);
}

int main(void)
{
    struct check check = {0};

    check_run(&check, halves_round_to_nearest_even);
    check_run(&check, matmul_is_the_textbook_product);
    check_run(&check, activations_have_their_known_values);
    check_run(&check, norms_give_unit_rows);
    check_run(&check, rope_turns_the_pairs_of_hugging_face_and_back);
    check_run(&check, scaled_rope_slows_what_turns_slowly);
    check_run(&check, attention_weighs_values_by_the_keys_it_sees);
    check_run(&check, adamw_follows_the_formula);
    check_run(&check, a_norm_above_the_bound_is_scaled_down_to_it);
    check_run(&check, argmax_takes_the_first_of_equals_and_no_padding);
    check_run(&check, patchify_orders_columns_as_the_convolution_weight);
    check_run(&check, what_is_not_here_is_unsupported_and_says_what_to_do);
    check_run(&check, a_tensor_too_large_for_a_number_is_refused);
    return check_end(&check);
}
