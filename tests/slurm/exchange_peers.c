/* exchange_peers WAY [tell] - one of several node programs, started by a launcher
 *
 * Puts texts, meets the others at two fences and compares what it gets, then prints "ok
 * NODE of N". With "tell" the last one then tells by a PMIx event that it is lost, and
 * the others print "lost NODE" when they have been told. Exit status 1 with a reason when
 * something is wrong. */
#include "common/base/clock.h"
#include "slurm/node/exchange.h"

#include <dlfcn.h>
#include <pmix.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FENCE_MS 20000
#define TOLD_MS 10000

static void fail(const char *what, const struct err *err)
{
    fprintf(stderr, "exchange_peers: %s: %s\n", what, err->text);
    exit(1);
}

static void make_value(char *out, int node, int round)
{
    /* as long as may be: the second round's differ from the first one's at the end */
    memset(out, 'a' + node % 26, EXCHANGE_VALUE_MAX);
    snprintf(out + EXCHANGE_VALUE_MAX - 32, 33, "node %d round %d", node, round);
}

static void meet(struct exchange *exchange, int round)
{
    static char mine[EXCHANGE_VALUE_MAX + 1], wanted[EXCHANGE_VALUE_MAX + 1];
    const char *value;
    char key[EXCHANGE_KEY_MAX + 1];
    struct err err;

    snprintf(key, sizeof(key), "text-%d", round);
    make_value(mine, exchange->node, round);
    if (exchange_put(exchange, key, mine, &err) < 0 ||
        exchange_fence(exchange, FENCE_MS, &err) < 0)
        fail("fence", &err);
    for (int i = 0; i < exchange->n_nodes; i++) {
        make_value(wanted, i, round);
        if (exchange_get(exchange, i, key, &value, &err) < 0)
            fail("get", &err);
        if (strcmp(value, wanted) != 0) {
            err_set(&err, ERR_FORMAT, "node %d: '%.80s'", i, value);
            fail("another text", &err);
        }
    }
    if (exchange_get(exchange, 0, "nobody-put-this", &value, &err) == 0 ||
        err.code != ERR_NOT_FOUND)
        fail("a text that nobody put", &err);
}

/* What a launcher says of a process that has died. Open MPI 4.1's own event of that does not
 * reach anybody with PMIx 4.2 ("BAD-PARAM"), and Slurm 22.05 sends none to other hosts. */
static void tell_loss(const struct exchange *exchange)
{
    pmix_status_t (*notify)(pmix_status_t, const pmix_proc_t *, pmix_data_range_t,
                            const pmix_info_t *, size_t, pmix_op_cbfunc_t, void *);
    void *library = dlopen("libpmix.so.2", RTLD_NOW), *call;
    pmix_proc_t self = {.rank = (pmix_rank_t)exchange->node};
    struct err err = {ERR_IO, "there is no PMIx_Notify_event"};

    snprintf(self.nspace, sizeof(self.nspace), "%s", getenv("PMIX_NAMESPACE"));
    call = library ? dlsym(library, "PMIx_Notify_event") : NULL;
    if (!call)
        fail("tell", &err);
    memcpy(&notify, &call, sizeof(notify));
    if (notify(PMIX_ERR_PROC_ABORTED, &self, PMIX_RANGE_LOCAL, NULL, 0, NULL, NULL) < 0)
        fail("tell", &err);
}

static void see_loss(struct exchange *exchange)
{
    int64_t end_ms = clock_mono_ms() + TOLD_MS;
    int lost = -1;
    struct err err;

    if (exchange->node == exchange->n_nodes - 1)
        tell_loss(exchange);
    while (lost < 0 && clock_mono_ms() < end_ms) {
        poll(NULL, 0, 20);
        lost = exchange_poll_lost(exchange);
    }
    printf("lost %d\n", lost);
    if (exchange_poll_lost(exchange) >= 0)
        printf("told again\n");
    /* the next fence cannot be met, and says so at once */
    if (exchange_fence(exchange, FENCE_MS, &err) < 0 && err.code == ERR_PEER)
        printf("no fence\n");
}

int main(int argc, char **argv)
{
    struct exchange *exchange = NULL;
    struct err err;

    if (argc < 2 ||
        (strcmp(argv[1], "pmix") == 0 ? exchange_open_pmix(&exchange, NULL, NULL, &err)
                                      : exchange_open_solo(&exchange, &err)) < 0)
        fail("open", &err);
    meet(exchange, 1);
    meet(exchange, 2);
    printf("ok %d of %d, %d of %d here\n", exchange->node, exchange->n_nodes,
           exchange->local, exchange->n_local);
    fflush(stdout);
    if (argc > 2)
        see_loss(exchange);
    exchange_close(exchange);
    return 0;
}
