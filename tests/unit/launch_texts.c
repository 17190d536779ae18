/* What vneva-launch writes and reads: scripts, quotes, the queue, commands. */
#include "common/base/args.h"
#include "slurm/launch/bcp.h"
#include "slurm/launch/launch.h"
#include "slurm/launch/machines.h"
#include "slurm/launch/queue.h"
#include "slurm/launch/quote.h"
#include "slurm/launch/script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Texts that a careless quoter breaks. */
static const char *const hard[] = {
    "plain",       "",
    "two words",   "it's",
    "\"double\"",  "$HOME",
    "`date`",      "$(date)",
    "back\\slash", "end\\",
    "*?[a-z]",     "!history",
    "a;b|c&d",     "<in >out",
    "#comment",    "~root",
    "-n",          "a=b c=d",
    "{a,b}",       "(x)",
    "'\\''",       "\xc3\xa9t\xc3\xa9",
    "%j",          "[0]=x",
};
#define N_HARD (sizeof(hard) / sizeof(*hard))

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' has no '%s'", text, part);
}

/* ---- quotes ---- */

static void shells_give_back_the_words_that_were_quoted(void **state)
{
    struct buf command = BUF_INIT;
    char line[256];
    FILE *shell;

    (void)state;
    buf_add_str(&command, "printf '%s\\n' ");
    quote_shell_words(&command, hard, (int)N_HARD);
    shell = popen(buf_str(&command), "r");
    assert_non_null(shell);
    for (size_t i = 0; i < N_HARD; i++) {
        assert_non_null(fgets(line, sizeof(line), shell));
        line[strcspn(line, "\n")] = '\0';
        assert_string_equal(line, hard[i]);
    }
    assert_int_equal(pclose(shell), 0);
    buf_fini(&command);
}

/* As Slurm 22.05 reads a line: blanks part words; a backslash takes the next character as
 * it is, in quotes of either kind too; '#' outside of quotes ends the line. */
static void read_as_sbatch(const char *line, char *out)
{
    char quote = '\0';

    for (; *line; line++) {
        if (*line == '\\' && line[1])
            *out++ = *++line;
        else if (quote ? *line == quote : *line == '"' || *line == '\'')
            quote = quote ? '\0' : *line;
        else if (!quote && (*line == ' ' || *line == '#'))
            break;
        else
            *out++ = *line;
    }
    *out = '\0';
}

static void sbatch_gives_back_the_word_that_was_quoted(void **state)
{
    char option[128], word[128];

    (void)state;
    for (size_t i = 0; i < N_HARD; i++) {
        struct buf text = BUF_INIT;

        quote_sbatch(&text, hard[i]);
        read_as_sbatch(buf_str(&text), word);
        assert_string_equal(word, hard[i]);
        buf_reset(&text);
        snprintf(option, sizeof(option), "--comment=%s", hard[i]);
        quote_sbatch(&text, option);
        read_as_sbatch(buf_str(&text), word);
        assert_string_equal(word, option);
        assert_memory_equal(buf_str(&text), "--comment=", 10);
        buf_fini(&text);
    }
}

/* ---- scripts ---- */

static char *make_text(struct script *script)
{
    struct buf text = BUF_INIT;
    struct err err;

    if (script_write(&text, script, &err) < 0)
        fail_msg("%s", err.text);
    script_destroy(script);
    return buf_take(&text);
}

static void a_script_without_choices_is_the_committed_file(void **state)
{
    char path[4096], *text = make_text(script_create());
    struct buf file = BUF_INIT;
    FILE *in;
    int c;

    (void)state;
    snprintf(path, sizeof(path), "%s/slurm/vneva.sbatch", getenv("VNEVA_SOURCE"));
    in = fopen(path, "r");
    assert_non_null(in);
    while ((c = getc(in)) != EOF)
        buf_add_char(&file, (char)c);
    assert_int_equal(fclose(in), 0);
    assert_string_equal(text, buf_str(&file));
    free(text);
    buf_fini(&file);
}

/* All choices set: no line of the file below them differs, and none above but theirs. */
static void only_choices_differ_from_the_committed_file(void **state)
{
    static const char *const options[] = {
        "job-name", "nodes", "gpus-per-node", "cpus-per-task", "partition", "account",
        "qos",      "time",  "chdir",         "output",        "signal"};
    static const char *const variables[] = {"RUN_DIR",
                                            "SPEC",
                                            "NODE_PROGRAM",
                                            "DEVICES",
                                            "GRACE",
                                            "MPI",
                                            "EXCHANGE",
                                            "CONNECT",
                                            "KEY",
                                            "POOL",
                                            "IDLE",
                                            "MAX_IDLE_REQUEUES",
                                            "CONTAINER_IMAGE",
                                            "CONTAINER_MOUNTS",
                                            "CONTAINER_WORKDIR"};
    static const char *const lists[] = {"OVERRIDES", "EXPORTS", "SRUN_OPTIONS"};
    struct script *script = script_create();
    char *text;
    const char *other = script_template();
    int n_changed = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
        script_set_option(script, options[i], "x y");
    for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
        script_set_variable(script, variables[i], "x y");
    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        script_set_list(script, lists[i], hard, 3);
    text = make_text(script);
    for (const char *line = text; *line && *other;
         line += strcspn(line, "\n") + 1, other += strcspn(other, "\n") + 1) {
        size_t n = strcspn(line, "\n");
        char copy[256];

        if (strcspn(other, "\n") == n && memcmp(line, other, n) == 0)
            continue;
        n_changed++;
        snprintf(copy, sizeof(copy), "%.*s", (int)n, line);
        if (!strstr(copy, "=\"x y\"") && !strstr(copy, "='x y'") &&
            !strstr(copy, "=(plain '' 'two words')"))
            fail_msg("'%s' is no choice", copy);
    }
    assert_int_equal(n_changed, 11 + 15 + 3);
    free(text);
}

static void a_choice_that_the_file_has_not_is_an_error(void **state)
{
    struct script *script = script_create();
    struct buf text = BUF_INIT;
    struct err err;

    (void)state;
    script_set_variable(script, "STEP", "1");
    assert_int_equal(script_write(&text, script, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_has(err.text, "'STEP'");
    script_destroy(script);
    buf_fini(&text);
}

static void options_of_sbatch_come_each_on_a_line(void **state)
{
    static const char *const words[] = {"-C", "a100&x", "--mem=0", "--comment=a b"};
    struct script *script = script_create();
    struct err err;
    char *text;

    (void)state;
    assert_int_equal(script_add_options(script, words, 4, &err), 0);
    text = make_text(script);
    assert_has(text, "\n#SBATCH -C \"a100&x\"\n#SBATCH --mem=0\n"
                     "#SBATCH --comment=\"a b\"\n");
    free(text);
}

static void options_that_make_another_script_are_refused(void **state)
{
    static const struct {
        const char *words[2], *says;
    } cases[] = {
        {{"--array=1-3", NULL}, "'--array=1-3' after `--`: one run folder is one job"},
        {{"-a", "1-3"}, "one run folder"},
        {{"-a1-3", NULL}, "one run folder"},
        {{"-N4", NULL}, "say --nodes N in front"},
        {{"--wrap", "date"}, "the script is vneva's"},
        {{"--mem=0", ":"}, "several parts"},
        {{"a=b", NULL}, "overrides stand before it"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct script *script = script_create();
        struct err err;

        assert_int_equal(
            script_add_options(script, cases[i].words, cases[i].words[1] ? 2 : 1, &err),
            -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_has(err.text, cases[i].says);
        script_destroy(script);
    }
}

static void a_percent_in_a_path_is_no_pattern(void **state)
{
    struct script *script = script_create();
    char *text;

    (void)state;
    script_set_output(script, "output", "/runs/50%j", "slurm-%j.out");
    text = make_text(script);
    assert_has(text, "\n#SBATCH --output=/runs/50%%j/slurm-%j.out\n");
    free(text);
}

/* ---- options ---- */

static void options_are_read_until_two_dashes(void **state)
{
    static const struct args_option known[] = {{"nodes", 0, "N", ""},
                                               {"wait", 0, NULL, ""},
                                               {"env", 0, "X", ""},
                                               {NULL, 0, NULL, NULL}};
    static char *const argv[] = {"--nodes", "2",  "file", "--env=a=b", "--env", "--c",
                                 "k=v",     "--", "-N",   "--",        "--wait"};
    const char *values[ARGS_WORDS_MAX];
    struct args *o = calloc(1, sizeof(*o));
    struct err err;
    int64_t n;

    (void)state;
    assert_int_equal(launch_parse(o, known, NULL, 11, argv, &err), 0);
    assert_int_equal(args_int(o, "nodes", 1, 4, 1, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(args_int(o, "nodes", 3, 4, 1, &n, &err), -1);
    assert_has(err.text, "expected a whole number from 3 to 4, got '2'");
    assert_int_equal(args_values(o, "env", values), 2);
    assert_string_equal(values[0], "a=b");
    assert_string_equal(values[1], "--c");
    assert_false(args_has(o, "wait"));
    assert_int_equal(o->n_words, 2);
    assert_string_equal(o->words[1], "k=v");
    assert_int_equal(o->n_rest, 3);
    assert_string_equal(o->words[3], "--");
    free(o);
}

static void wrong_options_name_the_nearest(void **state)
{
    static const struct args_option known[] = {
        {"nodes", 0, "N", ""}, {"wait", 0, NULL, ""}, {NULL, 0, NULL, NULL}};
    static const struct {
        char *words[2];
        const char *says;
    } cases[] = {
        {{"--node", "2"}, "did you mean '--nodes'?"},
        {{"-n", "2"}, "passed on"},
        {{"file", "--nodes"}, "'--nodes' needs a value: N"},
        {{"file", "--wait=1"}, "takes no value"},
        {{"file", "a\nb"}, "line break"},
        {{"a\x1b[2J", "file"}, "control character"},
    };
    struct args *o = calloc(1, sizeof(*o));

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct err err;

        assert_int_equal(launch_parse(o, known, NULL, 2, cases[i].words, &err), -1);
        assert_has(err.text, cases[i].says);
    }
    free(o);
}

/* ---- the queue, and times ---- */

static void the_queue_is_read_in_the_order_of_numbers(void **state)
{
    struct queue queue;
    struct err err;

    (void)state;
    assert_int_equal(
        queue_parse(&queue,
                    "10|PENDING|2|2026-11-27T16:45:57|N/A|N/A|vneva-pool-a|Priority\n"
                    "9|RUNNING|1|2026-11-27T16:45:00|2026-11-27T16:46:00|N/A|x|None\n"
                    "8|TIMEOUT|1|2026-01-31T00:00:00|2026-02-01T00:00:00|"
                    "2026-03-01T00:00:01|x|TimeLimit\n"
                    "7|CONFIGURING|1|1970-01-01T00:00:01|N/A|N/A|x|odd|reason\n",
                    &err),
        0);
    assert_int_equal(queue.n_entries, 4);
    assert_string_equal(queue.entries[0].id, "7");
    assert_int_equal(queue.entries[0].state, QUEUE_PENDING);
    assert_int_equal(queue.entries[0].since_ms, 1000);
    assert_string_equal(queue.entries[0].reason, "odd|reason");
    assert_int_equal(queue.entries[1].state, QUEUE_ENDED);
    assert_string_equal(queue.entries[1].reason, "TIMEOUT");
    assert_int_equal(queue.entries[1].since_ms, 1772323201000);
    assert_int_equal(queue.entries[2].state, QUEUE_RUNNING);
    assert_int_equal(queue.entries[2].since_ms, 1795797960000);
    assert_string_equal(queue.entries[2].reason, "");
    assert_string_equal(queue.entries[3].name, "vneva-pool-a");
    assert_string_equal(queue.entries[3].reason, "Priority");
    assert_int_equal(queue.entries[3].n_nodes, 2);
    queue_fini(&queue);
    assert_int_equal(queue_parse(&queue, "slurm_load_jobs: error\n", &err), -1);
    assert_int_equal(err.code, ERR_FORMAT);
}

static void times_are_read_as_sbatch_reads_them(void **state)
{
    (void)state;
    assert_int_equal(machines_time_s("90"), 5400);
    assert_int_equal(machines_time_s("90:30"), 5430);
    assert_int_equal(machines_time_s("4:00:00"), 14400);
    assert_int_equal(machines_time_s("2-12"), 216000);
    assert_int_equal(machines_time_s("1-1:1"), 90060);
    assert_int_equal(machines_time_s("1-1:1:1"), 90061);
    assert_int_equal(machines_time_s("UNLIMITED"), -1);
    assert_int_equal(machines_time_s("1:2:3:4"), -1);
    assert_int_equal(machines_time_s("1:2-3"), -1);
    assert_int_equal(machines_time_s("1-"), -1);
    assert_int_equal(machines_time_s(""), -1);
}

static void complaints_of_sbatch_get_a_remedy(void **state)
{
    (void)state;
    assert_has(machines_remedy("sbatch: error: Batch job submission failed: Invalid "
                               "partition name specified"),
               "--partition NAME");
    assert_has(machines_remedy("Invalid account or account/partition combination"),
               "--account NAME");
    assert_has(machines_remedy("Requested time limit is invalid"), "--time LIMIT");
    assert_has(machines_remedy("Requested node configuration is not available"),
               "no node has that many");
    assert_has(machines_remedy("Unable to contact slurm controller"), "scontrol ping");
    assert_null(machines_remedy("Whatever"));
}

static void instances_say_how_many_gpus_they_have(void **state)
{
    (void)state;
    assert_int_equal(bcp_instance_gpus("dgxa100.80g.8.norm"), 8);
    assert_int_equal(bcp_instance_gpus("dgx1v.32g.2.norm"), 2);
    assert_int_equal(bcp_instance_gpus("cpu.x86.tiny"), 0);
    assert_int_equal(bcp_instance_gpus("ngcv8"), 0);
    assert_int_equal(bcp_instance_gpus("dgxa100.80g.0.norm"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shells_give_back_the_words_that_were_quoted),
        cmocka_unit_test(sbatch_gives_back_the_word_that_was_quoted),
        cmocka_unit_test(a_script_without_choices_is_the_committed_file),
        cmocka_unit_test(only_choices_differ_from_the_committed_file),
        cmocka_unit_test(a_choice_that_the_file_has_not_is_an_error),
        cmocka_unit_test(options_of_sbatch_come_each_on_a_line),
        cmocka_unit_test(options_that_make_another_script_are_refused),
        cmocka_unit_test(a_percent_in_a_path_is_no_pattern),
        cmocka_unit_test(options_are_read_until_two_dashes),
        cmocka_unit_test(wrong_options_name_the_nearest),
        cmocka_unit_test(the_queue_is_read_in_the_order_of_numbers),
        cmocka_unit_test(times_are_read_as_sbatch_reads_them),
        cmocka_unit_test(complaints_of_sbatch_get_a_remedy),
        cmocka_unit_test(instances_say_how_many_gpus_they_have),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
