/* Preflight's pure parts: every fault planted in the facts of two nodes that are well. */
#include "common/base/fs.h"
#include "jobs/spec/spec.h"
#include "slurm/node/gpus.h"
#include "slurm/node/preflight.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_MAX 3
#define GB (INT64_C(1) << 30)

/* A node that is well, on a wall clock `ahead` us ahead of node 0's; the three fences took
 * it 100 ms, 10 ms and 10 ms. */
static struct json *node_facts(int node, int64_t ahead)
{
    struct json *facts = NULL;
    char text[2048];
    int n;

    n = snprintf(
        text, sizeof(text),
        "{\"host\": \"n%d\", \"version\": \"0.1.0\", \"build\": \"aa\", "
        "\"programs\": [], \"way\": \"pmix\", \"wire\": \"4.2.2\", "
        "\"run\": {\"why\": \"\", \"seen_why\": \"\", \"free_bytes\": 9000000000, "
        "\"free_inodes\": 100000}, "
        "\"paths\": [{\"why\": \"\", \"bytes\": 10}], \"cpus\": 4, "
        "\"devices\": 2, \"wants_gpus\": false, "
        "\"clock\": [[%lld, %lld], [%lld, %lld], [%lld, %lld]], "
        "\"shm\": {\"why\": \"\", \"free_bytes\": 9000000000}, "
        "\"tmp\": {\"path\": \"/tmp\", \"why\": \"\", \"free_bytes\": 9000000000}, "
        "\"memory_bytes\": 9000000000, \"open_files\": 4096, "
        "\"coordinator\": {\"why\": \"\", \"version\": \"0.1.0\"}}",
        node + 1, (long long)ahead, (long long)ahead + 100000, (long long)ahead + 100000,
        (long long)ahead + 110000, (long long)ahead + 110000, (long long)ahead + 120000);
    assert_int_equal(json_parse(&facts, text, (size_t)n, NULL), 0);
    return facts;
}

struct scene {
    struct json *facts[N_MAX], *paths, *faults;
    struct preflight_case c;
};

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof(*s));
    const char *paths = "[{\"key\": \"model.data.data_path\", \"path\": \"/d/train\", "
                        "\"is_made\": false}]";

    for (int node = 0; node < N_MAX; node++)
        s->facts[node] = node_facts(node, 0);
    assert_int_equal(json_parse(&s->paths, paths, strlen(paths), NULL), 0);
    s->c = (struct preflight_case){.n_nodes = 2,
                                   .paths = s->paths,
                                   .run_folder = "/run/1",
                                   .endpoint = "tcp://head:7",
                                   .way = "",
                                   .need = {.run_bytes = (uint64_t)GB,
                                            .run_inodes = 100,
                                            .tmp_bytes = (uint64_t)GB,
                                            .memory_bytes = (uint64_t)GB,
                                            .shm_bytes = (uint64_t)GB,
                                            .open_files = 1024}};
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    for (int node = 0; node < N_MAX; node++)
        json_free(s->facts[node]);
    json_free(s->paths);
    json_free(s->faults);
    free(s);
    return 0;
}

static size_t decide(struct scene *s)
{
    json_free(s->faults);
    s->faults = NULL;
    s->c.facts = (const struct json *const *)s->facts;
    assert_int_equal(preflight_decide(&s->faults, &s->c, NULL), 0);
    return json_count(s->faults);
}

/* That there is one thing only, of this host and check, whose cause and remedy say this. */
static void expect_one(struct scene *s, bool is_fault, const char *host,
                       const char *check, const char *cause, const char *remedy)
{
    const struct json *fault;

    assert_int_equal(decide(s), 1);
    fault = json_at(s->faults, 0);
    assert_string_equal(json_get_string(fault, "host"), host);
    assert_string_equal(json_get_string(fault, "check"), check);
    assert_int_equal(json_bool(json_get(fault, "is_fault"), !is_fault), is_fault);
    if (!strstr(json_get_string(fault, "cause"), cause) ||
        !strstr(json_get_string(fault, "remedy"), remedy))
        fail_msg("cause '%s', remedy '%s'", json_get_string(fault, "cause"),
                 json_get_string(fault, "remedy"));
}

static void set_string(struct json *object, const char *key, const char *value)
{
    assert_int_equal(json_set(object, key, json_new_string(value), NULL), 0);
}

static void set_int(struct json *object, const char *key, int64_t value)
{
    assert_int_equal(json_set(object, key, json_new_int(value), NULL), 0);
}

static void set_json(struct json *object, const char *key, const char *text)
{
    struct json *value;

    assert_int_equal(json_parse(&value, text, strlen(text), NULL), 0);
    assert_int_equal(json_set(object, key, value, NULL), 0);
}

static void set_clock(struct scene *s, int node, int64_t ahead)
{
    json_free(s->facts[node]);
    s->facts[node] = node_facts(node, ahead);
}

/* ---- each fault ---- */

static void nodes_that_are_well_have_no_faults(void **state)
{
    assert_int_equal(decide(*state), 0);
}

static void another_version_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_string(s->facts[1], "version", "0.0.9");
    json_remove(s->facts[1], "coordinator");
    expect_one(s, true, "n2", "version", "runs vneva 0.0.9, but n1 runs 0.1.0",
               "same vneva");
}

static void another_build_is_a_warning(void **state)
{
    struct scene *s = *state;

    set_string(s->facts[1], "build", "bb");
    expect_one(s, false, "n2", "version", "another build here than on n1", "same files");
}

static void a_coordinator_of_another_version_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_string(json_get(s->facts[1], "coordinator"), "version", "0.3.0");
    expect_one(s, true, "n2", "version", "the coordinator at tcp://head:7 runs 0.3.0",
               "same vneva");
}

static void a_program_that_lacks_a_library_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_json(s->facts[1], "programs", "[\"vneva-rank does not find libdnnl.so.2\"]");
    expect_one(s, true, "n2", "programs", "vneva-rank does not find libdnnl.so.2",
               "bundle");
}

static void pmix_that_was_asked_for_and_is_not_there_is_a_fault(void **state)
{
    struct scene *s = *state;

    s->c.way = "pmix";
    assert_int_equal(decide(s), 0);
    set_string(s->facts[1], "way", "files");
    expect_one(s, true, "n2", "pmix", "by pmix was asked for, but it is by files",
               "--mpi=pmix");
}

static void an_old_pmix_is_a_fault_and_another_one_a_warning(void **state)
{
    struct scene *s = *state;

    set_string(s->facts[1], "wire", "2.2.5");
    expect_one(s, true, "n2", "pmix", "PMIx 2.2.5 is older than 3", "update");
    set_string(s->facts[1], "wire", "5.0.1");
    expect_one(s, false, "n2", "pmix", "PMIx 5.0.1 here, 4.2.2 on n1", "one version");
}

static void a_coordinator_out_of_reach_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_string(json_get(s->facts[1], "coordinator"), "why", "cannot connect: refused");
    expect_one(s, true, "n2", "coordinator",
               "does not reach the coordinator at tcp://head:7: cannot connect: refused",
               "firewall");
}

static void a_run_folder_that_is_not_shared_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_string(json_get(s->facts[1], "run"), "seen_why", "No such file");
    expect_one(s, true, "n2", "run folder",
               "'/run/1' is not shared: what n1 wrote there cannot be read here",
               "--run-dir");
}

static void a_run_folder_one_may_not_write_is_a_fault_once(void **state)
{
    struct scene *s = *state;

    set_string(json_get(s->facts[1], "run"), "why", "Permission denied");
    set_json(json_get(s->facts[0], "run"), "unseen",
             "[{\"node\": 1, \"why\": \"none\"}]");
    expect_one(s, true, "n2", "run folder", "cannot write in '/run/1': Permission denied",
               "may write");
    set_string(json_get(s->facts[1], "run"), "why", "");
    set_string(json_get(s->facts[0], "run"), "why", "Permission denied");
    set_string(json_get(s->facts[1], "run"), "seen_why", "No such file");
    set_json(json_get(s->facts[0], "run"), "unseen", "[]");
    expect_one(s, true, "n1", "run folder", "cannot write in '/run/1'", "may write");
}

static void what_node_0_cannot_read_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_json(json_get(s->facts[0], "run"), "unseen",
             "[{\"node\": 1, \"why\": \"Permission denied\"}]");
    expect_one(s, true, "n1", "run folder", "cannot read what n2 wrote in '/run/1'",
               "one user");
}

static void a_path_that_one_node_cannot_read_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_json(s->facts[1], "paths", "[{\"why\": \"cannot see it: x\", \"bytes\": 0}]");
    expect_one(s, true, "n2", "paths", "model.data.data_path: '/d/train': cannot see it",
               "every node can read it");
    set_json(s->facts[1], "paths", "[]");
    expect_one(s, true, "n2", "paths", "has not looked at", "log");
}

static void data_that_differ_are_a_fault(void **state)
{
    struct scene *s = *state;
    static const char same[] = "[{\"why\": \"\", \"bytes\": 10, \"entries\": -1, "
                               "\"print\": \"aa\"}]";

    set_json(s->facts[0], "paths", same);
    set_json(s->facts[1], "paths", same);
    assert_int_equal(decide(s), 0);
    set_json(s->facts[1], "paths", "[{\"why\": \"\", \"bytes\": 11, \"entries\": -1}]");
    expect_one(s, true, "n2", "paths", "not the same as on n1 (11 and 10 bytes)",
               "same data");
    set_json(s->facts[1], "paths",
             "[{\"why\": \"\", \"bytes\": 10, \"entries\": -1, \"print\": \"ab\"}]");
    expect_one(s, true, "n2", "paths", "'/d/train' has other contents than on n1",
               "same data");
    set_json(s->facts[1], "paths", "[{\"why\": \"\", \"bytes\": -1, \"entries\": 3}]");
    expect_one(s, true, "n2", "paths", "is a folder here and a file on n1", "same data");
}

/* A list may be old (NFS) or be growing; one that is empty is that of a mount point. */
static void folders_that_differ_are_a_fault_where_one_is_empty(void **state)
{
    struct scene *s = *state;

    set_json(s->facts[0], "paths",
             "[{\"why\": \"\", \"bytes\": -1, \"entries\": 3, \"print\": \"aa\"}]");
    set_json(s->facts[1], "paths",
             "[{\"why\": \"\", \"bytes\": -1, \"entries\": 4, \"print\": \"ab\"}]");
    expect_one(s, false, "n2", "paths", "has other names in it than on n1", "mounted");
    set_json(s->facts[1], "paths",
             "[{\"why\": \"\", \"bytes\": -1, \"entries\": 0, \"print\": \"\"}]");
    expect_one(s, true, "n2", "paths",
               "'/d/train' is empty here: it has 0 entries here and 3 on n1", "mounted");
}

static void what_is_made_where_others_cannot_see_it_is_a_fault(void **state)
{
    struct scene *s = *state;

    json_free(s->paths);
    s->paths = json_new(JSON_ARRAY);
    s->c.paths = s->paths;
    assert_int_equal(json_append(s->paths, json_new(JSON_OBJECT), NULL), 0);
    set_string(json_at(s->paths, 0), "key", "output_file");
    set_string(json_at(s->paths, 0), "path", "/o/answers/.mark");
    set_json(json_at(s->paths, 0), "is_mark", "true");
    assert_int_equal(decide(s), 0);
    set_json(s->facts[1], "paths", "[{\"why\": \"cannot open it\"}]");
    expect_one(s, true, "n2", "paths",
               "output_file: the folder '/o/answers' is not shared: what n1 wrote there "
               "cannot be read here: cannot open it",
               "all nodes mount");
    set_json(json_at(s->paths, 0), "is_mark", "false");
    set_json(json_at(s->paths, 0), "is_made", "true");
    set_string(json_at(s->paths, 0), "unwritten", "no room");
    set_json(s->facts[1], "paths", "[{\"why\": \"\"}]");
    expect_one(s, true, "n1", "paths", "output_file: '/o/answers/.mark': no room",
               "write there");
}

static void ranks_may_share_cpus_within_reason(void **state)
{
    struct scene *s = *state;

    set_int(s->facts[1], "cpus", 1);
    expect_one(s, false, "n2", "devices", "2 devices are asked for, but only 1 CPUs",
               "--cpus-per-task");
    set_int(s->facts[1], "devices", 5);
    expect_one(s, true, "n2", "devices", "5 devices are asked for, but only 1 CPUs",
               "--cpus-per-task");
}

static void gpus_count_only_where_they_are_asked_for(void **state)
{
    struct scene *s = *state;

    set_json(s->facts[1], "gpus",
             "{\"why\": \"there is no nvidia-smi\", \"visible\": 0}");
    assert_int_equal(decide(s), 0);
    assert_int_equal(json_set(s->facts[1], "wants_gpus", json_new_bool(true), NULL), 0);
    expect_one(s, true, "n2", "devices",
               "2 GPUs are asked for, 0 can be seen: there is no nvidia-smi",
               "--gpus-per-node");
}

static void a_gpu_that_somebody_uses_is_a_fault(void **state)
{
    struct scene *s = *state;

    assert_int_equal(json_set(s->facts[1], "wants_gpus", json_new_bool(true), NULL), 0);
    set_json(s->facts[1], "gpus",
             "{\"why\": \"\", \"visible\": 2, \"busy\": [{\"gpu\": \"1\", \"pid\": 77, "
             "\"mb\": 3000}]}");
    expect_one(s, true, "n2", "devices", "GPU 1 is not free: process 77 has 3000 MB",
               "--exclude");
}

static void a_clock_more_than_a_second_off_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_clock(s, 1, 900000);
    assert_int_equal(decide(s), 0);
    set_clock(s, 1, 5000000);
    expect_one(s, true, "n2", "clock", "5.00 s ahead of that of n1 (to within 0.01 s)",
               "time server");
    set_clock(s, 1, -1500000);
    expect_one(s, true, "n2", "clock", "1.50 s behind that of n1", "time server");
}

static void clocks_that_cannot_be_told_apart_are_a_warning(void **state)
{
    struct scene *s = *state;

    set_json(s->facts[1], "clock", "[[0, 3000000]]");
    expect_one(s, false, "n2", "clock", "may be 3.00 s off that of n1", "time server");
}

static void two_clocks_near_the_first_may_be_far_from_each_other(void **state)
{
    struct scene *s = *state;

    s->c.n_nodes = 3;
    set_clock(s, 1, 800000);
    set_clock(s, 2, -800000);
    expect_one(s, true, "n3", "clock", "at least 1.58 s behind", "time server");
}

/* Nodes i and j were at the same fences; the bound holds whatever the waits were. */
static void the_bound_of_a_clock_holds_the_truth(void **state)
{
    const int64_t truth = 250000, slow = 40000;
    struct json *first = NULL, *other = NULL;
    char text[256];
    int64_t least, most;

    (void)state;
    snprintf(text, sizeof(text), "{\"clock\": [[0, %lld], [60000, 65000]]}",
             (long long)slow);
    assert_int_equal(json_parse(&first, text, strlen(text), NULL), 0);
    snprintf(text, sizeof(text), "{\"clock\": [[%lld, %lld], [%lld, %lld]]}",
             (long long)truth + 30000, (long long)truth + 41000, (long long)truth + 61000,
             (long long)truth + 64000);
    assert_int_equal(json_parse(&other, text, strlen(text), NULL), 0);
    assert_int_equal(preflight_clock(&least, &most, first, other), 0);
    assert_true(least <= truth && truth <= most);
    assert_int_equal(least, truth + 61000 - 65000);
    assert_int_equal(most, truth + 64000 - 60000);
    json_free(first);
    json_free(other);
}

static void too_little_room_is_a_fault(void **state)
{
    struct scene *s = *state;

    set_int(json_get(s->facts[1], "run"), "free_bytes", GB / 2);
    expect_one(s, true, "n2", "disk", "'/run/1' has 512 MB free, 1024 MB are wanted",
               "--run-dir");
    set_int(json_get(s->facts[1], "run"), "free_bytes", 2 * GB);
    set_int(json_get(s->facts[1], "run"), "free_inodes", 3);
    expect_one(s, true, "n2", "disk", "room for only 3 more files", "remove files");
    set_int(json_get(s->facts[1], "run"), "free_inodes", 300);
    set_int(json_get(s->facts[1], "shm"), "free_bytes", 64 << 20);
    expect_one(s, true, "n2", "disk", "'/dev/shm' has 64 MB free", "--shm-size");
    set_int(json_get(s->facts[1], "shm"), "free_bytes", 2 * GB);
    set_string(json_get(s->facts[1], "tmp"), "why", "cannot write there: Read-only");
    expect_one(s, true, "n2", "disk", "'/tmp': cannot write there", "TMPDIR");
}

static void too_little_memory_and_too_few_files_are_faults(void **state)
{
    struct scene *s = *state;

    set_int(s->facts[1], "memory_bytes", GB / 4);
    expect_one(s, true, "n2", "memory", "256 MB of memory may be used", "--mem");
    set_int(s->facts[1], "memory_bytes", 2 * GB);
    set_int(s->facts[1], "open_files", 256);
    expect_one(s, true, "n2", "open files", "only 256 files, 1024 are wanted",
               "ulimit -n");
}

static void a_node_without_facts_is_a_fault(void **state)
{
    struct scene *s = *state;

    json_free(s->facts[1]);
    s->facts[1] = NULL;
    expect_one(s, true, "", "facts", "node 1 has not told", "log");
}

static void all_faults_are_told_at_once(void **state)
{
    struct scene *s = *state;
    char *text = NULL;
    size_t n = 0;
    FILE *out;
    struct json *report = json_new(JSON_OBJECT);

    set_string(s->facts[1], "build", "bb");
    set_int(s->facts[0], "devices", 100);
    set_int(s->facts[1], "devices", 100);
    set_int(s->facts[1], "open_files", 1);
    assert_int_equal(decide(s), 4);
    assert_int_equal(json_set(report, "faults", json_clone(s->faults), NULL), 0);
    out = open_memstream(&text, &n);
    preflight_print(out, report);
    fclose(out);
    assert_non_null(strstr(text, "fault: n1: devices: 100 devices"));
    assert_non_null(strstr(text, "fault: n2: devices: 100 devices"));
    assert_non_null(strstr(text, "fault: n2: open files: "));
    assert_non_null(strstr(text, "    mend it: ask for fewer devices"));
    assert_non_null(strstr(text, "3 faults, 1 warning"));
    free(text);
    json_free(report);
}

/* ---- GPUs ---- */

#define DEVICES "0, GPU-aaaa-1\n1, GPU-bbbb-2\n2, GPU-cccc-3\n"
#define APPS "GPU-bbbb-2, 4242, 1000\nGPU-cccc-3, 4343, 20\n"

static void expect_gpus(const char *visible, int64_t n_visible, size_t n_busy)
{
    struct json *gpus;

    assert_int_equal(gpus_parse(&gpus, DEVICES, APPS, visible, NULL), 0);
    assert_int_equal(json_get_int(gpus, "visible", -1), n_visible);
    assert_int_equal(json_count(json_get(gpus, "busy")), n_busy);
    json_free(gpus);
}

static void only_gpus_that_cuda_may_use_count(void **state)
{
    struct json *gpus;

    (void)state;
    expect_gpus(NULL, 3, 2);
    expect_gpus("0,1", 2, 1);
    expect_gpus("GPU-cccc", 1, 1);
    expect_gpus("0,-1,2", 1, 0);
    expect_gpus("", 0, 0);
    assert_int_equal(gpus_parse(&gpus, "No devices were found\n", "", NULL, NULL), 0);
    assert_int_equal(json_get_int(gpus, "visible", -1), 0);
    assert_string_equal(json_get_string(gpus, "why"), "nvidia-smi lists none");
    json_free(gpus);
}

/* ---- what a job needs ---- */

static struct spec *read_spec(const char *text)
{
    const char *tmp = getenv("TMPDIR");
    char path[256];
    struct spec_notes notes = {{NULL, 0}, {NULL, 0}};
    struct spec *spec;
    struct err err;

    snprintf(path, sizeof(path), "%s/vneva-preflight-%d.yaml", tmp ? tmp : "/tmp",
             (int)strlen(text));
    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), &err), 0);
    if (spec_read(&spec, &notes, path, SPEC_NONE, NULL, 0, &err) < 0)
        fail_msg("%s", err.text);
    spec_notes_fini(&notes);
    remove(path);
    return spec;
}

static void expect_path(const struct json *paths, size_t i, const char *key,
                        const char *path, bool is_made)
{
    const struct json *one = json_at(paths, i);

    assert_string_equal(json_get_string(one, "key"), key);
    assert_string_equal(json_get_string(one, "path"), path);
    assert_int_equal(json_bool(json_get(one, "is_made"), !is_made), is_made);
}

static void the_paths_of_a_job_are_those_it_names(void **state)
{
    struct spec *spec = read_spec("kind: prepare\n"
                                  "model:\n"
                                  "  tokenizer: {model: /t/tok.model}\n"
                                  "  data:\n"
                                  "    data_path: [/d/a.json, /d/b.jsonl]\n"
                                  "    video_folder: /d/videos\n"
                                  "    output: /o/set\n");
    struct json *paths;

    (void)state;
    assert_int_equal(preflight_paths(&paths, spec, NULL), 0);
    assert_int_equal(json_count(paths), 5);
    expect_path(paths, 0, "model.data.data_path", "/d/a.json", false);
    expect_path(paths, 1, "model.data.data_path", "/d/b.jsonl", false);
    expect_path(paths, 2, "model.data.video_folder", "/d/videos", false);
    expect_path(paths, 3, "model.tokenizer.model", "/t/tok.model", false);
    expect_path(paths, 4, "model.data.output", "/o/set", true);
    json_free(paths);
    spec_free(spec);
}

static void a_larger_job_needs_more_room(void **state)
{
    struct preflight_need none, one, two;

    (void)state;
    preflight_need(&none, NULL, 1, false);
    preflight_need(&one, NULL, 2, false);
    assert_int_equal(one.memory_bytes, 2 * none.memory_bytes);
    assert_int_equal(one.run_bytes, none.run_bytes);
    assert_true(none.run_bytes > 0 && none.shm_bytes > 0 && none.open_files > 0);
    preflight_need(&two, NULL, 0, true); /* agents that say nothing of devices */
    assert_int_equal(two.memory_bytes, none.memory_bytes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nodes_that_are_well_have_no_faults),
        TEST(another_version_is_a_fault),
        TEST(another_build_is_a_warning),
        TEST(a_coordinator_of_another_version_is_a_fault),
        TEST(a_program_that_lacks_a_library_is_a_fault),
        TEST(pmix_that_was_asked_for_and_is_not_there_is_a_fault),
        TEST(an_old_pmix_is_a_fault_and_another_one_a_warning),
        TEST(a_coordinator_out_of_reach_is_a_fault),
        TEST(a_run_folder_that_is_not_shared_is_a_fault),
        TEST(a_run_folder_one_may_not_write_is_a_fault_once),
        TEST(what_node_0_cannot_read_is_a_fault),
        TEST(a_path_that_one_node_cannot_read_is_a_fault),
        TEST(data_that_differ_are_a_fault),
        TEST(folders_that_differ_are_a_fault_where_one_is_empty),
        TEST(what_is_made_where_others_cannot_see_it_is_a_fault),
        TEST(ranks_may_share_cpus_within_reason),
        TEST(gpus_count_only_where_they_are_asked_for),
        TEST(a_gpu_that_somebody_uses_is_a_fault),
        TEST(a_clock_more_than_a_second_off_is_a_fault),
        TEST(clocks_that_cannot_be_told_apart_are_a_warning),
        TEST(two_clocks_near_the_first_may_be_far_from_each_other),
        TEST(the_bound_of_a_clock_holds_the_truth),
        TEST(too_little_room_is_a_fault),
        TEST(too_little_memory_and_too_few_files_are_faults),
        TEST(a_node_without_facts_is_a_fault),
        TEST(all_faults_are_told_at_once),
        cmocka_unit_test(only_gpus_that_cuda_may_use_count),
        cmocka_unit_test(the_paths_of_a_job_are_those_it_names),
        cmocka_unit_test(a_larger_job_needs_more_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
