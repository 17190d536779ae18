/* What keys ask of each other. Messages give values that would do. */
#include "jobs/spec/spec_schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The divisor of n nearest to wanted, the lower of two. n >= 1. */
static int64_t near_divisor(int64_t n, int64_t wanted)
{
    for (int64_t away = 0; away < wanted; away++) {
        if (n % (wanted - away) == 0)
            return wanted - away;
        if (wanted + away <= n && n % (wanted + away) == 0)
            return wanted + away;
    }
    return 1;
}

/* n must be a multiple of divisor; 0 is a size that the weights say. */
static int need_multiple(const char *name, int64_t n, const char *divisor_name,
                         int64_t divisor, struct err *err)
{
    int64_t below;

    if (!divisor || n % divisor == 0)
        return 0;
    below = n - n % divisor;
    if (below == 0)
        return err_set(err, ERR_INVALID,
                       "%s (%" PRId64 ") is not a multiple of %s (%" PRId64
                       "): try %" PRId64 ", or %s %" PRId64,
                       name, n, divisor_name, divisor, divisor, divisor_name,
                       near_divisor(n, divisor));
    return err_set(err, ERR_INVALID,
                   "%s (%" PRId64 ") is not a multiple of %s (%" PRId64 "): try %" PRId64
                   " or %" PRId64 ", or %s %" PRId64,
                   name, n, divisor_name, divisor, below, below + divisor, divisor_name,
                   near_divisor(n, divisor));
}

/* A global batch that does not divide is noted and not an error: NeMo's own file has one,
 * and is to be looked at as it is. */
static int check_layout(const struct spec *spec, struct spec_notes *notes,
                        struct err *err)
{
    struct err note;
    int64_t tp = spec->model.tensor_model_parallel_size;
    int64_t n_ranks = spec->trainer.devices * spec->trainer.num_nodes;
    int64_t dp;

    if (need_multiple("trainer.devices x num_nodes", n_ranks,
                      "model.tensor_model_parallel_size", tp, err) < 0)
        return -1;
    dp = n_ranks / tp;
    if (need_multiple("model.global_batch_size", spec->model.global_batch_size,
                      dp > 1 ? "micro_batch_size x data-parallel ranks"
                             : "model.micro_batch_size",
                      spec->model.micro_batch_size * dp, &note) < 0)
        return spec_list_add(&notes->refused, note.text, err);
    return 0;
}

/* Rotated dimensions come in pairs. 1e-9: 0.7 of 10 are 7, whatever 0.7 is in binary. */
static int check_rotation(const struct spec *spec, struct err *err)
{
    int64_t heads = spec->model.num_attention_heads;
    int64_t head_size = heads ? spec->model.hidden_size / heads : 0;
    int64_t n = (int64_t)((double)head_size * spec->model.rotary_percentage + 1e-9);

    if (head_size && spec_is_set(spec, "model.rotary_percentage") && (n < 2 || n % 2))
        return err_set(err, ERR_INVALID,
                       "model.rotary_percentage (%g) of hidden_size / "
                       "num_attention_heads (%" PRId64 ") is %" PRId64
                       ": rotary positions need an even number above 0, try %g",
                       spec->model.rotary_percentage, head_size, n,
                       (double)(n < 2 ? 2 : n - 1) / (double)head_size);
    if (spec->model.scale_positional_embedding &&
        spec->model.seq_len_interpolation_factor > 1)
        return err_set(err, ERR_INVALID,
                       "model.scale_positional_embedding and "
                       "seq_len_interpolation_factor (%g) both scale the rotation: set "
                       "one",
                       spec->model.seq_len_interpolation_factor);
    return 0;
}

/* Mistral's window of attention, [left, right] or one number: one that no sample is
 * longer than changes nothing. */
static int check_window(const struct spec *spec, struct err *err)
{
    const struct json *window = spec_tree_get(spec->tree, "model.window_size");
    int64_t left;

    if (json_type(window) == JSON_NULL)
        return 0;
    if (json_type(window) == JSON_ARRAY)
        window = json_at(window, 0);
    left = json_int(window, 0);
    if (left == -1 || left >= spec->model.encoder_seq_length)
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "model.window_size: attention has no window; only one of "
                   "encoder_seq_length (%" PRId64 ") or more, or null, can be honoured",
                   spec->model.encoder_seq_length);
}

static int check_llm(const struct spec *spec, struct err *err)
{
    static const char tp_name[] = "model.tensor_model_parallel_size";
    int64_t tp = spec->model.tensor_model_parallel_size;
    int64_t heads = spec->model.num_attention_heads;
    const struct json *kv = spec_tree_get(spec->tree, "model.kv_channels");

    if (need_multiple("model.hidden_size", spec->model.hidden_size,
                      "model.num_attention_heads", heads, err) < 0 ||
        need_multiple("model.num_attention_heads", heads, "model.num_query_groups",
                      spec->model.num_query_groups, err) < 0 ||
        need_multiple("model.num_attention_heads", heads, tp_name, tp, err) < 0 ||
        need_multiple("model.num_query_groups", spec->model.num_query_groups, tp_name, tp,
                      err) < 0 ||
        need_multiple("model.ffn_hidden_size", spec->model.ffn_hidden_size, tp_name, tp,
                      err) < 0)
        return -1;
    if (check_rotation(spec, err) < 0 || check_window(spec, err) < 0)
        return -1;
    if (heads && json_type(kv) != JSON_NULL &&
        json_int(kv, 0) != spec->model.hidden_size / heads)
        return err_set(
            err, ERR_UNSUPPORTED,
            "model.kv_channels: only hidden_size / num_attention_heads (%" PRId64
            ") or null can be honoured",
            spec->model.hidden_size / heads);
    return 0;
}

static int check_vision(const struct spec *spec, struct err *err)
{
#define VISION "model.mm_cfg.vision_encoder."
    if (need_multiple(VISION "hidden_size", spec->vision.hidden_size,
                      VISION "num_attention_heads", spec->vision.num_attention_heads,
                      err) < 0)
        return -1;
    if (spec->vision.num_layers &&
        (spec->vision.vision_select_layer > spec->vision.num_layers ||
         -spec->vision.vision_select_layer > spec->vision.num_layers + 1))
        return err_set(
            err, ERR_INVALID,
            VISION "vision_select_layer (%" PRId64 ") is %s of %" PRId64 " layers",
            spec->vision.vision_select_layer,
            spec->vision.vision_select_layer < 0 ? "before the first" : "behind the last",
            spec->vision.num_layers);
    return 0;
#undef VISION
}

/* PyTorch's Adam adds weight decay to the gradient: with any it is not AdamW. */
static int check_optimizer(const struct spec *spec, struct err *err)
{
    if (strcmp(spec->optim.name, "adam") != 0 || spec->optim.weight_decay == 0)
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "model.optim.name: adam with weight_decay (%g) adds it to the "
                   "gradient, which is not built: adamw or fused_adam decays the "
                   "weights themselves",
                   spec->optim.weight_decay);
}

static int check_schedule(const struct spec *spec, struct err *err)
{
    const struct json *max_steps =
        spec_tree_get(spec->tree, "model.optim.sched.max_steps");

    if (json_type(max_steps) != JSON_NULL &&
        json_int(max_steps, 0) != spec->trainer.max_steps)
        return err_set(err, ERR_UNSUPPORTED,
                       "model.optim.sched.max_steps: only trainer.max_steps (%" PRId64
                       ") or null can be honoured",
                       spec->trainer.max_steps);
    if (spec->optim.warmup_steps + spec->optim.constant_steps > spec->trainer.max_steps)
        return err_set(err, ERR_INVALID,
                       "model.optim.sched: warmup_steps %" PRId64
                       " and constant_steps %" PRId64 " are more than trainer.max_steps "
                       "%" PRId64 ": shorten them or train longer",
                       spec->optim.warmup_steps, spec->optim.constant_steps,
                       spec->trainer.max_steps);
    if (spec->optim.min_lr > spec->optim.lr)
        return err_set(err, ERR_INVALID,
                       "model.optim.sched.min_lr (%g) is above model.optim.lr (%g)",
                       spec->optim.min_lr, spec->optim.lr);
    return 0;
}

bool spec_is_siglip(const struct spec *spec)
{
    return spec->vision.model_type && strcmp(spec->vision.model_type, "siglip") == 0;
}

static bool joins_patches(const struct spec *spec)
{
    return strcmp(spec->mm_cfg.mm_mlp_adapter_type, "mlp_downsample") == 0;
}

static bool selects_class(const struct spec *spec)
{
    return strcmp(spec->vision.vision_select_feature, "cls_patch") == 0 &&
           spec_class_tokens(spec) > 0;
}

int64_t spec_class_tokens(const struct spec *spec)
{
    return spec_is_siglip(spec) ? 0 : spec->vision.class_token_length;
}

int64_t spec_frame_tokens(const struct spec *spec)
{
    int64_t side;

    if (!spec->vision.crop_size || !spec->vision.patch_dim ||
        (selects_class(spec) && !spec->vision.model_type))
        return 0;
    side = spec->vision.crop_size / spec->vision.patch_dim;
    if (joins_patches(spec))
        side = (side + 1) / 2;
    return side * side + (selects_class(spec) ? spec_class_tokens(spec) : 0);
}

/* A published SigLIP has 384 pixels and patches of 14: those that are over are not seen.
 * Of CLIP's none is like that, so it is taken for a mistake. */
static int check_patches(const struct spec *spec, struct err *err)
{
    static const char crop[] = "model.mm_cfg.vision_encoder.crop_size";
    static const char patch[] = "model.mm_cfg.vision_encoder.patch_dim";

    if (spec->vision.crop_size < spec->vision.patch_dim)
        return err_set(err, ERR_INVALID,
                       "%s (%" PRId64 ") must not be under %s (%" PRId64 ")", crop,
                       spec->vision.crop_size, patch, spec->vision.patch_dim);
    if (joins_patches(spec) && selects_class(spec))
        return err_set(err, ERR_INVALID,
                       "model.mm_cfg.mm_mlp_adapter_type mlp_downsample joins "
                       "neighbouring patches, a class token has no neighbours: "
                       "vision_select_feature must be patch");
    if (!spec->vision.model_type || spec_is_siglip(spec))
        return 0;
    return need_multiple(crop, spec->vision.crop_size, patch, spec->vision.patch_dim,
                         err);
}

/* Older files say how many tokens an image is; it follows, also when 2 x 2 patches
 * become one; NeMo's own say it of the even grid that they are joined in. */
static int check_token_len(const struct spec *spec, struct err *err)
{
    const struct json *given = spec_tree_get(spec->tree, "model.data.image_token_len");
    int64_t n = json_int(given, 0);
    int64_t side = spec->vision.crop_size / spec->vision.patch_dim, half = (side + 1) / 2;

    if (json_type(given) == JSON_NULL || n == side * side || n == half * half ||
        n == 4 * half * half || n == spec_frame_tokens(spec))
        return 0;
    return err_set(err, ERR_INVALID,
                   "model.data.image_token_len (%" PRId64 ") is not what crop_size "
                   "%" PRId64 " and patch_dim %" PRId64 " give: %" PRId64
                   "; set model.mm_cfg.vision_encoder.crop_size to what the file means",
                   n, spec->vision.crop_size, spec->vision.patch_dim, side * side);
}

/* Frames and patches: of every kind but evaluate, whose checkpoint says them. */
static int check_frames(const struct spec *spec, struct spec_notes *notes,
                        struct err *err)
{
    int64_t n_each, n_tokens;
    char text[ERR_TEXT_MAX];

    if (spec->data.num_frames == 0)
        return err_set(err, ERR_INVALID,
                       "model.data.num_frames: expected -1, or 1 or "
                       "more, got 0");
    if (!spec->vision.crop_size || !spec->vision.patch_dim)
        return 0; /* the weights say */
    if (check_patches(spec, err) < 0 || check_token_len(spec, err) < 0)
        return -1;
    n_each = spec_frame_tokens(spec);
    n_tokens = n_each * (spec->data.splice_single_frame ? 1 : spec->data.num_frames);
    if (n_tokens < spec->model.encoder_seq_length)
        return 0;
    snprintf(text, sizeof(text),
             "model.data.num_frames: %" PRId64 " frames of %" PRId64 " %s are %" PRId64
             " tokens and leave no room for text in model.encoder_seq_length %" PRId64
             " (NeMo would cut the sample): at most %" PRId64 " frames fit",
             spec->data.num_frames, n_each,
             joins_patches(spec) || selects_class(spec) ? "tokens" : "patches", n_tokens,
             spec->model.encoder_seq_length,
             (spec->model.encoder_seq_length - 1) / n_each);
    return spec_list_add(&notes->refused, text, err);
}

/* A rank that computes on a CPU has no GPU of its own to decode on. */
static int check_decode_device(const struct spec *spec, struct err *err)
{
    bool is_said = spec->backend && strcmp(spec->backend, "auto") != 0;
    const char *key = is_said ? "backend" : "trainer.accelerator";
    const char *value = is_said ? spec->backend : spec->trainer.accelerator;

    if (!spec->data.decode_device || strcmp(spec->data.decode_device, "cuda") != 0 ||
        !value || strcmp(value, "cuda") == 0 || strcmp(value, "gpu") == 0 ||
        strcmp(value, "auto") == 0)
        return 0;
    return err_set(
        err, ERR_INVALID,
        "model.data.decode_device: cuda decodes on the GPU that a rank computes "
        "on, and %s is %s: set decode_device to auto or cpu, or %s to auto",
        key, value, key);
}

int spec_check_numbers(const struct spec *spec, struct spec_notes *notes, struct err *err)
{
    if (spec_check_sources(spec, notes, err) < 0 || check_decode_device(spec, err) < 0 ||
        (spec->kind != SPEC_EVALUATE && check_frames(spec, notes, err) < 0))
        return -1;
    if (!spec_kind_is_training(spec->kind))
        return 0;
    if (check_layout(spec, notes, err) < 0 || check_llm(spec, err) < 0 ||
        check_vision(spec, err) < 0 || check_schedule(spec, err) < 0 ||
        check_optimizer(spec, err) < 0)
        return -1;
    return 0;
}
