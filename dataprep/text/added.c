#include "dataprep/text/added.h"

#include "dataprep/text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* A letter of a word, as Rust's regex has \w. */
#define WORD_REGEX "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d]"

struct added_text {
    char *bytes;
    size_t n_bytes;
    int32_t token; /* place in added->tokens */
};

static void texts_fini(struct added_texts *texts)
{
    for (size_t i = 0; i < texts->n; i++)
        free(texts->sorted[i].bytes);
    free(texts->sorted);
    texts->sorted = NULL;
    texts->n = 0;
}

static struct added_token *tokens_of(const struct added *added)
{
    return (struct added_token *)(void *)added->tokens.data;
}

static size_t count(const struct added *added)
{
    return added->tokens.n_bytes / sizeof(struct added_token);
}

const struct added_token *added_get(const struct added *added, size_t i)
{
    return &tokens_of(added)[i];
}

void added_fini(struct added *added)
{
    for (size_t i = 0; i < count(added); i++)
        free(tokens_of(added)[i].content);
    buf_fini(&added->tokens);
    texts_fini(&added->plain);
    texts_fini(&added->normalized);
    regex_destroy(added->word);
    added->word = NULL;
}

const struct added_token *added_find(const struct added *added, const char *content,
                                     size_t n_bytes)
{
    for (size_t i = 0; i < count(added); i++) {
        const struct added_token *token = added_get(added, i);

        if (token->n_bytes == n_bytes && memcmp(token->content, content, n_bytes) == 0)
            return token;
    }
    return NULL;
}

int added_put(struct added *added, const struct added_token *token, struct err *err)
{
    const struct added_token *same = added_find(added, token->content, token->n_bytes);
    struct added_token copy = *token;

    if (same) {
        copy.content = same->content;
        copy.id = same->id;
        tokens_of(added)[same - added_get(added, 0)] = copy;
        return 0;
    }
    if (count(added) >= ADDED_TOKENS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d added tokens", ADDED_TOKENS_MAX);
    copy.content = malloc(token->n_bytes + 1);
    if (!copy.content)
        return err_set(err, ERR_NOMEM, "cannot keep added token '%s'", token->content);
    memcpy(copy.content, token->content, token->n_bytes);
    copy.content[token->n_bytes] = '\0';
    buf_add(&added->tokens, &copy, sizeof(copy));
    if (!added->tokens.failed)
        return 0;
    free(copy.content);
    return buf_check(&added->tokens, err);
}

/* ---- what is looked for ---- */

static int compare(const void *left, const void *right)
{
    const struct added_text *a = left, *b = right;
    size_t n = a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes;
    int order = memcmp(a->bytes, b->bytes, n);

    if (order)
        return order;
    if (a->n_bytes != b->n_bytes)
        return a->n_bytes < b->n_bytes ? -1 : 1;
    return a->token < b->token ? -1 : 1;
}

static void texts_sort(struct added_texts *texts)
{
    size_t at = 0;

    if (texts->n)
        qsort(texts->sorted, texts->n, sizeof(*texts->sorted), compare);
    for (int byte = 0; byte <= 256; byte++) {
        while (at < texts->n && (unsigned char)texts->sorted[at].bytes[0] < byte)
            at++;
        texts->firsts[byte] = byte == 256 ? texts->n : at;
    }
}

/* token: its place; bytes move to the list. */
static void texts_add(struct added_texts *texts, struct buf *bytes, size_t token)
{
    struct added_text *text = &texts->sorted[texts->n];

    if (!bytes->n_bytes)
        return; /* nothing is left of it: it is found nowhere */
    text->n_bytes = bytes->n_bytes;
    text->bytes = buf_take(bytes);
    text->token = (int32_t)token;
    texts->n++;
}

int added_index(struct added *added, enum added_rule rule,
                int (*normalize)(void *state, struct buf *out,
                                 const struct added_token *token, struct err *err),
                void *state, struct err *err)
{
    size_t n = count(added);

    texts_fini(&added->plain);
    texts_fini(&added->normalized);
    added->plain.rule = added->normalized.rule = rule;
    added->plain.sorted = calloc(n + 1, sizeof(struct added_text));
    added->normalized.sorted = calloc(n + 1, sizeof(struct added_text));
    if (!added->plain.sorted || !added->normalized.sorted)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu added tokens", n);
    for (size_t i = 0; i < n; i++) {
        const struct added_token *token = added_get(added, i);
        struct buf bytes = BUF_INIT;
        int rc = 0;

        if (token->is_normalized && normalize)
            rc = normalize(state, &bytes, token, err);
        else
            buf_add(&bytes, token->content, token->n_bytes);
        if (rc < 0 || buf_check(&bytes, err) < 0) {
            buf_fini(&bytes);
            return err_wrap(err, "added token '%s'", token->content);
        }
        texts_add(token->is_normalized ? &added->normalized : &added->plain, &bytes, i);
        buf_fini(&bytes);
        if (token->single_word && !added->word &&
            regex_create(&added->word, WORD_REGEX, err) < 0)
            return -1;
    }
    texts_sort(&added->plain);
    texts_sort(&added->normalized);
    return 0;
}

/* ---- splitting ---- */

/* Of texts [low, high), longer than depth and alike up to it: the first whose byte there
 * is `byte` or more. */
static size_t first_not_below(const struct added_texts *texts, size_t low, size_t high,
                              size_t depth, int byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if ((unsigned char)texts->sorted[middle].bytes[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The text that begins at text[0], n_left > 0; NULL: none. */
static const struct added_text *match_here(const struct added_texts *texts,
                                           const char *text, size_t n_left)
{
    size_t low = texts->firsts[(unsigned char)text[0]];
    size_t high = texts->firsts[(unsigned char)text[0] + 1];
    const struct added_text *best = NULL;

    /* [low, high): those that go on as the text does; it narrows byte by byte */
    for (size_t depth = 1; low < high; depth++) {
        while (low < high && texts->sorted[low].n_bytes == depth) {
            const struct added_text *whole = &texts->sorted[low++];

            if (!best || (texts->rule == ADDED_FIRST ? whole->token < best->token
                                                     : whole->n_bytes > best->n_bytes))
                best = whole;
        }
        if (depth >= n_left)
            break;
        high = first_not_below(texts, low, high, depth, (unsigned char)text[depth] + 1);
        low = first_not_below(texts, low, high, depth, (unsigned char)text[depth]);
    }
    return best;
}

/* -1, 0 or 1: is the character at text a letter of a word? */
static int is_word(const struct added *added, const char *text, size_t n,
                   struct regex_work *work, struct err *err)
{
    size_t begin, end;

    return regex_find(added->word, work, text, n, 0, &begin, &end, err);
}

static int stands_alone(const struct added *added, const char *text, size_t n_bytes,
                        size_t begin, size_t end, struct regex_work *work,
                        struct err *err)
{
    uint32_t c;
    size_t n;
    int rc = 0;

    if (begin > 0) {
        n = unicode_last(text, begin, &c);
        rc = is_word(added, text + begin - n, n, work, err);
    }
    if (rc == 0 && end < n_bytes)
        rc = is_word(added, text + end, unicode_decode(text + end, &c), work, err);
    return rc < 0 ? -1 : !rc;
}

static void take_spaces(const struct added_token *token, const char *text, size_t n_bytes,
                        size_t least, size_t *begin, size_t *end)
{
    uint32_t c;

    while (token->lstrip && *begin > least) {
        size_t n = unicode_last(text, *begin, &c);

        if (!unicode_is_space(c))
            break;
        *begin -= n;
    }
    while (token->rstrip && *end < n_bytes) {
        size_t n = unicode_decode(text + *end, &c);

        if (!unicode_is_space(c))
            break;
        *end += n;
    }
    if (*begin < least)
        *begin = least; /* spaces that the token before took already */
}

static void add_piece(struct buf *out, size_t begin, size_t end, int32_t token)
{
    struct added_piece piece = {begin, end, token};

    if (token >= 0 || begin < end)
        buf_add(out, &piece, sizeof(piece));
}

int added_split(const struct added *added, bool is_normalized, struct buf *out,
                const char *text, size_t n_bytes, struct regex_work *work,
                struct err *err)
{
    const struct added_texts *texts = is_normalized ? &added->normalized : &added->plain;
    size_t done = 0, at = 0;

    while (texts->n && at < n_bytes) {
        const struct added_text *hit = match_here(texts, text + at, n_bytes - at);
        size_t begin = at, end;
        int alone = 1;

        if (!hit) {
            at++;
            continue;
        }
        at = end = begin + hit->n_bytes;
        if (added_get(added, (size_t)hit->token)->single_word)
            alone = stands_alone(added, text, n_bytes, begin, end, work, err);
        if (alone < 0)
            return -1;
        if (!alone)
            continue;
        take_spaces(added_get(added, (size_t)hit->token), text, n_bytes, done, &begin,
                    &end);
        add_piece(out, done, begin, -1);
        add_piece(out, begin, end > begin ? end : begin, hit->token);
        done = end > done ? end : done;
    }
    add_piece(out, done, n_bytes, -1);
    return buf_check(out, err);
}
