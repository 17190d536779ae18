/* worker_world.h - a prepared dataset, and trainings over it by ranks under a scripted agent
 *
 * Calls fail the running cmocka test.
 */
#ifndef VNEVA_TESTS_INTEGRATION_WORKER_WORLD_H
#define VNEVA_TESTS_INTEGRATION_WORKER_WORLD_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "tests/integration/worker_gang.h"

struct world {
    char folder[64]; /* of all that a test program makes */
    char dataset[128];
};

/* For cmocka_run_group_tests; *state is a struct world. */
int world_setup(void **state);
int world_teardown(void **state);

struct json *world_parse(const char *text); /* the caller frees it */
void world_read_file(struct buf *out, const char *path);
void world_folder(char out[128], const struct world *world, const char *name);

/* Runs the leases of a prepare job; the result of the last. more: lines of the spec, NULL at
 * the end; NULL: none. */
struct json *world_prepare(const struct world *world, const char *output,
                           const char *const *more);

/* Layouts of ranks, as lines of a spec. */
extern const char *const world_one[], *const world_two_tensor[], *const world_two_data[];

void world_start_training(struct gang *gang, const struct world *world, const char *job,
                          int n_ranks, int64_t attempt, const char *resume,
                          const char *const *hosts, const char *const *more);
/* One lease of steps; the path of the checkpoint it ends with (copied into path). */
void world_do_steps(struct gang *gang, int64_t first, int64_t count, char path[256]);
/* Twelve steps in three leases of one attempt, by two ranks. */
void world_train(const struct world *world, const char *job, const char *const *more,
                 const char *const *hosts, char path[256]);

bool world_is_same_file(const char *folder_a, const char *folder_b, const char *name);
void world_expect_same_file(const char *folder_a, const char *folder_b, const char *name);

#endif
