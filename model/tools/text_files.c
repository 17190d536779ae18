#include "model/tools/text_files.h"

#include "common/base/fs.h"

const char *const text_files_names[] = {
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    NULL,
};

static int is_there(const char *folder, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_path(path, NULL, "%s/%s", folder, name) == 0 && fs_exists(path);
}

const char *text_files_tokenizer(const char *folder)
{
    return is_there(folder, "tokenizer.json")    ? "tokenizer.json"
           : is_there(folder, "tokenizer.model") ? "tokenizer.model"
                                                 : NULL;
}

int text_files_copy(const char *to, const char *from, struct err *err)
{
    char source[FS_PATH_MAX], target[FS_PATH_MAX];

    for (const char *const *name = text_files_names; *name; name++) {
        if (!is_there(from, *name))
            continue;
        if (fs_path(source, err, "%s/%s", from, *name) < 0 ||
            fs_path(target, err, "%s/%s", to, *name) < 0 ||
            fs_copy_file(target, source, err) < 0)
            return -1;
    }
    return 0;
}
