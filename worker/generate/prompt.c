#include "worker/generate/prompt.h"

#include "common/base/fs.h"
#include "dataprep/annotations/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- records ---- */

static struct json *turn_json(const char *from, const char *value, struct err *err)
{
    struct json *turn = json_new(JSON_OBJECT);

    if (json_set(turn, "from", json_new_string(from), err) == 0 &&
        json_set(turn, "value", json_new_string(value), err) == 0)
        return turn;
    json_free(turn);
    return NULL;
}

int prompt_add_turn(struct json *record, const char *from, const char *value,
                    struct err *err)
{
    struct json *turn = turn_json(from, value, err);

    if (!turn)
        return -1;
    return json_append(json_get(record, "conversations"), turn, err);
}

struct json *prompt_record(const char *id, const char *question, struct err *err)
{
    struct json *record = json_new(JSON_OBJECT);

    if (json_set(record, "id", json_new_string(id), err) == 0 &&
        json_set(record, "conversations", json_new(JSON_ARRAY), err) == 0 &&
        prompt_add_turn(record, "human", question, err) == 0)
        return record;
    json_free(record);
    return NULL;
}

static bool names_media(const struct json *record)
{
    return json_get(record, "video") || json_get(record, "image");
}

static bool has_placeholder(const struct json *record)
{
    const struct json *turns = json_get(record, "conversations");

    for (size_t i = 0; i < json_count(turns); i++) {
        const char *value = json_get_string(json_at(turns, i), "value");

        if (value && (strstr(value, "<video>") || strstr(value, "<image>")))
            return true;
    }
    return false;
}

/* Puts the marks of the media before the first question, as LLaVA's data has them. */
static int add_placeholders(struct json *record, const struct prompter *prompter,
                            struct err *err)
{
    struct json *first = json_at(json_get(record, "conversations"), 0);
    const char *value = json_get_string(first, "value");
    struct buf text = BUF_INIT;
    int rc;

    if (!value)
        return 0; /* conversation_render says what is wrong */
    for (int i = 0; i < prompter->n_media; i++)
        buf_add_str(&text,
                    prompter->media[i].kind == MEDIA_VIDEO ? "<video>\n" : "<image>\n");
    buf_add_str(&text, value);
    rc = buf_check(&text, err);
    if (rc == 0)
        rc = json_set(first, "value", json_new_string(buf_str(&text)), err);
    buf_fini(&text);
    return rc;
}

/* The record with what the command line adds to it. */
static int complete(struct json *record, const struct prompter *prompter, struct err *err)
{
    if (json_type(json_get(record, "conversations")) != JSON_ARRAY)
        return err_set(err, ERR_INVALID,
                       "no 'conversations', a list of turns, in the record");
    if (prompter->n_media && !names_media(record) && !has_placeholder(record) &&
        add_placeholders(record, prompter, err) < 0)
        return -1;
    return prompter->system
               ? json_set(record, "system", json_new_string(prompter->system), err)
               : 0;
}

/* ---- media ---- */

/* The k-th <video> is the k-th --video, likewise for images. */
static int take_given(struct media_ref *out, const struct prompter *prompter,
                      const enum media_kind *kinds, int64_t n, struct err *err)
{
    int next[2] = {0, 0}, n_given[2] = {0, 0}, n_wanted[2] = {0, 0};

    for (int i = 0; i < prompter->n_media; i++)
        n_given[prompter->media[i].kind]++;
    for (int64_t i = 0; i < n; i++)
        n_wanted[kinds[i]]++;
    if (n_given[0] != n_wanted[0] || n_given[1] != n_wanted[1])
        return err_set(err, ERR_INVALID,
                       "%d <video> and %d <image> in the question, but %d --video and %d "
                       "--image",
                       n_wanted[MEDIA_VIDEO], n_wanted[MEDIA_IMAGE], n_given[MEDIA_VIDEO],
                       n_given[MEDIA_IMAGE]);
    for (int64_t i = 0; i < n; i++) {
        int at = next[kinds[i]];

        while (prompter->media[at].kind != kinds[i])
            at++;
        next[kinds[i]] = at + 1;
        out[i].kind = kinds[i];
        memcpy(out[i].path, prompter->media[at].path,
               strlen(prompter->media[at].path) + 1);
    }
    return 0;
}

static int take_named(struct media_ref *out, const struct prompter *prompter,
                      const struct json *record, const enum media_kind *kinds, int64_t n,
                      struct err *err)
{
    struct record_media named[DATASET_MEDIA_MAX];
    char path[FS_PATH_MAX];

    if (record_find_media(named, record, kinds, n, err) < 0)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        if (fs_path(path, err, "%s/%s", prompter->media_root, named[i].name) < 0)
            return -1;
        if (strlen(path) >= sizeof(out[i].path))
            return err_set(err, ERR_LIMIT, "'%s': the path is too long", named[i].name);
        out[i] = (struct media_ref){
            .kind = named[i].kind, .start_s = named[i].start_s, .end_s = named[i].end_s};
        memcpy(out[i].path, path, strlen(path) + 1);
    }
    return 0;
}

int prompt_check_file(enum media_kind kind, const char *path, struct err *err)
{
    const char *wanted = kind == MEDIA_VIDEO ? "video" : "image";
    struct stat st;

    if (stat(path, &st) < 0 && errno == ENOENT)
        return err_set(err, ERR_NOT_FOUND, "there is no %s '%s'", wanted, path);
    if (stat(path, &st) < 0)
        return err_set(err, ERR_NOT_FOUND, "the %s '%s' cannot be reached: %s", wanted,
                       path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is no file: a %s is wanted", path, wanted);
    return 0;
}

static int find_media(struct dataset_sample *sample, const struct prompter *prompter,
                      const struct json *record, const struct conv_tokens *tokens,
                      struct err *err)
{
    const enum media_kind *kinds = (const enum media_kind *)buf_str(&tokens->media);
    struct media_ref refs[DATASET_MEDIA_MAX] = {{0}};
    int64_t n = tokens->n_media;
    int rc;

    if (n > DATASET_MEDIA_MAX)
        return err_set(err, ERR_LIMIT, "%lld media in one question, at most %d fit",
                       (long long)n, DATASET_MEDIA_MAX);
    sample->media = calloc((size_t)n + 1, sizeof(*sample->media));
    if (!sample->media)
        return err_set(err, ERR_NOMEM, "cannot allocate the media of a question");
    rc = names_media(record) ? take_named(refs, prompter, record, kinds, n, err)
                             : take_given(refs, prompter, kinds, n, err);
    for (int64_t i = 0; i < n && rc == 0; i++) {
        sample->media[i].ref = refs[i];
        rc = prompt_check_file(refs[i].kind, refs[i].path, err);
    }
    sample->n_media = n;
    return rc;
}

/* ---- tokens ---- */

/* The tokens up to the last answer, and room for one more: a batch leaves out the last. */
static int take_tokens(struct dataset_sample *sample, const struct prompter *prompter,
                       const struct conv_tokens *tokens, struct err *err)
{
    const int32_t *from = (const int32_t *)(const void *)tokens->tokens.data;
    int32_t begin = prompter->encoder.begin;
    int64_t n_begin =
        prompter->has_begin && begin >= 0 && (tokens->n_prompt == 0 || from[0] != begin);
    size_t n = (size_t)(tokens->n_prompt + n_begin);

    sample->tokens = calloc(n + 1, sizeof(*sample->tokens));
    sample->is_label = calloc(n + 1, sizeof(*sample->is_label));
    if (!sample->tokens || !sample->is_label)
        return err_set(err, ERR_NOMEM, "cannot allocate a question of %zu tokens", n);
    sample->tokens[0] = begin;
    if (tokens->n_prompt)
        memcpy(sample->tokens + n_begin, from,
               (size_t)tokens->n_prompt * sizeof(*sample->tokens));
    sample->n_prompt = (int64_t)n;
    sample->n_tokens = (int64_t)n + 1;
    return n ? 0 : err_set(err, ERR_INVALID, "the question is empty");
}

static int encode(struct dataset_sample *sample, const struct prompter *prompter,
                  const struct json *record, struct err *err)
{
    unsigned flags = CONV_PROMPT | (prompter->media_first ? CONV_MEDIA_FIRST : 0);
    struct conversation conversation;
    struct conv_tokens tokens;
    int rc;

    if (conversation_render_as(&conversation, prompter->encoder.template, flags, record,
                               err) < 0)
        return -1;
    rc = conv_encode(&prompter->encoder, &tokens, &conversation, err);
    conversation_fini(&conversation);
    if (rc < 0)
        return -1;
    rc = find_media(sample, prompter, record, &tokens, err);
    if (rc == 0)
        rc = take_tokens(sample, prompter, &tokens, err);
    conv_tokens_fini(&tokens);
    return rc;
}

static int take_id(struct dataset_sample *sample, const struct json *record,
                   struct err *err)
{
    struct buf id = BUF_INIT;

    if (record_id(&id, record) < 0)
        buf_add_str(&id, "question");
    sample->id = buf_take(&id);
    return sample->id ? 0 : err_set(err, ERR_NOMEM, "cannot allocate a question");
}

int prompt_sample(struct dataset_sample **out, const struct prompter *prompter,
                  const struct json *record, struct err *err)
{
    struct dataset_sample *sample = calloc(1, sizeof(*sample));
    struct json *whole = json_clone(record);
    int rc = -1;

    if (!sample || !whole)
        err_set(err, ERR_NOMEM, "cannot allocate a question");
    else if (complete(whole, prompter, err) == 0 && take_id(sample, record, err) == 0)
        rc = encode(sample, prompter, whole, err);
    json_free(whole);
    if (rc < 0) {
        dataset_sample_free(sample);
        return -1;
    }
    *out = sample;
    return 0;
}
