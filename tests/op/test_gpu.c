/* test_gpu.c FILE.json [TEXT] - every operation on the GPU there is, against `ref`, as one table
 *
 * TEXT: only cases whose names contain it. Exit status 77: there is no GPU. Bounds are those of op_compare.c.
 */
#include "tests/op/op_compare.h"

#include <string.h>

#define SKIPPED 77

static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

/* The worst output of one case in one type. */
struct result {
    struct distance worst;
    const char *output;
    bool is_right, is_same_again;
};

static struct result judge(const struct op_run *got, const struct op_run *want)
{
    struct result r = {.is_right = !got->has_failed && got->n_kept > 0 &&
                                   got->n_kept == want->n_kept};

    for (int i = 0; i < got->n_kept && i < want->n_kept; i++) {
        struct op_bounds most = op_bounds_of(got, got->kept[i].dtype);
        struct distance d =
            distance_of(got->kept[i].values, want->kept[i].values, want->kept[i].n);

        if (!(d.nmse <= most.nmse && d.max_rel <= most.max_rel))
            r.is_right = false;
        if (!r.output || !(d.max_rel <= r.worst.max_rel)) {
            r.worst = d;
            r.output = got->kept[i].name;
        }
    }
    return r;
}

static struct result run_case(struct backend *gpu, struct backend *ref,
                              const struct op_case *op, enum dtype dtype)
{
    struct op_run want, got, again;
    struct result r;

    op_run(&want, ref, op, dtype);
    op_run(&got, gpu, op, dtype);
    op_run(&again, gpu, op, dtype);
    r = judge(&got, &want);
    r.is_same_again = op_has_same_bits(&got, &again);
    if (got.has_failed)
        printf("%s: %s\n", op->name, got.err.text);
    op_run_free(&want);
    op_run_free(&got);
    op_run_free(&again);
    return r;
}

static const char *verdict(const struct result *r)
{
    if (!r->is_right)
        return "WRONG";
    return r->is_same_again ? "ok" : "other bits again";
}

static int run_all(struct backend *gpu, struct backend *ref, FILE *json, const char *only)
{
    int n_wrong = 0, n = 0;

    printf("%-36s %-5s %-10s %9s %9s\n", "operation", "type", "output", "nmse",
           "largest");
    fprintf(json, "{\"ops\": [");
    for (int i = 0; i < op_n_cases; i++)
        for (size_t t = 0; t < N_TYPES && strstr(op_cases[i].name, only); t++) {
            struct result r = run_case(gpu, ref, &op_cases[i], types[t]);
            const char *output = r.output ? r.output : "-";

            printf("%-36s %-5s %-10s %9.2g %9.2g %s\n", op_cases[i].name,
                   dtype_name(types[t]), output, r.worst.nmse, r.worst.max_rel,
                   verdict(&r));
            fprintf(
                json,
                "%s\n{\"op\": \"%s\", \"type\": \"%s\", \"output\": \"%s\", \"nmse\": "
                "%.3g, \"largest\": %.3g, \"verdict\": \"%s\"}",
                n++ ? "," : "", op_cases[i].name, dtype_name(types[t]), output,
                isfinite(r.worst.nmse) ? r.worst.nmse : -1,
                isfinite(r.worst.max_rel) ? r.worst.max_rel : -1, verdict(&r));
            n_wrong += !r.is_right || !r.is_same_again;
        }
    fprintf(json, "\n], \"n\": %d, \"n_wrong\": %d}\n", n, n_wrong);
    printf("%d operations, %d wrong\n", n, n_wrong);
    return n == 0 || n_wrong > 0;
}

int main(int argc, char **argv)
{
    struct backend *gpu = NULL, *ref = NULL;
    struct err err = {0};
    FILE *json;
    int rc;

    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: test_gpu FILE.json [TEXT]\n");
        return 2;
    }
    if (backend_create(&gpu, "cuda", 0, 0, &err) < 0) {
        printf("skipped: %s\n", err.text);
        return err.code == ERR_UNSUPPORTED ? SKIPPED : 1;
    }
    json = fopen(argv[1], "w");
    if (!json || backend_create(&ref, "ref", 0, 1, &err) < 0) {
        fprintf(stderr, "cannot write '%s', or no backend 'ref'\n", argv[1]);
        rc = 1;
    } else {
        rc = run_all(gpu, ref, json, argc == 3 ? argv[2] : "");
    }
    if (json && fclose(json) != 0)
        rc = 1;
    backend_destroy(ref);
    backend_destroy(gpu);
    return rc;
}
