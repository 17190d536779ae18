#include "dataprep/prepare/from_spec.h"

#include "dataprep/dataset/manifest.h"

static int fail_word(const char *key, const char *text, const char *known,
                     struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "%s: '%s' is not to be had here, only %s", key,
                   text, known);
}

int splice_from_spec(enum media_splice *out, const char *text, struct err *err)
{
    *out = MEDIA_SPLICE_NONE;
    return !text || manifest_splice_find(out, text)
               ? 0
               : fail_word("model.data.splice_single_frame", text,
                           "'first', 'middle', 'last'", err);
}

int aspect_from_spec(enum media_aspect *out, const char *text, struct err *err)
{
    *out = MEDIA_ASPECT_SQUARE;
    return !text || manifest_aspect_find(out, text)
               ? 0
               : fail_word("model.data.image_aspect_ratio", text,
                           "'square', 'pad', 'keep'", err);
}

int processor_from_spec(enum media_processor *out, const char *text, struct err *err)
{
    *out = MEDIA_PROCESSOR_CLIP;
    return !text || manifest_processor_find(out, text)
               ? 0
               : fail_word("model.mm_cfg.vision_encoder.model_type", text,
                           "'clip', 'siglip'", err);
}

int prepare_from_spec(struct prepare_config *out, const struct spec *spec,
                      struct err *err)
{
    const char *tokenizer_key;

    *out = (struct prepare_config){
        .data_paths = (const char *const *)spec->data.data_path.items,
        .n_data_paths = (int)spec->data.data_path.count,
        .video_root = spec->data.video_folder,
        .image_root = spec->data.image_folder,
        .output = spec->data.output,
        .tokenizer = spec_tokenizer(spec, &tokenizer_key),
        .conv_template = spec->data.conv_template,
        .extra_tokens =
            (const char *const *)spec->tokenizer.additional_special_tokens.items,
        .n_extra_tokens = (int)spec->tokenizer.additional_special_tokens.count,
        .use_im_start_end = spec->mm_cfg.use_im_start_end,
        .media_first = spec->data.sep_image_conv_front,
        .num_frames = spec->data.num_frames,
        .image_size = spec->vision.crop_size,
        .patch = spec->vision.patch_dim,
        .frame_tokens = spec_frame_tokens(spec),
        .max_tokens = spec->model.encoder_seq_length,
        .shard_size = spec->data.shard_size,
        .store_frames = spec->data.store_frames,
        .prompts_only = spec->data.prompts_only,
        .max_reject_fraction = spec->data.max_reject_fraction,
    };
    if (!out->output || !out->tokenizer || out->n_data_paths == 0)
        return err_set(err, ERR_INVALID, "%s is not set",
                       !out->output      ? "model.data.output"
                       : !out->tokenizer ? tokenizer_key
                                         : "model.data.data_path");
    if (splice_from_spec(&out->splice, spec->data.splice_single_frame, err) < 0 ||
        processor_from_spec(&out->processor, spec->vision.model_type, err) < 0)
        return -1;
    return aspect_from_spec(&out->aspect, spec->data.image_aspect_ratio, err);
}
