/* attention_cudnn.c - attention by cuDNN's own operation for it
 *
 * One operation is described by descriptors (tensors, the operation, a graph of it), cuDNN
 * proposes engines, and the first that makes a plan is remembered per shape. What it is not
 * asked for is in sdpa_does. Engines whose sums come in no fixed order are passed over: equal
 * calls give equal bits.
 * Source: "cuDNN Backend API", CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR and _BWD_.
 */
#include "model/backend/cuda/attention.h"

#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLANS_MAX 64 /* all are dropped when they are used up */
#define CONFIGS_MAX 16
#define PARTS_MAX 48 /* descriptors of one plan */
#define NOTES_MAX 16
#define HEAD_MAX 128
#define HEAD_UNIT 8 /* elements: 16 bytes */
#define ALIGN_BYTES 16

/* Names of tensors in a plan. */
enum uid {
    UID_Q = 1,
    UID_K,
    UID_V,
    UID_O,
    UID_LSE,
    UID_SCALE,
    UID_DO,
    UID_DQ,
    UID_DK,
    UID_DV
};

struct plan_key {
    int64_t b, tq, tk, h, g, k, q_stride, kv_stride;
    int32_t dtype, is_bwd;
};

/* Everything that was created for a plan, in its order; the plan itself is the last. */
struct parts {
    cudnnBackendDescriptor_t at[PARTS_MAX];
    int n;
};

struct plan {
    struct plan_key key;
    struct parts parts;
    cudnnBackendDescriptor_t plan; /* NULL: cuDNN does not support this one */
    size_t workspace_bytes;
};

struct sdpa {
    cudnnHandle_t handle;
    int n_plans;
    struct plan plans[PLANS_MAX];
};

static int check(cudnnStatus_t status, const char *what, struct err *err)
{
    if (status == CUDNN_STATUS_SUCCESS)
        return 0;
    return err_set(err, status == CUDNN_STATUS_NOT_SUPPORTED ? ERR_UNSUPPORTED : ERR_IO,
                   "%s of cuDNN: %s", what, cudnnGetErrorString(status));
}

static void parts_fini(struct parts *parts)
{
    while (parts->n > 0)
        cudnnBackendDestroyDescriptor(parts->at[--parts->n]);
}

static void plans_clear(struct sdpa *sdpa)
{
    while (sdpa->n_plans > 0)
        parts_fini(&sdpa->plans[--sdpa->n_plans].parts);
}

int sdpa_init(struct cuda *cuda, struct err *err)
{
    cuda->sdpa = calloc(1, sizeof(*cuda->sdpa));
    if (!cuda->sdpa)
        return err_set(err, ERR_NOMEM, "cannot allocate plans of attention");
    if (check(cudnnCreate(&cuda->sdpa->handle), "opening", err) < 0)
        return -1;
    return check(cudnnSetStream(cuda->sdpa->handle, cuda->stream), "stream", err);
}

void sdpa_about(char *out, size_t n_bytes)
{
    size_t version = cudnnGetVersion(); /* 91900 is 9.19.0 */

    snprintf(out, n_bytes, "cuDNN %zu.%zu.%zu", version / 10000, version / 100 % 100,
             version % 100);
}

void sdpa_fini(struct cuda *cuda)
{
    if (!cuda->sdpa)
        return;
    plans_clear(cuda->sdpa);
    if (cuda->sdpa->handle)
        cudnnDestroy(cuda->sdpa->handle);
    free(cuda->sdpa);
    cuda->sdpa = NULL;
}

/* ---- descriptors ---- */

static cudnnBackendDescriptor_t make(struct parts *parts,
                                     cudnnBackendDescriptorType_t type, struct err *err)
{
    cudnnBackendDescriptor_t d = NULL;

    if (parts->n == PARTS_MAX) {
        err_set(err, ERR_LIMIT, "a plan of more than %d descriptors", PARTS_MAX);
        return NULL;
    }
    if (check(cudnnBackendCreateDescriptor(type, &d), "descriptor", err) < 0)
        return NULL;
    parts->at[parts->n++] = d;
    return d;
}

static int set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
               cudnnBackendAttributeType_t type, int64_t n, const void *value,
               struct err *err)
{
    return check(cudnnBackendSetAttribute(d, name, type, n, value), "attribute", err);
}

static int set_descriptor(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                          cudnnBackendDescriptor_t value, struct err *err)
{
    return set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, (const void *)&value, err);
}

static int finish(cudnnBackendDescriptor_t d, const char *what, struct err *err)
{
    return check(cudnnBackendFinalize(d), what, err);
}

/* One tensor as cuDNN sees it: [B, heads, rows, columns]. */
struct tensor_sizes {
    enum uid uid;
    cudnnDataType_t type;
    int64_t dims[4], strides[4];
    bool is_by_value;
};

static cudnnBackendDescriptor_t make_tensor(struct parts *parts,
                                            const struct tensor_sizes *t, struct err *err)
{
    cudnnBackendDescriptor_t d = make(parts, CUDNN_BACKEND_TENSOR_DESCRIPTOR, err);
    int64_t uid = t->uid, align = t->is_by_value ? (int64_t)sizeof(float) : ALIGN_BYTES;

    if (!d || set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, err) < 0 ||
        set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &t->type, err) < 0 ||
        set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align, err) < 0 ||
        set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, t->dims, err) < 0 ||
        set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, t->strides, err) < 0 ||
        set(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &t->is_by_value,
            err) < 0 ||
        finish(d, "tensor", err) < 0)
        return NULL;
    return d;
}

/* Rows of `heads` heads that lie `stride` elements apart. */
static struct tensor_sizes rows_of(const struct plan_key *key, enum uid uid,
                                   int64_t heads, int64_t rows, int64_t stride)
{
    return (struct tensor_sizes){.uid = uid,
                                 .type = key->dtype == DTYPE_BF16 ? CUDNN_DATA_BFLOAT16
                                                                  : CUDNN_DATA_HALF,
                                 .dims = {key->b, heads, rows, key->k},
                                 .strides = {rows * stride, key->k, stride, 1}};
}

static struct tensor_sizes sizes_of(const struct plan_key *key, enum uid uid)
{
    switch (uid) {
    case UID_Q:
    case UID_DQ:
        return rows_of(key, uid, key->h, key->tq, key->q_stride);
    case UID_O:
    case UID_DO:
        return rows_of(key, uid, key->h, key->tq, key->h * key->k);
    case UID_LSE:
        return (struct tensor_sizes){.uid = uid,
                                     .type = CUDNN_DATA_FLOAT,
                                     .dims = {key->b, key->h, key->tq, 1},
                                     .strides = {key->h * key->tq, key->tq, 1, 1}};
    case UID_SCALE:
        return (struct tensor_sizes){.uid = uid,
                                     .type = CUDNN_DATA_FLOAT,
                                     .dims = {1, 1, 1, 1},
                                     .strides = {1, 1, 1, 1},
                                     .is_by_value = true};
    default:
        return rows_of(key, uid, key->g, key->tk, key->kv_stride);
    }
}

/* Which attribute of the operation each tensor is. */
struct role {
    enum uid uid;
    cudnnBackendAttributeName_t name;
};

static const struct role fwd_roles[] = {
    {UID_Q, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC},
    {UID_K, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC},
    {UID_V, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC},
    {UID_O, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC},
    {UID_LSE, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC},
    {UID_SCALE, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC},
};

static const struct role bwd_roles[] = {
    {UID_Q, CUDNN_ATTR_OPERATION_SDPA_BWD_QDESC},
    {UID_K, CUDNN_ATTR_OPERATION_SDPA_BWD_KDESC},
    {UID_V, CUDNN_ATTR_OPERATION_SDPA_BWD_VDESC},
    {UID_O, CUDNN_ATTR_OPERATION_SDPA_BWD_ODESC},
    {UID_LSE, CUDNN_ATTR_OPERATION_SDPA_BWD_STATSDESC},
    {UID_SCALE, CUDNN_ATTR_OPERATION_SDPA_BWD_SCALEDESC},
    {UID_DO, CUDNN_ATTR_OPERATION_SDPA_BWD_DODDESC},
    {UID_DQ, CUDNN_ATTR_OPERATION_SDPA_BWD_DQDESC},
    {UID_DK, CUDNN_ATTR_OPERATION_SDPA_BWD_DKDESC},
    {UID_DV, CUDNN_ATTR_OPERATION_SDPA_BWD_DVDESC},
};

#define N_FWD (sizeof(fwd_roles) / sizeof(fwd_roles[0]))
#define N_BWD (sizeof(bwd_roles) / sizeof(bwd_roles[0]))

static const struct role *roles_of(bool is_bwd, size_t *n)
{
    *n = is_bwd ? N_BWD : N_FWD;
    return is_bwd ? bwd_roles : fwd_roles;
}

static cudnnBackendDescriptor_t make_graph(struct sdpa *sdpa, struct parts *parts,
                                           const struct plan_key *key, struct err *err)
{
    cudnnBackendDescriptor_t graph,
        op = make(parts,
                  key->is_bwd ? CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR
                              : CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR,
                  err);
    size_t n;
    const struct role *roles = roles_of(key->is_bwd, &n);

    for (size_t i = 0; op && i < n; i++) {
        struct tensor_sizes sizes = sizes_of(key, roles[i].uid);
        cudnnBackendDescriptor_t tensor = make_tensor(parts, &sizes, err);

        if (!tensor || set_descriptor(op, roles[i].name, tensor, err) < 0)
            return NULL;
    }
    if (!op || finish(op, "attention", err) < 0)
        return NULL;
    graph = make(parts, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, err);
    if (!graph || set_descriptor(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, op, err) < 0 ||
        set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
            (const void *)&sdpa->handle, err) < 0 ||
        finish(graph, "graph", err) < 0)
        return NULL;
    return graph;
}

/* ---- engines and plans ---- */

/* *n: how many ways cuDNN knows, the best first. */
static int propose(struct parts *parts, cudnnBackendDescriptor_t graph,
                   cudnnBackendDescriptor_t *configs, int64_t *n, struct err *err)
{
    cudnnBackendDescriptor_t heur = make(parts, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, err);
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;

    if (!heur ||
        set_descriptor(heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph, err) < 0 ||
        set(heur, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, err) < 0 ||
        finish(heur, "choice of engines", err) < 0)
        return -1;
    for (int i = 0; i < CONFIGS_MAX; i++) {
        configs[i] = make(parts, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, err);
        if (!configs[i])
            return -1;
    }
    return check(cudnnBackendGetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                          CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS_MAX, n,
                                          (void *)configs),
                 "choice of engines", err);
}

/* False as well where it cannot be told. */
static bool is_deterministic(cudnnBackendDescriptor_t config)
{
    cudnnBackendDescriptor_t engine = NULL;
    cudnnBackendNumericalNote_t notes[NOTES_MAX];
    int64_t n = 0;
    bool is_fine = false;

    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) !=
        CUDNN_STATUS_SUCCESS)
        return false;
    if (cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                 (void *)&engine) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, NOTES_MAX, &n,
                                 notes) == CUDNN_STATUS_SUCCESS) {
        is_fine = true;
        for (int64_t i = 0; i < n && i < NOTES_MAX; i++)
            if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
                is_fine = false;
    }
    cudnnBackendDestroyDescriptor(engine);
    return is_fine;
}

/* NULL when this engine does not do it. */
static cudnnBackendDescriptor_t try_plan(struct sdpa *sdpa, struct parts *parts,
                                         cudnnBackendDescriptor_t config)
{
    cudnnBackendDescriptor_t plan =
        make(parts, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, NULL);

    if (plan &&
        set_descriptor(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config, NULL) ==
            0 &&
        set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
            (const void *)&sdpa->handle, NULL) == 0 &&
        finish(plan, "plan", NULL) == 0)
        return plan;
    return NULL;
}

/* Leaves plan->plan NULL where cuDNN has no way; that is remembered too. */
static void plan_make(struct sdpa *sdpa, struct plan *plan)
{
    cudnnBackendDescriptor_t graph, configs[CONFIGS_MAX];
    int64_t n = 0, n_bytes = 0, one = 0;

    graph = make_graph(sdpa, &plan->parts, &plan->key, NULL);
    if (!graph || propose(&plan->parts, graph, configs, &n, NULL) < 0)
        return;
    for (int64_t i = 0; i < n && i < CONFIGS_MAX && !plan->plan; i++)
        if (is_deterministic(configs[i]))
            plan->plan = try_plan(sdpa, &plan->parts, configs[i]);
    if (plan->plan && cudnnBackendGetAttribute(
                          plan->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                          CUDNN_TYPE_INT64, 1, &one, &n_bytes) != CUDNN_STATUS_SUCCESS)
        plan->plan = NULL;
    plan->workspace_bytes = (size_t)n_bytes;
}

static struct plan *plan_get(struct sdpa *sdpa, const struct plan_key *key)
{
    struct plan *plan;

    for (int i = 0; i < sdpa->n_plans; i++)
        if (memcmp(&sdpa->plans[i].key, key, sizeof(*key)) == 0)
            return &sdpa->plans[i];
    if (sdpa->n_plans == PLANS_MAX)
        plans_clear(sdpa);
    plan = &sdpa->plans[sdpa->n_plans++];
    memset(plan, 0, sizeof(*plan));
    plan->key = *key;
    plan_make(sdpa, plan);
    return plan;
}

/* ---- running one ---- */

static struct plan_key key_of(const struct attention_shape *s,
                              const struct attention_tensors *x, bool is_bwd)
{
    struct plan_key key;

    memset(&key, 0, sizeof(key));
    key.b = s->b;
    key.tq = s->tq;
    key.tk = s->tk;
    key.h = s->h;
    key.g = s->g;
    key.k = s->k;
    key.q_stride = s->q_stride;
    key.kv_stride = s->kv_stride;
    key.dtype = (int32_t)x->q->dtype;
    key.is_bwd = is_bwd;
    return key;
}

static bool is_aligned(const struct tensor *x)
{
    return !x || (uintptr_t)x->data % ALIGN_BYTES == 0;
}

/* Lengths: what lies behind a row's last key may be anything, and must not be read. Causal
 * masks: up to cuDNN 9.26 the gradient's operation has none. */
static bool does(const struct attention_shape *s, const struct attention_tensors *x)
{
    bool is_causal = s->is_causal && s->tq > 1;

    return (x->q->dtype == DTYPE_BF16 || x->q->dtype == DTYPE_F16) && !is_causal &&
           !s->lens && s->tk > 0 && s->k % HEAD_UNIT == 0 && s->k <= HEAD_MAX &&
           s->q_stride % HEAD_UNIT == 0 && s->kv_stride % HEAD_UNIT == 0 &&
           is_aligned(x->q) && is_aligned(x->k) && is_aligned(x->v) && is_aligned(x->o) &&
           is_aligned(x->lse) && is_aligned(x->d_o) && is_aligned(x->dq) &&
           is_aligned(x->dk) && is_aligned(x->dv);
}

static void *data_of(enum uid uid, const struct attention_tensors *x, float *scale)
{
    switch (uid) {
    case UID_Q:
        return x->q->data;
    case UID_K:
        return x->k->data;
    case UID_V:
        return x->v->data;
    case UID_O:
        return x->o->data;
    case UID_LSE:
        return x->lse->data;
    case UID_DO:
        return x->d_o->data;
    case UID_DQ:
        return x->dq->data;
    case UID_DK:
        return x->dk->data;
    case UID_DV:
        return x->dv->data;
    default:
        return scale;
    }
}

static int execute(struct cuda *cuda, const struct plan *plan, float scale,
                   const struct attention_tensors *x, struct err *err)
{
    struct parts parts = {.n = 0};
    cudnnBackendDescriptor_t pack =
        make(&parts, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, err);
    size_t n;
    const struct role *roles = roles_of(plan->key.is_bwd, &n);
    int64_t uids[N_BWD];
    void *data[N_BWD], *workspace = NULL;
    int rc = -1;

    for (size_t i = 0; i < n; i++) {
        uids[i] = roles[i].uid;
        data[i] = data_of(roles[i].uid, x, &scale);
    }
    if (pack &&
        (!plan->workspace_bytes ||
         cuda_scratch(cuda, &workspace, plan->workspace_bytes, err) == 0) &&
        set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, (int64_t)n, uids,
            err) == 0 &&
        set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, (int64_t)n,
            (const void *)data, err) == 0 &&
        set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
            (const void *)&workspace, err) == 0 &&
        finish(pack, "pointers", err) == 0)
        rc = check(cudnnBackendExecute(cuda->sdpa->handle, plan->plan, pack), "attention",
                   err);
    parts_fini(&parts);
    return rc;
}

int sdpa_run(struct cuda *cuda, bool *is_done, const struct attention_shape *shape,
             const struct attention_tensors *x, bool is_bwd, struct err *err)
{
    struct plan_key key = key_of(shape, x, is_bwd);
    struct plan *plan;

    *is_done = false;
    if (!does(shape, x))
        return 0;
    plan = plan_get(cuda->sdpa, &key);
    if (!plan->plan)
        return 0;
    *is_done = true;
    return execute(cuda, plan, shape->scale, x, err);
}
