#include "coordinator/plan.h"
#include "jobs/spec/spec.h"

#include <string.h>

#define PLAN_RANKS_MAX 4096
#define PLAN_TASKS_MAX 1000000 /* of one job: a row in the store each */

static int check(const struct job_plan *plan, struct err *err)
{
    if (plan->n_ranks < 1 || plan->n_ranks > PLAN_RANKS_MAX)
        return err_set(err, ERR_LIMIT, "job of %lld ranks; 1 to %d can be run",
                       (long long)plan->n_ranks, PLAN_RANKS_MAX);
    if (plan->group_size < 1 || plan->n_ranks % plan->group_size)
        return err_set(err, ERR_INVALID,
                       "%lld ranks cannot be divided into groups of %lld",
                       (long long)plan->n_ranks, (long long)plan->group_size);
    if (!plan->is_training && plan->shard_size < 1)
        return err_set(err, ERR_INVALID, "model.data.shard_size must be 1 or more");
    if (!plan->is_training)
        return 0;
    if (plan->max_steps < 1 || plan->checkpoint_steps < 1)
        return err_set(err, ERR_INVALID,
                       "trainer.max_steps and every_n_train_steps must be 1 or more");
    if (plan->max_steps / plan->checkpoint_steps >= PLAN_TASKS_MAX)
        return err_set(err, ERR_LIMIT,
                       "more than %d checkpoints; raise every_n_train_steps",
                       PLAN_TASKS_MAX);
    return 0;
}

int job_plan_from_spec(struct job_plan *plan, const char *kind, const char *spec_json,
                       struct err *err)
{
    struct spec *spec;
    int rc = 0;

    if (spec_from_json(&spec, spec_json, strlen(spec_json), err) < 0)
        return err_wrap(err, "spec");
    if (strcmp(spec_kind_name(spec->kind), kind) != 0)
        rc = err_set(err, ERR_INVALID, "spec of kind '%s' sent as '%s'",
                     spec_kind_name(spec->kind), kind);
    *plan = (struct job_plan){
        .is_training = spec_kind_is_training(spec->kind),
        .n_ranks = spec_n_ranks(spec),
        .group_size = spec->model.tensor_model_parallel_size,
        .n_kept = spec->exp_manager.save_top_k,
    };
    if (plan->is_training) {
        plan->max_steps = spec->trainer.max_steps;
        plan->checkpoint_steps = spec->exp_manager.every_n_train_steps;
    } else {
        plan->shard_size = spec->data.shard_size;
    }
    spec_free(spec);
    return rc < 0 ? rc : check(plan, err);
}
