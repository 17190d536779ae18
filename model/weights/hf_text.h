/* hf_text.h - the decoder of a config.json: its class, its sizes
 *
 * Pure. Source: as hf_config.h.
 */
#ifndef VNEVA_MODEL_WEIGHTS_HF_TEXT_H
#define VNEVA_MODEL_WEIGHTS_HF_TEXT_H

#include "model/weights/hf_config.h"
#include "model/weights/hf_source.h"

/* A decoder's class and what it takes for granted. */
struct hf_text_class {
    const char *model_type, *architecture;
    int64_t vocab, width, ffn_width, n_layers, n_heads, n_kv_heads; /* 0: as n_heads */
    int64_t max_positions, sliding_window;
    const char *eps_key;
    double eps, rotary;
    bool has_partial_rotary, has_scaled_rotary;
    enum nn_norm_kind norm;
    const char *hidden_act;
};
#define HF_TEXT_CLASSES 5
extern const struct hf_text_class hf_text_classes[HF_TEXT_CLASSES];
const struct hf_text_class *hf_text_class_find(const char *model_type); /* or NULL */

/* A decoder's keys into out->model.llm, max_tokens and sliding_window; errors stay in s. */
void hf_text_read(struct source *s, const struct hf_text_class *class,
                  struct hf_config *out);

#endif
