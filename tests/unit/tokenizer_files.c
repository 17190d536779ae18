/* tokenizer.json files: what is not had or does not fit is refused by name, begin and end
 * come from where people put them, spans cover the text, nothing hangs. */
#include "common/base/fs.h"
#include "dataprep/text/tokenizer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TEXT_MAX (64u << 20)
#define FILE_MAX (256u << 20)
#define N_LONG 300000

static char folder[] = "/tmp/vneva-tokens-XXXXXX";

/* ---- files ---- */

/* The parts of a small tokenizer.json; NULL: a usual one. */
struct parts {
    const char *added, *normalizer, *pre_tokenizer, *processor, *decoder, *vocab, *merges,
        *model;
};

static const char * or (const char *part, const char *otherwise)
{
    return part ? part : otherwise;
}

static void put_file(const char *name, const char *text)
{
    char path[FS_PATH_MAX];
    struct err err;

    assert_int_equal(fs_path(path, &err, "%s/%s", folder, name), 0);
    if (!text)
        unlink(path);
    else if (fs_write_file_atomic(path, text, strlen(text), &err) < 0)
        fail_msg("%s", err.text);
}

static void put_json(const struct parts *p)
{
    struct buf text = BUF_INIT;

    buf_printf(&text,
               "{\"added_tokens\": %s, \"normalizer\": %s, \"pre_tokenizer\": %s, "
               "\"post_processor\": %s, \"decoder\": %s, \"model\": {\"type\": \"BPE\", "
               "\"vocab\": %s, \"merges\": %s%s}}",
               or (p->added, "[]"), or (p->normalizer, "null"),
               or (p->pre_tokenizer, "null"), or (p->processor, "null"),
               or (p->decoder, "{\"type\": \"Fuse\"}"),
               or (p->vocab, "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"<s>\": 4}"),
               or (p->merges, "[\"a b\"]"), or (p->model, ""));
    put_file("tokenizer.json", buf_str(&text));
    buf_fini(&text);
}

static void no_files_beside(void)
{
    put_file("tokenizer_config.json", NULL);
    put_file("special_tokens_map.json", NULL);
    put_file("added_tokens.json", NULL);
    put_file("tokenizer.model", NULL);
}

static struct tokenizer *opened(const char *const *extras, int n)
{
    struct tokenizer *tokenizer = NULL;
    struct err err;

    if (tokenizer_open(&tokenizer, folder, extras, n, &err) < 0)
        fail_msg("%s", err.text);
    return tokenizer;
}

static struct tokenizer *opened_golden(const char *name)
{
    struct tokenizer *tokenizer = NULL;
    char path[FS_PATH_MAX];
    struct err err;

    assert_int_equal(
        fs_path(path, &err, "%s/tests/golden/tokenizer_%s", getenv("VNEVA_SOURCE"), name),
        0);
    if (tokenizer_open(&tokenizer, path, NULL, 0, &err) < 0)
        fail_msg("%s", err.text);
    return tokenizer;
}

static void assert_refused(enum err_code code, const char *says)
{
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};

    if (tokenizer_open(&tokenizer, folder, NULL, 0, &err) == 0)
        fail_msg("it opens, but should say: %s", says);
    if (!strstr(err.text, says) || err.code != code)
        fail_msg("'%s' (%s) does not say: %s", err.text, err_code_name(err.code), says);
}

/* ---- errors ---- */

#define SPLIT(regex)                                                                     \
    "{\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": "        \
    "\"" regex "\"}}"

static void what_is_not_had_is_refused_by_name(void **state)
{
    static const struct {
        struct parts parts;
        const char *says;
    } table[] = {
        {{.normalizer = "{\"type\": \"Precompiled\"}"}, "normalizer Precompiled"},
        {{.normalizer = "{\"type\": \"BertNormalizer\"}"}, "supported are: NFC"},
        {{.normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": "
                        "\"NFC\"}, {\"type\": \"Nmt\"}]}"},
         "normalizer Nmt"},
        {{.pre_tokenizer = "{\"type\": \"BertPreTokenizer\"}"},
         "pre-tokenizer BertPreTokenizer"},
        {{.pre_tokenizer = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
                           "\"ByteLevel\"}, {\"type\": \"Digits\"}]}"},
         "pre-tokenizer Digits: it comes after ByteLevel"},
        {{.pre_tokenizer = "{\"type\": \"Split\", \"behavior\": \"Odd\", \"pattern\": "
                           "{\"String\": \"a\"}}"},
         "behavior\" Odd"},
        {{.pre_tokenizer = "{\"type\": \"Metaspace\", \"replacement\": \"_\", "
                           "\"prepend_scheme\": \"odd\"}"},
         "'odd' is not always, first or never"},
        {{.decoder = "{\"type\": \"WordPiece\"}"}, "decoder WordPiece"},
        {{.processor = "{\"type\": \"BertProcessing\"}"}, "post-processor Bert"},
        {{.model = ", \"dropout\": 0.1"}, "\"dropout\" is not supported"},
        {{.model = ", \"end_of_word_suffix\": \"</w>\""}, "end_of_word_suffix"},
        {{.model = ", \"continuing_subword_prefix\": \"##\""}, "continuing_subword"},
        {{.pre_tokenizer = SPLIT("a\\\\bc")}, "\\b is not supported (at byte 2)"},
        {{.pre_tokenizer = SPLIT("[^\\\\W_]")}, "\\W is not supported"},
        {{.pre_tokenizer = SPLIT("[a[bc]]")}, "a class in a class"},
        {{.pre_tokenizer = SPLIT("[a&&b]")}, "an intersection of classes"},
        {{.pre_tokenizer = SPLIT("[[:alpha:]]")}, "a POSIX class"},
        {{.pre_tokenizer = SPLIT("a$")}, "'$' (say \\z)"},
        {{.pre_tokenizer = SPLIT("a(?i)b|c")}, "a group of this kind"},
        {{.pre_tokenizer = SPLIT("a{2}+")}, "an interval that '+'"},
        {{.pre_tokenizer = SPLIT("(a)\\\\1")}, "\\1 is not supported"},
        {{.pre_tokenizer = SPLIT("\\\\p{L")}, "a property without braces"},
        {{.pre_tokenizer = "{\"type\": \"Split\", \"behavior\": \"Isolated\", "
                           "\"pattern\": {\"String\": \"\"}}"},
         "an empty text"},
    };

    (void)state;
    no_files_beside();
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        put_json(&table[i].parts);
        assert_refused(ERR_UNSUPPORTED, table[i].says);
    }
    put_file("tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}");
    assert_refused(ERR_UNSUPPORTED, "model Unigram is not supported: only BPE is");
}

static void what_does_not_fit_is_refused_by_name(void **state)
{
    static const struct {
        struct parts parts;
        const char *says;
    } table[] = {
        {{.merges = "[\"a\"]"}, "merge 1: it is no pair of tokens"},
        {{.merges = "[\"a b\", \"a b c\"]"}, "merge 2: it is no pair"},
        {{.merges = "[[\"a\"]]"}, "merge 1: it is no pair"},
        {{.merges = "[[\"a\", 1]]"}, "merge 1: it is no pair"},
        {{.merges = "[\"a z\"]"}, "'z' is no token of \"vocab\""},
        {{.merges = "[\"b c\"]"}, "'bc', its two together, is no token"},
        {{.merges = "{}"}, "no \"merges\", a list"},
        {{.vocab = "{\"a\": 0, \"b\": 0, \"ab\": 1}"}, "two tokens have the number 0"},
        {{.vocab = "{\"a\": \"0\", \"b\": 1, \"ab\": 2}"}, "token 'a' has no number"},
        {{.vocab = "{}"}, "no \"vocab\""},
        {{.vocab = "[\"a\"]"}, "no \"vocab\""},
        {{.model = ", \"unk_token\": \"?\""}, "\"unk_token\" '?' is no token"},
        {{.added = "[{\"content\": \"<x>\"}]"}, "added token 1 has no"},
        {{.added = "[{\"id\": 9, \"content\": \"<x>\"}]"},
         "'<x>' has the number 9, which the vocabulary makes 5"},
        {{.added = "[{\"id\": 5, \"content\": \"<x>\"}, {\"id\": 5, \"content\": "
                   "\"<x>\"}]"},
         "'<x>' stands twice"},
        {{.vocab = "{\"a\": 0, \"b\": 1, \"ab\": 3}",
          .added = "[{\"id\": 3, \"content\": \"<x>\"}]"},
         "would have the number 3, which another has"},
        {{.normalizer = "{}"}, "a normalizer has no \"type\""},
        {{.normalizer = "{\"type\": \"Sequence\"}"}, "has no \"normalizers\""},
        {{.normalizer = "{\"type\": \"Replace\", \"content\": \"\"}"},
         "neither String nor Regex"},
        {{.normalizer = "{\"type\": \"Prepend\"}"}, "has no \"prepend\""},
        {{.decoder = "{\"type\": \"Strip\", \"content\": \"ab\", \"start\": 1, "
                     "\"stop\": 0}"},
         "not one character"},
        {{.decoder = "{\"type\": \"Strip\", \"content\": \"a\"}"}, "\"start\" and"},
        {{.pre_tokenizer = SPLIT("(a")}, "it is not understood"},
        {{.pre_tokenizer = SPLIT("\\\\p{Nonsense}")}, "it is not understood"},
    };

    (void)state;
    no_files_beside();
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        put_json(&table[i].parts);
        assert_refused(ERR_FORMAT, table[i].says);
    }
    put_json(&(struct parts){.vocab = "{\"a\": 0, \"b\": 99999999, \"ab\": 2}"});
    assert_refused(ERR_LIMIT, "the number 99999999");
    put_file("tokenizer.json", "[]");
    assert_refused(ERR_FORMAT, "no tokenizer.json");
}

static void every_cut_of_a_file_is_an_error(void **state)
{
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    struct tokenizer *tokenizer = NULL;
    struct err err;

    (void)state;
    no_files_beside();
    put_json(&(struct parts){.added = "[{\"id\": 5, \"content\": \"<x>\"}]",
                             .normalizer = "{\"type\": \"NFC\"}"});
    snprintf(path, sizeof(path), "%s/tokenizer.json", folder);
    assert_int_equal(fs_read_file(&text, path, 4096, &err), 0);
    for (size_t n = 0; n < text.n_bytes; n++) {
        assert_int_equal(fs_write_file_atomic(path, text.data, n, &err), 0);
        assert_int_equal(tokenizer_open(&tokenizer, folder, NULL, 0, &err), -1);
        assert_int_equal(err.code, ERR_FORMAT);
    }
    buf_fini(&text);
}

static void a_huge_file_is_not_read(void **state)
{
    char path[FS_PATH_MAX];
    int fd;

    (void)state;
    no_files_beside();
    snprintf(path, sizeof(path), "%s/tokenizer.json", folder);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)FILE_MAX + 1), 0); /* a hole, no bytes */
    close(fd);
    assert_refused(ERR_LIMIT, "tokenizer.json");
    unlink(path);
}

static void folders_without_a_tokenizer_say_what_was_looked_for(void **state)
{
    struct tokenizer *tokenizer = NULL;
    struct err err;

    (void)state;
    no_files_beside();
    put_file("tokenizer.json", NULL);
    assert_refused(ERR_NOT_FOUND, "holds neither tokenizer.json nor tokenizer.model");
    assert_int_equal(tokenizer_open(&tokenizer, "org/name", NULL, 0, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "a name on a hub is not downloaded"));
    put_file("tokenizer.model", "x");
    put_file("tokenizer_config.json", "{\"tokenizer_class\": \"GemmaTokenizer\"}");
    assert_refused(ERR_UNSUPPORTED, "\"tokenizer_class\" GemmaTokenizer");
    put_file("tokenizer_config.json", "{");
    assert_refused(ERR_FORMAT, "tokenizer_config.json");
    no_files_beside();
}

/* ---- bounds ---- */

static int encode(const struct tokenizer *tokenizer, struct buf *out, const char *text,
                  struct err *err)
{
    buf_reset(out);
    return tokenizer_encode(tokenizer, out, text, strlen(text), err);
}

static void a_hostile_regex_ends_in_an_error(void **state)
{
    static const char *const hostile[] = {SPLIT("(?:(?:a+)+)+(?=!)"),
                                          SPLIT("(?:a|a|aa)+(?=!)"),
                                          SPLIT("(?:(?:a?){20}){20}(?:aa){20}(?=!)")};
    struct buf out = BUF_INIT;
    struct err err;

    (void)state;
    no_files_beside();
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        struct tokenizer *tokenizer;

        put_json(&(struct parts){.pre_tokenizer = hostile[i]});
        tokenizer = opened(NULL, 0);
        assert_int_equal(encode(tokenizer, &out, "bab!", &err), 0);
        assert_int_equal(encode(tokenizer, &out,
                                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                &err),
                         -1);
        assert_int_equal(err.code, ERR_LIMIT);
        assert_non_null(strstr(err.text, "tries too many ways"));
        tokenizer_close(tokenizer);
    }
    buf_fini(&out);
}

/* Long runs are no attack: the regexes of people go back over them once. */
static void long_runs_are_encoded(void **state)
{
    static const char *const names[] = {"llama3.json", "qwen2.json", "gpt2.json"};
    static const char runs[] = " \nA1!";

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct tokenizer *tokenizer = opened_golden(names[i]);
        struct buf text = BUF_INIT, out = BUF_INIT;
        struct err err;

        for (const char *run = runs; *run; run++)
            for (int k = 0; k < N_LONG; k++)
                buf_add_char(&text, *run);
        if (encode(tokenizer, &out, buf_str(&text), &err) < 0)
            fail_msg("%s", err.text);
        buf_fini(&text);
        buf_fini(&out);
        tokenizer_close(tokenizer);
    }
}

/* With a search of the whole word for every join this would take hours. */
static void a_long_word_comes_back(void **state)
{
    static const char *const names[] = {"llama2.json", "llama3.json"};
    char *text = malloc(N_LONG + 1);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < N_LONG; i++)
        text[i] = "ab\xc3\xa9"[i % 4];
    text[N_LONG] = '\0';
    for (size_t i = 0; i < 2; i++) {
        struct tokenizer *tokenizer = opened_golden(names[i]);
        struct buf ids = BUF_INIT, again = BUF_INIT;
        struct err err;

        assert_int_equal(encode(tokenizer, &ids, text, &err), 0);
        assert_int_equal(tokenizer_decode(tokenizer, &again,
                                          (const int32_t *)(void *)ids.data,
                                          (int64_t)(ids.n_bytes / 4), &err),
                         0);
        assert_string_equal(buf_str(&again), text);
        buf_fini(&ids);
        buf_fini(&again);
        tokenizer_close(tokenizer);
    }
    free(text);
}

static void wrong_texts_are_refused(void **state)
{
    static const char *const names[] = {"llama3.json", "sp.model"};
    struct buf out = BUF_INIT;
    struct err err;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tokenizer *tokenizer = opened_golden(names[i]);

        assert_int_equal(encode(tokenizer, &out, "ab\xff", &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.text, "no valid UTF-8 at its byte 3"));
        assert_int_equal(tokenizer_encode(tokenizer, &out, "a", TEXT_MAX + 1, &err), -1);
        assert_int_equal(err.code, ERR_LIMIT);
        tokenizer_close(tokenizer);
    }
    buf_fini(&out);
    put_json(&(struct parts){.normalizer = "{\"type\": \"NFC\"}"});
    {
        struct tokenizer *tokenizer = opened(NULL, 0);
        struct buf marks = BUF_INIT;

        for (int i = 0; i < 5000; i++)
            buf_add_str(&marks, "\xcc\x81");
        assert_int_equal(encode(tokenizer, &out, buf_str(&marks), &err), -1);
        assert_int_equal(err.code, ERR_LIMIT);
        buf_fini(&marks);
        tokenizer_close(tokenizer);
    }
    buf_fini(&out);
}

/* ---- spans ---- */

static void spans_cover_the_original_text(void **state)
{
    static const char *const names[] = {"qwen2.json", "llama2.json", "mistral.json",
                                        "gpt2.json", "marks.json"};
    static const char text[] = "  cafe\xcc\x81 \xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab "
                               "\xf0\x9f\x98\x80\n\xe2\x96\x81x <pad> <|im_end|>12";

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct tokenizer *tokenizer = opened_golden(names[i]);
        struct buf spans = BUF_INIT;
        const struct token_span *span;
        uint32_t at = 0;
        struct err err;

        assert_int_equal(
            tokenizer_encode_spans(tokenizer, &spans, text, strlen(text), &err), 0);
        span = (const struct token_span *)(void *)spans.data;
        for (size_t k = 0; k < spans.n_bytes / sizeof(*span); k++) {
            assert_int_equal(span[k].begin, at);
            assert_true(span[k].end >= at);
            at = span[k].end;
        }
        assert_int_equal(at, strlen(text));
        buf_fini(&spans);
        tokenizer_close(tokenizer);
    }
}

/* e and its accent become one letter: what stands behind them keeps its place. */
static void spans_count_bytes_before_normalizing(void **state)
{
    struct tokenizer *tokenizer;
    struct buf spans = BUF_INIT;
    const struct token_span *span;
    struct err err;

    (void)state;
    no_files_beside();
    put_json(&(struct parts){.normalizer = "{\"type\": \"NFC\"}",
                             .vocab = "{\"a\": 0, \"\xc3\xa9\": 1, \"b\": 2}",
                             .merges = "[]"});
    tokenizer = opened(NULL, 0);
    assert_int_equal(tokenizer_encode_spans(tokenizer, &spans,
                                            "ae\xcc\x81"
                                            "b",
                                            5, &err),
                     0);
    span = (const struct token_span *)(void *)spans.data;
    assert_int_equal(spans.n_bytes / sizeof(*span), 3);
    assert_int_equal(span[1].id, 1);
    assert_int_equal(span[1].begin, 1);
    assert_int_equal(span[1].end, 4);
    assert_int_equal(span[2].begin, 4);
    assert_int_equal(span[2].end, 5);
    buf_fini(&spans);
    tokenizer_close(tokenizer);
}

/* A letter and two marks become one, which takes two tokens: the last has all bytes. */
static void bytes_of_a_composed_letter_go_to_the_last_token(void **state)
{
    static const char text[] = "A\xcc\x8a\xcc\x81";
    struct tokenizer *tokenizer = opened_golden("qwen2.json");
    struct buf spans = BUF_INIT;
    const struct token_span *span;
    size_t n;
    struct err err;

    (void)state;
    assert_int_equal(tokenizer_encode_spans(tokenizer, &spans, text, strlen(text), &err),
                     0);
    span = (const struct token_span *)(void *)spans.data;
    n = spans.n_bytes / sizeof(*span);
    assert_true(n > 1);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(span[i].begin, 0);
        assert_int_equal(span[i].end, i + 1 < n ? 0 : strlen(text));
    }
    buf_fini(&spans);
    tokenizer_close(tokenizer);
}

/* ---- begin, end, added tokens ---- */

static void assert_ends(int32_t bos, int32_t eos)
{
    struct tokenizer *tokenizer = opened(NULL, 0);

    assert_int_equal(tokenizer_bos(tokenizer), bos);
    assert_int_equal(tokenizer_eos(tokenizer), eos);
    tokenizer_close(tokenizer);
}

static void begin_and_end_come_from_where_people_put_them(void **state)
{
    static const struct parts plain = {.added = NULL};
    static const struct parts templated = {
        .processor = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
                     "{\"id\": \"<s>\"}}, {\"Sequence\": {\"id\": \"A\"}}, "
                     "{\"SpecialToken\": {\"id\": \"c\"}}]}"};

    (void)state;
    no_files_beside();
    put_json(&plain);
    assert_ends(-1, -1);
    put_json(&templated);
    assert_ends(4, 2);
    put_file("tokenizer_config.json", "{\"bos_token\": null, \"eos_token\": \"b\"}");
    assert_ends(-1, 1);
    put_file("special_tokens_map.json",
             "{\"bos_token\": {\"content\": \"a\"}, \"eos_token\": \"c\"}");
    assert_ends(0, 2); /* of older folders the map has the last word, ... */
    put_file("tokenizer_config.json",
             "{\"added_tokens_decoder\": {}, \"bos_token\": {\"content\": \"b\"}}");
    assert_ends(1, 2); /* ... of newer ones the configuration */
    no_files_beside();
}

static void tokens_of_the_files_beside_are_added(void **state)
{
    static const char *const extras[] = {"<extra_id_4>", "<s>", "<new>"};
    struct tokenizer *tokenizer;
    struct buf out = BUF_INIT;
    const int32_t *ids;
    struct err err;

    (void)state;
    no_files_beside();
    put_json(&(struct parts){.added = NULL});
    put_file("tokenizer_config.json",
             "{\"added_tokens_decoder\": {\"6\": {\"content\": \"<two>\", \"special\": "
             "true}, \"5\": {\"content\": \"<one>\", \"rstrip\": true}}, \"pad_token\": "
             "\"<pad>\", \"eos_token\": \"<one>\"}");
    tokenizer = opened(extras, 3);
    assert_int_equal(tokenizer_id(tokenizer, "<one>"), 5);
    assert_int_equal(tokenizer_id(tokenizer, "<two>"), 6);
    assert_int_equal(tokenizer_id(tokenizer, "<pad>"), 7);
    assert_int_equal(tokenizer_id(tokenizer, "<extra_id_4>"), 8);
    assert_int_equal(tokenizer_id(tokenizer, "<new>"), 9);
    assert_int_equal(tokenizer_id(tokenizer, "<none>"), -1);
    assert_int_equal(tokenizer_vocab(tokenizer), 10);
    assert_int_equal(tokenizer_eos(tokenizer), 5);
    assert_int_equal(encode(tokenizer, &out, "ab<one>  <two><s>b<new>", &err), 0);
    ids = (const int32_t *)(void *)out.data;
    assert_int_equal(out.n_bytes / 4, 6);
    assert_int_equal(ids[0], 3);
    assert_int_equal(ids[1], 5);
    assert_int_equal(ids[2], 6);
    assert_int_equal(ids[3], 4);
    assert_int_equal(ids[4], 1);
    assert_int_equal(ids[5], 9);
    buf_fini(&out);
    tokenizer_close(tokenizer);
    put_file("tokenizer_config.json",
             "{\"added_tokens_decoder\": {\"7\": {\"content\": \"<one>\"}}}");
    assert_refused(ERR_FORMAT, "'<one>' has the number 7, which the vocabulary makes 5");
    put_file("tokenizer_config.json",
             "{\"added_tokens_decoder\": {\"x\": {\"content\": \"<one>\"}}}");
    assert_refused(ERR_FORMAT, "'x' is no number of a token");
    no_files_beside();
}

static int list_name(void *state, const char *name, const struct buf *bytes,
                     struct err *err)
{
    assert_true(bytes->n_bytes > 0);
    buf_printf(state, "%s ", name);
    return buf_check(state, err);
}

static void files_that_make_up_a_tokenizer_are_named(void **state)
{
    struct buf names = BUF_INIT;
    uint64_t before, after;
    struct err err;

    (void)state;
    no_files_beside();
    put_json(&(struct parts){.added = NULL});
    put_file("added_tokens.json", "{\"<x>\": 5}");
    assert_int_equal(tokenizer_hash(&before, folder, &err), 0);
    put_file("tokenizer_config.json", "{}");
    assert_int_equal(tokenizer_hash(&after, folder, &err), 0);
    assert_true(before != after);
    assert_int_equal(tokenizer_each_file(folder, &names, list_name, &err), 0);
    assert_string_equal(buf_str(&names),
                        "tokenizer.json tokenizer_config.json added_tokens.json ");
    buf_fini(&names);
    no_files_beside();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_had_is_refused_by_name),
        cmocka_unit_test(what_does_not_fit_is_refused_by_name),
        cmocka_unit_test(every_cut_of_a_file_is_an_error),
        cmocka_unit_test(a_huge_file_is_not_read),
        cmocka_unit_test(folders_without_a_tokenizer_say_what_was_looked_for),
        cmocka_unit_test(a_hostile_regex_ends_in_an_error),
        cmocka_unit_test(long_runs_are_encoded),
        cmocka_unit_test(a_long_word_comes_back),
        cmocka_unit_test(wrong_texts_are_refused),
        cmocka_unit_test(spans_cover_the_original_text),
        cmocka_unit_test(spans_count_bytes_before_normalizing),
        cmocka_unit_test(bytes_of_a_composed_letter_go_to_the_last_token),
        cmocka_unit_test(begin_and_end_come_from_where_people_put_them),
        cmocka_unit_test(tokens_of_the_files_beside_are_added),
        cmocka_unit_test(files_that_make_up_a_tokenizer_are_named),
    };
    int failed;

    if (!mkdtemp(folder))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    fs_remove_tree(folder, NULL);
    return failed;
}
