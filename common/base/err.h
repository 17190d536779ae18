/* err.h - how a function says what went wrong
 *
 * A function that can fail takes a `struct err *` last and returns 0, or -1 with the
 * err filled: a code to branch on and a text for people. Text is lower case, without a
 * full stop, the problem first, then where, then how to mend it. Each layer adds once
 * what it was doing (err_wrap). An err is logged once, at the edge. It goes
 * into messages, so it is made UTF-8 whatever it quotes, and cut between characters.
 * Owns: nothing; the text is in the struct. `err` may be NULL everywhere.
 * Threads: any; one err belongs to one caller.
 */
#ifndef VNEVA_COMMON_BASE_ERR_H
#define VNEVA_COMMON_BASE_ERR_H

enum err_code {
    ERR_NONE = 0,
    ERR_NOMEM,       /* out of memory */
    ERR_IO,          /* the operating system refused */
    ERR_FORMAT,      /* a file or message is not what it should be */
    ERR_INVALID,     /* an argument, key or value is wrong */
    ERR_NOT_FOUND,   /* what was named does not exist */
    ERR_EXISTS,      /* what was to be made exists already */
    ERR_STATE,       /* not possible in the present state */
    ERR_STALE,       /* sent under an attempt that is no longer current */
    ERR_TIMEOUT,     /* a deadline passed */
    ERR_PEER,        /* another process died or broke the protocol */
    ERR_LIMIT,       /* a named bound would be exceeded */
    ERR_UNSUPPORTED, /* known, but not to be had here */
    ERR_DENIED,      /* the caller may not do this */
};

#define ERR_TEXT_MAX 512

struct err {
    enum err_code code;
    char text[ERR_TEXT_MAX];
};

/* Fills err; returns -1, so that `return err_set(...)` reads well. */
int err_set(struct err *err, enum err_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "what: " in front of the text err holds; returns -1. The code stays. */
int err_wrap(struct err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void err_clear(struct err *err);

/* The name of a code as it goes over the wire and into JSON: "invalid", "not-found". */
const char *err_code_name(enum err_code code);

/* The exit status, of those in docs/architecture.md, of a program that asks no
 * coordinator: 1 it failed, 2 bad input, 5 an error of the system. */
int err_exit_status(const struct err *err);
/* Of one that asks a coordinator or a cluster: 2 bad input, 3 nobody answers, 4 refused,
 * 5 an error of the system. */
int err_asking_status(const struct err *err);

#endif
