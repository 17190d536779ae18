#include "model/backend/cuda/attention_plan.h"

#define CONFIGS_MAX 16
#define NOTES_MAX 16
#define TILE 128 /* cuDNN rounds the scores' gradients up to these */
#define GRADIENT_BYTES 2

typedef cudnnBackendDescriptor_t descriptor;

/* *n: how many ways cuDNN knows, the best first. */
static int propose(struct sdpa_parts *parts, descriptor graph,
                   const struct sdpa_target *target, cudnnBackendHeurMode_t mode,
                   descriptor *configs, int64_t *n, struct err *err)
{
    descriptor heur = sdpa_make(parts, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, err);

    if (!heur ||
        sdpa_set_descriptor(heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph, err) <
            0 ||
        sdpa_set(heur, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, err) <
            0 ||
        (target->device && sdpa_set_descriptor(heur, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                                               target->device, err) < 0) ||
        sdpa_finish(heur, "choice of engines", err) < 0)
        return -1;
    for (int i = 0; i < CONFIGS_MAX; i++) {
        configs[i] = sdpa_make(parts, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, err);
        if (!configs[i])
            return -1;
    }
    return sdpa_check(cudnnBackendGetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS_MAX,
                                               n, (void *)configs),
                      "choice of engines", err);
}

/* *is_fixed: whether its sums come in a fixed order. */
static int look_at(descriptor config, int64_t *number, bool *is_fixed, struct err *err)
{
    descriptor engine = NULL;
    cudnnBackendNumericalNote_t notes[NOTES_MAX];
    int64_t n = 0;
    int rc = -1;

    if (sdpa_check(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine),
                   "descriptor", err) < 0)
        return -1;
    if (sdpa_check(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                            CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                            (void *)&engine),
                   "engine", err) == 0 &&
        sdpa_check(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                            CUDNN_TYPE_INT64, 1, &n, number),
                   "number of an engine", err) == 0 &&
        sdpa_check(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                            CUDNN_TYPE_NUMERICAL_NOTE, NOTES_MAX, &n,
                                            notes),
                   "notes of an engine", err) == 0) {
        *is_fixed = true;
        for (int64_t i = 0; i < n && i < NOTES_MAX; i++)
            if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
                *is_fixed = false;
        rc = 0;
    }
    cudnnBackendDestroyDescriptor(engine);
    return rc;
}

static descriptor plan_of(struct sdpa_parts *parts, const struct sdpa_target *target,
                          descriptor config, size_t *workspace_bytes, struct err *err)
{
    descriptor plan = sdpa_make(parts, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, err);
    int64_t n_bytes = 0, n = 0;

    if (!plan ||
        sdpa_set_descriptor(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config, err) <
            0 ||
        (target->handle &&
         sdpa_set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                  (const void *)&target->handle, err) < 0) ||
        sdpa_finish(plan, "plan", err) < 0 ||
        sdpa_check(cudnnBackendGetAttribute(plan,
                                            CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                            CUDNN_TYPE_INT64, 1, &n, &n_bytes),
                   "workspace of a plan", err) < 0)
        return NULL;
    *workspace_bytes = (size_t)n_bytes;
    return plan;
}

static void try_engines(struct sdpa_plan *plan, const struct sdpa_key *key,
                        const struct sdpa_target *target, descriptor *configs, int64_t n)
{
    if (n < 1)
        err_set(&plan->why, ERR_UNSUPPORTED, "cuDNN proposes no engine");
    for (int64_t i = 0; i < n && i < CONFIGS_MAX && !plan->plan; i++) {
        bool is_fixed;

        if (look_at(configs[i], &plan->engine, &is_fixed, &plan->why) < 0)
            continue;
        if (!is_fixed && !key->is_any_order) {
            err_set(&plan->why, ERR_UNSUPPORTED,
                    "engine %d of cuDNN gives other bits every time", (int)plan->engine);
            continue;
        }
        plan->plan =
            plan_of(&plan->parts, target, configs[i], &plan->workspace_bytes, &plan->why);
    }
}

void sdpa_plan_make(struct sdpa_plan *plan, const struct sdpa_key *key,
                    const struct sdpa_target *target)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A,
                                                   CUDNN_HEUR_MODE_FALLBACK};
    descriptor graph, configs[CONFIGS_MAX];

    *plan = (struct sdpa_plan){.plan = NULL};
    graph = sdpa_graph(&plan->parts, key, target->handle, &plan->why);
    for (size_t i = 0; graph && i < sizeof(modes) / sizeof(modes[0]) && !plan->plan;
         i++) {
        int64_t n = 0;

        if (propose(&plan->parts, graph, target, modes[i], configs, &n, &plan->why) == 0)
            try_engines(plan, key, target, configs, n);
    }
}

void sdpa_plan_fini(struct sdpa_plan *plan)
{
    sdpa_parts_fini(&plan->parts);
    plan->plan = NULL;
}

static int64_t rounded(int64_t n)
{
    return (n + TILE - 1) / TILE * TILE;
}

/* The largest divisor of n that is at most `most`, 0 when there is none. */
static int64_t divisor(int64_t n, int64_t most)
{
    int64_t d = most < n ? most : n;

    while (d > 0 && n % d != 0)
        d--;
    return d;
}

struct sdpa_piece sdpa_piece_of(const struct sdpa_key *key, size_t limit_bytes)
{
    int64_t group = GRADIENT_BYTES * (key->h / key->g) * rounded(key->tq) *
                    rounded(key->tk); /* bytes */
    int64_t n_groups = (int64_t)limit_bytes / group;
    struct sdpa_piece piece = {divisor(key->b, n_groups / key->g), key->g};

    if (!key->is_bwd || key->is_any_order)
        return (struct sdpa_piece){key->b, key->g};
    if (piece.b == 0)
        piece = (struct sdpa_piece){1, divisor(key->g, n_groups)};
    return piece.g == 0 ? (struct sdpa_piece){0, 0} : piece;
}
