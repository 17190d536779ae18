/* client_help.h - runs of the client against a scripted coordinator, for its tests */
#ifndef VNEVA_TESTS_UNIT_CLIENT_HELP_H
#define VNEVA_TESTS_UNIT_CLIENT_HELP_H

#include "fake_coordinator.h"
#include "spec_help.h"

/* The words of a command line, ended by NULL. */
#define W(...)                                                                           \
    (const char *const[])                                                                \
    {                                                                                    \
        __VA_ARGS__, NULL                                                                \
    }

/* Rows of a view "job" that has failed. */
#define JOB_FAILED                                                                       \
    "[{\"id\": 3, \"kind\": \"prepare\", \"name\": \"d\", \"state\": \"failed\", "       \
    "\"reason\": \"2 of 9 samples rejected\", \"done\": 9, \"total\": 9}]"

/* A coordinator that answers nothing. */
extern const struct fake_rule no_rules[];

/* Runs words against rules; said_fini frees the outcome. */
struct said run(const struct fake_rule *rules, const char *const *words);
/* Ctrl-C as the kernel gives it: a signal to the process while it waits. */
void interrupt_next_run(void);
/* The exit status, and a part of what it prints on each stream (NULL: anything). */
void assert_run(const struct fake_rule *rules, const char *const *words, int status,
                const char *out, const char *err);

#endif
