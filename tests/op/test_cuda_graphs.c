/* test_cuda_graphs.c - stretches of operations that backend `cuda` records and replays, over
 * the stand-ins of tests/cuda_host: when it calls for them, what it refuses, and how many it
 * keeps.
 */
#include "model/backend/backend.h"
#include "tests/op/op_compare.h"

#include <stdlib.h>
#include <string.h>

#define N 4
#define TIMES 6
#define STRETCHES 300
#define GRAPH_BYTES (64 << 10) /* of one, on the stand-in */
#define GRAPHS_MAX 128         /* graph.c's */

/* y = rows of x, picked by a table. */
struct pick {
    struct backend *b;
    struct tensor x, y, rows;
    int n_calls;
    int (*forbidden)(struct pick *pick, struct err *err); /* inside, or NULL */
};

static bool pick_init(struct pick *pick, struct check *check)
{
    const int64_t dims[] = {N, 2};
    const float x[N][2] = {{0, 0}, {1, 10}, {2, 20}, {3, 30}};
    struct err err = {0};

    *pick = (struct pick){.b = op_open_cuda(check, NULL)};
    if (!pick->b)
        return false;
    check_that(check,
               backend_tensor(pick->b, &pick->x, DTYPE_F32, 2, dims, &err) == 0 &&
                   backend_tensor(pick->b, &pick->y, DTYPE_F32, 2, dims, &err) == 0 &&
                   backend_tensor(pick->b, &pick->rows, DTYPE_I32, 1, dims, &err) == 0 &&
                   pick->b->ops->upload(pick->b, pick->x.data, x, sizeof(x), &err) == 0,
               "%s", err.text);
    return true;
}

static void pick_fini(struct pick *pick)
{
    pick->b->ops->free(pick->b, pick->x.data);
    pick->b->ops->free(pick->b, pick->y.data);
    pick->b->ops->free(pick->b, pick->rows.data);
    backend_destroy(pick->b);
}

static int pick_rows(void *context, struct err *err)
{
    struct pick *pick = context;

    pick->n_calls++;
    if (pick->b->ops->gather_rows(pick->b, &pick->y, &pick->x, &pick->rows, err) < 0)
        return -1;
    return pick->forbidden ? pick->forbidden(pick, err) : 0;
}

static void set_rows(struct pick *pick, struct check *check, int first)
{
    int32_t rows[N];
    struct err err = {0};

    for (int i = 0; i < N; i++)
        rows[i] = (first + i) % N;
    check_that(check,
               pick->b->ops->upload(pick->b, pick->rows.data, rows, sizeof(rows), &err) ==
                   0,
               "%s", err.text);
}

static void run_stretch(struct pick *pick, struct check *check, uint64_t word)
{
    const struct backend_stretch stretch = {.name = "rows", .fixed = {word}};
    struct err err = {0};

    check_that(check, backend_replay(pick->b, &stretch, pick_rows, pick, &err) == 0, "%s",
               err.text);
}

static void expect_rows(struct pick *pick, struct check *check, int first)
{
    float y[N][2];
    struct err err = {0};
    bool is_right =
        pick->b->ops->download(pick->b, y, pick->y.data, sizeof(y), &err) == 0;

    for (int i = 0; i < N; i++)
        is_right = is_right && y[i][0] == (float)((first + i) % N);
    check_that(check, is_right, "not the rows from %d on: %g %g %g %g %s", first, y[0][0],
               y[1][0], y[2][0], y[3][0], err.text);
}

static void a_stretch_runs_once_is_recorded_and_is_replayed(struct check *check)
{
    struct pick pick;

    if (!pick_init(&pick, check))
        return;
    for (int i = 0; i < TIMES; i++) {
        set_rows(&pick, check, i);
        run_stretch(&pick, check, 0);
        expect_rows(&pick, check, i);
    }
    check_that(check, pick.n_calls == 2, "asked for %d times, not 2", pick.n_calls);
    check_that(check,
               pick.b->replay.n_recorded == 1 && pick.b->replay.n_launched == TIMES - 1,
               "%d recorded, %d launched", (int)pick.b->replay.n_recorded,
               (int)pick.b->replay.n_launched);
    /* a table that nobody refreshes stays what it was */
    run_stretch(&pick, check, 0);
    expect_rows(&pick, check, TIMES - 1);
    pick_fini(&pick);
}

static void stretches_with_other_words_are_others(struct check *check)
{
    struct pick pick;
    struct tensor y;

    if (!pick_init(&pick, check))
        return;
    set_rows(&pick, check, 1);
    for (int i = 0; i < TIMES; i++)
        run_stretch(&pick, check, 0);
    /* the same rows to another place: what is recorded would write to y */
    y = pick.y;
    check_that(check, backend_tensor(pick.b, &pick.y, DTYPE_F32, 2, y.dims, NULL) == 0,
               "no memory");
    for (int i = 0; i < TIMES; i++) {
        set_rows(&pick, check, 2 + i);
        run_stretch(&pick, check, (uint64_t)(uintptr_t)pick.y.data);
        expect_rows(&pick, check, 2 + i);
    }
    pick.b->ops->free(pick.b, y.data);
    pick_fini(&pick);
}

static int uploads(struct pick *pick, struct err *err)
{
    const float zero = 0;

    return pick->b->ops->upload(pick->b, pick->x.data, &zero, sizeof(zero), err);
}

static int downloads(struct pick *pick, struct err *err)
{
    float x;

    return pick->b->ops->download(pick->b, &x, pick->x.data, sizeof(x), err);
}

static int waits(struct pick *pick, struct err *err)
{
    return pick->b->ops->sync(pick->b, err);
}

static int asks_for_memory(struct pick *pick, struct err *err)
{
    void *data;

    if (pick->b->ops->alloc(pick->b, &data, 1, err) < 0)
        return -1;
    pick->b->ops->free(pick->b, data);
    return 0;
}

static void what_cannot_be_recorded_runs_each_time(struct check *check)
{
    static const struct {
        int (*forbidden)(struct pick *pick, struct err *err);
        const char *why;
    } all[] = {{uploads, "rows: an upload cannot be recorded"},
               {downloads, "rows: a download cannot be recorded"},
               {waits, "rows: waiting for the device cannot be recorded"},
               {asks_for_memory, "rows: asking for memory cannot be recorded"}};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct pick pick;

        if (!pick_init(&pick, check))
            return;
        pick.forbidden = all[i].forbidden;
        for (int t = 0; t < TIMES; t++) {
            set_rows(&pick, check, t);
            run_stretch(&pick, check, 0);
            expect_rows(&pick, check, t);
        }
        check_that(check, pick.b->replay.n_launched == 0 && pick.n_calls >= TIMES,
                   "launched %d times", (int)pick.b->replay.n_launched);
        check_that(check, strcmp(pick.b->replay.refusal.text, all[i].why) == 0, "'%s'",
                   pick.b->replay.refusal.text);
        pick_fini(&pick);
    }
}

/* db += column sums of dy, which needs scratch. */
struct sums {
    struct backend *b;
    struct tensor dy, db;
};

static int add_sums(void *context, struct err *err)
{
    struct sums *sums = context;

    return sums->b->ops->bias_bwd(sums->b, &sums->db, &sums->dy, err);
}

static struct sums make_sums(struct backend *b, struct check *check, int64_t rows,
                             int64_t columns)
{
    struct sums sums = {.b = b};
    float *ones = malloc((size_t)(rows * columns) * sizeof(*ones));
    struct err err = {0};

    for (int64_t i = 0; ones && i < rows * columns; i++)
        ones[i] = 1;
    check_that(
        check,
        ones &&
            backend_tensor(b, &sums.dy, DTYPE_F32, 2, (int64_t[]){rows, columns}, &err) ==
                0 &&
            backend_tensor(b, &sums.db, DTYPE_F32, 1, &columns, &err) == 0 &&
            b->ops->upload(b, sums.dy.data, ones, tensor_bytes(&sums.dy), &err) == 0,
        "%s", err.text);
    free(ones);
    return sums;
}

static void sums_fini(struct sums *sums)
{
    sums->b->ops->free(sums->b, sums->dy.data);
    sums->b->ops->free(sums->b, sums->db.data);
}

/* What was recorded has the scratch where it was, and there is something else now. */
static void graphs_are_made_anew_when_scratch_moves(struct check *check)
{
    const struct backend_stretch stretch = {.name = "sums"};
    struct backend *b = op_open_cuda(check, NULL);
    struct sums small, large;
    float first = 0;

    if (!b)
        return;
    small = make_sums(b, check, 700, 8);
    large = make_sums(b, check, 700, 264);
    for (int i = 0; i < TIMES; i++) {
        check_that(check, backend_replay(b, &stretch, add_sums, &small, NULL) == 0,
                   "sums failed");
        if (i == 3)
            check_that(check, add_sums(&large, NULL) == 0, "larger sums failed");
    }
    check_that(check,
               b->ops->download(b, &first, small.db.data, sizeof(first), NULL) == 0 &&
                   first == TIMES * 700,
               "the sum is %g", first);
    check_that(check, b->replay.n_recorded == 2, "%d recorded",
               (int)b->replay.n_recorded);
    sums_fini(&small);
    sums_fini(&large);
    backend_destroy(b);
}

static void graphs_are_bounded_and_their_memory_counts(struct check *check)
{
    struct pick pick;
    struct backend_memory before, after;

    if (!pick_init(&pick, check))
        return;
    pick.b->ops->memory(pick.b, &before);
    for (int t = 0; t < STRETCHES; t++) {
        set_rows(&pick, check, t);
        for (int i = 0; i < 3; i++)
            run_stretch(&pick, check, (uint64_t)t);
        expect_rows(&pick, check, t);
    }
    pick.b->ops->memory(pick.b, &after);
    check_that(check, after.used - before.used == (uint64_t)GRAPHS_MAX * GRAPH_BYTES,
               "graphs take %zu bytes", (size_t)(after.used - before.used));
    check_that(check, pick.b->replay.n_recorded == STRETCHES, "%d recorded",
               (int)pick.b->replay.n_recorded);
    run_stretch(&pick, check, STRETCHES - 1); /* the newest is there, the oldest is not */
    check_that(check, pick.n_calls == 2 * STRETCHES, "the newest is gone");
    run_stretch(&pick, check, 0);
    check_that(check, pick.n_calls == 2 * STRETCHES + 1, "the oldest is still there");
    pick_fini(&pick);
}

static void without_memory_for_a_graph_all_runs_as_it_is(struct check *check)
{
    struct pick pick;
    struct backend_memory memory;
    char text[32];

    if (!pick_init(&pick, check))
        return;
    pick.b->ops->memory(pick.b, &memory);
    snprintf(text, sizeof(text), "%llu", (unsigned long long)memory.used + 100);
    setenv("CUDA_HOST_MEMORY", text, 1);
    for (int i = 0; i < TIMES; i++) {
        set_rows(&pick, check, i);
        run_stretch(&pick, check, 0);
        expect_rows(&pick, check, i);
    }
    unsetenv("CUDA_HOST_MEMORY");
    check_that(check, pick.b->replay.n_launched == 0 && pick.b->replay.n_refused == 2,
               "%d refused", (int)pick.b->replay.n_refused);
    pick_fini(&pick);
}

static void the_switch_turns_them_off(struct check *check)
{
    struct pick pick;

    setenv("VNEVA_CUDA_GRAPHS", "off", 1);
    if (pick_init(&pick, check)) {
        for (int i = 0; i < TIMES; i++)
            run_stretch(&pick, check, 0);
        check_that(check, pick.n_calls == TIMES && pick.b->replay.n_recorded == 0,
                   "asked for %d times", pick.n_calls);
        pick_fini(&pick);
    }
    unsetenv("VNEVA_CUDA_GRAPHS");
}

int main(void)
{
    struct check check = {0};

    check_run(&check, a_stretch_runs_once_is_recorded_and_is_replayed);
    check_run(&check, stretches_with_other_words_are_others);
    check_run(&check, what_cannot_be_recorded_runs_each_time);
    check_run(&check, graphs_are_made_anew_when_scratch_moves);
    check_run(&check, graphs_are_bounded_and_their_memory_counts);
    check_run(&check, without_memory_for_a_graph_all_runs_as_it_is);
    check_run(&check, the_switch_turns_them_off);
    return check_end(&check);
}
