#include "slurm/launch/quote.h"

#include <ctype.h>
#include <string.h>

/* Bytes that mean themselves in a shell; those above ASCII are letters. */
static bool is_plain(unsigned char c)
{
    return isalnum(c) || c >= 0x80 || (c && strchr("_-./:=,+@%", c));
}

static bool is_all_plain(const char *text)
{
    for (const char *c = text; *c; c++)
        if (!is_plain((unsigned char)*c))
            return false;
    return *text != '\0';
}

void quote_shell(struct buf *out, const char *text)
{
    if (is_all_plain(text)) {
        buf_add_str(out, text);
        return;
    }
    buf_add_char(out, '\'');
    for (; *text; text++)
        if (*text == '\'')
            buf_add_str(out, "'\\''");
        else
            buf_add_char(out, *text);
    buf_add_char(out, '\'');
}

void quote_shell_words(struct buf *out, const char *const *words, int n)
{
    for (int i = 0; i < n; i++) {
        if (i)
            buf_add_char(out, ' ');
        quote_shell(out, words[i]);
    }
}

void quote_sbatch(struct buf *out, const char *word)
{
    const char *value = strchr(word, '=');

    if (is_all_plain(word)) {
        buf_add_str(out, word);
        return;
    }
    if (word[0] == '-' && value) {
        buf_add(out, word, (size_t)(value - word) + 1);
        word = value + 1;
    }
    buf_add_char(out, '"');
    for (; *word; word++) {
        if (*word == '"' || *word == '\\')
            buf_add_char(out, '\\');
        buf_add_char(out, *word);
    }
    buf_add_char(out, '"');
}

void quote_sbatch_path(struct buf *out, const char *path)
{
    for (; *path; path++) {
        if (*path == '%')
            buf_add_char(out, '%');
        buf_add_char(out, *path);
    }
}
