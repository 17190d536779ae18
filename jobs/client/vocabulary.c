#include "jobs/client/vocabulary.h"

#include "common/base/fs.h"
#include "common/base/json.h"
#include "jobs/client/sentencepiece.h"

#include <string.h>

#define TOKENIZER_MAX (256u << 20) /* bytes of a tokenizer.json */

static int64_t larger(int64_t n, int64_t id)
{
    return id >= n ? id + 1 : n;
}

/* Has the tree this token, among the model's or the added ones? */
static bool has_token(const struct json *vocab, const struct json *added,
                      const char *token)
{
    for (size_t i = 0; i < json_count(added); i++) {
        const char *content = json_get_string(json_at(added, i), "content");

        if (content && strcmp(content, token) == 0)
            return true;
    }
    return json_get(vocab, token) != NULL;
}

static int64_t count_tree(const struct json *tree, const struct spec_list *extra_tokens)
{
    const struct json *vocab = json_get(json_get(tree, "model"), "vocab");
    const struct json *added = json_get(tree, "added_tokens");
    int64_t n = 0;

    for (size_t i = 0; json_type(vocab) == JSON_OBJECT && i < json_count(vocab); i++)
        n = larger(n, json_int(json_at(vocab, i), -1));
    for (size_t i = 0; i < json_count(added); i++)
        n = larger(n, json_get_int(json_at(added, i), "id", -1));
    for (int64_t i = 0; n && i < extra_tokens->count; i++)
        n += !has_token(vocab, added, extra_tokens->items[i]);
    return n;
}

static int64_t count_json(const char *path, const struct spec_list *extra_tokens)
{
    struct buf text = BUF_INIT;
    struct json *tree = NULL;
    int64_t n = 0;

    if (fs_read_file(&text, path, TOKENIZER_MAX, NULL) == 0 &&
        json_parse(&tree, buf_str(&text), text.n_bytes, NULL) == 0)
        n = count_tree(tree, extra_tokens);
    json_free(tree);
    buf_fini(&text);
    return n;
}

int64_t vocabulary_count(const char *path, const struct spec_list *extra_tokens)
{
    char file[FS_PATH_MAX];
    size_t n_path = path ? strlen(path) : 0;
    int64_t n;

    if (!path)
        return 0;
    if (fs_is_dir(path)) {
        if (fs_path(file, NULL, "%s/tokenizer.json", path) == 0 && fs_exists(file))
            return count_json(file, extra_tokens);
        if (fs_path(file, NULL, "%s/tokenizer.model", path) < 0)
            return 0;
        path = file;
    } else if (n_path >= 5 && strcmp(path + n_path - 5, ".json") == 0) {
        return count_json(path, extra_tokens);
    }
    n = sentencepiece_count(path);
    return n ? n + extra_tokens->count : 0;
}
