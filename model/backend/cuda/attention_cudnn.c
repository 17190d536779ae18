/* attention_cudnn.c - attention by cuDNN: one plan a shape, made when it is first met
 *
 * What cuDNN is asked for is in `does`, what it cannot do it says itself; both kinds of
 * answer are remembered. A plan takes up to a second to make, for its kernels are compiled.
 *
 * Masks. A causal one over as many queries as keys is cuDNN's plain one. With lengths, or
 * when queries and keys differ in number, it ends at each row's last query and key, and
 * cuDNN is given both numbers. The gradient without a causal mask is given them as well:
 * up to cuDNN 9.26 its kernels for compute capability 9.0 otherwise take the keys that fill
 * up the last tile for keys with score 0, and exp(0 - lse) overflows where lse < -88.7
 * (github.com/pytorch/pytorch issue 196678, NVIDIA/cudnn-frontend issue 1072).
 */
#include "model/backend/cuda/attention_plan.h"

#include "model/backend/cuda/attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION_MIN 91000 /* older ones want other graphs: cudnn-frontend's workarounds */
#define PLANS_MAX 1024    /* all are dropped when they are used up */
#define HEAD_MAX 256
#define HEAD_UNIT 8 /* elements: 16 bytes */
#define ALIGN_BYTES 16
#define PARTS_ALIGN ((size_t)256) /* bytes: of pieces of one allocation */
#ifndef SDPA_GRADIENT_BYTES_MAX /* tests have a smaller one, so that small shapes split */
#define SDPA_GRADIENT_BYTES_MAX ((size_t)1 << 30)
#endif

struct entry {
    struct sdpa_key key; /* of one piece */
    struct sdpa_plan plan;
    int32_t *lens; /* device, where the key has lengths: [b] all queries; all_keys */
};

struct sdpa {
    cudnnHandle_t handle;
    size_t version;
    struct err why; /* the last time cuDNN could not, and code 0 before */
    int n_entries;
    struct entry *entries[PLANS_MAX];
};

/* Kernels of theirs may still run, and be part of what was recorded. */
static void entries_clear(struct cuda *cuda)
{
    struct sdpa *sdpa = cuda->sdpa;

    if (sdpa->n_entries == 0)
        return;
    cuda_graphs_drop(cuda);
    cuda_wait(cuda, NULL); /* where it fails the device is broken, and nothing runs */
    while (sdpa->n_entries > 0) {
        struct entry *entry = sdpa->entries[--sdpa->n_entries];

        sdpa_plan_fini(&entry->plan);
        cuda_free(&cuda->base, entry->lens);
        free(entry);
    }
}

int sdpa_init(struct cuda *cuda, struct err *err)
{
    cuda->sdpa = calloc(1, sizeof(*cuda->sdpa));
    if (!cuda->sdpa)
        return err_set(err, ERR_NOMEM, "cannot allocate plans of attention");
    cuda->sdpa->version = cudnnGetVersion();
    if (cuda->sdpa->version < VERSION_MIN)
        err_set(&cuda->sdpa->why, ERR_UNSUPPORTED, "it is older than 9.10");
    if (sdpa_check(cudnnCreate(&cuda->sdpa->handle), "opening", err) < 0)
        return -1;
    return sdpa_check(cudnnSetStream(cuda->sdpa->handle, cuda->stream), "stream", err);
}

void sdpa_about(const struct cuda *cuda, char *out, size_t n_bytes)
{
    size_t version = cudnnGetVersion(); /* 91900 is 9.19.0 */
    const struct err *why = cuda->sdpa ? &cuda->sdpa->why : NULL;

    snprintf(out, n_bytes, "cuDNN %zu.%zu.%zu%s%.200s%s", version / 10000,
             version / 100 % 100, version % 100, why && why->code ? " (refused: " : "",
             why && why->code ? why->text : "", why && why->code ? ")" : "");
}

void sdpa_fini(struct cuda *cuda)
{
    if (!cuda->sdpa)
        return;
    entries_clear(cuda);
    if (cuda->sdpa->handle)
        cudnnDestroy(cuda->sdpa->handle);
    free(cuda->sdpa);
    cuda->sdpa = NULL;
}

/* ---- plans ---- */

static size_t padded(size_t n_bytes)
{
    return (n_bytes + PARTS_ALIGN - 1) / PARTS_ALIGN * PARTS_ALIGN;
}

static void *all_keys(const struct entry *entry)
{
    return (char *)entry->lens + padded((size_t)entry->key.b * sizeof(*entry->lens));
}

static int fill_lens(struct cuda *cuda, struct entry *entry, struct err *err)
{
    const int64_t b = entry->key.b;
    const size_t n_bytes = (size_t)b * sizeof(*entry->lens);
    int32_t *host = malloc(2 * n_bytes);
    void *lens = NULL;
    int rc = -1;

    if (!host)
        return err_set(err, ERR_NOMEM, "cannot allocate lengths of %d rows", (int)b);
    for (int64_t i = 0; i < b; i++) {
        host[i] = (int32_t)entry->key.tq;
        host[b + i] = (int32_t)entry->key.tk;
    }
    if (cuda_alloc(&cuda->base, &lens, 2 * padded(n_bytes), err) == 0) {
        entry->lens = lens;
        if (cuda_upload(&cuda->base, lens, host, n_bytes, err) == 0)
            rc = cuda_upload(&cuda->base, all_keys(entry), host + b, n_bytes, err);
    }
    free(host);
    return rc;
}

/* NULL: memory is out, or a new one is wanted while operations are recorded, which makes
 * none. entry->plan.plan is NULL where cuDNN has no way. */
static struct entry *entry_get(struct cuda *cuda, const struct sdpa_key *key,
                               struct err *err)
{
    struct sdpa *sdpa = cuda->sdpa;
    const struct sdpa_target target = {.handle = sdpa->handle};
    struct entry *entry;

    for (int i = 0; i < sdpa->n_entries; i++)
        if (memcmp(&sdpa->entries[i]->key, key, sizeof(*key)) == 0)
            return sdpa->entries[i];
    if (cuda_graph_refuses(cuda, "a new plan of attention", err) < 0)
        return NULL;
    if (sdpa->n_entries == PLANS_MAX)
        entries_clear(cuda);
    entry = calloc(1, sizeof(*entry));
    if (!entry) {
        err_set(err, ERR_NOMEM, "cannot allocate a plan of attention");
        return NULL;
    }
    sdpa->entries[sdpa->n_entries++] = entry;
    entry->key = *key;
    sdpa_plan_make(&entry->plan, key, &target);
    if (!entry->plan.plan)
        sdpa->why = entry->plan.why;
    else if (key->has_lens && fill_lens(cuda, entry, err) < 0) {
        sdpa->n_entries--;
        sdpa_plan_fini(&entry->plan);
        free(entry);
        return NULL;
    }
    return entry;
}

static struct sdpa_key key_of(const struct cuda *cuda, const struct attention_shape *s,
                              const struct attention_tensors *x, bool is_bwd)
{
    struct sdpa_key key;

    memset(&key, 0, sizeof(key));
    key.b = s->b;
    key.tq = s->tq;
    key.tk = s->tk;
    key.h = s->h;
    key.g = s->g;
    key.k = s->k;
    key.q_stride = s->q_stride;
    key.kv_stride = s->kv_stride;
    key.o_stride = s->h * s->k;
    key.is_bf16 = x->q->dtype == DTYPE_BF16;
    key.is_bwd = is_bwd;
    key.is_causal = s->is_causal && s->tq > 1; /* the last query sees all */
    key.has_lens = s->lens || (key.is_causal ? s->tq != s->tk : is_bwd);
    key.is_any_order = is_bwd && cuda->attention_choice == ATTENTION_CUDNN_ANY_ORDER;
    return key;
}

/* ---- running one ---- */

static bool is_aligned(const struct tensor *x)
{
    return !x || (uintptr_t)x->data % ALIGN_BYTES == 0;
}

/* Queries before the first key see none, and cuDNN leaves open what they get, as it does
 * with the gradients of keys behind a row's last. By itself nothing with lengths goes to
 * cuDNN: it may read what lies behind the last key, and this may be anything. Nor does a
 * shape that is met once: a plan costs more than it saves. */
static bool does(const struct cuda *cuda, const struct attention_shape *s,
                 const struct attention_tensors *x, bool is_bwd)
{
    bool is_asked = cuda->attention_choice != ATTENTION_AUTO || (!s->lens && !s->one_off);

    return cuda->sdpa->version >= VERSION_MIN && is_asked &&
           (x->q->dtype == DTYPE_BF16 || x->q->dtype == DTYPE_F16) && s->tk > 0 &&
           (!s->is_causal || s->tq <= s->tk) && !(is_bwd && s->lens) &&
           s->k % HEAD_UNIT == 0 && s->k <= HEAD_MAX && s->q_stride % HEAD_UNIT == 0 &&
           s->kv_stride % HEAD_UNIT == 0 && is_aligned(x->q) && is_aligned(x->k) &&
           is_aligned(x->v) && is_aligned(x->o) && is_aligned(x->lse) &&
           is_aligned(x->d_o) && is_aligned(x->dq) && is_aligned(x->dk) &&
           is_aligned(x->dv);
}

/* What a plan runs on: memory of every uid, NULL where the graph has none. */
struct binding {
    void *data[UID_END];
    float scale, mask, one;
};

static void *at(const struct tensor *x, int64_t n_elements)
{
    return x ? (char *)x->data + (size_t)n_elements * dtype_bytes(x->dtype) : NULL;
}

/* The piece that begins at row b of the batch and group g of the heads. */
static void bind(struct binding *to, const struct entry *entry,
                 const struct attention_shape *s, const struct attention_tensors *x,
                 int64_t b, int64_t g)
{
    const int64_t head = g * (s->h / s->g);
    const int64_t q = b * s->tq * s->q_stride + head * s->k;
    const int64_t kv = b * s->tk * s->kv_stride + g * s->k;
    const int64_t o = (b * s->tq * s->h + head) * s->k;

    to->data[UID_Q] = at(x->q, q);
    to->data[UID_DQ] = at(x->dq, q);
    to->data[UID_K] = at(x->k, kv);
    to->data[UID_V] = at(x->v, kv);
    to->data[UID_DK] = at(x->dk, kv);
    to->data[UID_DV] = at(x->dv, kv);
    to->data[UID_O] = at(x->o, o);
    to->data[UID_DO] = at(x->d_o, o);
    to->data[UID_LSE] = at(x->lse, (b * s->h + head) * s->tq);
    if (entry->key.has_lens) {
        to->data[UID_Q_LENS] = entry->lens;
        to->data[UID_KV_LENS] = s->lens ? (void *)(s->lens + b) : all_keys(entry);
    }
}

/* Scratch: the plan's workspace, then what the graph keeps in memory of its own. */
static int bind_scratch(struct cuda *cuda, struct binding *to, const struct entry *entry,
                        void **workspace, struct err *err)
{
    const struct sdpa_key *key = &entry->key;
    size_t rows = (size_t)(key->b * key->h * key->tq) * sizeof(float);
    size_t first = padded(entry->plan.workspace_bytes);
    size_t dot = key->is_bwd ? padded(rows) : 0;
    size_t sum = key->is_any_order ? padded(rows * (size_t)key->k) : 0;
    void *scratch = NULL;

    *workspace = NULL;
    if (first + dot + sum == 0)
        return 0;
    if (cuda_scratch(cuda, &scratch, first + dot + sum, err) < 0)
        return -1;
    *workspace = entry->plan.workspace_bytes ? scratch : NULL;
    if (dot)
        to->data[UID_DOT] = (char *)scratch + first;
    if (sum)
        to->data[UID_DQ_SUM] = (char *)scratch + first + dot;
    return 0;
}

static bool is_used(const struct sdpa_key *key, int uid)
{
    switch (uid) {
    case UID_DO:
    case UID_DQ:
    case UID_DK:
    case UID_DV:
    case UID_ONE:
    case UID_DOT:
        return key->is_bwd;
    case UID_DQ_SUM:
        return key->is_any_order;
    case UID_Q_LENS:
    case UID_KV_LENS:
        return key->has_lens;
    case UID_MASK:
        return key->is_causal || key->has_lens;
    default:
        return true;
    }
}

static int execute(struct cuda *cuda, const struct entry *entry, struct binding *x,
                   struct err *err)
{
    struct sdpa_parts parts = {.n = 0};
    cudnnBackendDescriptor_t pack =
        sdpa_make(&parts, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, err);
    int64_t uids[UID_END], n = 0;
    void *data[UID_END], *workspace;
    int rc = -1;

    if (!pack || bind_scratch(cuda, x, entry, &workspace, err) < 0)
        goto out;
    for (int uid = UID_Q; uid < UID_END; uid++)
        if (is_used(&entry->key, uid)) {
            uids[n] = uid;
            data[n++] = x->data[uid];
        }
    if (sdpa_set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uids,
                 err) == 0 &&
        sdpa_set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n,
                 (const void *)data, err) == 0 &&
        sdpa_set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                 (const void *)&workspace, err) == 0 &&
        sdpa_finish(pack, "pointers", err) == 0)
        rc = sdpa_check(cudnnBackendExecute(cuda->sdpa->handle, entry->plan.plan, pack),
                        "attention", err);
out:
    sdpa_parts_fini(&parts);
    return rc;
}

static int run_pieces(struct cuda *cuda, const struct entry *entry,
                      const struct attention_shape *shape,
                      const struct attention_tensors *x, struct err *err)
{
    struct binding to = {.scale = shape->scale, .mask = -INFINITY, .one = 1};

    to.data[UID_SCALE] = &to.scale;
    to.data[UID_MASK] = &to.mask;
    to.data[UID_ONE] = &to.one;
    for (int64_t b = 0; b < shape->b; b += entry->key.b)
        for (int64_t g = 0; g < shape->g; g += entry->key.g) {
            bind(&to, entry, shape, x, b, g);
            if (execute(cuda, entry, &to, err) < 0)
                return -1;
        }
    return 0;
}

/* Makes the key that of one piece; false with `why` where there is none. */
static bool take_piece(struct sdpa *sdpa, struct sdpa_key *key)
{
    const struct sdpa_piece piece = sdpa_piece_of(key, SDPA_GRADIENT_BYTES_MAX);
    const bool is_whole = piece.b == key->b && piece.g == key->g;

    if (piece.b == 0) {
        err_set(&sdpa->why, ERR_LIMIT,
                "gradients of %d by %d scores take more than %zu bytes", (int)key->tq,
                (int)key->tk, SDPA_GRADIENT_BYTES_MAX);
        return false;
    }
    key->b = piece.b;
    key->h = key->h / key->g * piece.g;
    key->g = piece.g;
    if (!is_whole && key->h * key->tq * (int64_t)sizeof(float) % ALIGN_BYTES != 0) {
        err_set(&sdpa->why, ERR_UNSUPPORTED,
                "pieces of %d heads of %d queries are not aligned", (int)key->h,
                (int)key->tq);
        return false;
    }
    return true;
}

int sdpa_run(struct cuda *cuda, bool *is_done, const struct attention_shape *shape,
             const struct attention_tensors *x, bool is_bwd, struct err *err)
{
    struct sdpa_key key = key_of(cuda, shape, x, is_bwd);
    struct entry *entry;

    *is_done = false;
    if (!does(cuda, shape, x, is_bwd) || !take_piece(cuda->sdpa, &key))
        return 0;
    entry = entry_get(cuda, &key, err);
    if (!entry)
        return -1;
    if (!entry->plan.plan)
        return 0;
    *is_done = true;
    return run_pieces(cuda, entry, shape, x, err);
}
