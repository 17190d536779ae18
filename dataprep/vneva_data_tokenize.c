#include "dataprep/vneva_data.h"

#include "common/base/json.h"
#include "dataprep/annotations/annotations.h"
#include "dataprep/text/conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_MAX 100000
#define PATCHES_MAX 1000000

static const char help[] =
    "usage: vneva data tokenize --tokenizer PATH --template NAME --num-frames N\n"
    "           --patches-per-frame P [--use-im-start-end] [--extra-token TEXT]... FILE\n"
    "       vneva data tokenize --tokenizer PATH --texts [--spans] FILE\n"
    "\n"
    "Prints one JSON line a conversation of FILE (.json or .jsonl): id, tokens, labels,\n"
    "as NeMo's preprocessing gives them: media as their patches, labels shifted by one\n"
    "and -1 where masked. Media files are not opened.\n"
    "\n"
    "  --tokenizer PATH        a SentencePiece .model, a tokenizer.json of Hugging\n"
    "                          Face, or a folder with one of them\n"
    "  --template NAME         plain, v1, llama_2, llama_3, mistral, nvgpt, nv_dpo,\n"
    "                          yi_34b, interleaved...\n"
    "  --num-frames N          frames of a video; an image is one\n"
    "  --patches-per-frame P   (image size / patch size) squared\n"
    "  --use-im-start-end      media stand between start and end tokens\n"
    "  --extra-token TEXT      one of additional_special_tokens, in their order\n"
    "  --texts                 FILE has objects {\"text\": ...}, no conversations: "
    "prints\n"
    "                          their id, their tokens, and the text these make again\n"
    "  --spans                 and the bytes [begin, end) of every token\n"
    "\n"
    "Exit status: 0 done, 1 some conversations are wrong (named on standard error),\n"
    "2 wrong usage or input, 5 an error of the system.\n"
    "\n"
    "Example:\n"
    "  vneva data tokenize --tokenizer tokenizer.model --template v1 --num-frames 4 \\\n"
    "      --patches-per-frame 16 annotations.jsonl | head -1\n";

struct tokenize {
    const char *file;
    const char *extra_tokens[ARGS_WORDS_MAX];
    int n_extra_tokens;
    int64_t n_frames, n_patches; /* patches of a frame */
    bool is_texts, has_spans;
    struct tokenizer *opened;
    struct conv_encoder encoder;
    int64_t n_wrong;
};

static void print_ints(const char *key, const struct buf *ints)
{
    size_t n = ints->n_bytes / sizeof(int32_t);

    printf(", \"%s\": [", key);
    for (size_t i = 0; i < n; i++) {
        int32_t value;

        memcpy(&value, ints->data + i * sizeof(value), sizeof(value));
        printf("%s%d", i ? ", " : "", value);
    }
    putchar(']');
}

static int print_tokens(const struct tokenize *tokenize, const struct json *record,
                        const struct conv_tokens *tokens, struct err *err)
{
    const enum media_kind *kinds = (const enum media_kind *)buf_str(&tokens->media);
    int64_t *n_patches = calloc((size_t)tokens->n_media + 1, sizeof(*n_patches));
    struct buf out_tokens = BUF_INIT, out_labels = BUF_INIT, id = BUF_INIT;
    int rc;

    if (!n_patches)
        return err_set(err, ERR_NOMEM, "cannot allocate the media of a conversation");
    for (int64_t i = 0; i < tokens->n_media; i++)
        n_patches[i] =
            tokenize->n_patches * (kinds[i] == MEDIA_IMAGE ? 1 : tokenize->n_frames);
    rc = conv_nemo_form(&tokenize->encoder, tokens, n_patches, &out_tokens, &out_labels,
                        err);
    if (rc == 0) {
        json_write(&id, json_get(record, "id"), 0);
        printf("{\"id\": %s", buf_str(&id));
        print_ints("tokens", &out_tokens);
        print_ints("labels", &out_labels);
        puts("}");
    }
    free(n_patches);
    buf_fini(&id);
    buf_fini(&out_tokens);
    buf_fini(&out_labels);
    return rc;
}

static int tokenize_record(const struct tokenize *tokenize, const struct json *record,
                           struct err *err)
{
    struct conversation conversation;
    struct conv_tokens tokens;
    int rc;

    if (conversation_render(&conversation, tokenize->encoder.template, record, err) < 0)
        return -1;
    rc = conv_encode(&tokenize->encoder, &tokens, &conversation, err);
    conversation_fini(&conversation);
    if (rc < 0)
        return -1;
    rc = print_tokens(tokenize, record, &tokens, err);
    conv_tokens_fini(&tokens);
    return rc;
}

/* ---- texts ---- */

static void print_spans(const struct buf *spans)
{
    const struct token_span *span = (const struct token_span *)(const void *)spans->data;
    size_t n = spans->n_bytes / sizeof(*span);

    printf(", \"spans\": [");
    for (size_t i = 0; i < n; i++)
        printf("%s[%u, %u]", i ? ", " : "", span[i].begin, span[i].end);
    putchar(']');
}

static void print_text(const struct tokenize *tokenize, const struct json *record,
                       const struct buf *spans, const struct buf *ids,
                       const struct buf *text)
{
    struct buf out = BUF_INIT;

    json_write(&out, json_get(record, "id"), 0);
    printf("{\"id\": %s", buf_str(&out));
    print_ints("tokens", ids);
    if (tokenize->has_spans)
        print_spans(spans);
    buf_reset(&out);
    json_write_string(&out, buf_str(text), text->n_bytes);
    printf(", \"text\": %s}\n", buf_str(&out));
    buf_fini(&out);
}

static int tokenize_text(const struct tokenize *tokenize, const struct json *record,
                         struct err *err)
{
    const struct json *text = json_get(record, "text");
    struct buf spans = BUF_INIT, ids = BUF_INIT, again = BUF_INIT;
    const struct token_span *span;
    int rc;

    if (json_type(text) != JSON_STRING)
        return err_set(err, ERR_INVALID, "no \"text\", a string, in the record");
    rc = tokenizer_encode_spans(tokenize->opened, &spans, json_string(text),
                                json_string_bytes(text), err);
    span = (const struct token_span *)(const void *)spans.data;
    for (size_t i = 0; rc == 0 && i < spans.n_bytes / sizeof(*span); i++)
        buf_add(&ids, &span[i].id, sizeof(span[i].id));
    if (rc == 0)
        rc = buf_check(&ids, err);
    if (rc == 0)
        rc = tokenizer_decode(tokenize->opened, &again, (const int32_t *)(void *)ids.data,
                              (int64_t)(ids.n_bytes / sizeof(int32_t)), err);
    if (rc == 0)
        print_text(tokenize, record, &spans, &ids, &again);
    buf_fini(&spans);
    buf_fini(&ids);
    buf_fini(&again);
    return rc;
}

/* ---- records ---- */

/* A wrong conversation is told and passed over; running out of memory ends it all. */
static int tokenize_one(void *state, const struct annotation *annotation, struct err *err)
{
    struct tokenize *tokenize = state;
    struct json *record = NULL;
    struct err wrong = {0};
    int rc = json_parse_at(&record, annotation->text, (size_t)annotation->n_bytes,
                           annotation->line, annotation->column, &wrong);

    if (rc == 0)
        rc = tokenize->is_texts ? tokenize_text(tokenize, record, &wrong)
                                : tokenize_record(tokenize, record, &wrong);
    json_free(record);
    if (rc == 0)
        return 0;
    if (wrong.code == ERR_NOMEM)
        return err_set(err, ERR_NOMEM, "%s", wrong.text);
    fprintf(stderr, "vneva data: '%s' line %lld: %s\n", tokenize->file,
            (long long)annotation->line, wrong.text);
    tokenize->n_wrong++;
    return 0;
}

static int read_args(struct tokenize *out, const struct args *args, struct err *err)
{
    out->file = args->words[0];
    out->n_extra_tokens = args_values(args, "extra-token", out->extra_tokens);
    out->is_texts = args_has(args, "texts");
    out->has_spans = args_has(args, "spans");
    if (args_int(args, "num-frames", 1, FRAMES_MAX, 0, &out->n_frames, err) < 0 ||
        args_int(args, "patches-per-frame", 1, PATCHES_MAX, 0, &out->n_patches, err) < 0)
        return -1;
    if (!args_has(args, "tokenizer") ||
        (!out->is_texts &&
         (!args_has(args, "template") || !out->n_frames || !out->n_patches)))
        return err_set(err, ERR_INVALID,
                       "--tokenizer, and --texts or --template, --num-frames and "
                       "--patches-per-frame, are needed");
    if (out->has_spans && !out->is_texts)
        return err_set(err, ERR_INVALID, "--spans goes with --texts");
    return 0;
}

static int open_encoder(struct tokenize *out, const struct args *args, struct err *err)
{
    const struct conv_template *template;

    if (tokenizer_open(&out->opened, args_value(args, "tokenizer"), out->extra_tokens,
                       out->n_extra_tokens, err) < 0)
        return -1;
    if (out->is_texts)
        return 0;
    if (data_find_template(&template, args, NULL, err) < 0)
        return -1;
    return conv_encoder_init(&out->encoder, template, out->opened,
                             args_has(args, "use-im-start-end"), err);
}

static int run(const struct args *args, struct err *err)
{
    struct tokenize tokenize = {.file = NULL};
    int rc = -1;

    if (read_args(&tokenize, args, err) == 0 && open_encoder(&tokenize, args, err) == 0)
        rc = annotations_scan(tokenize.file, tokenize_one, &tokenize, err);
    tokenizer_close(tokenize.opened);
    return rc < 0 ? -1 : tokenize.n_wrong ? DATA_FAILED : DATA_DONE;
}

static const struct args_option options[] = {
    {.name = "tokenizer", .value = "PATH"},
    {.name = "template", .value = "NAME"},
    {.name = "num-frames", .value = "N"},
    {.name = "patches-per-frame", .value = "P"},
    {.name = "use-im-start-end"},
    {.name = "extra-token", .value = "TEXT"},
    {.name = "texts"},
    {.name = "spans"},
    {0},
};

const struct program_command data_tokenize = {
    "tokenize", "vneva data tokenize", help, options, "one FILE", 1, 1, run};
