/* vneva launch bcp: a job on NVIDIA Base Command Platform. */
#include "slurm/launch/launch.h"

#include "common/base/fs.h"
#include "slurm/launch/bcp.h"
#include "slurm/launch/quote.h"
#include "slurm/launch/sizes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct args_option own_options[] = {
    {"kind", 0, "KIND", "prepare, pretrain, finetune or evaluate (default: the file's)"},
    {"dry-run", 0, NULL, "print the command, run nothing"},
    {NULL, 0, NULL, NULL},
};

static void print_help(void)
{
    fputs("usage: vneva launch bcp [options] FILE [KEY=VALUE ...] [-- options of `ngc "
          "base-command job run`]\n\nChecks the specification, prints the command that "
          "runs it on Base Command Platform,\nand runs that. FILE goes along, unless it "
          "is a path in a dataset or workspace. Paths\nin it are those of the job.\n\n",
          stdout);
    launch_print_options(bcp_options);
    launch_print_options(own_options);
    fputs("\nExample: vneva launch bcp --image nvcr.io/my-org/vneva:0.1 --ace my-ace "
          "\\\n             --instance dgxa100.80g.8.norm --replicas 4 \\\n             "
          "--datasetid 1602645:/data --workspace my-runs:/runs:RW \\\n             "
          "train.yaml model.data.data_path=/data -- --total-runtime 24h\n",
          stdout);
}

struct launch {
    struct args options;
    struct sizes sizes;
    struct buf spec_text;
    struct bcp bcp;
    struct bcp_command command;
};

static void print_command(const struct bcp_command *command)
{
    struct buf text = BUF_INIT;

    for (int i = 0; i < command->n_words; i++) {
        bool is_option = strncmp(command->words[i], "--", 2) == 0;

        if (i)
            buf_add_str(&text, is_option ? " \\\n    " : " ");
        quote_shell(&text, command->words[i]);
    }
    printf("%s\n", buf_str(&text));
    buf_fini(&text);
}

/* A specification that only the job can see: its name is all there is to go by. */
static void take_unseen(struct launch *l, int64_t n_replicas, int64_t n_devices)
{
    fprintf(stderr,
            "vneva: '%s' is in the job only: it is checked there, when the job starts\n",
            l->options.words[0]);
    l->bcp.n_replicas = n_replicas ? n_replicas : 1;
    l->bcp.n_devices = n_devices;
    l->bcp.name = "vneva";
    l->bcp.overrides = l->options.words + 1;
    l->bcp.n_overrides = l->options.n_words - 1;
    l->bcp.spec_path = l->options.words[0];
}

static int take_seen(struct launch *l, const struct sizes_asked *asked, struct err *err)
{
    const struct args *o = &l->options;

    if (sizes_read(&l->sizes, o->words[0], o->words + 1, o->n_words - 1, asked, err) <
            0 ||
        fs_read_file(&l->spec_text, o->words[0], SIZES_FILE_MAX, err) < 0)
        return -1;
    if (l->spec_text.n_bytes > BCP_SPEC_MAX)
        return err_set(err, ERR_LIMIT,
                       "'%s' has more than %u bytes: put it into a workspace, and give "
                       "its path in the job",
                       o->words[0], BCP_SPEC_MAX);
    l->bcp.n_replicas = l->sizes.n_nodes;
    l->bcp.n_devices = l->sizes.n_devices;
    l->bcp.name = l->sizes.spec->name;
    l->bcp.overrides = l->sizes.overrides;
    l->bcp.n_overrides = l->sizes.n_overrides;
    l->bcp.spec_text = &l->spec_text;
    return 0;
}

static int read_job(struct launch *l, struct err *err)
{
    const struct args *o = &l->options;
    const char *instance = args_value(o, "instance"), *name = args_value(o, "name");
    struct sizes_asked asked = {.nodes_option = "--replicas",
                                .devices_option = args_has(o, "gpus-per-node")
                                                      ? "--gpus-per-node"
                                                      : "the instance's number of GPUs,",
                                .kind = args_value(o, "kind")};

    if (args_int(o, "replicas", 1, LAUNCH_NODES_MAX, 0, &asked.n_nodes, err) < 0 ||
        args_int(o, "gpus-per-node", 1, LAUNCH_DEVICES_MAX,
                 instance ? bcp_instance_gpus(instance) : 0, &asked.n_devices, err) < 0)
        return -1;
    l->bcp.options = o;
    if (!fs_exists(o->words[0]) && bcp_is_mounted(o, o->words[0]))
        take_unseen(l, asked.n_nodes, asked.n_devices);
    else if (take_seen(l, &asked, err) < 0)
        return -1;
    if (name)
        l->bcp.name = name;
    return 0;
}

/* Becomes ngc; returns only where that fails. */
static int become_ngc(const struct bcp_command *command)
{
    struct err err;

    fflush(stdout);
    execvp(command->words[0], (char *const *)command->words);
    if (errno == ENOENT)
        err_set(&err, ERR_UNSUPPORTED,
                "there is no ngc here: install the NGC CLI and run `ngc config set`, or "
                "run the printed command where it is");
    else
        err_set(&err, ERR_IO, "cannot run ngc: %s", strerror(errno));
    return launch_fail(&err);
}

static int run(struct launch *l)
{
    char stamp[LAUNCH_STAMP_MAX], name[LAUNCH_STAMP_MAX + 16];
    struct err err;

    launch_stamp(stamp);
    /* what is there cannot be seen from here, and launches may have the same second */
    snprintf(name, sizeof(name), "%s-%d", stamp, (int)getpid());
    l->bcp.stamp = name;
    if (bcp_check_options(&l->options, &err) < 0 || read_job(l, &err) < 0 ||
        bcp_make(&l->command, &l->bcp, &err) < 0)
        return launch_fail(&err);
    print_command(&l->command);
    return args_has(&l->options, "dry-run") ? EXIT_DONE : become_ngc(&l->command);
}

int cmd_bcp(int argc, char *const *argv)
{
    struct launch *l = calloc(1, sizeof(*l)); /* too large for some stacks */
    struct err err;
    int status;

    if (!l) {
        err_set(&err, ERR_NOMEM, "no memory for a command");
        return launch_fail(&err);
    }
    if (launch_parse(&l->options, bcp_options, own_options, argc, argv, &err) < 0) {
        status = launch_fail(&err);
    } else if (l->options.wants_help) {
        print_help();
        status = EXIT_DONE;
    } else if (!l->options.n_words) {
        fputs("vneva: usage: vneva launch bcp --image I --ace A --instance I FILE "
              "[KEY=VALUE ...] (--help says more)\n",
              stderr);
        status = EXIT_USAGE;
    } else {
        status = run(l);
    }
    sizes_fini(&l->sizes);
    bcp_command_fini(&l->command);
    buf_fini(&l->spec_text);
    free(l);
    return status;
}
