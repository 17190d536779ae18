/* cudnn_plans.c - the real cuDNN makes plans of our graphs of attention, without a GPU
 *
 * A device is described to it by numbers, it chooses engines and compiles their kernels;
 * tests/cuda_host/driver.c takes these. So graphs that no engine knows are found where there
 * is no device. Exit status 77: built without cuDNN.
 */
#include <stdio.h>

#ifndef VNEVA_HAVE_CUDNN
int main(void)
{
    printf("skipped: cuDNN is not there, none of its plans was made\n");
    return 77;
}
#else
#include "model/backend/cuda/attention_plan.h"
#include "tests/op/check.h"

#include <dlfcn.h>
#include <string.h>

#define GIB ((size_t)1 << 30)

/* What NVIDIA's documents say of chips; cuDNN wants the rest as well. */
struct chip {
    const char *name;
    int compute_capability, n_processors, shared_bytes;
};

static const struct chip a100 = {"A100", 800, 108, 166912};
static const struct chip h100 = {"H100", 900, 132, 232448};
static const struct chip b200 = {"B200", 1000, 148, 232448};

/* The names are those of cuDNN 9.19 and 9.26: it says which one it misses. */
static int describe(char *out, size_t n_bytes, const struct chip *chip)
{
    return snprintf(
        out, n_bytes,
        "{\"deviceName\":\"%s\",\"deviceVer\":%d,\"multiProcessorCount\":%d,"
        "\"maxSharedMemoryPerBlockOptin\":%d,\"maxSharedMemoryPerBlock\":49152,"
        "\"reservedSharedMemoryPerBlock\":1024,\"maxGridSize\":[2147483647,65535,65535],"
        "\"maxBlockSize\":[1024,1024,64],\"maxThreadsPerBlock\":1024,"
        "\"maxThreadsPerSM\":2048,\"maxCtasPerSM\":32,\"maxRegistersPerSM\":65536,"
        "\"regsPerBlock\":65536,\"warpSize\":32,\"totalGlobalMem\":85029158912,"
        "\"l2CacheSize\":52428800,\"smClockRateKHz\":1980000,\"memClockRateKHz\":2619000,"
        "\"driverVer\":13000,\"cudaDeviceId\":0,\"pciDeviceId\":0,\"isTccDriver\":0,"
        "\"supportCoopLaunch\":1}",
        chip->name, chip->compute_capability, chip->n_processors, chip->shared_bytes);
}

static cudnnBackendDescriptor_t device_of(struct check *check, struct sdpa_parts *parts,
                                          const struct chip *chip)
{
    char text[1024];
    int n = describe(text, sizeof(text), chip);
    struct err err = {0};
    cudnnBackendDescriptor_t d =
        sdpa_make(parts, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &err);

    if (!d ||
        sdpa_set(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, n, text,
                 &err) < 0 ||
        sdpa_finish(d, "description of a device", &err) < 0)
        check_that(check, false, "%s", err.text);
    return d;
}

struct shape {
    int64_t b, tq, tk, h, g, k;
    bool is_bwd, is_causal, has_lens, is_any_order, is_joint, is_fp16;
};

static struct sdpa_key key_of(const struct shape *s)
{
    struct sdpa_key key;

    memset(&key, 0, sizeof(key));
    key.b = s->b;
    key.tq = s->tq;
    key.tk = s->tk;
    key.h = s->h;
    key.g = s->g;
    key.k = s->k;
    key.q_stride = s->is_joint ? (s->h + 2 * s->g) * s->k : s->h * s->k;
    key.kv_stride = s->is_joint ? key.q_stride : s->g * s->k;
    key.o_stride = s->h * s->k;
    key.is_bf16 = !s->is_fp16;
    key.is_bwd = s->is_bwd;
    key.is_causal = s->is_causal;
    key.has_lens = s->has_lens;
    key.is_any_order = s->is_any_order;
    return key;
}

static void check_shapes(struct check *check, const struct chip *chip,
                         const struct shape *shapes, size_t n)
{
    struct sdpa_parts parts = {.n = 0};
    const struct sdpa_target target = {.device = device_of(check, &parts, chip)};

    for (size_t i = 0; i < n; i++) {
        struct sdpa_key key = key_of(&shapes[i]);
        struct sdpa_plan plan;

        sdpa_plan_make(&plan, &key, &target);
        check_that(check, plan.plan != NULL, "%s, shape %zu: %s", chip->name, i,
                   plan.why.text);
        printf("%s shape %zu: engine %d, %zu MiB of workspace\n", chip->name, i,
               (int)plan.engine, plan.workspace_bytes >> 20);
        sdpa_plan_fini(&plan);
    }
    sdpa_parts_fini(&parts);
}

#define N_OF(shapes) (sizeof(shapes) / sizeof((shapes)[0]))

/* LLaMA 7B, grouped queries, CLIP-L/14 at 336, SigLIP's heads of 72, others of 80, 96 and
 * 256; the cache of a generation; fewer queries than keys. */
static void what_models_need_has_plans_on_h100(struct check *check)
{
    static const struct shape shapes[] = {
        {1, 4096, 4096, 32, 32, 128, .is_causal = true, .is_joint = true},
        {1, 4096, 4096, 32, 32, 128, .is_bwd = true, .is_causal = true, .is_joint = true},
        {.b = 1,
         .tq = 4096,
         .tk = 4096,
         .h = 32,
         .g = 8,
         .k = 128,
         .is_bwd = true,
         .is_causal = true,
         .is_any_order = true},
        {2, 1000, 1000, 32, 8, 128, .is_causal = true, .is_fp16 = true},
        {2, 1000, 1000, 32, 8, 128, .is_bwd = true, .is_causal = true, .is_fp16 = true},
        {8, 577, 577, 16, 16, 64, .is_joint = true},
        {8, 577, 577, 16, 16, 64, .is_bwd = true, .has_lens = true, .is_joint = true},
        {2, 729, 729, 16, 16, 72, .is_joint = true},
        {2, 100, 100, 4, 4, 80, .is_bwd = true, .is_causal = true},
        {2, 100, 100, 4, 2, 96, .is_bwd = true, .is_causal = true},
        {1, 19, 19, 2, 2, 256, .is_causal = true},
        {8, 1, 4096, 32, 8, 128, .has_lens = true},
        {2, 5, 333, 32, 8, 128, .is_causal = true, .has_lens = true},
        {2, 5, 333, 32, 8, 128, .is_bwd = true, .is_causal = true, .has_lens = true},
        {1, 1, 1, 1, 1, 8, .is_fp16 = true},
    };

    check_shapes(check, &h100, shapes, N_OF(shapes));
}

static void other_chips_have_plans_too(struct check *check)
{
    static const struct shape shapes[] = {
        {1, 1024, 1024, 32, 8, 128, .is_causal = true},
        {1, 1024, 1024, 32, 8, 128, .is_bwd = true, .is_causal = true},
        {2, 5, 333, 32, 8, 128, .is_causal = true, .has_lens = true},
    };

    check_shapes(check, &a100, shapes, N_OF(shapes));
    check_shapes(check, &b200, shapes, N_OF(shapes));
}

static void what_has_no_plan_says_why(struct check *check)
{
    const struct shape odd = {1, 64, 64, 2, 2, 13, .is_causal = true};
    struct sdpa_parts parts = {.n = 0};
    const struct sdpa_target target = {.device = device_of(check, &parts, &h100)};
    struct sdpa_key key = key_of(&odd);
    struct sdpa_plan plan;

    sdpa_plan_make(&plan, &key, &target);
    check_that(check, !plan.plan && strstr(plan.why.text, "cuDNN"), "plan %d, '%s'",
               plan.plan != NULL, plan.why.text);
    sdpa_plan_fini(&plan);
    sdpa_parts_fini(&parts);
}

static void check_piece(struct check *check, const struct shape *shape, int64_t b,
                        int64_t g)
{
    struct sdpa_key key = key_of(shape);
    struct sdpa_piece piece = sdpa_piece_of(&key, GIB);

    check_that(check, piece.b == b && piece.g == g, "%d rows, %d groups of %d by %d",
               (int)piece.b, (int)piece.g, (int)shape->b, (int)shape->tq);
}

/* And the workspace of one is what was foretold: all scores' gradients, and of each head of
 * a group the gradients of its keys and values, in bf16. */
static void gradients_go_in_pieces_that_fit(struct check *check)
{
    const struct shape one = {1, 4096, 4096, 32, 8, 128, .is_bwd = true};
    const struct shape four = {4, 4096, 4096, 32, 8, 128, .is_bwd = true};
    const struct shape six = {6, 2048, 2048, 32, 8, 128, .is_bwd = true};
    const struct shape tall = {2, 8192, 8192, 32, 8, 128, .is_bwd = true};
    const struct shape taller = {1, 40000, 40000, 32, 8, 128, .is_bwd = true};
    const struct shape fwd = {4, 8192, 8192, 32, 8, 128, .is_bwd = false};
    struct sdpa_parts parts = {.n = 0};
    const struct sdpa_target target = {.device = device_of(check, &parts, &h100)};
    const size_t foretold = GIB + (size_t)2 * 32 * 4096 * 128 * 2;
    struct sdpa_key key = key_of(&one);
    struct sdpa_plan plan;

    check_piece(check, &one, 1, 8);
    check_piece(check, &four, 1, 8);
    check_piece(check, &six, 3, 8);
    check_piece(check, &tall, 1, 2);
    check_piece(check, &taller, 0, 0);
    check_piece(check, &fwd, 4, 8);
    sdpa_plan_make(&plan, &key, &target);
    check_that(check, plan.plan && plan.workspace_bytes <= foretold + foretold / 100,
               "%zu bytes, %s", plan.workspace_bytes, plan.why.text);
    sdpa_plan_fini(&plan);
    sdpa_parts_fini(&parts);
}

int main(void)
{
    struct check check = {0};

    /* found by its name when cuDNN opens libcuda.so.1 */
    if (!dlopen(DRIVER_STANDIN, RTLD_NOW | RTLD_GLOBAL)) {
        printf("cannot open %s: %s\n", DRIVER_STANDIN, dlerror());
        return 1;
    }
    printf("cuDNN %zu\n", cudnnGetVersion());
    check_run(&check, what_models_need_has_plans_on_h100);
    check_run(&check, other_chips_have_plans_too);
    check_run(&check, what_has_no_plan_says_why);
    check_run(&check, gradients_go_in_pieces_that_fit);
    return check_end(&check);
}
#endif
