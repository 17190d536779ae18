/* parallel.h - the same work on many items by a few threads
 *
 * Items are taken in order; after the first error no more are begun.
 */
#ifndef VNEVA_MODEL_WEIGHTS_PARALLEL_H
#define VNEVA_MODEL_WEIGHTS_PARALLEL_H

#include "common/base/err.h"

#define PARALLEL_THREADS_MAX 8 /* more do not read memory faster */

/* This process's processors, shared among n_processes of its kind; 1 at least. */
int parallel_threads(int n_processes);

/* `work` for every item of [0, n_items), on n_threads threads, this one among them. Its
 * first error is *err. */
int parallel_run(int n_threads, int n_items,
                 int (*work)(void *state, int item, struct err *err), void *state,
                 struct err *err);

#endif
