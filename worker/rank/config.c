#include "worker/rank/config.h"

#include "dataprep/prepare/from_spec.h"

#include <inttypes.h>
#include <string.h>

#define POOL_FRAMES_MAX_BYTES (512u << 20) /* decoded ahead, of one rank */
#define POOL_SLOTS_MAX 4096
#define POOL_SLOTS_MIN 2

/* A word of a spec and what it stands for. */
struct word {
    const char *text;
    int value;
};

static int word_find(int *out, const struct word *words, size_t n_words, const char *text,
                     const char *key, struct err *err)
{
    struct buf known = BUF_INIT;

    for (size_t i = 0; i < n_words; i++)
        if (text && strcmp(words[i].text, text) == 0) {
            *out = words[i].value;
            return 0;
        }
    for (size_t i = 0; i < n_words; i++)
        buf_printf(&known, "%s'%s'", i ? ", " : "", words[i].text);
    err_set(err, ERR_UNSUPPORTED, "%s: '%s' is not to be had here, only %s", key,
            text ? text : "null", buf_str(&known));
    buf_fini(&known);
    return -1;
}

#define WORD_FIND(out, words, text, key, err)                                            \
    word_find(out, words, sizeof(words) / sizeof((words)[0]), text, key, err)

/* ---- model ---- */

int config_dtype(enum dtype *out, const struct spec *spec, struct err *err)
{
    static const struct word dtypes[] = {{"32", DTYPE_F32},    {"tf32", DTYPE_F32},
                                         {"bf16", DTYPE_BF16}, {"bf16-mixed", DTYPE_BF16},
                                         {"16", DTYPE_F16},    {"16-mixed", DTYPE_F16}};
    int dtype;

    if (WORD_FIND(&dtype, dtypes, spec->trainer.precision, "trainer.precision", err) < 0)
        return -1;
    *out = (enum dtype)dtype;
    return 0;
}

static int config_words(struct neva_config *out, const struct spec *spec, struct err *err)
{
    static const struct word projectors[] = {
        {"linear", NEVA_PROJECTOR_LINEAR},
        {"mlp2x_gelu", NEVA_PROJECTOR_MLP2X_GELU},
        {"mlp_downsample", NEVA_PROJECTOR_MLP_DOWNSAMPLE}};
    static const struct word recomputes[] = {{"selective", NEVA_RECOMPUTE_SELECTIVE},
                                             {"full", NEVA_RECOMPUTE_FULL}};
    static const struct word methods[] = {{"uniform", NEVA_RECOMPUTE_UNIFORM},
                                          {"block", NEVA_RECOMPUTE_BLOCK}};
    int projector, recompute = NEVA_RECOMPUTE_NONE;
    int method = NEVA_RECOMPUTE_UNIFORM;

    if (config_dtype(&out->dtype, spec, err) < 0 ||
        WORD_FIND(&projector, projectors, spec->mm_cfg.mm_mlp_adapter_type,
                  "model.mm_cfg.mm_mlp_adapter_type", err) < 0)
        return -1;
    if (spec->model.activations_checkpoint_granularity &&
        WORD_FIND(&recompute, recomputes, spec->model.activations_checkpoint_granularity,
                  "model.activations_checkpoint_granularity", err) < 0)
        return -1;
    if (spec->model.activations_checkpoint_method &&
        WORD_FIND(&method, methods, spec->model.activations_checkpoint_method,
                  "model.activations_checkpoint_method", err) < 0)
        return -1;
    out->projector = (enum neva_projector)projector;
    out->recompute = (enum neva_recompute)recompute;
    out->recompute_method = (enum neva_recompute_method)method;
    return 0;
}

/* NeMo's decoders come in many kinds; these are LLaMA and its relatives. */
static int config_decoder(struct neva_config *out, const struct spec *spec,
                          struct err *err)
{
    static const struct word norms[] = {{"rmsnorm", NN_NORM_RMS},
                                        {"layernorm", NN_NORM_LAYER},
                                        {"layernorm1p", NN_NORM_LAYER_1P}};
    static const struct word mlps[] = {{"swiglu", NEVA_MLP_SWIGLU},
                                       {"fast-swiglu", NEVA_MLP_SWIGLU},
                                       {"squared-relu", NEVA_MLP_RELU_SQUARED},
                                       {"gelu", NEVA_MLP_GELU}};
    static const struct word positions[] = {{"rope", 0}};
    int norm = 0, mlp = 0, ignored;

    if ((spec->model.normalization && WORD_FIND(&norm, norms, spec->model.normalization,
                                                "model.normalization", err) < 0) ||
        (spec->model.activation &&
         WORD_FIND(&mlp, mlps, spec->model.activation, "model.activation", err) < 0) ||
        WORD_FIND(&ignored, positions, spec->model.position_embedding_type,
                  "model.position_embedding_type", err) < 0)
        return -1;
    out->llm.norm.kind = (enum nn_norm_kind)norm;
    out->llm.norm.eps = (float)spec->model.layernorm_epsilon;
    out->llm.mlp = (enum neva_mlp)mlp;
    out->llm.has_bias = spec->model.bias;
    out->llm.has_qkv_bias = spec->model.qkv_bias;
    return 0;
}

/* NeMo's two ways to a longer context. The figures of scale_positional_embedding are
 * Llama 3.1's, which NeMo has as constants. */
static struct rope_args config_rope(const struct spec *spec)
{
    int64_t heads = spec->model.num_attention_heads;
    struct rope_args rope = {
        .rot_dims = neva_rotary_dims(heads ? spec->model.hidden_size / heads : 0,
                                     spec->model.rotary_percentage),
        .theta = (float)spec->model.rotary_base,
    };

    if (spec->model.scale_positional_embedding) {
        rope.scaling = ROPE_LLAMA3;
        rope.factor = 8;
        rope.low_freq_factor = 1;
        rope.high_freq_factor = 4;
        rope.original_positions = 8192;
    } else if (spec->model.seq_len_interpolation_factor > 1) {
        rope.scaling = ROPE_LINEAR;
        rope.factor = (float)spec->model.seq_len_interpolation_factor;
    }
    return rope;
}

/* Source: CLIPImageProcessor and SiglipImageProcessor of Hugging Face's transformers. */
static void config_pixels(struct neva_config *out)
{
    static const float mean[3] = {0.48145466F, 0.4578275F, 0.40821073F};
    static const float std[3] = {0.26862954F, 0.26130258F, 0.27577711F};

    for (int i = 0; i < 3; i++) {
        bool is_clip = out->vision.encoder == NEVA_ENCODER_CLIP;

        out->vision.mean[i] = is_clip ? mean[i] : 0.5F;
        out->vision.std[i] = is_clip ? std[i] : 0.5F;
    }
}

static int config_vision(struct neva_config *out, const struct spec *spec,
                         struct err *err)
{
    static const struct word encoders[] = {{"clip", NEVA_ENCODER_CLIP},
                                           {"siglip", NEVA_ENCODER_SIGLIP}};
    static const struct word features[] = {{"patch", NEVA_SELECT_PATCH},
                                           {"cls_patch", NEVA_SELECT_CLS_PATCH}};
    static const struct word acts[] = {{"quick_gelu", ACT_QUICK_GELU},
                                       {"gelu", ACT_GELU},
                                       {"gelu_pytorch_tanh", ACT_GELU_TANH}};
    int encoder = NEVA_ENCODER_CLIP, feature, act = ACT_NONE;

    if ((spec->vision.model_type &&
         WORD_FIND(&encoder, encoders, spec->vision.model_type,
                   "model.mm_cfg.vision_encoder.model_type", err) < 0) ||
        (spec->vision.activation &&
         WORD_FIND(&act, acts, spec->vision.activation,
                   "model.mm_cfg.vision_encoder.activation", err) < 0) ||
        WORD_FIND(&feature, features, spec->vision.vision_select_feature,
                  "model.mm_cfg.vision_encoder.vision_select_feature", err) < 0)
        return -1;
    out->vision.encoder = (enum neva_encoder)encoder;
    out->vision.select_feature = (enum neva_select)feature;
    out->vision.act = (enum activation)act;
    out->vision.image_size = spec->vision.crop_size;
    out->vision.patch = spec->vision.patch_dim;
    out->vision.width = spec->vision.hidden_size;
    out->vision.ffn_width = spec->vision.ffn_hidden_size;
    out->vision.n_layers = spec->vision.num_layers;
    out->vision.n_heads = spec->vision.num_attention_heads;
    out->vision.select_layer = spec->vision.vision_select_layer;
    out->vision.class_token_length = spec_class_tokens(spec);
    out->vision.eps = (float)spec->vision.layernorm_epsilon;
    config_pixels(out);
    out->vision.freeze = spec->vision.freeze;
    return 0;
}

static void config_llm(struct neva_config *out, const struct spec *spec, int64_t vocab)
{
    out->llm.vocab = vocab;
    out->llm.width = spec->model.hidden_size;
    out->llm.ffn_width = spec->model.ffn_hidden_size;
    out->llm.n_layers = spec->model.num_layers;
    out->llm.n_heads = spec->model.num_attention_heads;
    out->llm.n_kv_heads = spec->model.num_query_groups > 0
                              ? spec->model.num_query_groups
                              : spec->model.num_attention_heads;
    out->llm.rope = config_rope(spec);
    out->llm.tied = spec->model.share_embeddings_and_output_weights;
    out->llm.freeze = spec->mm_cfg.llm_freeze;
}

int config_model(struct neva_config *out, const struct spec *spec, int64_t vocab,
                 struct err *err)
{
    *out = (struct neva_config){0};
    if (config_words(out, spec, err) < 0 || config_decoder(out, spec, err) < 0 ||
        config_vision(out, spec, err) < 0)
        return -1;
    config_llm(out, spec, vocab);
    out->max_tokens = spec->model.encoder_seq_length;
    out->init_std = (float)spec->model.init_method_std;
    out->scaled_init = spec->model.use_scaled_init_method;
    out->seed = (uint64_t)spec->model.seed;
    out->recompute_layers = spec->model.activations_checkpoint_num_layers;
    return 0;
}

/* ---- optimizer and batches ---- */

int config_optim(struct optim_config *out, const struct spec *spec, struct err *err)
{
    static const struct word names[] = {{"fused_adam", 0},
                                        {"adam", 0},
                                        {"adamw", 0},
                                        {"distributed_fused_adam", 0},
                                        {"megatron_fused_adam", 0},
                                        {"mcore_distributed_optim", 0}};
    static const struct word schedules[] = {{"CosineAnnealing", 0}};
    int ignored;

    if (WORD_FIND(&ignored, names, spec->optim.name, "model.optim.name", err) < 0 ||
        WORD_FIND(&ignored, schedules, spec->optim.sched, "model.optim.sched.name", err) <
            0)
        return -1;
    *out = (struct optim_config){
        .lr = (float)spec->optim.lr,
        .beta1 = (float)spec->optim.beta1,
        .beta2 = (float)spec->optim.beta2,
        .eps = (float)spec->optim.eps,
        .weight_decay = (float)spec->optim.weight_decay,
        .clip = (float)spec->trainer.gradient_clip_val,
        .warmup_steps = spec->optim.warmup_steps,
        .constant_steps = spec->optim.constant_steps,
        .max_steps = spec->trainer.max_steps,
        .min_lr = (float)spec->optim.min_lr,
        .skips_overflow = strcmp(spec->trainer.precision, "16") == 0,
    };
    return 0;
}

int config_batch(struct batch_config *out, const struct spec *spec, int64_t n_data,
                 struct err *err)
{
    int64_t micro = spec->model.micro_batch_size, global = spec->model.global_batch_size;

    if (micro < 1 || global < 1 || micro > INT32_MAX || global > INT32_MAX)
        return err_set(err, ERR_INVALID,
                       "model.micro_batch_size and model.global_batch_size must be 1 or "
                       "more");
    if (global % (micro * n_data) != 0)
        return err_set(err, ERR_INVALID,
                       "model.global_batch_size (%" PRId64 ") must be a multiple of "
                       "model.micro_batch_size (%" PRId64 ") times %" PRId64
                       " data-parallel ranks",
                       global, micro, n_data);
    *out = (struct batch_config){micro, global, global / (micro * n_data)};
    return 0;
}

/* ---- media ---- */

int config_frames(struct frame_config *out, const struct spec *spec,
                  const struct neva_config *model, struct err *err)
{
    *out = (struct frame_config){
        .num_frames = spec->data.num_frames,
        .image_size = spec->vision.crop_size,
        .frame_tokens = model ? neva_features(model) : spec_frame_tokens(spec),
        .max_tokens = spec->model.encoder_seq_length,
    };
    if (out->num_frames < 1 && out->num_frames != -1)
        return err_set(err, ERR_INVALID,
                       "model.data.num_frames is %" PRId64 ": 1 or more, or -1 for all",
                       out->num_frames);
    if (out->frame_tokens < 1)
        return err_set(err, ERR_INVALID,
                       "model.mm_cfg.vision_encoder.crop_size (%" PRId64
                       ") must not be under patch_dim (%" PRId64 ")",
                       out->image_size, spec->vision.patch_dim);
    if (splice_from_spec(&out->splice, spec->data.splice_single_frame, err) < 0 ||
        processor_from_spec(&out->processor, spec->vision.model_type, err) < 0 ||
        aspect_from_spec(&out->aspect, spec->data.image_aspect_ratio, err) < 0)
        return -1;
    return media_check_processor(out->processor, out->aspect, err);
}

int64_t config_request_frames(const struct frame_config *frames)
{
    int64_t fit = frames->max_tokens / frames->frame_tokens; /* more are too long */

    if (frames->splice != MEDIA_SPLICE_NONE)
        return 1;
    if (frames->num_frames > 0)
        return frames->num_frames;
    return fit > 0 ? fit : 1;
}

void config_pool(struct decode_pool_config *out, const struct spec *spec,
                 const struct frame_config *frames, const char *program, int n_cpus,
                 int64_t n_requests)
{
    int64_t max_frames = config_request_frames(frames);
    size_t slot_bytes =
        (size_t)max_frames * (size_t)(frames->image_size * frames->image_size * 3);
    int64_t n_fit = (int64_t)(POOL_FRAMES_MAX_BYTES / slot_bytes);
    int64_t n_workers = spec->data.num_workers;

    if (n_requests > n_fit)
        n_requests = n_fit;
    if (n_requests > POOL_SLOTS_MAX)
        n_requests = POOL_SLOTS_MAX;
    if (n_requests < POOL_SLOTS_MIN)
        n_requests = POOL_SLOTS_MIN;
    if (n_workers > n_cpus)
        n_workers = n_cpus;
    *out = (struct decode_pool_config){
        .n_processes = n_workers > 0 ? (int)n_workers : 1,
        .n_slots = (int)n_requests,
        .slot_bytes = slot_bytes,
        .deadline_ms = (int64_t)(spec->data.decode_deadline_s * 1000),
        .memory_bytes = (uint64_t)spec->data.decode_memory_mb << 20,
        .limits = {.max_pixels = spec->data.decode_max_pixels, .max_frames = max_frames},
        .cache_bytes = (uint64_t)spec->data.frame_cache_mb << 20,
        .program = program,
    };
}

void config_decode(struct decode_pool_config *out, const struct spec *spec, int gpu)
{
    const char *device = spec->data.decode_device ? spec->data.decode_device : "auto";

    out->device = gpu;
    if (gpu < 0 || strcmp(device, "cpu") == 0)
        out->decode = MEDIA_DECODE_CPU;
    else
        out->decode = strcmp(device, "cuda") == 0 ? MEDIA_DECODE_CUDA : MEDIA_DECODE_AUTO;
}
