/* vneva-launch: `vneva launch ...`, and the verbs for machines that pools call. */
#include "slurm/launch/launch.h"

#include <stdio.h>
#include <string.h>

static const struct verb {
    const char *words[2]; /* the second may be NULL */
    int (*run)(int argc, char *const *argv);
    const char *summary;
} verbs[] = {
    {{"slurm", NULL}, cmd_slurm, "queue a job over several nodes of a Slurm cluster"},
    {{"bcp", NULL}, cmd_bcp, "run one on Base Command Platform"},
    {{"status", NULL}, cmd_status, "show what a launch is doing, on which node"},
    {{"agents", "slurm"}, cmd_agents, "queue an allocation of agents (pools call this)"},
    {{"list", "slurm"}, cmd_list, "list the allocations of agents"},
    {{"cancel", "slurm"}, cmd_cancel, "end allocations"},
};

#define N_VERBS (sizeof(verbs) / sizeof(*verbs))

static void print_usage(FILE *out)
{
    fputs("usage: vneva launch VERB ...\n\nRuns vneva on the machines of a cluster.\n\n",
          out);
    for (size_t i = 0; i < N_VERBS; i++)
        fprintf(out, "  %-7s%-7s %s\n", verbs[i].words[0],
                verbs[i].words[1] ? verbs[i].words[1] : "", verbs[i].summary);
    fputs("\nEvery verb has --help. docs/cluster.md tells the whole story.\n\n"
          "Exit codes: 0 done; 1 the job failed (--wait); 2 wrong usage or bad input; 3 "
          "the\ncluster manager does not answer; 4 it refuses; 5 its programs are not "
          "here, or\nan error of the system.\n",
          out);
}

int main(int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_usage(stdout);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < N_VERBS; i++) {
        int n = verbs[i].words[1] ? 2 : 1;

        if (argc > n && strcmp(argv[1], verbs[i].words[0]) == 0 &&
            (n == 1 || strcmp(argv[2], verbs[i].words[1]) == 0))
            return verbs[i].run(argc - 1 - n, argv + 1 + n);
    }
    if (argc > 1)
        fprintf(stderr, "vneva: launch: no '%s%s%s' here\n", argv[1], argc > 2 ? " " : "",
                argc > 2 ? argv[2] : "");
    print_usage(stderr);
    return EXIT_USAGE;
}
