/* matmul_tune.c - which of cuBLASLt's algorithms a large product takes
 *
 * cuBLASLt orders its algorithms by a guess. Of a large product the first few are timed once,
 * and the choice is kept in a file of the user's, so that every later run, and every other
 * rank on this machine, multiplies by the same algorithm and gets the same bits: a choice by
 * time that is not kept would make a resumed run differ from one that was not interrupted.
 * So without such a file nothing is timed, and cuBLASLt's first guess is taken.
 *
 * The file: $XDG_CACHE_HOME/vneva/matmul/GPU-VERSION, or ~/.cache/vneva/matmul/...; a line is
 * the numbers of the key, then the words of cublasLtMatmulAlgo_t, which may be stored for
 * the same version of the library ("cuBLAS Library", section cublasLtMatmulAlgo_t). Lines
 * are only ever appended, under a lock; of several for one key the first that the library
 * takes counts.
 * $VNEVA_MATMUL_TUNE: `off`: nothing is timed or read; `all`: small products as well.
 */
#include "model/backend/cuda/matmul.h"

#include "common/base/buf.h"
#include "common/base/fs.h"

#include <ctype.h>
#include <fcntl.h>
#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define TUNE_VARIABLE "VNEVA_MATMUL_TUNE"
#define FLOPS_MIN 2e10 /* some 30 microseconds of an H100 */
#define N_RUNS 4       /* of an algorithm, behind one that warms up */
#define FILE_BYTES_MAX ((size_t)4 << 20)
#define TUNE_LINE_MAX 1024
#define ALGO_WORDS (sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t))

_Static_assert(sizeof(struct matmul_key) == 3 * sizeof(int64_t) + 14 * sizeof(int32_t),
               "key_text writes every field of the key");

struct matmul_choices {
    char folder[FS_PATH_MAX], path[FS_PATH_MAX];
    bool is_all;
};

/* ---- the file ---- */

static int folder_of_user(char *out, struct err *err)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (cache && cache[0] == '/') /* relative ones do not count: XDG Base Directory */
        return fs_path(out, err, "%s/vneva/matmul", cache);
    if (home && home[0] == '/')
        return fs_path(out, err, "%s/.cache/vneva/matmul", home);
    return err_set(err, ERR_IO, "no home folder");
}

int matmul_choices_open(struct matmul_choices **out, const struct cuda *cuda,
                        struct err *err)
{
    const char *mode = getenv(TUNE_VARIABLE);
    struct cudaDeviceProp properties;
    struct matmul_choices *choices;
    struct err ignored = {0};

    *out = NULL;
    if (mode && strcmp(mode, "off") == 0)
        return 0;
    if (mode && strcmp(mode, "all") != 0)
        return err_set(err, ERR_INVALID, "%s is '%s', must be 'off' or 'all', or unset",
                       TUNE_VARIABLE, mode);
    if (cuda_check(cudaGetDeviceProperties(&properties, cuda->device), "asking", err) < 0)
        return -1;
    for (char *c = properties.name; *c; c++)
        *c = (char)(isalnum((unsigned char)*c) ? *c : '-');
    choices = calloc(1, sizeof(*choices));
    if (!choices)
        return err_set(err, ERR_NOMEM, "cannot allocate choices of products");
    choices->is_all = mode != NULL;
    if (folder_of_user(choices->folder, &ignored) < 0 ||
        fs_path(choices->path, &ignored, "%s/%s-%zu", choices->folder, properties.name,
                cublasLtGetVersion()) < 0) {
        free(choices); /* no place for the file: nothing is timed */
        return 0;
    }
    *out = choices;
    return 0;
}

void matmul_choices_close(struct matmul_choices *choices)
{
    free(choices);
}

/* The key's numbers as the beginning of a line, with a space behind each. */
static void key_text(char out[TUNE_LINE_MAX], const struct matmul_key *key)
{
    snprintf(out, TUNE_LINE_MAX,
             "%" PRId64 " %" PRId64 " %" PRId64
             " %d %d %d %d %d %d %d %d %d %d %d %d %d ",
             key->m, key->n, key->k, key->type, key->c_type, key->is_tf32, key->trans_a,
             key->trans_b, key->c_use, key->wanted, key->align_a, key->align_b,
             key->align_c, key->align_d, key->align_aux, key->align_bias);
}

/* ALGO_WORDS words and the end of the line. */
static bool algo_read(cublasLtMatmulAlgo_t *algo, const char *text)
{
    for (size_t i = 0; i < ALGO_WORDS; i++) {
        char *end;

        algo->data[i] = strtoull(text, &end, 16);
        if (end == text)
            return false;
        text = end;
    }
    return *text == '\n';
}

/* True when the file has a choice for the plan's key that the library takes. */
static bool is_found(const struct cuda *cuda, struct matmul_plan *plan, const char *text)
{
    cublasLtMatmulHeuristicResult_t result;
    cublasLtMatmulAlgo_t algo;
    char key[TUNE_LINE_MAX];
    size_t n;

    key_text(key, &plan->key);
    n = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n) != 0 || !algo_read(&algo, line + n))
            continue;
        if (cublasLtMatmulAlgoCheck(cuda->matmul->lt, plan->desc, plan->a, plan->b,
                                    plan->c, plan->c, &algo,
                                    &result) != CUBLAS_STATUS_SUCCESS ||
            result.workspaceSize > MATMUL_WORKSPACE_BYTES)
            continue;
        plan->algo = algo;
        return true;
    }
    return false;
}

static bool find_choice(const struct cuda *cuda, struct matmul_plan *plan)
{
    struct err ignored = {0};
    struct buf text = BUF_INIT;
    bool is_there =
        fs_read_file(&text, cuda->matmul->choices->path, FILE_BYTES_MAX, &ignored) == 0 &&
        is_found(cuda, plan, buf_str(&text));

    buf_fini(&text);
    return is_there;
}

/* For keep_choice; -1: there is no place for it. */
static int open_file(const struct matmul_choices *choices)
{
    struct err ignored = {0};

    if (fs_make_dirs(choices->folder, 0700, &ignored) < 0)
        return -1;
    return open(choices->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Keeps plan->algo, or takes what another process kept meanwhile. */
static bool keep_choice(const struct cuda *cuda, struct matmul_plan *plan, int fd)
{
    char line[TUNE_LINE_MAX];
    bool is_kept = false;
    size_t n;

    if (flock(fd, LOCK_EX) == 0) {
        is_kept = find_choice(cuda, plan);
        if (!is_kept) {
            key_text(line, &plan->key);
            n = strlen(line);
            for (size_t i = 0; i < ALGO_WORDS; i++)
                n +=
                    (size_t)snprintf(line + n, TUNE_LINE_MAX - n, "%" PRIx64 "%s",
                                     plan->algo.data[i], i + 1 < ALGO_WORDS ? " " : "\n");
            is_kept = write(fd, line, n) == (ssize_t)n;
        }
    }
    flock(fd, LOCK_UN);
    return is_kept;
}

/* ---- timing ---- */

/* Where the trials of one product go. */
struct trial {
    struct cuda *cuda;
    struct matmul_plan *plan;
    struct matmul_call call;
    cudaEvent_t start, end;
};

/* *ms: of N_RUNS products; FLT_MAX where the library does not run the algorithm. */
static int trial_time(struct trial *t, const cublasLtMatmulAlgo_t *algo, float *ms,
                      struct err *err)
{
    *ms = FLT_MAX;
    for (int i = 0; i <= N_RUNS; i++) {
        if (i == 1 &&
            cuda_check(cudaEventRecord(t->start, t->cuda->stream), "event", err) < 0)
            return -1;
        if (matmul_run(t->cuda, t->plan, &t->call, algo) != CUBLAS_STATUS_SUCCESS)
            return 0;
    }
    if (cuda_check(cudaEventRecord(t->end, t->cuda->stream), "event", err) < 0 ||
        cuda_wait_event(t->cuda, t->end, err) < 0)
        return -1;
    return cuda_check(cudaEventElapsedTime(ms, t->start, t->end), "event", err);
}

/* plan->algo = the fastest; *is_timed: there was one. */
static int trial_all(struct trial *t, const cublasLtMatmulAlgo_t *algos, int n,
                     bool *is_timed, struct err *err)
{
    float least = FLT_MAX, ms;

    for (int i = 0; i < n; i++) {
        if (trial_time(t, &algos[i], &ms, err) < 0)
            return -1;
        if (ms < least) {
            least = ms;
            t->plan->algo = algos[i];
        }
    }
    *is_timed = least < FLT_MAX;
    return 0;
}

static int trial_run(struct trial *t, const cublasLtMatmulAlgo_t *algos, int n,
                     bool *is_timed, struct err *err)
{
    int rc = -1;

    if (cuda_check(cudaEventCreateWithFlags(&t->start, cudaEventDefault), "event", err) ==
            0 &&
        cuda_check(cudaEventCreateWithFlags(&t->end, cudaEventDefault), "event", err) ==
            0)
        rc = trial_all(t, algos, n, is_timed, err);
    if (t->start)
        cudaEventDestroy(t->start);
    if (t->end)
        cudaEventDestroy(t->end);
    return rc;
}

bool matmul_is_tuned(const struct cuda *cuda, const struct matmul_key *key)
{
    const struct matmul_choices *choices = cuda->matmul->choices;

    return choices && (choices->is_all ||
                       2 * (double)key->m * (double)key->n * (double)key->k >= FLOPS_MIN);
}

/* Where c is added to, the trials go elsewhere; all else that they write, the product itself
 * writes after them. */
int matmul_tune(struct cuda *cuda, struct matmul_plan *plan,
                const struct matmul_call *call, const cublasLtMatmulAlgo_t *algos, int n,
                struct err *err)
{
    const struct matmul_key *key = &plan->key;
    size_t c_bytes = (size_t)(key->m * key->n) * dtype_bytes((enum dtype)key->c_type);
    struct trial t = {.cuda = cuda, .plan = plan, .call = *call};
    struct err no_room = {0};
    void *room = NULL;
    bool is_timed = false;
    int fd, rc = 0;

    if (find_choice(cuda, plan))
        return 0;
    /* before memory is asked for: without it the first one would be taken for good */
    if (cuda_graph_refuses(cuda, "timing algorithms", err) < 0)
        return -1;
    fd = open_file(cuda->matmul->choices);
    if (fd < 0 || (key->c_use == C_IN_PLACE &&
                   cuda_alloc(&cuda->base, &room, c_bytes, &no_room) < 0))
        goto out; /* the first one, this time */
    if (room)
        t.call.d = room;
    rc = trial_run(&t, algos, n, &is_timed, err);
    if (rc == 0 && (!is_timed || !keep_choice(cuda, plan, fd)))
        plan->algo = algos[0];
out:
    cuda_free(&cuda->base, room);
    if (fd >= 0)
        close(fd);
    return rc;
}
