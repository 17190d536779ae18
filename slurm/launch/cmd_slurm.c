/* vneva launch slurm: a job over several nodes. */
#include "slurm/launch/launch.h"

#include "common/base/json.h"
#include "common/net/keys.h"
#include "slurm/launch/machines.h"
#include "slurm/launch/queue.h"
#include "slurm/launch/quote.h"
#include "slurm/launch/sizes.h"
#include "slurm/node/phases.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_FIRST_MS 1000 /* between looks at the queue, growing to ... */
#define WAIT_MOST_MS 10000 /* ... ended jobs are remembered for minutes (MinJobAge) */
#define SPEC_FILE "spec.yaml"
#define SCRIPT_FILE "vneva.sbatch"

static const struct args_option own_options[] = {
    {"kind", 0, "KIND", "prepare, pretrain, finetune or evaluate (default: the file's)"},
    {"key", 0, "FILE", "of a coordinator elsewhere (default: one in the job)"},
    {"connect", 0, "ENDPOINT", "where it is, if not as the key says"},
    {"max-idle-requeues", 0, "N", "how often to start again without getting on (3)"},
    {"no-check", 0, NULL, "do not look here for the files it names: only nodes see them"},
    {"dry-run", 0, NULL, "print the script, change nothing"},
    {"wait", 0, NULL, "wait for the job's end"},
    {"json", 0, NULL, "print JSON"},
    {NULL, 0, NULL, NULL},
};

static void print_help(void)
{
    fputs("usage: vneva launch slurm [options] FILE [KEY=VALUE ...] [-- options of "
          "sbatch]\n\nChecks the specification, writes a batch script into a run folder "
          "and queues it.\nEvery node runs vneva-node; the first coordinates.\n\n",
          stdout);
    launch_print_options(machines_options);
    launch_print_options(own_options);
    fputs("\nExample: vneva launch slurm --nodes 4 --gpus-per-node 8 --time 8:00:00 "
          "\\\n             train.yaml model.optim.lr=1e-4 -- --mem=0 --exclusive\n",
          stdout);
}

struct launch {
    struct args options;
    struct sizes sizes;
    char name[LAUNCH_NAME_MAX]; /* of the job, as a part of paths */
    struct machines machines;
    char spec_path[FS_PATH_MAX], script_path[FS_PATH_MAX];
    struct buf spec_text, script;
    bool is_folder_new, is_parent_new; /* made here; the parent of the run folder */
};

/* What `vneva submit --check` finds: files that are not there, datasets that do not fit.
 * Its report's "refused" as one error. */
static int take_report(const struct spawn_said *said, struct err *err)
{
    const struct json *refused;
    struct json *report = NULL;
    int rc = json_parse(&report, buf_str(&said->out), said->out.n_bytes, err);

    if (rc < 0)
        return err_wrap(err, "the report of `vneva submit --check`");
    refused = json_get(report, "refused");
    if (json_count(refused))
        rc =
            err_set(err, ERR_INVALID, "refused: %s%s", json_string(json_at(refused, 0)),
                    json_count(refused) > 1 ? " (`vneva submit --check` says more)" : "");
    json_free(report);
    return rc;
}

static int check_here(struct launch *l, struct err *err)
{
    const char *argv[ARGS_WORDS_MAX + 8];
    char program[FS_PATH_MAX], folder[FS_PATH_MAX];
    static const char prefix[] = "vneva: ";
    const char *complaint;
    struct spawn_said said;
    int n = 0, rc;

    if (fs_program_folder(folder, err) < 0 ||
        fs_path(program, err, "%s/vneva", folder) < 0)
        return -1;
    argv[n++] = program;
    argv[n++] = "submit";
    argv[n++] = "--check";
    argv[n++] = "--json";
    argv[n++] = "--";
    argv[n++] = l->options.words[0];
    for (int i = 0; i < l->sizes.n_overrides; i++)
        argv[n++] = l->sizes.overrides[i];
    argv[n] = NULL;
    if (launch_call(&said, argv, err) < 0)
        return -1;
    /* 1: the report has what it would be refused for */
    complaint = said.status == 0 || said.status == 1 ? NULL : launch_complaint(&said);
    if (complaint && strncmp(complaint, prefix, sizeof(prefix) - 1) == 0)
        complaint += sizeof(prefix) - 1;
    rc = complaint ? err_set(err, ERR_INVALID, "%s", complaint) : take_report(&said, err);
    spawn_said_fini(&said);
    return rc;
}

static int read_spec(struct launch *l, struct err *err)
{
    struct args *o = &l->options;
    struct sizes_asked asked = {.nodes_option = "--nodes",
                                .devices_option = "--gpus-per-node",
                                .kind = args_value(o, "kind")};

    if (args_int(o, "nodes", 1, LAUNCH_NODES_MAX, 0, &asked.n_nodes, err) < 0 ||
        args_int(o, "gpus-per-node", 1, LAUNCH_DEVICES_MAX, 0, &asked.n_devices, err) < 0)
        return -1;
    if (args_has(o, "devices")) {
        asked.devices_option = "--devices";
        if (args_int(o, "devices", 1, LAUNCH_DEVICES_MAX, 0, &asked.n_devices, err) < 0)
            return -1;
    }
    if (sizes_read(&l->sizes, o->words[0], o->words + 1, o->n_words - 1, &asked, err) < 0)
        return -1;
    /* in a container the files have other names; where only nodes see them, none here */
    if (!args_has(o, "container-image") && !args_has(o, "no-check") &&
        check_here(l, err) < 0)
        return -1;
    return fs_read_file(&l->spec_text, o->words[0], SIZES_FILE_MAX, err);
}

/* ---- the run folder ---- */

/* 1: it was made here, or would be (--dry-run); 0: it is there already. */
static int claim_folder(struct launch *l, struct err *err)
{
    char parent[FS_PATH_MAX];

    if (args_has(&l->options, "dry-run"))
        return !fs_exists(l->machines.run_dir);
    if (fs_parent(parent, l->machines.run_dir, err) < 0)
        return -1;
    l->is_parent_new |= !fs_exists(parent);
    if (fs_make_dirs(parent, 0700, err) < 0)
        return -1;
    if (mkdir(l->machines.run_dir, 0700) == 0) {
        l->is_folder_new = true;
        return 1;
    }
    return errno == EEXIST ? 0
                           : err_set(err, ERR_IO, "cannot make the run folder '%s': %s",
                                     l->machines.run_dir, strerror(errno));
}

/* One that no other launch has: several may begin in one second. */
static int choose_folder(struct launch *l, struct err *err)
{
    char stamp[LAUNCH_STAMP_MAX], path[FS_PATH_MAX], number[16] = "";
    int rc = 0;

    launch_stamp(stamp);
    for (int i = 2; rc == 0; i++) {
        if (fs_path(path, err, "runs/%s-%s%s", l->name, stamp, number) < 0 ||
            launch_absolute(l->machines.run_dir, path, err) < 0)
            return -1;
        rc = claim_folder(l, err);
        snprintf(number, sizeof(number), "-%d", i);
    }
    return rc < 0 ? -1 : 0;
}

static int find_folder(struct launch *l, struct err *err)
{
    const char *given = args_value(&l->options, "run-dir");
    const char *name = args_value(&l->options, "name");

    l->machines.name = name ? name : l->sizes.spec->name;
    launch_plain_name(l->name, l->machines.name);
    if (!given && choose_folder(l, err) < 0)
        return -1;
    if (given && (launch_absolute(l->machines.run_dir, given, err) < 0 ||
                  claim_folder(l, err) < 0))
        return -1;
    if (fs_path(l->spec_path, err, "%s/" SPEC_FILE, l->machines.run_dir) < 0)
        return -1;
    return fs_path(l->script_path, err, "%s/" SCRIPT_FILE, l->machines.run_dir);
}

/* Nothing is queued: what was made here is of no use. */
static int give_up(const struct launch *l, const struct err *err)
{
    char parent[FS_PATH_MAX];

    if (l->is_folder_new)
        (void)fs_remove_tree(l->machines.run_dir, NULL);
    if (l->is_parent_new && fs_parent(parent, l->machines.run_dir, NULL) == 0)
        (void)rmdir(parent);
    return launch_fail(err);
}

/* ---- the script ---- */

/* Where the coordinator of a key is: as --connect says, else as the key does. */
static int find_elsewhere(char endpoint[KEY_ENDPOINT_BYTES], const char *connect,
                          const char *path, struct err *err)
{
    struct key key = {.role = KEY_NONE};

    if (key_read(&key, path, err) < 0)
        return err_wrap(err, "--key");
    snprintf(endpoint, KEY_ENDPOINT_BYTES, "%s", connect ? connect : key.endpoint);
    key_fini(&key);
    if (!endpoint[0])
        return err_set(err, ERR_INVALID,
                       "--key: '%s' names no endpoint: say it with --connect", path);
    return 0;
}

/* A coordinator elsewhere: none without a key. */
static int fill_connect(struct script *script, const struct args *options,
                        struct err *err)
{
    const char *connect = args_value(options, "connect");
    const char *key = args_value(options, "key");
    char path[FS_PATH_MAX], endpoint[KEY_ENDPOINT_BYTES];

    if (!connect && !key)
        return 0;
    if (!key)
        return err_set(err, ERR_INVALID,
                       "--connect %s takes a key: give its file with --key (`vneva keys "
                       "add NAME --role admin`, where that coordinator runs, makes one)",
                       connect);
    if (launch_absolute(path, key, err) < 0 ||
        find_elsewhere(endpoint, connect, path, err) < 0)
        return -1;
    script_set_variable(script, "CONNECT", endpoint);
    script_set_variable(script, "KEY", path);
    return 0;
}

static int fill_script(struct launch *l, struct script *script, struct err *err)
{
    const struct args *o = &l->options;
    char text[32];
    int64_t idle;

    if (args_int(o, "max-idle-requeues", 0, 1000000, -1, &idle, err) < 0 ||
        fill_connect(script, o, err) < 0 || machines_fill(script, &l->machines, err) < 0)
        return -1;
    snprintf(text, sizeof(text), "%" PRId64, idle);
    script_set_variable(script, "MAX_IDLE_REQUEUES", idle < 0 ? NULL : text);
    script_set_variable(script, "SPEC", l->spec_path);
    script_set_list(script, "OVERRIDES", l->sizes.overrides, l->sizes.n_overrides);
    return script_write(&l->script, script, err);
}

static int make_script(struct launch *l, struct err *err)
{
    struct script *script = script_create();
    int rc;

    if (!script)
        return err_set(err, ERR_NOMEM, "no memory for a script");
    l->machines.options = &l->options;
    l->machines.n_nodes = l->sizes.n_nodes;
    l->machines.n_devices = l->sizes.n_devices;
    rc = find_folder(l, err);
    if (rc == 0)
        rc = fill_script(l, script, err);
    script_destroy(script);
    return rc;
}

/* A run folder may be used again for the job that it is of, and for no other. */
static int check_same(const struct launch *l, struct err *err)
{
    struct buf before = BUF_INIT;
    int rc = 0;

    if (!fs_exists(l->spec_path))
        return 0;
    if (fs_read_file(&before, l->spec_path, SIZES_FILE_MAX, err) < 0)
        rc = -1;
    else if (before.n_bytes != l->spec_text.n_bytes ||
             memcmp(buf_str(&before), buf_str(&l->spec_text), before.n_bytes) != 0)
        rc = err_set(err, ERR_EXISTS,
                     "the run folder '%s' is of another specification: take another "
                     "--run-dir, or go on there with `sbatch %s`",
                     l->machines.run_dir, l->script_path);
    buf_fini(&before);
    return rc;
}

static int write_files(const struct launch *l, struct err *err)
{
    if (check_same(l, err) < 0 ||
        fs_write_file_atomic(l->spec_path, buf_str(&l->spec_text), l->spec_text.n_bytes,
                             err) < 0)
        return -1;
    return fs_write_file_atomic(l->script_path, buf_str(&l->script), l->script.n_bytes,
                                err);
}

static int print_json(const struct launch *l, const char *id, struct err *err)
{
    struct json *object = json_new(JSON_OBJECT);
    struct buf text = BUF_INIT;
    int rc = 0;

    if (json_set(object, "allocation", json_new_string(id), err) < 0 ||
        json_set(object, "run_dir", json_new_string(l->machines.run_dir), err) < 0 ||
        json_set(object, "script", json_new_string(l->script_path), err) < 0)
        rc = -1;
    json_write(&text, object, 2);
    if (rc == 0 && (rc = buf_check(&text, err)) == 0)
        printf("%s\n", buf_str(&text));
    buf_fini(&text);
    json_free(object);
    return rc;
}

/* A command that can be copied: what the path holds is quoted for a shell. */
static void print_line(const char *what, const char *command, const char *path,
                       const char *file)
{
    struct buf whole = BUF_INIT, text = BUF_INIT;

    buf_printf(&whole, "%s%s", path, file);
    quote_shell(&text, buf_str(&whole));
    printf("%-13s %s%s\n", what, command, buf_str(&text));
    buf_fini(&whole);
    buf_fini(&text);
}

/* Its own word on where the script's log is. */
static bool has_own_log(const struct args *o)
{
    for (int i = o->n_words; i < o->n_words + o->n_rest; i++)
        if (strncmp(o->words[i], "-o", 2) == 0 ||
            strncmp(o->words[i], "--output", 8) == 0)
            return true;
    return false;
}

static void print_submitted(const struct launch *l, const char *id)
{
    const char *key = args_value(&l->options, "key"); /* of a coordinator elsewhere */
    const struct spec *spec = l->sizes.spec;
    char log[sizeof("/slurm-.out") + MACHINES_ID_MAX];

    snprintf(log, sizeof(log), "/slurm-%s.out", id);
    printf("submitted Slurm job %s: %s '%s' on %" PRId64 " node%s\n", id,
           spec_kind_name(spec->kind), spec->name, l->sizes.n_nodes,
           l->sizes.n_nodes == 1 ? "" : "s");
    print_line("run folder", "", l->machines.run_dir, "");
    if (!has_own_log(&l->options))
        print_line("its log", "tail -F ", l->machines.run_dir, log);
    print_line("once it runs", "vneva top --key ", key ? key : l->machines.run_dir,
               key ? "" : "/admin.key");
    print_line("go on later", "sbatch ", l->script_path, "");
    printf("%-13s squeue -j %s -o '%%i %%T %%r %%S'\n", "the queue", id);
}

/* 1: the job has ended for good, 0: not yet. One that is queued again is COMPLETING, then
 * pending in between. */
static int look_for_end(const char *id, struct queue_entry *entry, struct err *err)
{
    if (queue_find(entry, id, err) == 0)
        return entry->state == QUEUE_ENDED && strcmp(entry->word, "COMPLETING") != 0;
    if (err->code == ERR_TIMEOUT)
        return 0; /* slurmctld restarts: jobs go on without it */
    if (err->code == ERR_NOT_FOUND)
        return err_set(err, ERR_PEER,
                       "Slurm has forgotten job %s already: its log says how it ended",
                       id);
    return -1;
}

static int tell_end(const struct launch *l, const char *id, const char *word)
{
    bool is_well = strcmp(word, "COMPLETED") == 0;
    struct buf more = BUF_INIT;

    if (!is_well) {
        buf_add_str(&more, "; its log says why, and `vneva launch status ");
        quote_shell(&more, l->machines.run_dir);
        buf_add_str(&more, "` in which phase");
    }
    fprintf(stderr, "vneva: Slurm job %s: %s%s\n", id, word, buf_str(&more));
    buf_fini(&more);
    return is_well ? EXIT_DONE : EXIT_JOB_FAILED;
}

static int wait_for_end(const struct launch *l, const char *id)
{
    int64_t pause_ms = WAIT_FIRST_MS;
    struct queue_entry entry;
    struct err err;
    int rc;

    do {
        struct timespec pause = {pause_ms / 1000, (pause_ms % 1000) * 1000000};

        nanosleep(&pause, NULL);
        pause_ms = pause_ms * 2 < WAIT_MOST_MS ? pause_ms * 2 : WAIT_MOST_MS;
        rc = look_for_end(id, &entry, &err);
    } while (rc == 0);
    if (rc < 0)
        return launch_fail(&err);
    return tell_end(l, id, entry.word);
}

/* Hands it in; for `vneva launch status` it is queued until a node begins. */
static int queue(const struct launch *l, char *id, struct err *err)
{
    char stamp[LAUNCH_STAMP_MAX], host[PHASES_HOST_MAX] = "";
    struct phases *phases;
    int rc;

    launch_stamp(stamp);
    gethostname(host, sizeof(host) - 1);
    if (phases_open(&phases, l->machines.run_dir, stamp, PHASES_NODE_LAUNCHER, host, NULL,
                    err) < 0)
        return -1;
    rc = phases_begin(phases, "queued", err);
    if (rc == 0 && machines_submit(id, l->script_path, err) < 0) {
        struct err told = *err;

        rc = phases_fail(phases, &told);
    }
    phases_close(phases);
    return rc;
}

static int submit(struct launch *l)
{
    char id[MACHINES_ID_MAX];
    struct err err;

    if (write_files(l, &err) < 0)
        return give_up(l, &err);
    if (queue(l, id, &err) < 0) /* without a clear answer it may be queued all the same */
        return err.code == ERR_TIMEOUT || err.code == ERR_PEER ? launch_fail(&err)
                                                               : give_up(l, &err);
    if (!args_has(&l->options, "json"))
        print_submitted(l, id);
    else if (print_json(l, id, &err) < 0)
        return launch_fail(&err);
    fflush(stdout);
    return args_has(&l->options, "wait") ? wait_for_end(l, id) : EXIT_DONE;
}

static int run(struct launch *l)
{
    struct err err;

    if (read_spec(l, &err) < 0 || make_script(l, &err) < 0)
        return give_up(l, &err);
    if (args_has(&l->options, "dry-run")) {
        fputs(buf_str(&l->script), stdout);
        return EXIT_DONE;
    }
    return submit(l);
}

int cmd_slurm(int argc, char *const *argv)
{
    struct launch l = {.spec_text = BUF_INIT, .script = BUF_INIT};
    struct err err;
    int status;

    if (launch_parse(&l.options, machines_options, own_options, argc, argv, &err) < 0)
        return launch_fail(&err);
    if (l.options.wants_help) {
        print_help();
        return EXIT_DONE;
    }
    if (!l.options.n_words) {
        fputs("vneva: usage: vneva launch slurm --nodes N FILE [KEY=VALUE ...] [-- "
              "options of sbatch] (--help says more)\n",
              stderr);
        return EXIT_USAGE;
    }
    status = run(&l);
    sizes_fini(&l.sizes);
    buf_fini(&l.spec_text);
    buf_fini(&l.script);
    return status;
}
