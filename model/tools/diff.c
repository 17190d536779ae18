/* vneva model diff: two folders of weights, tensor by tensor. */
#include "model/backend/half.h"

#include "model/tools/find.h"
#include "model/tools/tool.h"
#include "model/weights/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: vneva model diff [--tolerance X] [--all] [--json] A B\n"
    "\n"
    "Compares the weights of two folders (checkpoints, jobs' folders, Hugging Face\n"
    "folders), whatever layout or type they are stored in. Per tensor: the largest\n"
    "difference, and that difference relative to the tensor's largest number.\n"
    "\n"
    "  --tolerance X   tensors are equal up to this relative difference (default 0)\n"
    "  --all           list the equal ones too\n"
    "  --json          print JSON\n"
    "\n"
    "Exit status: 0 equal, 1 not, 2 wrong usage or bad input, 5 an error of the system.\n"
    "\n"
    "Example: did freezing work?\n"
    "  vneva model diff ~/.vneva/jobs/2 ~/.vneva/jobs/3\n";

struct diff {
    struct weights *a, *b;
    char *room_a, *room_b; /* a tensor each */
    size_t room_bytes;
    double tolerance;
    bool lists_all, is_json;
    struct json *list;
    int64_t n_same_bits, n_equal, n_differing, n_missing, n_shapes;
};

enum verdict { SAME_BITS, EQUAL, DIFFERING, ONLY_A, ONLY_B, OTHER_SHAPE };
static const char *const verdict_names[] = {"same",   "equal",  "differs",
                                            "only-a", "only-b", "other-shape"};

struct finding {
    enum verdict verdict;
    double largest, relative;
};

static double item(const char *at, enum dtype dtype, int64_t i)
{
    uint16_t half;
    float value;

    if (dtype == DTYPE_F32) {
        memcpy(&value, at + (size_t)i * sizeof(value), sizeof(value));
        return (double)value;
    }
    memcpy(&half, at + (size_t)i * sizeof(half), sizeof(half));
    return (double)(dtype == DTYPE_BF16 ? bf16_to_float(half) : f16_to_float(half));
}

/* A number that is none differs from everything but itself. */
static double distance(double x, double y)
{
    if (isnan(x) && isnan(y))
        return 0;
    if (isnan(x) || isnan(y) || (isinf(x) && x != y) || (isinf(y) && x != y))
        return INFINITY;
    return x == y ? 0 : fabs(x - y);
}

static void compare(const struct diff *diff, const struct tensor *a,
                    const struct tensor *b, struct finding *out)
{
    int64_t n = tensor_count(a);
    double most = 0;

    *out = (struct finding){.verdict = EQUAL};
    if (a->dtype == b->dtype &&
        memcmp(diff->room_a, diff->room_b, tensor_bytes(a)) == 0) {
        out->verdict = SAME_BITS;
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        double x = item(diff->room_a, a->dtype, i), y = item(diff->room_b, b->dtype, i);
        double d = distance(x, y);

        out->largest = d > out->largest ? d : out->largest;
        most = fabs(x) > most ? fabs(x) : most;
        most = fabs(y) > most ? fabs(y) : most;
    }
    out->relative = out->largest == 0 ? 0 : out->largest / most;
    if (isnan(out->relative)) /* infinite both */
        out->relative = INFINITY;
    if (out->relative > diff->tolerance)
        out->verdict = DIFFERING;
}

/* ---- reports ---- */

static void shape_text(struct buf *out, const struct param *param)
{
    buf_add_char(out, '[');
    for (int i = 0; i < param->n_dims; i++)
        buf_printf(out, "%s%" PRId64, i ? "," : "", param->dims[i]);
    buf_printf(out, "] %s", dtype_name(param->value.dtype));
}

static int add_json(struct diff *diff, const char *name, const struct finding *finding,
                    struct err *err)
{
    struct json *line = json_new(JSON_OBJECT);

    if (json_set(line, "name", json_new_string(name), err) < 0 ||
        json_set(line, "verdict", json_new_string(verdict_names[finding->verdict]), err) <
            0 ||
        json_set(line, "largest", json_new_double(finding->largest), err) < 0 ||
        json_set(line, "relative", json_new_double(finding->relative), err) < 0) {
        json_free(line);
        return -1;
    }
    return json_append(diff->list, line, err);
}

static void print_line(const struct param *a, const struct param *b,
                       const struct finding *finding)
{
    struct buf shapes = BUF_INIT;

    if (finding->verdict == EQUAL || finding->verdict == DIFFERING) {
        buf_printf(&shapes, "%.3g (relative %.3g)", finding->largest, finding->relative);
    } else {
        if (a)
            shape_text(&shapes, a);
        if (a && b && finding->verdict == OTHER_SHAPE) {
            buf_add_str(&shapes, " and ");
            shape_text(&shapes, b);
        } else if (b && !a) {
            shape_text(&shapes, b);
        }
    }
    printf("%-12s %s  %s\n", verdict_names[finding->verdict], a ? a->name : b->name,
           buf_str(&shapes));
    buf_fini(&shapes);
}

static int report(struct diff *diff, const struct param *a, const struct param *b,
                  const struct finding *finding, struct err *err)
{
    bool is_equal = finding->verdict <= EQUAL;

    diff->n_same_bits += finding->verdict == SAME_BITS;
    diff->n_equal += finding->verdict == EQUAL;
    diff->n_differing += finding->verdict == DIFFERING;
    diff->n_missing += finding->verdict == ONLY_A || finding->verdict == ONLY_B;
    diff->n_shapes += finding->verdict == OTHER_SHAPE;
    if (diff->is_json)
        return add_json(diff, a ? a->name : b->name, finding, err);
    if (!is_equal || diff->lists_all)
        print_line(a, b, finding);
    return 0;
}

/* ---- walking ---- */

static int need_room(struct diff *diff, size_t n_bytes, struct err *err)
{
    if (n_bytes <= diff->room_bytes)
        return 0;
    free(diff->room_a);
    free(diff->room_b);
    diff->room_a = malloc(n_bytes);
    diff->room_b = malloc(n_bytes);
    diff->room_bytes = diff->room_a && diff->room_b ? n_bytes : 0;
    if (!diff->room_bytes)
        return err_set(err, ERR_NOMEM, "cannot allocate two tensors of %zu bytes",
                       n_bytes);
    return 0;
}

static int index_of(const struct param_table *table, const char *name)
{
    const struct param *param = param_find(table, name);

    return param ? (int)(param - table->params) : -1;
}

static struct tensor whole(const struct param *param)
{
    return tensor_of(NULL, param->value.dtype, param->n_dims, param->dims);
}

static int diff_tensor(struct diff *diff, int i, int j, struct finding *out,
                       struct err *err)
{
    struct tensor a = whole(&weights_params(diff->a)->params[i]);
    struct tensor b = whole(&weights_params(diff->b)->params[j]);
    size_t n_bytes =
        tensor_bytes(&a) > tensor_bytes(&b) ? tensor_bytes(&a) : tensor_bytes(&b);

    if (a.n_dims != b.n_dims ||
        memcmp(a.dims, b.dims, (size_t)a.n_dims * sizeof(*a.dims)) != 0) {
        *out = (struct finding){.verdict = OTHER_SHAPE};
        return 0;
    }
    if (need_room(diff, n_bytes, err) < 0 ||
        weights_read(diff->a, i, diff->room_a, err) < 0 ||
        weights_read(diff->b, j, diff->room_b, err) < 0)
        return -1;
    compare(diff, &a, &b, out);
    return 0;
}

static int walk(struct diff *diff, struct err *err)
{
    const struct param_table *a = weights_params(diff->a), *b = weights_params(diff->b);
    struct finding finding;

    for (int i = 0; i < a->n_params; i++) {
        int j = index_of(b, a->params[i].name);

        finding = (struct finding){.verdict = ONLY_A};
        if (j >= 0 && diff_tensor(diff, i, j, &finding, err) < 0)
            return -1;
        if (report(diff, &a->params[i], j < 0 ? NULL : &b->params[j], &finding, err) < 0)
            return -1;
    }
    finding = (struct finding){.verdict = ONLY_B};
    for (int j = 0; j < b->n_params; j++)
        if (index_of(a, b->params[j].name) < 0 &&
            report(diff, NULL, &b->params[j], &finding, err) < 0)
            return -1;
    return 0;
}

static int print_json(struct diff *diff, bool is_equal, struct err *err)
{
    struct json *root = json_new(JSON_OBJECT);
    int rc = -1;

    if (json_set(root, "equal", json_new_bool(is_equal), err) == 0 &&
        json_set(root, "same_bits", json_new_int(diff->n_same_bits), err) == 0 &&
        json_set(root, "within_tolerance", json_new_int(diff->n_equal), err) == 0 &&
        json_set(root, "differing", json_new_int(diff->n_differing), err) == 0 &&
        json_set(root, "only_in_one", json_new_int(diff->n_missing), err) == 0 &&
        json_set(root, "other_shapes", json_new_int(diff->n_shapes), err) == 0) {
        rc = json_set(root, "tensors", diff->list, err);
        diff->list = NULL; /* root's now */
    }
    if (rc == 0)
        rc = tool_print_json(root, err);
    json_free(root);
    return rc;
}

static int finish(struct diff *diff, struct err *err)
{
    bool is_equal = !diff->n_differing && !diff->n_missing && !diff->n_shapes;

    if (diff->is_json) {
        if (print_json(diff, is_equal, err) < 0)
            return -1;
    } else {
        printf("%" PRId64 " tensors have the same bits, %" PRId64 " are equal, %" PRId64
               " differ, %" PRId64 " are in one only, %" PRId64 " have other shapes\n",
               diff->n_same_bits, diff->n_equal, diff->n_differing, diff->n_missing,
               diff->n_shapes);
    }
    return is_equal ? TOOL_DONE : TOOL_FAILED;
}

static int open_one(struct weights **out, const char *path, struct err *err)
{
    char folder[FS_PATH_MAX];

    return find_weights(folder, path, err) < 0 ? -1 : weights_open(out, folder, err);
}

static int run(const struct args *args, struct err *err)
{
    struct diff diff = {.list = json_new(JSON_ARRAY),
                        .lists_all = args_has(args, "all"),
                        .is_json = args_has(args, "json")};
    int status = -1;

    if (args_number(args, "tolerance", 0, INFINITY, 0, &diff.tolerance, err) == 0 &&
        open_one(&diff.a, args->words[0], err) == 0 &&
        open_one(&diff.b, args->words[1], err) == 0 && walk(&diff, err) == 0)
        status = finish(&diff, err);
    weights_close(diff.a);
    weights_close(diff.b);
    free(diff.room_a);
    free(diff.room_b);
    json_free(diff.list);
    return status;
}

static const struct args_option options[] = {
    {.name = "tolerance", .value = "X"}, {.name = "all"}, {.name = "json"}, {0}};

const struct program_command tool_diff = {
    "diff", "vneva model diff", help, options, "A B, two folders of weights", 2, 2, run};
