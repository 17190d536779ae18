/* http.h - an HTTP server for few, small and hostile requests
 *
 * Wraps libmicrohttpd; nothing else in the project includes it. One thread: the one that
 * calls http_serve. It never blocks: a handler that must wait says HTTP_LATER.
 * Owns: the connections. Every answer has the headers that keep a page to itself
 * (Content-Security-Policy and its like, http.c).
 * Bounds: HTTP_*_MAX and HTTP_*_MS below. A connection that does not bring a whole request
 * in time, or does not take its answer, is cut, however busily it drips.
 */
#ifndef VNEVA_JOBS_DASHBOARD_HTTP_H
#define VNEVA_JOBS_DASHBOARD_HTTP_H

#include "common/base/err.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_CONNECTIONS_MAX 256
#define HTTP_CONNECTIONS_PEER_MAX 64 /* from one address */
#define HTTP_HEAD_MAX (32 << 10)     /* bytes of a request's lines, about */
#define HTTP_BODY_MAX 1024           /* of a form */
#define HTTP_REQUEST_MS 10000        /* till the first request is there as a whole */
#define HTTP_IDLE_MS 30000           /* till the next one is */
#define HTTP_SEND_MS 60000           /* till an answer is taken */
#define HTTP_COOKIE_MAX 512

struct http_request { /* texts are borrowed; NULL where there is no such header */
    const char *method, *target;
    const char *host, *authorization, *cookie;
    const char *peer; /* the address it comes from; never NULL */
    const char *body;
    size_t n_body_bytes;
};

struct http_answer { /* texts are borrowed until the call is dropped */
    int status;
    const char *type;
    const char *header, *header_value; /* one more header, or NULL */
    char cookie[HTTP_COOKIE_MAX];      /* to be set; "": none */
    bool may_be_kept;                  /* by the browser, for a while */
    const void *bytes;
    size_t n_bytes;
};

struct http_call; /* a request under way */

enum http_when {
    HTTP_NOW,   /* the answer is filled */
    HTTP_LATER, /* http_suspend was called, and http_resume will be, once */
};

struct http_handler {
    /* Asked again, with the same *work, after http_resume. *work is NULL at first. */
    enum http_when (*answer)(void *state, const struct http_request *request,
                             struct http_call *call, void **work,
                             struct http_answer *out);
    void (*drop)(void *work); /* the request is over; work is not NULL */
    void *state;
};

struct http;

/* fd: a socket that listens, without blocking; it is the server's from now on, also after
 * an error. handler: borrowed for the server's life. */
int http_open(struct http **out, int fd, const struct http_handler *handler,
              struct err *err);
/* Until *stop is set (by a signal's handler). */
int http_serve(struct http *http, const volatile sig_atomic_t *stop, struct err *err);
/* All calls that wait have been resumed before; NULL is fine. */
void http_close(struct http *http);

void http_suspend(struct http_call *call); /* in the handler only */
void http_resume(struct http_call *call);  /* from any thread */

#endif
