#include "slurm/launch/bcp.h"

#include "common/base/fs.h"
#include "slurm/launch/launch.h"
#include "slurm/launch/quote.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct args_option bcp_options[] = {
    {"name", 0, "NAME", "of the job (default: the specification's)"},
    {"image", 0, "IMAGE", "container image with vneva in it"},
    {"ace", 0, "ACE", "which cluster (`ngc base-command ace list`)"},
    {"instance", 0, "INSTANCE", "of each replica: dgxa100.80g.8.norm"},
    {"replicas", 0, "N", "nodes (default: trainer.num_nodes, or 1)"},
    {"array-type", 0, "TYPE", "PYTORCH (default), or MPI: bcprun then uses mpirun"},
    {"gpus-per-node", 0, "G", "ranks on each node (default: the instance's GPUs)"},
    {"datasetid", 0, "ID:/MOUNT", "a dataset; may be given again"},
    {"workspace", 0, "ID:/MOUNT[:RW]", "a workspace; may be given again"},
    {"result", 0, "/MOUNT", "for results of each replica (default /result)"},
    {"run-dir", 0, "DIR", "what lasts (default: in the first workspace)"},
    {"export-env", 0, "NAME=VALUE", "a variable for the job; may be given again"},
    {"node-program", 0, "PATH", "vneva-node in the image (default: in its $PATH)"},
    {"org", 0, "ORG", "(default: ngc's configuration)"},
    {"team", 0, "TEAM", "(default: ngc's configuration)"},
    {NULL, 0, NULL, NULL},
};

static const char *const required[] = {"image", "ace", "instance"};
/* Options that ngc knows by the same name. */
static const char *const passed[] = {"image", "ace", "instance", "org", "team"};

int64_t bcp_instance_gpus(const char *instance)
{
    /* model.memory.GPUs.kind */
    const char *memory = strchr(instance, '.');
    const char *gpus = memory ? strchr(memory + 1, '.') : NULL;
    char *end;
    long n;

    if (!gpus || !isdigit((unsigned char)gpus[1]))
        return 0;
    n = strtol(gpus + 1, &end, 10);
    return *end == '.' && n > 0 && n <= LAUNCH_DEVICES_MAX ? n : 0;
}

/* ---- mounts ---- */

/* Where "ID:/mount" and "ID:/mount:RW" are mounted; 0: not in that form. */
static size_t mount_of(const char *text, const char **mount)
{
    const char *colon = strchr(text, ':');

    *mount = text;
    if (!colon || colon == text || colon[1] != '/')
        return 0;
    *mount = colon + 1;
    return strcspn(*mount, ":");
}

static bool is_writable(const char *workspace)
{
    const char *mount;
    size_t n = mount_of(workspace, &mount);

    return n && strcmp(mount + n, ":RO") != 0;
}

static bool is_below(const char *path, const char *mount, size_t n)
{
    return strncmp(path, mount, n) == 0 && (path[n] == '/' || !path[n]);
}

/* Whether path lies in what options of that name mount. */
static bool is_in(const struct args *options, const char *name, bool must_write,
                  const char *path)
{
    const char *given[ARGS_WORDS_MAX], *mount;
    int n = args_values(options, name, given);

    for (int i = 0; i < n; i++) {
        size_t n_mount = mount_of(given[i], &mount);

        if (n_mount && is_below(path, mount, n_mount) &&
            (!must_write || is_writable(given[i])))
            return true;
    }
    return false;
}

bool bcp_is_mounted(const struct args *options, const char *path)
{
    return is_in(options, "workspace", false, path) ||
           is_in(options, "datasetid", false, path);
}

static int check_mounts(const struct args *options, const char *name, struct err *err)
{
    const char *given[ARGS_WORDS_MAX], *mount;
    int n = args_values(options, name, given);

    for (int i = 0; i < n; i++) {
        size_t n_mount = mount_of(given[i], &mount);
        const char *mode = n_mount ? mount + n_mount : "?";

        if (*mode && (strcmp(name, "workspace") != 0 ||
                      (strcmp(mode, ":RW") != 0 && strcmp(mode, ":RO") != 0)))
            return err_set(
                err, ERR_INVALID, "--%s '%s': expected ID:/MOUNT%s", name, given[i],
                strcmp(name, "workspace") == 0 ? ", with :RW or :RO behind it" : "");
    }
    return 0;
}

static const char *result_of(const struct args *options)
{
    const char *given = args_value(options, "result");

    return given ? given : "/result";
}

/* The first workspace that can be written: replicas share it, unlike their results. */
static int find_run_dir(struct buf *out, const struct bcp *bcp, struct err *err)
{
    const char *given[ARGS_WORDS_MAX], *mount;
    int n = args_values(bcp->options, "workspace", given);
    char name[LAUNCH_NAME_MAX];

    launch_plain_name(name, bcp->name);
    for (int i = 0; i < n; i++) {
        size_t n_mount = mount_of(given[i], &mount);

        if (!is_writable(given[i]))
            continue;
        buf_printf(out, "%.*s/runs/%s-%s", (int)n_mount, mount, name, bcp->stamp);
        return buf_check(out, err);
    }
    if (bcp->n_replicas > 1)
        return err_set(err, ERR_INVALID,
                       "%" PRId64 " replicas need a folder that all of them write, and "
                       "each has a result folder of its own: --workspace ID:/MOUNT:RW",
                       bcp->n_replicas);
    buf_printf(out, "%s/runs/%s-%s", result_of(bcp->options), name, bcp->stamp);
    return buf_check(out, err);
}

static int settle_run_dir(struct buf *out, const struct bcp *bcp, struct err *err)
{
    const char *given = args_value(bcp->options, "run-dir");

    if (!given)
        return find_run_dir(out, bcp, err);
    if (*given != '/')
        return err_set(err, ERR_INVALID,
                       "--run-dir '%s': a path in the job is expected, beginning with /",
                       given);
    if (bcp->n_replicas > 1 && !is_in(bcp->options, "workspace", true, given))
        return err_set(err, ERR_INVALID,
                       "--run-dir '%s' is in no workspace that can be written, so the "
                       "replicas do not share it: --workspace ID:/MOUNT:RW",
                       given);
    buf_add_str(out, given);
    return buf_check(out, err);
}

/* ---- the command line of the job ---- */

static void add_base64(struct buf *out, const struct buf *text)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *bytes = (const unsigned char *)buf_str(text);

    for (size_t i = 0; i < text->n_bytes; i += 3) {
        size_t n = text->n_bytes - i;
        uint32_t three = (uint32_t)bytes[i] << 16 |
                         (n > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (n > 2 ? (uint32_t)bytes[i + 2] : 0);

        buf_add_char(out, digits[three >> 18 & 63]);
        buf_add_char(out, digits[three >> 12 & 63]);
        buf_add_char(out, n > 1 ? digits[three >> 6 & 63] : '=');
        buf_add_char(out, n > 2 ? digits[three & 63] : '=');
    }
}

/* vneva-node and its words: what bcprun's shell reads on each replica. */
static int add_node_command(struct buf *out, const struct bcp *bcp, const char *run_dir,
                            const char *spec_path, struct err *err)
{
    const char *program = args_value(bcp->options, "node-program");
    const char *words[ARGS_WORDS_MAX + 16];
    char devices[32];
    int n = 0;

    words[n++] = program ? program : "vneva-node";
    words[n++] = "--run-dir";
    words[n++] = run_dir;
    words[n++] = "--exchange";
    words[n++] = "auto";
    if (bcp->n_devices) {
        snprintf(devices, sizeof(devices), "%" PRId64, bcp->n_devices);
        words[n++] = "--devices";
        words[n++] = devices;
    }
    words[n++] = "--";
    words[n++] = spec_path;
    for (int i = 0; i < bcp->n_overrides; i++)
        words[n++] = bcp->overrides[i];
    quote_shell_words(out, words, n);
    return buf_check(out, err);
}

/* The specification as a file in the run folder. In base64, which no shell on the way
 * reads as anything else, and which has no line breaks. */
static void add_spec_file(struct buf *out, const struct bcp *bcp, const char *run_dir,
                          const char *spec_path)
{
    buf_add_str(out, "mkdir -p ");
    quote_shell(out, run_dir);
    buf_add_str(out, " && echo ");
    add_base64(out, bcp->spec_text);
    buf_add_str(out, " | base64 -d >");
    quote_shell(out, spec_path);
    buf_add_str(out, " && ");
}

static bool is_mpi(const struct args *options)
{
    const char *type = args_value(options, "array-type");

    return type && strcmp(type, "MPI") == 0;
}

static int make_command_line(struct buf *out, const struct bcp *bcp, const char *run_dir,
                             struct err *err)
{
    char spec_path[FS_PATH_MAX];
    struct buf node = BUF_INIT;
    int rc = fs_path(spec_path, err, "%s", bcp->spec_path ? bcp->spec_path : "");

    if (rc == 0 && !bcp->spec_path) {
        rc = fs_path(spec_path, err, "%s/spec.yaml", run_dir);
        if (rc == 0)
            add_spec_file(out, bcp, run_dir, spec_path);
    }
    if (rc == 0)
        rc = add_node_command(&node, bcp, run_dir, spec_path, err);
    buf_printf(out, "bcprun --nnodes %" PRId64 " --npernode 1 ", bcp->n_replicas);
    if (is_mpi(bcp->options)) /* containers run as root */
        buf_add_str(out, "--launcher 'mpirun --allow-run-as-root' ");
    buf_add_str(out, "--cmd ");
    quote_shell(out, buf_str(&node));
    buf_fini(&node);
    return rc < 0 ? -1 : buf_check(out, err);
}

/* ---- the words for ngc ---- */

static void add_word(struct bcp_command *command, const char *name, const char *value)
{
    if (name)
        command->words[command->n_words++] = name;
    if (value)
        command->words[command->n_words++] = value;
}

static int add_variables(struct bcp_command *command, const struct args *options,
                         struct err *err)
{
    const char *given[ARGS_WORDS_MAX];
    int n = args_values(options, "export-env", given);

    for (int i = 0; i < n; i++) {
        size_t n_name = strcspn(given[i], "=");
        struct buf *text = &command->variables[command->n_variables++];

        if (!n_name || !given[i][n_name])
            return err_set(err, ERR_INVALID, "--export-env '%s': expected NAME=VALUE",
                           given[i]);
        buf_printf(text, "%.*s:%s", (int)n_name, given[i], given[i] + n_name + 1);
        if (buf_check(text, err) < 0)
            return -1;
        add_word(command, "--env-var", buf_str(text));
    }
    return 0;
}

static void add_all(struct bcp_command *command, const struct args *options,
                    const char *name, const char *as)
{
    const char *given[ARGS_WORDS_MAX];
    int n = args_values(options, name, given);

    for (int i = 0; i < n; i++)
        add_word(command, as, given[i]);
}

/* What is behind `--` is ngc's; options that the command line follows from are not. */
static int check_rest(const struct args *options, struct err *err)
{
    const char *const *words = options->words + options->n_words;

    for (int i = 0; i < options->n_rest; i++) {
        const char *name = strncmp(words[i], "--", 2) == 0 ? words[i] + 2 : "";
        size_t n = strcspn(name, "=");

        if (n == strlen("commandline") && strncmp(name, "commandline", n) == 0)
            return err_set(err, ERR_INVALID,
                           "'%s' after `--`: the command line is vneva's", words[i]);
        for (const struct args_option *own = bcp_options; n && own->name; own++)
            if (strlen(own->name) == n && strncmp(own->name, name, n) == 0)
                return err_set(err, ERR_INVALID,
                               "'%s' after `--`: say it in front of `--`", words[i]);
    }
    return 0;
}

int bcp_check_options(const struct args *options, struct err *err)
{
    const char *type = args_value(options, "array-type");

    for (size_t i = 0; i < sizeof(required) / sizeof(*required); i++)
        if (!args_has(options, required[i]))
            return err_set(err, ERR_INVALID, "--%s is needed (--help says what it is)",
                           required[i]);
    if (type && strcmp(type, "MPI") != 0 && strcmp(type, "PYTORCH") != 0)
        return err_set(err, ERR_INVALID, "--array-type is MPI or PYTORCH, not '%s'",
                       type);
    if (check_rest(options, err) < 0 || check_mounts(options, "datasetid", err) < 0)
        return -1;
    return check_mounts(options, "workspace", err);
}

static void add_words(struct bcp_command *command, const struct bcp *bcp)
{
    const struct args *options = bcp->options;
    static const char *const start[] = {"ngc", "base-command", "job", "run", "--name"};
    const char *type = args_value(options, "array-type");

    for (size_t i = 0; i < sizeof(start) / sizeof(*start); i++)
        add_word(command, start[i], NULL);
    add_word(command, bcp->name, NULL);
    for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++) {
        static const char *const as[] = {"--image", "--ace", "--instance", "--org",
                                         "--team"};

        if (args_has(options, passed[i]))
            add_word(command, as[i], args_value(options, passed[i]));
    }
    if (bcp->n_replicas > 1) {
        buf_printf(&command->replicas, "%" PRId64, bcp->n_replicas);
        add_word(command, "--replicas", buf_str(&command->replicas));
        add_word(command, "--array-type", type ? type : "PYTORCH");
    }
    add_all(command, options, "datasetid", "--datasetid");
    add_all(command, options, "workspace", "--workspace");
    add_word(command, "--result", result_of(options));
}

int bcp_make(struct bcp_command *out, const struct bcp *bcp, struct err *err)
{
    memset(out, 0, sizeof(*out));
    if (settle_run_dir(&out->run_dir, bcp, err) < 0 ||
        make_command_line(&out->command_line, bcp, buf_str(&out->run_dir), err) < 0) {
        bcp_command_fini(out);
        return -1;
    }
    add_words(out, bcp);
    if (add_variables(out, bcp->options, err) < 0 || buf_check(&out->replicas, err) < 0) {
        bcp_command_fini(out);
        return -1;
    }
    for (int i = 0; i < bcp->options->n_rest; i++)
        add_word(out, bcp->options->words[bcp->options->n_words + i], NULL);
    add_word(out, "--commandline", buf_str(&out->command_line));
    out->words[out->n_words] = NULL;
    return 0;
}

void bcp_command_fini(struct bcp_command *command)
{
    buf_fini(&command->run_dir);
    buf_fini(&command->command_line);
    buf_fini(&command->replicas);
    for (int i = 0; i < command->n_variables; i++)
        buf_fini(&command->variables[i]);
}
