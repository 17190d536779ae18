/* What the client says of memory is what training takes: the most that the backend has handed
 * out and taken for itself, within a tenth, in every setting that changes it; and a step
 * takes nothing that the first one has not taken. Argument: the backend. */
#include "jobs/spec/spec_estimate.h"
#include "model/optim/optim.h"
#include "tests/integration/spec_model.h"
#include "tests/op/tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#define OVERRIDES_MAX 6
#define STEPS 2
#define WITHIN 0.1

static const char *backend_name = "cpu";

static const struct optim_config optim = {
    .lr = 1e-3F, .max_steps = 10, .beta1 = 0.9F, .beta2 = 0.95F, .eps = 1e-8F, .clip = 1};

struct setting {
    const char *overrides[OVERRIDES_MAX];
    int64_t vocab, n_tokens;
};

/* A setting's run, and what its rank 0 took. */
struct run {
    int64_t n_tokens;
    struct neva_config config;
    const struct spec *spec;
    uint64_t before, peak, allocs[STEPS];
};

static void train(struct tiny_rank *rank)
{
    struct run *run = rank->arg;
    struct backend *b = rank->backend;
    int64_t frames = run->spec->data.num_frames,
            micro = run->spec->model.micro_batch_size;
    struct backend_memory memory;
    struct tiny_batch all;
    struct neva *model = NULL;
    struct err err = {0};

    if (comm_barrier(rank->tensor, &err) < 0) /* every rank's backend is there */
        fail_msg("%s", err.text);
    b->ops->memory(b, &memory);
    if (rank->rank == 0)
        run->before = memory.used;
    if (comm_barrier(rank->tensor, &err) < 0)
        fail_msg("%s", err.text);
    tiny_batch_init(&all, &run->config, micro, run->n_tokens, frames, 5);
    if (neva_create(&model, &run->config, b, rank->tensor, &err) < 0)
        fail_msg("%s", err.text);
    for (int step = 0; step < STEPS; step++) {
        struct neva_batch part =
            tiny_part(&all, &run->config, 0, micro, rank->rank, rank->n_ranks);
        struct optim_report report;
        struct neva_loss loss;

        if (neva_prefetch(model, &part, &err) < 0 ||
            neva_step(model, &part, &loss, &err) < 0 ||
            optim_step(model, rank->data, &optim, step, loss.n_labels, &report, &err) < 0)
            fail_msg("%s", err.text);
        b->ops->memory(b, &memory);
        if (rank->rank == 0)
            run->allocs[step] = memory.n_allocs;
    }
    if (rank->rank == 0)
        run->peak = memory.peak;
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void assert_near(const char *what, double ours, double theirs)
{
    print_message("%s: %.2f MB predicted, %.2f taken (%+.1f %%)\n", what, ours / 1e6,
                  theirs / 1e6, 100 * (ours - theirs) / theirs);
    assert_true(ours > (1 - WITHIN) * theirs && ours < (1 + WITHIN) * theirs);
}

static struct spec *read_setting(const struct setting *setting)
{
    const char *overrides[OVERRIDES_MAX + 1] = {"threads=1"};
    int n = 1;

    for (; n <= OVERRIDES_MAX && setting->overrides[n - 1]; n++) {
        overrides[n] = setting->overrides[n - 1];
        print_message("%s ", overrides[n]);
    }
    print_message("\n");
    return spec_model_read(overrides, n);
}

static void assert_predicted(const struct setting *setting)
{
    bool is_on_gpu = strcmp(backend_name, "cuda") == 0;
    struct spec *spec = read_setting(setting);
    struct run run = {.spec = spec,
                      .config = spec_model_config(spec, setting->vocab),
                      .n_tokens = setting->n_tokens};
    int n_ranks = (int)spec->model.tensor_model_parallel_size;
    struct spec_estimate e;

    spec_estimate(&e, spec, setting->vocab, run.n_tokens, is_on_gpu);
    tiny_run(backend_name, n_ranks, 1, train, &run);
    if (is_on_gpu) { /* ranks are threads here, and share the pool of the process */
        run.peak /= (uint64_t)n_ranks;
        run.before /= (uint64_t)n_ranks;
        assert_near("the model's", (double)(spec_estimate_bytes(&e) - e.backend_bytes),
                    (double)(run.peak - run.before));
    }
    assert_near("all", (double)spec_estimate_bytes(&e), (double)run.peak);
    for (int step = 1; step < STEPS; step++)
        assert_int_equal(run.allocs[step], run.allocs[0]);
    spec_free(spec);
}

#define WIDE "model.hidden_size=192"
#define LAYERS "model.num_layers=4"
#define FULL "model.activations_checkpoint_granularity=full"
#define TWO "trainer.devices=2", "model.tensor_model_parallel_size=2"
#define FP32 "trainer.precision=32"
#define NO_LLM "model.mm_cfg.llm.freeze=true"
#define NO_VISION "model.mm_cfg.vision_encoder.freeze=true"
#define MICRO2 "model.micro_batch_size=2"
#define MICRO3 "model.micro_batch_size=3"
#define MICRO4 "model.micro_batch_size=4"

static void a_small_model_takes_what_was_predicted(void **state)
{
    static const struct setting settings[] = {
        {{FP32}, 97, 80},
        {{NO_LLM, NO_VISION, MICRO3}, 300, 96},
        {{TWO, FULL}, 97, 80},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        assert_predicted(&settings[i]);
}

static void every_setting_that_matters_is_predicted(void **state)
{
    static const struct setting settings[] = {
        {{FP32, WIDE, LAYERS}, 1000, 256},
        {{WIDE, LAYERS, MICRO4}, 1000, 256},
        {{WIDE, LAYERS, MICRO4, "model.activations_checkpoint_granularity=selective"},
         1000,
         256},
        {{WIDE, LAYERS, MICRO4, FULL}, 1000, 256},
        {{WIDE, LAYERS, MICRO2, FULL, "model.activations_checkpoint_num_layers=3"},
         1000,
         256},
        {{WIDE, LAYERS, MICRO4, FULL, "model.activations_checkpoint_method=block",
          "model.activations_checkpoint_num_layers=3"},
         1000,
         256},
        {{WIDE, LAYERS, MICRO2, TWO}, 1000, 256},
        {{WIDE, FP32, TWO, FULL}, 1000, 256},
        {{WIDE, LAYERS, NO_LLM, NO_VISION, MICRO4}, 1000, 256},
        {{WIDE, NO_LLM, "model.num_query_groups=2", MICRO2}, 8000, 256},
        {{WIDE, "model.mm_cfg.vision_encoder.hidden_size=128", MICRO4, NO_VISION,
          "model.data.num_frames=16"},
         100,
         300},
        {{WIDE, "model.mm_cfg.vision_encoder.hidden_size=128", MICRO4, NO_LLM,
          "model.data.num_frames=16"},
         100,
         300},
        {{WIDE, "model.mm_cfg.vision_encoder.model_type=siglip", MICRO3,
          "model.mm_cfg.mm_mlp_adapter_type=mlp_downsample"},
         1000,
         256},
        {{WIDE, "model.normalization=layernorm1p", "model.activation=squared-relu",
          "model.bias=true", "model.mm_cfg.mm_mlp_adapter_type=mlp2x_gelu", MICRO2},
         1000,
         256},
        {{WIDE, "model.share_embeddings_and_output_weights=true",
          "model.mm_cfg.vision_encoder.crop_size=128", FULL},
         1000,
         320},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        assert_predicted(&settings[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_model_takes_what_was_predicted),
        cmocka_unit_test(every_setting_that_matters_is_predicted),
    };

    if (argc > 1)
        backend_name = argv[1];
    if (strcmp(backend_name, "cuda") == 0) /* its stand-in is slow: the small ones */
        return cmocka_run_group_tests_name("cuda", (const struct CMUnitTest[1]){tests[0]},
                                           NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
