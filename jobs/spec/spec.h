/* spec.h - a job's specification: NeMo's keys, resolved, checked and typed
 *
 * A spec file is YAML with the keys of NeMo's video_neva_config.yaml (and, for evaluate,
 * neva_inference.yaml) plus the few of our own named below; `${a.b}`, `${.x}`, `${..x}`
 * and `${multiply:a,b}` references; Hydra's `key.path=value` overrides.
 * One table (spec_schema.c) holds every key: path, type, default, who reads it, and
 * whether it is used, ignored (listed as such) or refused when set to what we cannot do.
 * Over the wire and in the store a spec travels as its resolved JSON tree.
 * Owns: a struct spec owns everything its pointers reach.
 */
#ifndef VNEVA_JOBS_SPEC_SPEC_H
#define VNEVA_JOBS_SPEC_SPEC_H

#include "common/base/err.h"
#include "common/base/json.h"

#include <stdbool.h>
#include <stdint.h>

enum spec_kind {
    SPEC_NONE,
    SPEC_PREPARE,
    SPEC_PRETRAIN,
    SPEC_FINETUNE,
    SPEC_EVALUATE,
    SPEC_KIND_COUNT,
};

struct spec_list { /* of strings */
    char **items;
    int64_t count;
};

/* So many of them or, as Lightning reads a number with a point, that part of all. */
struct spec_share {
    int64_t count; /* -1: a part */
    double part;
};

/* Names follow the keys; a comment gives the path where it is not plain. NULL: not set. */
struct spec {
    enum spec_kind kind; /* kind: (ours), or given on the command line */
    char *name;          /* name: */
    struct json *tree;   /* the resolved tree all this was read from */

    struct { /* trainer.* */
        int64_t devices, num_nodes, max_steps, log_every_n_steps, val_check_interval;
        struct spec_share limit_val_batches;
        char *precision;   /* "32", "tf32", "bf16" (also "bf16-mixed"), "16" */
        char *accelerator; /* "gpu", "cpu", "auto" */
        double gradient_clip_val;
    } trainer;
    char *restore_from_path; /* model.restore_from_path follows it */
    struct {                 /* exp_manager.* */
        char *explicit_log_dir, *exp_dir, *name, *resume_from_checkpoint;
        bool resume_if_exists, resume_ignore_no_checkpoint;
        int64_t every_n_train_steps; /* checkpoint_callback_params.; default
                                        val_check_interval */
        int64_t save_top_k; /* checkpoint_callback_params.; the last K are kept */
    } exp_manager;
    struct { /* model.* */
        int64_t micro_batch_size, global_batch_size, tensor_model_parallel_size;
        char *restore_from_path, *resume_from_checkpoint;
        int64_t encoder_seq_length, num_layers, hidden_size, ffn_hidden_size,
            num_attention_heads, num_query_groups;
        char *normalization, *activation, *position_embedding_type;
        double layernorm_epsilon, rotary_percentage, rotary_base, init_method_std;
        double seq_len_interpolation_factor; /* 1: positions as they are */
        bool use_scaled_init_method, share_embeddings_and_output_weights, bias, qkv_bias;
        bool scale_positional_embedding;
        char *activations_checkpoint_granularity; /* NULL, "selective", "full" */
        char *activations_checkpoint_method;      /* "uniform", "block" */
        int64_t activations_checkpoint_num_layers;
        int64_t seed;
        double native_amp_init_scale;
        int64_t native_amp_growth_interval, hysteresis;
    } model;
    struct {                  /* model.mm_cfg.* */
        bool llm_freeze;      /* llm.freeze */
        char *llm_model_type; /* llm.model_type */
        char *llm_from_pretrained;
        char *mm_mlp_adapter_type; /* "linear", "mlp2x_gelu", "mlp_downsample" */
        char *pretrain_mm_mlp_adapter;
        bool use_im_start_end;
    } mm_cfg;
    /* Sizes and kinds of the LLM (above) and of the encoder (below) are 0 or NULL where the
     * file is silent and a folder of weights says them. */
    struct { /* model.mm_cfg.vision_encoder.*; the sizes below crop_size are ours */
        char *from_pretrained;
        char *model_type;             /* "clip", "siglip" */
        int64_t patch_dim, crop_size; /* crop_size: [S, S] or S */
        int64_t hidden_size, ffn_hidden_size, num_layers, num_attention_heads;
        int64_t vision_select_layer, class_token_length; /* see spec_class_tokens */
        char *vision_select_feature;                     /* "patch", "cls_patch" */
        char *activation; /* "quick_gelu", "gelu", "gelu_pytorch_tanh" */
        double layernorm_epsilon;
        bool freeze;
    } vision;
    struct {                          /* model.tokenizer.* */
        char *library, *type, *model; /* see spec_tokenizer */
        struct spec_list additional_special_tokens;
    } tokenizer;
    struct {                        /* model.data.* */
        struct spec_list data_path; /* prepare: annotation files; training: prepared
                                        datasets; a string is a list of one */
        struct spec_list validation_data_path; /* ours: prepared datasets */
        char *media_type, *splice_single_frame, *conv_template, *image_folder,
            *video_folder, *image_aspect_ratio;
        bool sep_image_conv_front;
        int64_t num_frames, num_workers;
        /* ours, of this same group */
        char *output;               /* prepare: where the prepared dataset goes */
        double max_reject_fraction; /* prepare; 0 */
        int64_t shard_size;         /* batch kinds: samples a task; 256 */
        bool store_frames;          /* prepare: keep preprocessed frames; false */
        bool prompts_only;          /* prepare: questions for evaluate; false */
        int64_t frame_cache_mb;     /* decoded frames a rank keeps in memory; 512 */
        char *decode_device;        /* "auto", "cpu", "cuda" */
        double decode_deadline_s;   /* 30 */
        int64_t decode_memory_mb;   /* of one decoder process; 2048 */
        int64_t decode_max_pixels;  /* 3840 * 2160 * 4 */
    } data;
    struct {        /* model.optim.* */
        char *name; /* "fused_adam", "adam", "adamw", "distributed_fused_adam" */
        double lr, weight_decay, beta1, beta2, eps;
        char *sched; /* sched.name: "CosineAnnealing" */
        int64_t warmup_steps, constant_steps;
        double min_lr;
        int64_t bucket_cap_mb;  /* of gradients summed at a time; 100 */
        bool overlap_grad_sync; /* beside the backward pass; true */
    } optim;
    struct {                   /* evaluate, keys of NeMo's neva_inference.yaml */
        char *neva_model_file; /* a checkpoint folder, or a training run's folder: its
                                     newest checkpoint */
        char *prompt_file;     /* a prepared dataset */
        char *output_file;     /* default: results.jsonl in the job's folder */
        int64_t tokens_to_generate; /* inference.tokens_to_generate; 64 */
        int64_t batch_size;         /* inference.batch_size (ours); 8 */
        int64_t n_examples; /* inference.examples (ours): clips kept for the report */
        bool greedy;        /* inference.*, as model/generate/generate.h has them; true */
        int64_t top_k;      /* 0 */
        double top_p, temperature, repetition_penalty; /* 1, 1, 1 */
        int64_t min_tokens_to_generate;                /* 0 */
        int64_t seed;                                  /* inference.seed (ours); 1234 */
        struct spec_list end_strings; /* texts at which an answer ends; none */
    } evaluate;
    char *backend;        /* backend: (ours) "auto", "cpu", "ref", "cuda" */
    double stuck_after_s; /* stuck_after_s: (ours) of a rank in one stage; 300 */
    int64_t n_threads;    /* threads: (ours) CPU threads of one rank; 0: cores / ranks */
};

/* What reading has to tell people besides errors. */
struct spec_notes {
    struct spec_list ignored; /* "trainer.benchmark: has no meaning here" */
    struct spec_list refused; /* what NeMo's files may say and this version cannot run:
                                 --check lists them, a submit is refused for them */
};

const char *spec_kind_name(enum spec_kind kind); /* "prepare" */
enum spec_kind spec_kind_find(const char *name); /* SPEC_NONE: no such kind */
bool spec_kind_is_training(enum spec_kind kind);

/* Reads a YAML file, applies the overrides ("model.num_layers=4", "+new.key=1"), resolves,
 * checks and fills. kind: SPEC_NONE to take the file's. Errors name file, line where
 * known, key, what was expected, and for unknown keys the nearest known one. Relative
 * paths, of the file and of overrides alike, start from the current folder. notes is
 * filled on success only. */
int spec_read(struct spec **out, struct spec_notes *notes, const char *path,
              enum spec_kind kind, const char *const *overrides, int n_overrides,
              struct err *err);
/* From the resolved JSON tree, as it comes over the wire; checked just as strictly, and
 * ERR_UNSUPPORTED for what this version cannot run. */
int spec_from_json(struct spec **out, const char *json, size_t n_bytes, struct err *err);
void spec_free(struct spec *spec);
void spec_notes_fini(struct spec_notes *notes);

/* Whether the file or an override gave the key a value. Only for keys without a default or
 * those a folder of weights may say: the others always have one. */
bool spec_is_set(const struct spec *spec, const char *path);

/* Ranks the job takes: training devices * num_nodes (tensor parallel times data parallel),
 * evaluate tensor_model_parallel_size and prepare one for each attempt. */
int64_t spec_n_ranks(const struct spec *spec);

/* The path of the tokenizer: model.tokenizer.type where library is huggingface and it is
 * given, else model.tokenizer.model. NULL: none; *key names which, for errors. */
const char *spec_tokenizer(const struct spec *spec, const char **key);

/* Of training and prepare: the encoder's family; class tokens in front of a frame's
 * patches, which SigLIP has not got whatever class_token_length says; tokens a frame
 * takes in a sample, what selection and projector make of its patches (0: only a folder
 * of weights says). */
bool spec_is_siglip(const struct spec *spec);
int64_t spec_class_tokens(const struct spec *spec);
int64_t spec_frame_tokens(const struct spec *spec);

/* Prints every key with its type, default and meaning: `vneva submit --keys`. */
void spec_describe(struct buf *out);

#endif
