/* resave IN OUT RANKS TYPE: loads weights into a model of so many tensor-parallel ranks
 * (threads) and saves a checkpoint, as a run would. TYPE: fp32, or bf16 with everything
 * frozen, whose weights stay in bf16. */
#include "model/checkpoint/checkpoint.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

struct resave {
    const char *from, *to;
    enum dtype dtype;
};

static void resave(struct tiny_rank *rank)
{
    const struct resave *resave = rank->arg;
    struct weights *weights = NULL;
    struct neva *model = NULL;
    struct neva_config config;
    struct err err = {0};

    EXPECT_OK(weights_open(&weights, resave->from, &err), &err);
    config = weights_info(weights)->config;
    config.dtype = resave->dtype;
    config.vision.freeze = config.llm.freeze = resave->dtype == DTYPE_BF16;
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    EXPECT_OK(weights_load(model, weights, WEIGHTS_ALL, &err), &err);
    EXPECT_OK(checkpoint_save(model, resave->to, NULL, &err), &err);
    neva_destroy(model);
    weights_close(weights);
}

int main(int argc, char **argv)
{
    struct resave args;

    if (argc != 5)
        return 2;
    args = (struct resave){argv[1], argv[2],
                           strcmp(argv[4], "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32};
    tiny_run("ref", (int)strtol(argv[3], NULL, 10), 1, resave, &args);
    return expect_end();
}
