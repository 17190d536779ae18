#include "slurm/launch/machines.h"

#include "slurm/launch/launch.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIGNAL_S_MIN 30
#define SIGNAL_S_MAX 65535 /* of --signal */
#define SIGNAL_EARLY_S 60  /* so much earlier Slurm may send it (man sbatch, --signal) */
#define END_S_MIN 20       /* of the notice, for the end of the programs */

const struct args_option machines_options[] = {
    {"nodes", 0, "N", "nodes (default: trainer.num_nodes, or 1)"},
    {"gpus-per-node", 0, "G", "GPUs of each, a rank on each GPU"},
    {"cpus-per-task", 0, "C", "CPUs on each node (default: the cluster's)"},
    {"partition", 0, "NAME", "of the cluster (`sinfo`)"},
    {"account", 0, "NAME", "whose share it counts against"},
    {"qos", 0, "NAME", "quality of service"},
    {"time", 0, "LIMIT", "4:00:00, 2-12 (days-hours)"},
    {"name", 0, "NAME", "of the Slurm job (default: the specification's)"},
    {"run-dir", 0, "DIR", "what lasts; on a file system all nodes share"},
    {"signal-seconds", 0, "S", "notice before the time limit, for a checkpoint (180)"},
    {"devices", 0, "D", "ranks at once on a node (default: its GPUs)"},
    {"container-image", 0, "IMAGE", "run in it (pyxis and enroot)"},
    {"container-mounts", 0, "A:B,...", "folders to mount besides the run folder"},
    {"container-workdir", 0, "DIR", "current folder in the container"},
    {"node-program", 0, "PATH", "vneva-node as the nodes see it"},
    {"export-env", 0, "NAME[=VALUE]", "a variable for the nodes; may be given again"},
    {"srun", 0, "OPTION", "one more option of srun; may be given again"},
    {"mpi", 0, "TYPE", "of `srun --mpi` (pmix)"},
    {"exchange", 0, "WAY", "how nodes meet: auto, pmix or files"},
    {NULL, 0, NULL, NULL},
};

/* Options of sbatch that are passed on as they are, and its variables that would win over
 * a line of the script. */
static const struct {
    const char *name, *variable;
} passed[] = {
    {"gpus-per-node", "SBATCH_GPUS_PER_NODE"},
    {"cpus-per-task", NULL},
    {"partition", "SBATCH_PARTITION"},
    {"account", "SBATCH_ACCOUNT"},
    {"qos", "SBATCH_QOS"},
    {"time", "SBATCH_TIMELIMIT"},
};

static const char *const always_ours[] = {
    "SBATCH_JOB_NAME", "SBATCH_OUTPUT",     "SBATCH_OPEN_MODE", "SBATCH_SIGNAL",
    "SBATCH_REQUEUE",  "SBATCH_NO_REQUEUE", "SBATCH_ARRAY_INX", "SBATCH_WAIT",
};

int64_t machines_time_s(const char *text)
{
    int64_t parts[4] = {0, 0, 0, 0}; /* days, then as typed */
    const char *dash = strchr(text, '-');
    int n = 0;

    for (const char *c = text; n < 4;) {
        char *end;

        if (!isdigit((unsigned char)*c))
            return -1;
        parts[n++] = strtoll(c, &end, 10);
        if (parts[n - 1] > 1000000)
            return -1;
        if (!*end)
            break;
        if (end == dash ? n != 1 : *end != ':')
            return -1;
        c = end + 1;
        if (n == 4)
            return -1;
    }
    if (dash) /* days-hours[:minutes[:seconds]] */
        return n < 2 ? -1 : ((parts[0] * 24 + parts[1]) * 60 + parts[2]) * 60 + parts[3];
    switch (n) {
    case 1: /* minutes */
        return parts[0] * 60;
    case 2: /* minutes:seconds */
        return parts[0] * 60 + parts[1];
    case 3:
        return (parts[0] * 60 + parts[1]) * 60 + parts[2];
    default:
        return -1;
    }
}

static int fill_signal(struct script *script, const struct args *options, struct err *err)
{
    const char *time = args_value(options, "time");
    int64_t signal_s, end_s, time_s = time ? machines_time_s(time) : -1;
    char text[64];

    if (args_int(options, "signal-seconds", SIGNAL_S_MIN, SIGNAL_S_MAX, MACHINES_SIGNAL_S,
                 &signal_s, err) < 0)
        return -1;
    end_s = signal_s / 4 > END_S_MIN ? signal_s / 4 : END_S_MIN;
    if (time_s >= 0 && time_s <= signal_s + SIGNAL_EARLY_S)
        return err_set(err, ERR_INVALID,
                       "--time %s leaves no time to work: the notice for the last "
                       "checkpoint comes %" PRId64
                       " s before its end, and Slurm may send "
                       "it %d s earlier; give more time, or a smaller --signal-seconds",
                       time, signal_s, SIGNAL_EARLY_S);
    snprintf(text, sizeof(text), "B:USR1@%" PRId64, signal_s);
    script_set_option(script, "signal", text);
    snprintf(text, sizeof(text), "%" PRId64, signal_s - end_s);
    script_set_variable(script, "GRACE", text);
    return 0;
}

/* "NAME=VALUE"; of a NAME alone the value it has here. */
static int add_export(struct buf *out, const char *text, struct err *err)
{
    size_t n = strcspn(text, "=");
    char name[256];
    const char *value = text + n + 1;

    for (size_t i = 0; i < n; i++)
        if (!(isalpha((unsigned char)text[i]) || text[i] == '_' ||
              (i && isdigit((unsigned char)text[i]))))
            n = 0;
    if (n == 0 || n >= sizeof(name))
        return err_set(err, ERR_INVALID, "--export-env '%s': expected NAME or NAME=VALUE",
                       text);
    snprintf(name, sizeof(name), "%.*s", (int)n, text);
    if (!text[n] && !(value = getenv(name)))
        return err_set(err, ERR_INVALID, "--export-env %s: it is not set here", name);
    buf_printf(out, "%s=%s", name, value);
    return buf_check(out, err);
}

static int fill_exports(struct script *script, const struct args *options,
                        struct err *err)
{
    const char *given[ARGS_WORDS_MAX], *words[ARGS_WORDS_MAX];
    int n = args_values(options, "export-env", given), rc = 0;
    struct buf *texts = n ? calloc((size_t)n, sizeof(*texts)) : NULL;

    if (n && !texts)
        return err_set(err, ERR_NOMEM, "no memory for %d variables", n);
    for (int i = 0; rc == 0 && i < n; i++) {
        rc = add_export(&texts[i], given[i], err);
        words[i] = buf_str(&texts[i]);
    }
    if (rc == 0)
        script_set_list(script, "EXPORTS", words, n);
    for (int i = 0; i < n; i++)
        buf_fini(&texts[i]);
    free(texts);
    return rc;
}

static int fill_container(struct script *script, const struct machines *machines,
                          struct err *err)
{
    const struct args *options = machines->options;
    const char *image = args_value(options, "container-image");

    if (!image &&
        (args_has(options, "container-mounts") || args_has(options, "container-workdir")))
        return err_set(err, ERR_INVALID,
                       "--container-mounts and --container-workdir are of a container: "
                       "--container-image names it");
    if (image && strpbrk(machines->run_dir, ":,"))
        return err_set(err, ERR_INVALID,
                       "the run folder '%s' cannot be mounted: no ':' and ',' there",
                       machines->run_dir);
    script_set_variable(script, "CONTAINER_IMAGE", image);
    script_set_variable(script, "CONTAINER_MOUNTS",
                        args_value(options, "container-mounts"));
    script_set_variable(script, "CONTAINER_WORKDIR",
                        args_value(options, "container-workdir"));
    return 0;
}

/* The program beside this one, or the one in the container. */
static int fill_program(struct script *script, const struct args *options,
                        struct err *err)
{
    const char *program = args_value(options, "node-program");
    char folder[FS_PATH_MAX], path[FS_PATH_MAX];

    if (program || args_has(options, "container-image")) {
        script_set_variable(script, "NODE_PROGRAM", program);
        return 0;
    }
    if (fs_program_folder(folder, err) < 0 ||
        fs_path(path, err, "%s/vneva-node", folder) < 0)
        return -1;
    script_set_variable(script, "NODE_PROGRAM", path);
    return 0;
}

static void fill_numbers(struct script *script, const struct machines *machines)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRId64, machines->n_nodes);
    script_set_option(script, "nodes", text);
    snprintf(text, sizeof(text), "%" PRId64, machines->n_devices);
    if (machines->n_devices)
        script_set_variable(script, "DEVICES", text);
}

static int fill_exchange(struct script *script, const struct args *options,
                         struct err *err)
{
    const char *way = args_value(options, "exchange");

    if (way && strcmp(way, "auto") != 0 && strcmp(way, "pmix") != 0 &&
        strcmp(way, "files") != 0)
        return err_set(err, ERR_INVALID, "--exchange is auto, pmix or files, not '%s'",
                       way);
    script_set_variable(script, "EXCHANGE", way);
    script_set_variable(script, "MPI", args_value(options, "mpi"));
    return 0;
}

int machines_fill(struct script *script, const struct machines *machines, struct err *err)
{
    const struct args *options = machines->options;
    const char *srun[ARGS_WORDS_MAX];
    char folder[FS_PATH_MAX];
    int64_t cpus;

    if (!getcwd(folder, sizeof(folder)))
        return err_set(err, ERR_IO, "cannot tell the current folder");
    if (args_int(options, "cpus-per-task", 1, 65535, 0, &cpus, err) < 0 ||
        fill_signal(script, options, err) < 0 ||
        fill_container(script, machines, err) < 0 ||
        fill_program(script, options, err) < 0 ||
        fill_exchange(script, options, err) < 0 ||
        fill_exports(script, options, err) < 0 ||
        script_add_options(script, options->words + options->n_words, options->n_rest,
                           err) < 0)
        return -1;
    fill_numbers(script, machines);
    for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++) {
        const char *value = args_value(options, passed[i].name);

        script_set_option(script, passed[i].name, value);
        if (value && passed[i].variable)
            unsetenv(passed[i].variable);
    }
    script_set_option(script, "job-name", machines->name);
    script_set_option(script, "chdir", folder);
    script_set_output(script, "output", machines->run_dir, "slurm-%j.out");
    script_set_variable(script, "RUN_DIR", machines->run_dir);
    script_set_list(script, "SRUN_OPTIONS", srun, args_values(options, "srun", srun));
    return 0;
}

/* ---- handing it in ---- */

/* Parts of what sbatch says (Slurm's slurm_errno.c), and what to do about it. */
static const struct {
    const char *part, *remedy;
} remedies[] = {
    {"invalid partition", "`sinfo` lists the partitions: --partition NAME"},
    {"no partition specified", "name one: --partition NAME, `sinfo` lists them"},
    {"invalid account", "`sacctmgr show assoc user=$USER` lists yours: --account NAME"},
    {"invalid qos",
     "`sacctmgr show assoc user=$USER format=qos` lists yours: --qos NAME"},
    {"time limit",
     "`sinfo -o '%P %l'` lists the longest of each partition: --time LIMIT"},
    {"node configuration is not available",
     "no node has that many GPUs, CPUs or that much memory: `sinfo -o '%P %D %c %m %G'` "
     "lists what there is"},
    {"node count", "`sinfo` lists how many nodes a partition has: --nodes N"},
    {"invalid generic resource",
     "the cluster does not call its GPUs so: `sinfo -o '%P %G'` lists them, and `-- "
     "--gres=NAME:G` in place of --gpus-per-node asks for them"},
    {"invalid feature", "`sinfo -o '%P %f'` lists the features"},
    {"accounting/qos policy",
     "a limit of your account is reached: `sacctmgr show assoc user=$USER` lists them"},
    {"unable to contact", "is slurmctld running? `scontrol ping`"},
    {"controller not responding", "is slurmctld running? `scontrol ping`"},
    {"configuration source", "this machine does not know the cluster: set SLURM_CONF, or "
                             "launch from a login node"},
    {"munge", "is munged running on this machine?"},
    {"unrecognized option", "an option behind `--` that this sbatch does not have"},
    {"invalid option", "an option behind `--` that this sbatch does not have"},
    {"permission denied", "you may not use that partition or account"},
};

static bool has_part(const char *text, const char *part)
{
    size_t n = strlen(part);

    for (; *text; text++) {
        size_t i = 0;

        while (i < n && tolower((unsigned char)text[i]) == part[i])
            i++;
        if (i == n)
            return true;
    }
    return false;
}

const char *machines_remedy(const char *complaint)
{
    for (size_t i = 0; i < sizeof(remedies) / sizeof(*remedies); i++)
        if (has_part(complaint, remedies[i].part))
            return remedies[i].remedy;
    return NULL;
}

/* All of sbatch's lines as one; the remedy is for the whole. */
static int fail_refused(struct spawn_said *said, struct err *err)
{
    static const char *const prefixes[] = {"sbatch: ", "error: "};
    struct buf all = BUF_INIT;
    char *rest = said->errors.data, *line;
    const char *remedy;
    bool is_silent;

    while (rest && (line = strtok_r(rest, "\n", &rest))) {
        for (size_t i = 0; i < 2; i++)
            if (strncmp(line, prefixes[i], strlen(prefixes[i])) == 0)
                line += strlen(prefixes[i]);
        buf_printf(&all, "; %s", line);
    }
    remedy = machines_remedy(buf_str(&all));
    is_silent = has_part(buf_str(&all), "unable to contact") ||
                has_part(buf_str(&all), "not responding");
    err_set(err, is_silent ? ERR_TIMEOUT : ERR_STATE, "sbatch: %s%s%s",
            all.n_bytes ? buf_str(&all) + 2 : "it says nothing", remedy ? "; " : "",
            remedy ? remedy : "");
    buf_fini(&all);
    return -1;
}

/* "123", or "123;cluster". */
static int take_id(char *id, const char *text, struct err *err)
{
    size_t n = strspn(text, "0123456789");

    if (n == 0 || n >= MACHINES_ID_MAX || !strchr(";\n", text[n]))
        return err_set(err, ERR_PEER, "sbatch answers '%.80s', not a job's number", text);
    memcpy(id, text, n);
    id[n] = '\0';
    return 0;
}

int machines_submit(char *id, const char *script_path, struct err *err)
{
    const char *const argv[] = {"sbatch", "--parsable", script_path, NULL};
    struct spawn_said said;
    int rc;

    for (size_t i = 0; i < sizeof(always_ours) / sizeof(*always_ours); i++)
        unsetenv(always_ours[i]);
    if (launch_call(&said, argv, err) < 0) {
        if (err->code == ERR_NOT_FOUND)
            return err_set(err, ERR_UNSUPPORTED,
                           "there is no sbatch here: launch from a machine of the "
                           "cluster (its login node), or see the script with --dry-run");
        if (err->code == ERR_TIMEOUT) /* to run it by hand might queue a second job */
            return err_set(err, ERR_TIMEOUT,
                           "sbatch did not end within %d s and was killed: `squeue --me` "
                           "tells whether it queued the job, `scontrol ping` whether the "
                           "cluster answers",
                           LAUNCH_CALL_MS / 1000);
        return -1;
    }
    rc = said.status == 0 ? take_id(id, buf_str(&said.out), err)
                          : fail_refused(&said, err);
    spawn_said_fini(&said);
    return rc;
}
