/* routes.h - who may see what, and where it comes from
 *
 * The page's own files are answered at once, everything else by ask.h. GET and HEAD only,
 * but for POST /login, which gives a browser its cookie. With a token: as "Authorization:
 * Bearer TOKEN" or in the cookie; only the form and how it looks is to be had without.
 * Who shows a wrong one, or none, is logged. Without a token, only those who call this
 * machine by a loopback name are answered, so that no page from elsewhere can have its own
 * name resolve to here (DNS rebinding).
 * Threads: that of http.h.
 */
#ifndef VNEVA_JOBS_DASHBOARD_ROUTES_H
#define VNEVA_JOBS_DASHBOARD_ROUTES_H

#include "common/base/log_bound.h"
#include "jobs/dashboard/ask.h"
#include "jobs/dashboard/http.h"
#include "jobs/dashboard/token.h"

#define ROUTES_COOKIE "vneva_dashboard"

struct routes { /* borrowed */
    struct ask *ask;
    struct token token; /* "": none is asked for */
    bool is_loopback;   /* nobody on another machine reaches it */
    struct log_bound turned_away;
};

/* state: a struct routes. For http_handler. */
enum http_when routes_answer(void *state, const struct http_request *request,
                             struct http_call *call, void **work,
                             struct http_answer *out);
void routes_drop(void *work);

#endif
