#include "dataprep/text/template.h"

#include <string.h>

#define SEPARATOR "<extra_id_1>"
#define CURIOUS_USER                                                                     \
    "A chat between a curious user and an artificial intelligence assistant. The "       \
    "assistant gives helpful, detailed, and polite answers to the user's questions."
#define LLAVA_SYSTEM                                                                     \
    "You are a helpful language and vision assistant. You are able to understand the "   \
    "visual content that the user provides, and assist the user with a variety of "      \
    "tasks using natural language."
#define NV_TURNS                                                                         \
    .opening = "<extra_id_0>System\n", .system_end = SEPARATOR, .human = "User\n",       \
    .human_end = "\n" SEPARATOR, .gpt = "Assistant\n", .gpt_end = "\n" SEPARATOR,        \
    .stop = SEPARATOR, .takes_system = true, .has_patch_token = true
#define STEERLM                                                                          \
    NV_TURNS, .system = CURIOUS_USER "\n\n",                                             \
              .quality = "quality:4,toxicity:0,humor:0,creativity:0,helpfulness:4,"      \
                         "correctness:4,coherence:4,complexity:4,verbosity:4"

static const struct conv_template templates[] = {
    {.name = "plain", .is_plain = true, .has_patch_token = true},
    {.name = "v1",
     .system = CURIOUS_USER " ",
     .human = "USER:",
     .human_begin = " ",
     .human_end = " ",
     .gpt = "ASSISTANT:",
     .gpt_begin = " ",
     .next = " "},
    {.name = "llama_2",
     .first = "<<SYS>>\n" LLAVA_SYSTEM "\n<</SYS>>\n\n",
     .human_begin = " [INST] ",
     .human_end = " [/INST]",
     .gpt_begin = " ",
     .gpt_end = " ",
     .has_begins = true},
    {.name = "mistral",
     .human_begin = " [INST] ",
     .human_end = " [/INST]",
     .has_begin = true},
    {.name = "nvgpt", STEERLM},
    {.name = "nv_steerlm", STEERLM},
    {.name = "nv_dpo", NV_TURNS, .system = "\n"},
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
    return "plain, v1, llama_2, mistral, nvgpt, nv_steerlm, nv_dpo";
}
