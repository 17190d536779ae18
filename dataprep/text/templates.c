#include "dataprep/text/template.h"

#include <string.h>

#define SEPARATOR "<extra_id_1>"
#define ASSISTANT                                                                        \
    "and an artificial intelligence assistant. The assistant gives helpful, detailed, "  \
    "and polite answers to the "
#define CURIOUS_USER "A chat between a curious user " ASSISTANT "user's questions."
#define CURIOUS_HUMAN "A chat between a curious human " ASSISTANT "human's questions."
#define LLAVA_SYSTEM                                                                     \
    "You are a helpful language and vision assistant. You are able to understand the "   \
    "visual content that the user provides, and assist the user with a variety of "      \
    "tasks using natural language."

#define PLAIN .shape = CONV_SHAPE_PLAIN, .has_patch_token = true
#define VICUNA                                                                           \
    .system_end = " ", .human = "USER:", .human_begin = " ", .human_end = " ",           \
    .gpt = "ASSISTANT:", .gpt_begin = " ", .next = " "
#define LLAMA_2                                                                          \
    .system_begin = "<<SYS>>\n", .system = LLAVA_SYSTEM, .system_end = "\n<</SYS>>\n\n", \
    .human_begin = " [INST] ", .human_end = " [/INST]", .gpt_begin = " ",                \
    .gpt_end = " ", .has_begins = true, .system_in_question = true,                      \
    .needs_question = true
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA_3                                                                          \
    .system_begin = "<|begin_of_text|>" HEADER("system"), .system = LLAVA_SYSTEM,        \
    .system_end = "<|eot_id|>", .human = HEADER("user"), .human_end = "<|eot_id|>",      \
    .gpt = HEADER("assistant"), .gpt_end = "<|eot_id|>", .stop = "<|eot_id|>",           \
    .needs = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",           \
              "<|eot_id|>"},                                                             \
    .is_llama_3 = true, .needs_question = true, .has_empty_questions = true,             \
    .has_patch_token = true
#define NV_TURNS                                                                         \
    .system_begin = "<extra_id_0>System\n", .system_end = SEPARATOR, .human = "User\n",  \
    .human_end = "\n" SEPARATOR, .gpt = "Assistant\n", .gpt_end = "\n" SEPARATOR,        \
    .stop = SEPARATOR, .takes_label = true, .has_patch_token = true
#define STEERLM                                                                          \
    NV_TURNS, .system = CURIOUS_USER "\n\n",                                             \
              .quality = "quality:4,toxicity:0,humor:0,creativity:0,helpfulness:4,"      \
                         "correctness:4,coherence:4,complexity:4,verbosity:4",           \
              .needs = {"<extra_id_0>", SEPARATOR, CONV_QUALITY}

/* Source: NeMo 2.0, nemo/collections/multimodal/data/neva: conv_templates and what the
 * preprocess functions do with them. */
static const struct conv_template templates[] = {
    {.name = "plain", PLAIN},
    {.name = "v0_plain", PLAIN},
    {.name = "v1", .system = CURIOUS_USER, VICUNA},
    {.name = "vicuna_v1", .system = CURIOUS_USER, VICUNA},
    {.name = "llava_v1", .system = CURIOUS_HUMAN, VICUNA},
    {.name = "llama_2", LLAMA_2},
    {.name = "llava_llama_2", LLAMA_2},
    {.name = "llama_3", LLAMA_3},
    {.name = "mistral",
     .system_end = "\n",
     .human_begin = " [INST] ",
     .human_end = " [/INST]",
     .has_begin = true,
     .system_in_question = true,
     .needs_question = true},
    {.name = "nvgpt", STEERLM},
    {.name = "nv_steerlm", STEERLM},
    {.name = "nv_dpo", NV_TURNS, .system = "\n", .needs = {"<extra_id_0>", SEPARATOR}},
    {.name = "yi_34b", /* ChatML */
     .system_begin = "<|im_start|>system\n",
     .system_end = "<|im_end|>\n",
     .human = "<|im_start|>user\n",
     .human_end = "<|im_end|>\n",
     .gpt = "<|im_start|>assistant\n",
     .gpt_end = "<|im_end|>",
     .next = "\n",
     .stop = "<|im_end|>",
     .needs = {"<|im_start|>", "<|im_end|>"},
     .needs_question = true,
     .has_empty_questions = true,
     .has_empty_answers = true,
     .strips_questions = true,
     .learns_next = true,
     .has_patch_token = true},
    {.name = "interleaved", .shape = CONV_SHAPE_INTERLEAVED},
};

const struct conv_template *conv_template_find(const char *name)
{
    for (size_t i = 0; i < sizeof(templates) / sizeof(*templates); i++)
        if (strcmp(templates[i].name, name) == 0)
            return &templates[i];
    return NULL;
}

const char *conv_template_names(void)
{
    return "plain, v1, llama_2, llama_3, mistral, nvgpt, nv_steerlm, nv_dpo, yi_34b, "
           "interleaved, v0_plain, vicuna_v1, llava_v1, llava_llama_2";
}
