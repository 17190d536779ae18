/* vneva model show: what a folder of weights holds, and what it takes to run it. */
#include "model/tools/find.h"

#include "model/tools/text_files.h"
#include "model/tools/tool.h"
#include "model/weights/weights.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define SHOW_RANKS_MAX 1024
#define SHOW_SAMPLES_MAX 4096
#define SHOW_FRAMES 8  /* unless told otherwise */
#define SHOW_WORDS 512 /* text tokens beside the frames' */

static const char help[] =
    "usage: vneva model show [options] FOLDER\n"
    "\n"
    "What the weights in FOLDER are (a checkpoint, a job's folder, or a Hugging Face\n"
    "folder), and what memory one rank takes to train or ask them.\n"
    "\n"
    "  --tensor-parallel R   ranks that share the model (default 1)\n"
    "  --micro-batch B       samples at once (default 1)\n"
    "  --frames F            frames of a sample (default 8)\n"
    "  --tokens T            tokens of a sample (default: the frames' and 512)\n"
    "  --json                print JSON\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage or bad input, 5 an error of the system.\n"
    "\n"
    "Example:\n"
    "  vneva model show --tensor-parallel 2 --frames 16 llava-1.5-7b-hf\n";

struct show {
    int64_t n_ranks, n_samples, n_frames, n_tokens;
    bool is_json;
    char folder[FS_PATH_MAX];
    struct weights *weights;
};

static const char *const part_names[PARAM_GROUP_COUNT] = {"vision", "projector", "llm"};

struct part {
    int64_t n_params, n_bytes;
    const char *dtype; /* "mixed" when there are several */
};

static struct part part_of(const struct param_table *table, enum param_group group)
{
    struct part part = {0};

    for (int i = 0; i < table->n_params; i++) {
        const struct param *param = &table->params[i];
        struct tensor whole =
            tensor_of(NULL, param->value.dtype, param->n_dims, param->dims);
        const char *dtype = dtype_name(whole.dtype);

        if (param->group != group)
            continue;
        part.n_params += tensor_count(&whole);
        part.n_bytes += (int64_t)tensor_bytes(&whole);
        part.dtype = !part.dtype || strcmp(part.dtype, dtype) == 0 ? dtype : "mixed";
    }
    return part;
}

/* ---- files ---- */

struct stored_files {
    int64_t n, n_bytes;
};

static bool holds_tensors(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot && (strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".bin") == 0);
}

static struct stored_files count_files(const char *folder)
{
    struct stored_files files = {0, 0};
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[FS_PATH_MAX];
    struct stat st;

    while (dir && (entry = readdir(dir)))
        if (holds_tensors(entry->d_name) &&
            fs_path(path, NULL, "%s/%s", folder, entry->d_name) == 0 &&
            stat(path, &st) == 0) {
            files.n++;
            files.n_bytes += st.st_size;
        }
    if (dir)
        closedir(dir);
    return files;
}

/* ---- memory ---- */

/* What is trained. */
static const struct plan {
    const char *name, *said;
    bool is_training, trains_vision, trains_llm;
    enum dtype dtype;
} plans[] = {
    {"inference_bf16", "ask it, bf16", false, false, false, DTYPE_BF16},
    {"inference_fp32", "ask it, fp32", false, false, false, DTYPE_F32},
    {"train_projector_bf16", "train the projector, bf16", true, false, false, DTYPE_BF16},
    {"train_llm_bf16", "train projector and llm, bf16", true, false, true, DTYPE_BF16},
    {"train_all_bf16", "train everything, bf16", true, true, true, DTYPE_BF16},
};
#define N_PLANS (sizeof(plans) / sizeof(*plans))

static uint64_t plan_bytes(const struct show *show, const struct plan *plan)
{
    struct neva_config config = weights_info(show->weights)->config;

    config.dtype = plan->dtype;
    config.vision.freeze = !plan->trains_vision;
    config.llm.freeze = !plan->trains_llm;
    if (config.max_tokens < show->n_tokens)
        config.max_tokens = show->n_tokens;
    return neva_plan_bytes(&config, (int)show->n_ranks, show->n_samples, show->n_tokens,
                           show->n_frames * show->n_samples, plan->is_training);
}

static int check_layout(struct show *show, struct err *err)
{
    const struct neva_config *config = &weights_info(show->weights)->config;
    int64_t patches = neva_patches(config), n_media = show->n_frames * patches;

    if (!show->n_tokens)
        show->n_tokens = n_media + SHOW_WORDS;
    if (show->n_tokens <= n_media)
        return err_set(err, ERR_INVALID,
                       "--tokens %" PRId64 ": %" PRId64 " frames alone are %" PRId64
                       " tokens",
                       show->n_tokens, show->n_frames, n_media);
    if (config->llm.n_heads % show->n_ranks || config->llm.n_kv_heads % show->n_ranks)
        return err_set(err, ERR_INVALID,
                       "--tensor-parallel %" PRId64 ": %" PRId64 " heads and %" PRId64
                       " key-value heads cannot be divided so",
                       show->n_ranks, config->llm.n_heads, config->llm.n_kv_heads);
    return 0;
}

/* ---- text ---- */

static const char *norm_name(enum nn_norm_kind kind)
{
    return kind == NN_NORM_RMS     ? "rmsnorm"
           : kind == NN_NORM_LAYER ? "layernorm"
                                   : "layernorm1p";
}

static const char *mlp_name(enum neva_mlp mlp)
{
    return mlp == NEVA_MLP_SWIGLU         ? "swiglu"
           : mlp == NEVA_MLP_RELU_SQUARED ? "squared-relu"
                                          : "gelu";
}

static void describe_part(struct buf *out, const struct neva_config *config,
                          enum param_group group)
{
    static const char *const projectors[] = {"linear", "mlp2x_gelu", "mlp_downsample"};

    if (group == PARAM_VISION)
        buf_printf(out,
                   "%s %" PRId64 "x%" PRId64 ", patch %" PRId64 ", width %" PRId64
                   ", %" PRId64 " layers, %" PRId64 " heads, layer %" PRId64 " selected",
                   config->vision.encoder == NEVA_ENCODER_CLIP ? "CLIP" : "SigLIP",
                   config->vision.image_size, config->vision.image_size,
                   config->vision.patch, config->vision.width, config->vision.n_layers,
                   config->vision.n_heads, config->vision.select_layer);
    else if (group == PARAM_PROJECTOR)
        buf_add_str(out, projectors[config->projector]);
    else
        buf_printf(out,
                   "width %" PRId64 ", %" PRId64 " layers, %" PRId64 " heads (%" PRId64
                   " of keys), vocabulary %" PRId64 ", %s, %s%s, context %" PRId64,
                   config->llm.width, config->llm.n_layers, config->llm.n_heads,
                   config->llm.n_kv_heads, config->llm.vocab,
                   norm_name(config->llm.norm.kind), mlp_name(config->llm.mlp),
                   config->llm.tied ? ", tied" : "", config->max_tokens);
}

static void print_part(const struct show *show, enum param_group group)
{
    struct part part = part_of(weights_params(show->weights), group);
    struct buf about = BUF_INIT;
    char size[32];

    if (!part.n_params)
        return;
    describe_part(&about, &weights_info(show->weights)->config, group);
    printf("%-10s %12" PRId64 " parameters, %s, %s: %s\n", part_names[group],
           part.n_params, part.dtype, tool_size(size, (double)part.n_bytes),
           buf_str(&about));
    buf_fini(&about);
}

static void print_text(const struct show *show)
{
    const struct weights_info *info = weights_info(show->weights);
    struct stored_files files = count_files(show->folder);
    const char *tokenizer = text_files_tokenizer(show->folder);
    char size[32];

    printf("folder     %s\narchitecture %s\n", show->folder, info->architecture);
    for (int group = 0; group < PARAM_GROUP_COUNT; group++)
        print_part(show, (enum param_group)group);
    printf("in all     %12" PRId64 " parameters\n", info->n_params);
    printf("files      %" PRId64 " of tensors, %s\n", files.n,
           tool_size(size, (double)files.n_bytes));
    printf("tokenizer  %s\n", tokenizer ? tokenizer : "none");
    if (info->parts != WEIGHTS_ALL)
        return;
    printf("memory of one of %" PRId64 " ranks, %" PRId64 " samples of %" PRId64
           " tokens and %" PRId64 " frames:\n",
           show->n_ranks, show->n_samples, show->n_tokens, show->n_frames);
    for (size_t i = 0; i < N_PLANS; i++)
        printf("  %-30s %s\n", plans[i].said,
               tool_size(size, (double)plan_bytes(show, &plans[i])));
}

/* ---- JSON ---- */

static struct json *part_json(const struct show *show, enum param_group group,
                              struct err *err)
{
    struct part part = part_of(weights_params(show->weights), group);
    struct json *json = json_new(JSON_OBJECT);
    struct buf about = BUF_INIT;
    int rc = -1;

    describe_part(&about, &weights_info(show->weights)->config, group);
    if (json_set(json, "parameters", json_new_int(part.n_params), err) == 0 &&
        json_set(json, "bytes", json_new_int(part.n_bytes), err) == 0 &&
        json_set(json, "dtype", json_new_string(part.dtype), err) == 0)
        rc = json_set(json, "about", json_new_string(buf_str(&about)), err);
    buf_fini(&about);
    if (rc == 0)
        return json;
    json_free(json);
    return NULL;
}

static struct json *parts_json(const struct show *show, struct err *err)
{
    struct json *parts = json_new(JSON_OBJECT);

    for (int group = 0; group < PARAM_GROUP_COUNT; group++) {
        if (!(weights_info(show->weights)->parts & 1u << group))
            continue;
        if (json_set(parts, part_names[group],
                     part_json(show, (enum param_group)group, err), err) < 0) {
            json_free(parts);
            return NULL;
        }
    }
    return parts;
}

static struct json *memory_json(const struct show *show, struct err *err)
{
    struct json *memory = json_new(JSON_OBJECT);
    bool is_whole = weights_info(show->weights)->parts == WEIGHTS_ALL;

    for (size_t i = 0; i < N_PLANS && is_whole; i++)
        if (json_set(memory, plans[i].name,
                     json_new_int((int64_t)plan_bytes(show, &plans[i])), err) < 0) {
            json_free(memory);
            return NULL;
        }
    return memory;
}

static int print_json(const struct show *show, struct err *err)
{
    const struct weights_info *info = weights_info(show->weights);
    struct stored_files files = count_files(show->folder);
    const char *tokenizer = text_files_tokenizer(show->folder);
    struct json *root = json_new(JSON_OBJECT);
    int rc = -1;

    if (json_set(root, "folder", json_new_string(show->folder), err) == 0 &&
        json_set(root, "architecture", json_new_string(info->architecture), err) == 0 &&
        json_set(root, "parameters", json_new_int(info->n_params), err) == 0 &&
        json_set(root, "dtype", json_new_string(dtype_name(info->dtype)), err) == 0 &&
        json_set(root, "files", json_new_int(files.n), err) == 0 &&
        json_set(root, "file_bytes", json_new_int(files.n_bytes), err) == 0 &&
        json_set(root, "parts", parts_json(show, err), err) == 0 &&
        json_set(root, "tokenizer",
                 tokenizer ? json_new_string(tokenizer) : json_new(JSON_NULL), err) == 0)
        rc = json_set(root, "memory_bytes", memory_json(show, err), err);
    if (rc == 0)
        rc = tool_print_json(root, err);
    json_free(root);
    return rc;
}

/* ---- the command ---- */

static int read_args(struct show *out, const struct args *args, struct err *err)
{
    out->is_json = args_has(args, "json");
    if (args_int(args, "tensor-parallel", 1, SHOW_RANKS_MAX, 1, &out->n_ranks, err) < 0 ||
        args_int(args, "micro-batch", 1, SHOW_SAMPLES_MAX, 1, &out->n_samples, err) < 0 ||
        args_int(args, "tokens", 1, INT32_MAX, 0, &out->n_tokens, err) < 0 ||
        args_int(args, "frames", 0, INT32_MAX, SHOW_FRAMES, &out->n_frames, err) < 0)
        return -1;
    return find_weights(out->folder, args->words[0], err);
}

static int run(const struct args *args, struct err *err)
{
    struct show show = {.weights = NULL};
    int rc = -1;

    if (read_args(&show, args, err) == 0 &&
        weights_open(&show.weights, show.folder, err) == 0)
        rc = weights_info(show.weights)->parts == WEIGHTS_ALL ? check_layout(&show, err)
                                                              : 0;
    if (rc == 0 && show.is_json)
        rc = print_json(&show, err);
    else if (rc == 0)
        print_text(&show);
    weights_close(show.weights);
    return rc;
}

static const struct args_option options[] = {
    {.name = "tensor-parallel", .value = "R"},
    {.name = "micro-batch", .value = "B"},
    {.name = "tokens", .value = "T"},
    {.name = "frames", .value = "F"},
    {.name = "json"},
    {0},
};

const struct program_command tool_show = {
    "show", "vneva model show", help, options, "FOLDER", 1, 1, run};
