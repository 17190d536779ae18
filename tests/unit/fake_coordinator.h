/* fake_coordinator.h - a coordinator for tests of the client: a script of answers
 *
 * A thread serves a socket in a private folder and answers every message from a table of
 * rules: the first whose type (and view) fits. It keeps what it was asked.
 * Runs of the client go through `client_says`, which catches what it prints.
 */
#ifndef VNEVA_TESTS_UNIT_FAKE_COORDINATOR_H
#define VNEVA_TESTS_UNIT_FAKE_COORDINATOR_H

#include "common/wire/wire.h"
#include "jobs/client/client.h"

#include <stdbool.h>

#define FAKE_ASKED_MAX 256

struct fake_rule {
    enum msg_type type; /* MSG_NONE ends the table */
    const char *view;   /* of QUERY or SELECT; NULL: any */
    int times;          /* answers given; then the next rule fits. 0: always */
    enum msg_type answer;
    const char *text; /* ROWS.json, TABLE.json, OK.text, LOG_CHUNK.data, ERROR.text */
    const char *code; /* ERROR.code */
    int64_t a, b;     /* SUBMITTED: job, is_new; LOG_CHUNK: attempt, is_end */
};

/* A rule for QUERY of a view (NULL: any): these rows. */
#define FAKE_ROWS(of, rows)                                                              \
    {                                                                                    \
        .type = MSG_QUERY, .view = (of), .answer = MSG_ROWS, .text = (rows)              \
    }

struct fake;

struct fake *fake_start(const struct fake_rule *rules);
/* Joins the thread; NULL is fine. */
void fake_stop(struct fake *fake);
const char *fake_home(const struct fake *fake);
/* The n-th message asked, NULL when there were fewer. After fake_stop or between calls. */
const struct wire *fake_asked(const struct fake *fake, int n);

struct said {
    int status;
    char *out, *err;
};

/* Runs `vneva words...` (NULL ends them) against the home folder. */
struct said client_says(const char *home, const char *const *words);
void said_fini(struct said *said);

#endif
