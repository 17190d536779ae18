/* token_folder.h - which files make up a tokenizer, and what those beside it say
 *
 * A path is a SentencePiece .model file, a tokenizer.json, or a folder that holds one of
 * them (tokenizer.json is preferred). Beside a tokenizer.json, and in a folder,
 * tokenizer_config.json, special_tokens_map.json and added_tokens.json are read, as
 * Hugging Face's from_pretrained reads them: the first has the last word on which token
 * begins and ends a text, and lists tokens that the vocabulary does not have.
 * Owns: the trees; token_folder_fini frees them.
 */
#ifndef VNEVA_DATAPREP_TEXT_TOKEN_FOLDER_H
#define VNEVA_DATAPREP_TEXT_TOKEN_FOLDER_H

#include "common/base/fs.h"
#include "common/base/json.h"
#include "dataprep/text/added.h"
#include "dataprep/text/tokenizer.h"

#define TOKEN_FILE_MAX_BYTES (256u << 20)

struct token_folder {
    char file[FS_PATH_MAX]; /* the .model or tokenizer.json */
    bool is_json;           /* a tokenizer.json */
    bool is_alone;          /* a .model by itself: named so, or nothing is beside it */
    struct json *config, *map, *added;
    /* all that there are, as paths: the file first */
    char paths[TOKENIZER_FILES_MAX][FS_PATH_MAX];
    int n_paths;
};

/* ERR_NOT_FOUND: nothing there, or a folder without a tokenizer. */
int token_folder_open(struct token_folder *out, const char *path, struct err *err);
void token_folder_fini(struct token_folder *folder);

/* key: "bos_token"... 1: *out is its text, 0: the files say that there is none, -1: they
 * do not say. */
int token_folder_special(const struct token_folder *folder, const char *key,
                         const char **out);

/* Calls `add` for every token that the files add: first those with a number, in order of
 * numbers (token->id), then the named ones (bos_token...), whose id is -1. has_flags: the
 * file says how it is looked for; else the token's flags are the usual ones. */
typedef int token_add_fn(void *state, const struct added_token *token, bool has_flags,
                         struct err *err);
int token_folder_each(const struct token_folder *folder, void *state, token_add_fn *add,
                      struct err *err);

/* An object of AddedToken's fields; absent ones stay as they are. */
void token_flags_read(struct added_token *out, const struct json *json);

#endif
