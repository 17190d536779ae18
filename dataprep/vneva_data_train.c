#include "dataprep/vneva_data.h"

#include "common/base/json.h"
#include "dataprep/annotations/annotations.h"
#include "dataprep/text/conversation.h"

#include <stdio.h>
#include <stdlib.h>

#define VOCAB_MAX 1000000

static const char help[] =
    "usage: vneva data train-tokenizer --vocab-size N --output FILE [--template NAME]\n"
    "           ANNOTATIONS...\n"
    "\n"
    "Trains a SentencePiece BPE model on the conversations of annotation files (.json "
    "or\n"
    ".jsonl), written out by the template: text comes back as it was (byte fallback, no\n"
    "normalisation), media tokens are <extra_id_3> to <extra_id_5>. Fewer than N tokens\n"
    "come out when the texts do not give more. The same files give the same bytes.\n"
    "\n"
    "  --vocab-size N    at least 300\n"
    "  --output FILE     the .model to write\n"
    "  --template NAME   plain, v1, llama_2, llama_3, mistral, nvgpt, nv_dpo, yi_34b,\n"
    "                    interleaved... (default v1)\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage or input, 5 an error of the system.\n"
    "\n"
    "Example:\n"
    "  vneva data train-tokenizer --vocab-size 400 --output tokenizer.model \\\n"
    "      train.jsonl\n";

struct texts {
    const struct conv_template *template;
    const char *file;
    struct buf list; /* char *, each owned */
};

static void free_texts(struct texts *texts)
{
    char **list = (char **)texts->list.data;

    for (size_t i = 0; i < texts->list.n_bytes / sizeof(*list); i++)
        free(list[i]);
    buf_fini(&texts->list);
}

static int add_text(struct texts *texts, struct buf *text, struct err *err)
{
    char *owned;

    if (!text->n_bytes)
        return 0;
    owned = buf_take(text);
    if (!owned)
        return err_set(err, ERR_NOMEM, "cannot keep the training texts");
    buf_add(&texts->list, &owned, sizeof(owned));
    return buf_check(&texts->list, err);
}

/* The conversation as it is encoded: media and ends of answers break it. */
static int add_conversation(struct texts *texts, const struct conversation *conversation,
                            struct err *err)
{
    const struct conv_part *part = (const struct conv_part *)conversation->parts.data;
    size_t n = conversation->parts.n_bytes / sizeof(*part);
    struct buf text = BUF_INIT;
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++) {
        if (part[i].kind == CONV_TEXT)
            buf_add(&text, conversation->text.data + part[i].begin,
                    part[i].end - part[i].begin);
        else
            rc = add_text(texts, &text, err);
    }
    if (rc == 0)
        rc = add_text(texts, &text, err);
    buf_fini(&text);
    return rc;
}

static int add_record(void *state, const struct annotation *annotation, struct err *err)
{
    struct texts *texts = state;
    struct json *record = NULL;
    struct conversation conversation;
    int rc = -1;

    if (json_parse_at(&record, annotation->text, (size_t)annotation->n_bytes,
                      annotation->line, annotation->column, err) == 0 &&
        conversation_render(&conversation, texts->template, record, err) == 0) {
        rc = add_conversation(texts, &conversation, err);
        conversation_fini(&conversation);
    }
    json_free(record);
    if (rc < 0)
        err_wrap(err, "'%s' line %lld", texts->file, (long long)annotation->line);
    return rc;
}

static int read_texts(struct texts *texts, const struct args *args, struct err *err)
{
    for (int i = 0; i < args->n_words; i++) {
        texts->file = args->words[i];
        if (annotations_scan(texts->file, add_record, texts, err) < 0)
            return -1;
    }
    return 0;
}

static int run(const struct args *args, struct err *err)
{
    const char *output = args_value(args, "output");
    struct texts texts = {.list = BUF_INIT};
    int64_t vocab;
    int rc;

    if (args_int(args, "vocab-size", TOKENIZER_VOCAB_MIN, VOCAB_MAX, 0, &vocab, err) < 0)
        return -1;
    if (!vocab || !output)
        return err_set(err, ERR_INVALID, "--vocab-size and --output are needed");
    if (data_find_template(&texts.template, args, "v1", err) < 0)
        return -1;
    rc = read_texts(&texts, args, err);
    if (rc == 0)
        rc = tokenizer_train(output, (const char *const *)texts.list.data,
                             (int64_t)(texts.list.n_bytes / sizeof(char *)), vocab, err);
    free_texts(&texts);
    return rc;
}

static const struct args_option options[] = {{.name = "vocab-size", .value = "N"},
                                             {.name = "output", .value = "FILE"},
                                             {.name = "template", .value = "NAME"},
                                             {0}};

const struct program_command data_train_tokenizer = {"train-tokenizer",
                                                     "vneva data train-tokenizer",
                                                     help,
                                                     options,
                                                     "annotation files",
                                                     1,
                                                     ARGS_WORDS_MAX,
                                                     run};
