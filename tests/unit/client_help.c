#include "client_help.h"

#include <pthread.h>
#include <signal.h>

const struct fake_rule no_rules[] = {{.type = MSG_NONE}};

struct said run(const struct fake_rule *rules, const char *const *words)
{
    struct fake *fake = fake_start(rules);
    struct said said;

    assert_non_null(fake);
    said = client_says(fake_home(fake), words);
    fake_stop(fake);
    return said;
}

void interrupt_next_run(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    raise(SIGINT); /* stays pending until the client waits for it */
}

void assert_run(const struct fake_rule *rules, const char *const *words, int status,
                const char *out, const char *err)
{
    struct said said = run(rules, words);

    if (said.status != status)
        fail_msg("status %d, not %d\n%s%s", said.status, status, said.out, said.err);
    if (out)
        assert_says(said.out, out);
    if (err)
        assert_says(said.err, err);
    said_fini(&said);
}
