#include "dataprep/prepare/candidate.h"

#include "common/base/hash.h"
#include "dataprep/annotations/annotations.h"
#include "dataprep/annotations/record.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int candidate_reject(struct candidate *candidate, const char *kind, const char *reason,
                     struct err *err)
{
    candidate->reject_kind = kind;
    candidate->reject_reason = strdup(reason);
    if (!candidate->reject_reason)
        return err_set(err, ERR_NOMEM, "cannot keep a reason");
    return 0;
}

/* A failed check: running out of memory is ours, everything else the record's. */
static int reject_or_fail(struct candidate *candidate, const char *kind,
                          const struct err *reason, struct err *err)
{
    if (reason->code == ERR_NOMEM)
        return err_set(err, ERR_NOMEM, "%s", reason->text);
    return candidate_reject(candidate, kind, reason->text, err);
}

static int check_duplicate(struct candidate *candidate,
                           const struct candidate_context *context,
                           const struct plan_record *record, struct err *err)
{
    struct plan_record first;
    struct err reason = {0};

    if (record->duplicate_of < 0)
        return 0;
    if (plan_read(context->plan, record->duplicate_of, &first, err) < 0)
        return -1;
    if (first.file < 0 || first.file >= context->config->n_data_paths)
        return err_set(err, ERR_FORMAT, "the plan names a file that is not there");
    err_set(&reason, ERR_EXISTS,
            "id '%.100s' of line %lld stands on line %lld of '%s' too", candidate->id,
            (long long)record->line, (long long)first.line,
            context->config->data_paths[first.file]);
    return candidate_reject(candidate, "duplicate-id", reason.text, err);
}

/* Media of a folder: are they there? Those of a tar: where in it? */
static int find_media(struct candidate *candidate,
                      const struct candidate_context *context,
                      struct dataset_media *media, struct err *err)
{
    struct media_ref *ref = &media->ref;
    const struct media_root *root = &context->roots->of[ref->kind];
    struct err reason = {0};
    bool found = false;

    if (!root->path[0]) {
        err_set(&reason, ERR_INVALID,
                "'%s' is named, but no media folder or tar is set: give "
                "model.data.video_folder or model.data.image_folder",
                ref->path);
    } else if (root->is_tar) {
        int index = settings_root_index(context->roots, ref->kind);

        if (plan_find_member(context->plan, index, ref->path, &found, &ref->offset,
                             &ref->n_bytes, err) < 0)
            return -1;
        if (!found)
            err_set(&reason, ERR_NOT_FOUND, "no member '%s' in '%s'", ref->path,
                    root->path);
        else if (ref->n_bytes == 0)
            err_set(&reason, ERR_FORMAT, "member '%s' of '%s' is empty", ref->path,
                    root->path);
    } else {
        char path[FS_PATH_MAX];
        struct stat st;

        if (fs_path(path, &reason, "%s/%s", root->path, ref->path) < 0 ||
            stat(path, &st) < 0)
            err_set(&reason, ERR_NOT_FOUND, "no file '%s/%s'", root->path, ref->path);
        else if (!S_ISREG(st.st_mode))
            err_set(&reason, ERR_INVALID, "'%s' is no file", path);
        else if (strlen(path) >= sizeof(ref->path))
            err_set(&reason, ERR_LIMIT,
                    "%zu bytes of path with its folder, at most %zu fit: '%.200s'...",
                    strlen(path), sizeof(ref->path) - 1, path);
    }
    if (reason.code == ERR_NONE)
        return 0;
    return candidate_reject(candidate, "media-missing", reason.text, err);
}

static int check_media(struct candidate *candidate,
                       const struct candidate_context *context, const struct json *record,
                       struct err *err)
{
    struct conv_tokens *tokens = &candidate->tokens;
    const enum media_kind *kinds = (const enum media_kind *)buf_str(&tokens->media);
    struct record_media named[DATASET_MEDIA_MAX];
    struct err reason = {0};

    if (tokens->n_media > DATASET_MEDIA_MAX) {
        err_set(&reason, ERR_LIMIT, "%lld media in one conversation, at most %d fit",
                (long long)tokens->n_media, DATASET_MEDIA_MAX);
        return candidate_reject(candidate, "media-fields", reason.text, err);
    }
    if (record_find_media(named, record, kinds, tokens->n_media, &reason) < 0)
        return reject_or_fail(
            candidate, reason.code == ERR_DENIED ? "media-outside" : "media-fields",
            &reason, err);
    for (int64_t i = 0; i < tokens->n_media; i++) {
        struct media_ref *ref = &candidate->media[i].ref;

        ref->kind = named[i].kind;
        ref->start_s = named[i].start_s;
        ref->end_s = named[i].end_s;
        memcpy(ref->path, named[i].name, strlen(named[i].name) + 1);
        if (find_media(candidate, context, &candidate->media[i], err) < 0)
            return -1;
        if (candidate->reject_kind)
            return 0;
    }
    return 0;
}

static unsigned render_flags(const struct prepare_config *config)
{
    return (config->media_first ? CONV_MEDIA_FIRST : 0) |
           (config->prompts_only ? CONV_PROMPT : 0);
}

/* The last token of a sample is only a label; a prompt has all of its own before it. */
static int close_prompt(struct conv_tokens *tokens, struct err *err)
{
    static const int32_t none = 0;
    static const uint8_t is_label = 0;

    buf_add(&tokens->tokens, &none, sizeof(none));
    buf_add(&tokens->is_label, &is_label, sizeof(is_label));
    tokens->n_tokens++;
    return buf_check(&tokens->tokens, err) < 0 ? -1 : buf_check(&tokens->is_label, err);
}

static int check_conversation(struct candidate *candidate,
                              const struct candidate_context *context,
                              const struct json *record, struct err *err)
{
    bool is_prompt = context->config->prompts_only;
    struct conversation conversation;
    struct err reason = {0};
    int rc;

    if (conversation_render_as(&conversation, context->encoder->template,
                               render_flags(context->config), record, &reason) < 0)
        return reject_or_fail(candidate, "conversation", &reason, err);
    rc = conv_encode(context->encoder, &candidate->tokens, &conversation, &reason);
    conversation_fini(&conversation);
    if (rc < 0)
        return reject_or_fail(candidate, "conversation", &reason, err);
    if (is_prompt && close_prompt(&candidate->tokens, err) < 0)
        return -1;
    if (!is_prompt && !candidate->tokens.n_labels)
        return candidate_reject(candidate, "no-answer",
                                "every answer is empty: there is nothing to learn", err);
    return check_media(candidate, context, record, err);
}

static int take_id(struct candidate *candidate, const struct json *record,
                   struct err *err)
{
    struct buf id = BUF_INIT;

    if (record_id(&id, record) < 0) /* it has none: where it stands names it */
        buf_printf(&id, "%lld:%lld", (long long)candidate->file,
                   (long long)candidate->line);
    candidate->id = buf_take(&id);
    return candidate->id ? 0 : err_set(err, ERR_NOMEM, "cannot allocate an id");
}

static int read_record(struct candidate *candidate,
                       const struct candidate_context *context,
                       const struct plan_record *place, struct err *err)
{
    const char *path;
    struct buf text = BUF_INIT;

    if (place->file < 0 || place->file >= context->config->n_data_paths)
        return err_set(err, ERR_FORMAT, "the plan names a file that is not there");
    path = context->config->data_paths[place->file];
    candidate->file = place->file;
    candidate->line = place->line;
    if (annotations_read(&text, context->files[place->file], path, place->offset,
                         place->n_bytes, err) < 0 ||
        hash64(buf_str(&text), text.n_bytes, 0) != place->hash) {
        buf_fini(&text);
        return err_set(err, ERR_STATE,
                       "'%s' has changed since the dataset was planned; submit again",
                       path);
    }
    candidate->record = buf_take(&text);
    return candidate->record ? 0 : err_set(err, ERR_NOMEM, "cannot keep a record");
}

int candidate_check(struct candidate *out, const struct candidate_context *context,
                    int64_t number, struct err *err)
{
    struct plan_record place;
    struct json *record = NULL;
    struct err reason = {0};
    int rc;

    *out = (struct candidate){0};
    if (plan_read(context->plan, number, &place, err) < 0 ||
        read_record(out, context, &place, err) < 0)
        return -1;
    rc = json_parse_at(&record, out->record, strlen(out->record), place.line,
                       place.column, &reason);
    if (take_id(out, record, err) < 0)
        rc = -1;
    else if (rc < 0)
        rc = reject_or_fail(out, "bad-json", &reason, err);
    else if (strlen(out->record) != (size_t)place.n_bytes)
        rc = candidate_reject(out, "bad-json", "a NUL byte in the record", err);
    else if (json_type(record) == JSON_ARRAY)
        rc = candidate_reject(out, "bad-json",
                              "the record is a list, no object: name a file that is one "
                              "list of records .json, not .jsonl",
                              err);
    else if (json_type(record) != JSON_OBJECT)
        rc = candidate_reject(out, "bad-json", "the record is no object", err);
    else
        rc = check_duplicate(out, context, &place, err);
    if (rc == 0 && !out->reject_kind)
        rc = check_conversation(out, context, record, err);
    json_free(record);
    return rc;
}

void candidate_fini(struct candidate *candidate)
{
    free(candidate->id);
    free(candidate->record);
    free(candidate->reject_reason);
    conv_tokens_fini(&candidate->tokens);
    *candidate = (struct candidate){0};
}

int candidate_place_media(struct media_ref *out, const struct candidate *candidate,
                          const struct media_roots *roots, int64_t i, struct err *err)
{
    const struct media_ref *ref = &candidate->media[i].ref;
    const struct media_root *root = &roots->of[ref->kind];
    char path[FS_PATH_MAX];

    if (fs_path(path, err, root->is_tar ? "%s" : "%s/%s", root->path, ref->path) < 0)
        return -1;
    if (strlen(path) >= sizeof(out->path))
        return err_set(err, ERR_LIMIT, "'%s': the path is too long", ref->path);
    *out = *ref;
    memcpy(out->path, path, strlen(path) + 1);
    return 0;
}
