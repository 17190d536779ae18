/* Which node of how many: the variables of srun, mpirun and Base Command Platform. */
#include "slurm/node/environment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define V(...)                                                                           \
    (const char *const[])                                                                \
    {                                                                                    \
        __VA_ARGS__, NULL                                                                \
    }

static struct environment read_fine(const char *const *variables)
{
    struct environment e;
    struct err err;

    if (environment_read(&e, variables, &err) < 0)
        fail_msg("%s", err.text);
    return e;
}

static void assert_place(const struct environment *e, enum environment_launcher launcher,
                         int node, int n_nodes, int n_devices)
{
    assert_int_equal(e->launcher, launcher);
    assert_int_equal(e->node, node);
    assert_int_equal(e->n_nodes, n_nodes);
    assert_int_equal(e->n_devices, n_devices);
}

static void assert_refused(const char *const *variables, enum err_code code,
                           const char *part)
{
    struct environment e;
    struct err err;

    assert_int_equal(environment_read(&e, variables, &err), -1);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, part))
        fail_msg("'%s' does not say '%s'", err.text, part);
}

static void without_a_launcher_there_is_one_node(void **state)
{
    struct environment e = read_fine(V("HOME=/root", "SLURM_CONF=/etc/slurm.conf"));

    (void)state;
    assert_place(&e, LAUNCHER_NONE, 0, 1, 0);
    assert_string_equal(e.master, "");
    assert_string_equal(e.token, "");
    e = read_fine(V("SLURM_JOB_ID=7", "SLURM_JOB_NUM_NODES=1", "SLURM_GPUS_ON_NODE=4"));
    assert_place(&e, LAUNCHER_NONE, 0, 1, 4);
}

static void a_step_of_srun_says_its_task(void **state)
{
    struct environment e =
        read_fine(V("SLURM_JOB_ID=41", "SLURM_STEP_ID=0", "SLURM_PROCID=1",
                    "SLURM_STEP_NUM_TASKS=2", "SLURM_JOB_NUM_NODES=2",
                    "SLURM_STEP_NODELIST=gpu[03-04,11]", "SLURM_GPUS_ON_NODE=8"));

    (void)state;
    assert_place(&e, LAUNCHER_SLURM, 1, 2, 8);
    assert_string_equal(e.master, "gpu03");
    assert_string_equal(e.token, "slurm-41-0-0");
    e = read_fine(V("SLURM_JOB_ID=41", "SLURM_RESTART_COUNT=2", "SLURM_STEP_ID=0",
                    "SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=1"));
    assert_string_equal(e.token, "slurm-41-2-0");
}

static void the_first_host_is_read_from_every_form_of_list(void **state)
{
    static const struct {
        const char *list, *first;
    } lists[] = {{"n1", "n1"},
                 {"n7,n1", "n7"},
                 {"n[10-12]", "n10"},
                 {"rack[1-2]node[04,07]-ib", "rack1node04-ib"},
                 {"n[1,3],gpu7", "n1"}};
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
        struct environment e;

        snprintf(text, sizeof(text), "SLURM_STEP_NODELIST=%s", lists[i].list);
        e = read_fine(V(text, "SLURM_JOB_ID=1", "SLURM_STEP_ID=0", "SLURM_PROCID=0",
                        "SLURM_STEP_NUM_TASKS=3"));
        assert_string_equal(e.master, lists[i].first);
    }
    assert_refused(V("SLURM_STEP_NODELIST=n[1-3", "SLURM_JOB_ID=1", "SLURM_STEP_ID=0",
                     "SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=3"),
                   ERR_INVALID, "nothing closes");
}

static void several_nodes_without_srun_are_refused(void **state)
{
    (void)state;
    assert_refused(V("SLURM_JOB_ID=7", "SLURM_JOB_NUM_NODES=2", "SLURM_PROCID=0"),
                   ERR_STATE, "srun --mpi=pmix");
}

static void mpirun_within_a_job_of_slurm_is_believed(void **state)
{
    struct environment e = read_fine(
        V("SLURM_JOB_ID=41", "SLURM_STEP_ID=0", "SLURM_PROCID=0",
          "SLURM_STEP_NUM_TASKS=1", "SLURM_GPUS_ON_NODE=2", "OMPI_COMM_WORLD_RANK=3",
          "OMPI_COMM_WORLD_SIZE=4", "PMIX_NAMESPACE=3127181313/x"));

    (void)state;
    assert_place(&e, LAUNCHER_OPENMPI, 3, 4, 2);
    assert_string_equal(e.token, "mpi-3127181313_x-0-0");
}

static void replicas_of_base_command_are_nodes(void **state)
{
    struct environment e =
        read_fine(V("NGC_ARRAY_SIZE=4", "NGC_ARRAY_INDEX=2", "NGC_REPLICA_ID=9",
                    "NGC_GPUS_PER_NODE=8", "NGC_JOB_ID=700", "NGC_MASTER_ADDR="));

    (void)state;
    assert_place(&e, LAUNCHER_NGC, 2, 4, 8);
    assert_string_equal(e.master, "launcher-svc-700");
    assert_string_equal(e.token, "ngc-700-0-0");
    e = read_fine(V("NGC_ARRAY_SIZE=2", "NGC_REPLICA_ID=1", "NGC_MASTER_ADDR=10.0.0.7"));
    assert_place(&e, LAUNCHER_NGC, 1, 2, 0);
    assert_string_equal(e.master, "10.0.0.7");
    e = read_fine(V("NGC_ARRAY_SIZE=1", "NGC_JOB_ID=700", "NGC_GPUS_PER_NODE=1"));
    assert_place(&e, LAUNCHER_NGC, 0, 1, 1);
    assert_string_equal(e.master, "");
}

static void mpirun_of_bcprun_keeps_what_base_command_says(void **state)
{
    struct environment e =
        read_fine(V("OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE=2",
                    "NGC_ARRAY_SIZE=2", "NGC_GPUS_PER_NODE=4", "NGC_JOB_ID=700"));

    (void)state;
    assert_place(&e, LAUNCHER_OPENMPI, 1, 2, 4);
    assert_string_equal(e.master, "launcher-svc-700");
}

static void wrong_numbers_name_their_variable(void **state)
{
    (void)state;
    assert_refused(V("NGC_ARRAY_SIZE=2", "NGC_ARRAY_INDEX=2"), ERR_INVALID,
                   "NGC_ARRAY_INDEX is '2', not a whole number from 0 to 1");
    assert_refused(V("NGC_ARRAY_SIZE=2"), ERR_INVALID, "NGC_REPLICA_ID is not set");
    assert_refused(V("NGC_ARRAY_SIZE=two", "NGC_ARRAY_INDEX=0"), ERR_INVALID,
                   "NGC_ARRAY_SIZE is 'two'");
    assert_refused(V("OMPI_COMM_WORLD_SIZE=2"), ERR_INVALID,
                   "OMPI_COMM_WORLD_RANK is not set beside OMPI_COMM_WORLD_SIZE");
    assert_refused(V("SLURM_GPUS_ON_NODE=-1"), ERR_INVALID, "SLURM_GPUS_ON_NODE");
    assert_refused(V("SLURM_JOB_ID=1", "SLURM_STEP_ID=0", "SLURM_PROCID=99999999999",
                     "SLURM_STEP_NUM_TASKS=2"),
                   ERR_INVALID, "SLURM_PROCID");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_launcher_there_is_one_node),
        cmocka_unit_test(a_step_of_srun_says_its_task),
        cmocka_unit_test(the_first_host_is_read_from_every_form_of_list),
        cmocka_unit_test(several_nodes_without_srun_are_refused),
        cmocka_unit_test(mpirun_within_a_job_of_slurm_is_believed),
        cmocka_unit_test(replicas_of_base_command_are_nodes),
        cmocka_unit_test(mpirun_of_bcprun_keeps_what_base_command_says),
        cmocka_unit_test(wrong_numbers_name_their_variable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
