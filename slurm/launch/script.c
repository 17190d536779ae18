#include "slurm/launch/script.h"

#include "slurm/launch/quote.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARKER_END "# ==== nothing to choose below ===="
#define MARKER_OPTIONS "# Any other option of sbatch, one a line:"
#define NAME_MAX_BYTES 64

struct choice {
    char name[NAME_MAX_BYTES]; /* "--nodes" or "RUN_DIR" */
    struct buf line;           /* what takes the place of the template's line */
};

struct script {
    struct choice choices[SCRIPT_CHOICES_MAX];
    int n_choices;
    bool is_full;
    char unfit[NAME_MAX_BYTES]; /* the choice whose text no line can hold; "": none */
    struct buf options;         /* further lines */
};

/* Options that would make another script of it, and what to say instead. */
static const struct {
    const char *name, *letter, *why;
} refused[] = {
    {"array", "a", "one run folder is one job: launch each by itself"},
    {"wrap", NULL, "the script is vneva's"},
    {"nodes", "N", "say --nodes N in front of `--`"},
    {"ntasks", "n", "there is one program on a node, which starts the ranks"},
    {"ntasks-per-node", NULL, "there is one program on a node, which starts the ranks"},
    {"signal", NULL, "say --signal-seconds S in front of `--`"},
    {"wait", "W", "say --wait in front of `--`"},
    {"test-only", NULL,
     "see the script with --dry-run, and give it to `sbatch --test-only`"},
    {"help", "h", "`sbatch --help` by itself says it, and nothing is queued"},
    {"usage", NULL, "`sbatch --usage` by itself says it, and nothing is queued"},
    {"version", "V", "`sbatch --version` by itself says it, and nothing is queued"},
    {"parsable", NULL, "sbatch is asked for that already"},
    {"chdir", "D", "relative paths start from the folder where you launch: cd there"},
};

struct script *script_create(void)
{
    return calloc(1, sizeof(struct script));
}

void script_destroy(struct script *script)
{
    if (!script)
        return;
    for (int i = 0; i < script->n_choices; i++)
        buf_fini(&script->choices[i].line);
    buf_fini(&script->options);
    free(script);
}

/* Texts come from files and the environment too. */
static void check_text(struct script *script, const char *name, const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < ' ' || *c == 0x7f)
            snprintf(script->unfit, sizeof(script->unfit), "%s", name);
}

/* A line for that name, to be filled; NULL when there is no room. */
static struct buf *add_choice(struct script *script, const char *prefix, const char *name)
{
    struct choice *choice = &script->choices[script->n_choices];

    if (script->n_choices == SCRIPT_CHOICES_MAX) {
        script->is_full = true;
        return NULL;
    }
    snprintf(choice->name, sizeof(choice->name), "%s%s", prefix, name);
    script->n_choices++;
    return &choice->line;
}

void script_set_option(struct script *script, const char *name, const char *value)
{
    struct buf *line = value ? add_choice(script, "--", name) : NULL;

    if (!line)
        return;
    check_text(script, name, value);
    buf_printf(line, "#SBATCH --%s=", name);
    quote_sbatch(line, value);
}

void script_set_output(struct script *script, const char *name, const char *folder,
                       const char *file)
{
    struct buf path = BUF_INIT;

    quote_sbatch_path(&path, folder);
    buf_printf(&path, "/%s", file);
    script_set_option(script, name, buf_str(&path));
    buf_fini(&path);
}

void script_set_variable(struct script *script, const char *name, const char *value)
{
    struct buf *line = value ? add_choice(script, "", name) : NULL;

    if (!line)
        return;
    check_text(script, name, value);
    buf_printf(line, "%s=", name);
    if (*value)
        quote_shell(line, value);
}

void script_set_list(struct script *script, const char *name, const char *const *words,
                     int n)
{
    struct buf *line = add_choice(script, "", name);

    if (!line)
        return;
    for (int i = 0; i < n; i++)
        check_text(script, name, words[i]);
    buf_printf(line, "%s=(", name);
    quote_shell_words(line, words, n);
    buf_add_char(line, ')');
}

static int check_option(const char *word, struct err *err)
{
    bool is_long = word[1] == '-';
    size_t n = is_long ? strcspn(word + 2, "=") : 1;

    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        const char *name = is_long ? refused[i].name : refused[i].letter;

        if (name && strlen(name) == n && strncmp(word + (is_long ? 2 : 1), name, n) == 0)
            return err_set(err, ERR_INVALID, "'%s' after `--`: %s", word, refused[i].why);
    }
    return 0;
}

int script_add_options(struct script *script, const char *const *words, int n,
                       struct err *err)
{
    for (int i = 0; i < n; i++) {
        bool is_option = words[i][0] == '-' && words[i][1];

        if (strcmp(words[i], ":") == 0)
            return err_set(err, ERR_INVALID,
                           "':' after `--`: jobs of several parts are not made");
        if (!is_option && i == 0)
            return err_set(err, ERR_INVALID,
                           "'%s' after `--`: options of sbatch come there, as in `-- "
                           "--mem=0 -C a100`; overrides stand before it",
                           words[i]);
        if (is_option && check_option(words[i], err) < 0)
            return -1;
        buf_add_str(&script->options, is_option ? (i ? "\n#SBATCH " : "#SBATCH ") : " ");
        quote_sbatch(&script->options, words[i]);
    }
    if (n)
        buf_add_char(&script->options, '\n');
    return buf_check(&script->options, err);
}

/* The name that a line of the template gives a value: "--nodes", "RUN_DIR"; 0: none. */
static size_t name_of_line(const char *line, size_t n, const char **name)
{
    static const char option[] = "#SBATCH ";
    const char *c = line;

    if (n && strncmp(c, "##", 2) == 0)
        c++;
    if (strncmp(c, option, sizeof(option) - 1) == 0) {
        *name = c + sizeof(option) - 1;
        return strcspn(*name, "=\n ");
    }
    *name = line;
    for (c = line; c < line + n && (isupper((unsigned char)*c) || *c == '_'); c++)
        continue;
    return c > line && *c == '=' ? (size_t)(c - line) : 0;
}

static int find_choice(const struct script *script, const char *line, size_t n)
{
    const char *name;
    size_t n_name = name_of_line(line, n, &name);

    for (int i = 0; n_name && i < script->n_choices; i++)
        if (strlen(script->choices[i].name) == n_name &&
            memcmp(script->choices[i].name, name, n_name) == 0)
            return i;
    return -1;
}

static int check_choices(const struct script *script, const bool *used, struct err *err)
{
    if (script->unfit[0])
        return err_set(err, ERR_INVALID,
                       "a line break or control character in what is to be %s: a batch "
                       "script cannot hold it",
                       script->unfit);
    if (script->is_full)
        return err_set(err, ERR_LIMIT, "more than %d choices in a batch script",
                       SCRIPT_CHOICES_MAX);
    for (int i = 0; i < script->n_choices; i++) {
        if (buf_check(&script->choices[i].line, err) < 0)
            return -1;
        if (!used[i])
            return err_set(err, ERR_NOT_FOUND, "the batch script has no line for '%s'",
                           script->choices[i].name);
    }
    return 0;
}

static bool is_line(const char *line, size_t n, const char *text)
{
    return strlen(text) == n && memcmp(line, text, n) == 0;
}

int script_write(struct buf *out, const struct script *script, struct err *err)
{
    bool used[SCRIPT_CHOICES_MAX] = {false};
    const char *line = script_template();

    for (bool is_end = false; !is_end;) {
        size_t n = strcspn(line, "\n");
        int which = find_choice(script, line, n);

        if (which >= 0) {
            buf_add_str(out, buf_str(&script->choices[which].line));
            used[which] = true;
        } else {
            buf_add(out, line, n);
        }
        buf_add_char(out, '\n');
        if (is_line(line, n, MARKER_OPTIONS))
            buf_add_str(out, buf_str(&script->options));
        is_end = is_line(line, n, MARKER_END) || !line[n];
        line += line[n] ? n + 1 : n;
    }
    buf_add_str(out, line);
    if (check_choices(script, used, err) < 0)
        return -1;
    return buf_check(out, err);
}
