/* bench_import [--gb N] [--folder DIR] [--repeat N] - what bringing weights in costs,
 * beside reading their files
 *
 * Writes a LLaVA of about N GB (default 2) in bf16 shards, warms the page cache, and times,
 * best of --repeat: read(2) of all files as cat does; `vneva import` (open, check, checksum,
 * link); loading into a bf16 model that only answers, and into one that is trained (masters
 * in fp32). One JSON line each; "ratio" is to reading. The folder is removed.
 */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/safetensors.h"
#include "model/neva/internal.h"
#include "model/weights/hf_config.h"
#include "model/weights/hf_names.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define READ_BYTES (128 << 10) /* cat's */
#define SHARD_BYTES ((size_t)512 << 20)
#define N_TENSORS_MAX 4096

struct bench {
    char folder[FS_PATH_MAX], source[FS_PATH_MAX];
    struct neva_config config;
    uint64_t n_bytes;
    int n_shards, n_repeat;
    double reading_s;
};

static void die(const struct err *err)
{
    fprintf(stderr, "bench_import: %s\n", err->text);
    exit(1);
}

/* ---- a folder ---- */

/* Llama's proportions; layers of 2048: 100 MB each, CLIP's ViT-L/14 beside them. */
static struct neva_config config_of(double n_gigabytes)
{
    struct neva_config config = {
        .vision = {.image_size = 224,
                   .patch = 14,
                   .width = 1024,
                   .ffn_width = 4096,
                   .n_layers = 24,
                   .n_heads = 16,
                   .select_layer = -2,
                   .class_token_length = 1,
                   .act = ACT_QUICK_GELU,
                   .eps = 1e-5F},
        .projector = NEVA_PROJECTOR_MLP2X_GELU,
        .llm = {.vocab = 32000,
                .width = 2048,
                .ffn_width = 5632,
                .n_layers = 1,
                .n_heads = 16,
                .n_kv_heads = 16,
                .norm = {NN_NORM_RMS, 1e-5F},
                .rope = {.rot_dims = 128, .theta = 10000}},
        .max_tokens = 2048,
        .dtype = DTYPE_BF16,
    };

    memcpy(config.vision.mean, hf_clip_mean, sizeof(config.vision.mean));
    memcpy(config.vision.std, hf_clip_std, sizeof(config.vision.std));
    while (2e-9 * (double)neva_n_params(&config) < n_gigabytes)
        config.llm.n_layers++;
    return config;
}

static int fill(void *state, int i, void *out, struct err *err)
{
    const struct safetensor *tensors = state;
    uint16_t *to = out;
    uint32_t noise = 12345U + (uint32_t)i;

    (void)err;
    for (int64_t j = 0; j < tensor_count(&tensors[i].tensor); j++) {
        noise = noise * 1664525U + 1013904223U;
        to[j] = (uint16_t)(0x3c00U | (noise >> 16 & 0x83ffU)); /* around 0.01 */
    }
    return 0;
}

static void write_json(const struct bench *bench, const char *name, struct json *json)
{
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    struct err err = {0};

    json_write(&text, json, 1);
    if (fs_path(path, &err, "%s/%s", bench->source, name) < 0 ||
        fs_write_file_atomic(path, text.data, text.n_bytes, &err) < 0)
        die(&err);
    buf_fini(&text);
    json_free(json);
}

static void shard_path(const struct bench *bench, char *path, int shard)
{
    snprintf(path, FS_PATH_MAX, "%.3000s/model-%05d.safetensors", bench->source, shard);
}

static void write_shard(struct bench *bench, struct safetensor *tensors, int n)
{
    struct safetensors_source source = {tensors, fill};
    char path[FS_PATH_MAX];
    uint64_t hash, n_bytes = 0;
    struct err err = {0};

    shard_path(bench, path, bench->n_shards);
    if (safetensors_write(path, tensors, n, &source, &hash, &n_bytes, &err) < 0)
        die(&err);
    bench->n_bytes += n_bytes;
    bench->n_shards++;
}

static void write_folder(struct bench *bench)
{
    static struct safetensor tensors[N_TENSORS_MAX];
    struct json *index = json_new(JSON_OBJECT), *map = json_new(JSON_OBJECT),
                *config = NULL;
    struct param_table table;
    struct err err = {0};
    size_t n_bytes = 0;
    int n = 0;

    if (param_table_build(&table, &bench->config, 0, 1, &err) < 0)
        die(&err);
    for (int i = 0; i < table.n_params; i++) {
        const struct param *param = &table.params[i];
        char shard[64];

        tensors[n] = (struct safetensor){
            .tensor = tensor_of(NULL, DTYPE_BF16, param->n_dims, param->dims)};
        hf_name_write(tensors[n].name, param->name);
        snprintf(shard, sizeof(shard), "model-%05d.safetensors", bench->n_shards);
        if (json_set(map, tensors[n].name, json_new_string(shard), &err) < 0)
            die(&err);
        n_bytes += tensor_bytes(&tensors[n++].tensor);
        if (n_bytes < SHARD_BYTES && i + 1 < table.n_params)
            continue;
        write_shard(bench, tensors, n);
        n_bytes = 0;
        n = 0;
    }
    param_table_fini(&table);
    if (json_set(index, "weight_map", map, &err) < 0 ||
        hf_config_write(&config, &bench->config, DTYPE_BF16, -1, &err) < 0)
        die(&err);
    write_json(bench, "model.safetensors.index.json", index);
    write_json(bench, "config.json", config);
}

/* ---- what is timed ---- */

static void read_all(struct bench *bench)
{
    static char block[READ_BYTES];

    for (int i = 0; i < bench->n_shards; i++) {
        char path[FS_PATH_MAX];
        ssize_t n;
        int fd;

        shard_path(bench, path, i);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        do
            n = read(fd, block, sizeof(block));
        while (n > 0);
        close(fd);
    }
}

static void import(struct bench *bench)
{
    struct weights *weights = NULL;
    char path[FS_PATH_MAX];
    struct err err = {0};

    if (fs_path(path, &err, "%s/imported", bench->folder) < 0 ||
        weights_open(&weights, bench->source, &err) < 0 ||
        checkpoint_adopt(path, weights, false, NULL, NULL, &err) < 0)
        die(&err);
    weights_close(weights);
}

static void load(struct bench *bench, bool is_trained, const char *name)
{
    struct neva_config config = bench->config;
    struct weights *weights = NULL;
    struct backend *backend = NULL;
    struct comm *solo = NULL;
    struct neva *model = NULL;
    char path[FS_PATH_MAX];
    struct err err = {0};

    config.vision.freeze = config.llm.freeze = !is_trained;
    if (backend_create(&backend, "cpu", 0, 0, &err) < 0 &&
        backend_create(&backend, "ref", 0, 0, &err) < 0)
        die(&err);
    if (fs_path(path, &err, "%s/%s", bench->folder, name) < 0 ||
        comm_create_solo(&solo, "tensor", &err) < 0 ||
        weights_open(&weights, path, &err) < 0 ||
        neva_create_bare(&model, &config, backend, solo, &err) < 0 ||
        weights_load(model, weights, WEIGHTS_ALL, &err) < 0)
        die(&err);
    weights_close(weights);
    neva_destroy(model);
    comm_destroy(solo);
    backend_destroy(backend);
}

static void load_for_answers(struct bench *bench)
{
    load(bench, false, "source");
}

static void load_imported(struct bench *bench)
{
    load(bench, false, "imported");
}

static void load_for_training(struct bench *bench)
{
    load(bench, true, "source");
}

/* Of all threads: says more than the clock on a machine with other work. */
static double cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void measure(struct bench *bench, const char *what, void (*run)(struct bench *))
{
    double best = 0, cpu = 0;
    struct rusage usage;

    for (int i = 0; i < bench->n_repeat; i++) {
        double begin = (double)clock_mono_ms(), cpu_begin = cpu_seconds(), took;

        run(bench);
        took = ((double)clock_mono_ms() - begin) / 1000;
        best = i == 0 || took < best ? took : best;
        took = cpu_seconds() - cpu_begin;
        cpu = i == 0 || took < cpu ? took : cpu;
    }
    if (run == read_all)
        bench->reading_s = best;
    getrusage(RUSAGE_SELF, &usage);
    printf(
        "{\"what\": \"%s\", \"gb\": %.2f, \"s\": %.3f, \"cpu_s\": %.3f, \"ratio\": %.2f, "
        "\"peak_rss_mb\": %ld}\n",
        what, 1e-9 * (double)bench->n_bytes, best, cpu, best / bench->reading_s,
        usage.ru_maxrss / 1024);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct bench bench = {.n_repeat = 3};
    const char *folder = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    double n_gigabytes = 2;
    struct err err = {0};

    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], "--gb") == 0)
            n_gigabytes = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--repeat") == 0)
            bench.n_repeat = (int)strtol(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--folder") == 0)
            folder = argv[i + 1];
    if (fs_path(bench.folder, &err, "%.3000s/vneva-bench-%d", folder, (int)getpid()) <
            0 ||
        fs_path(bench.source, &err, "%.3000s/source", bench.folder) < 0 ||
        fs_make_dirs(bench.source, 0700, &err) < 0)
        die(&err);
    bench.config = config_of(n_gigabytes);
    write_folder(&bench);
    read_all(&bench);
    measure(&bench, "reading the files", read_all);
    measure(&bench, "import", import);
    measure(&bench, "load to answer, bf16", load_for_answers);
    measure(&bench, "load what was imported, checksums verified", load_imported);
    measure(&bench, "load to train, fp32 masters", load_for_training);
    if (fs_remove_tree(bench.folder, &err) < 0)
        die(&err);
    return 0;
}
