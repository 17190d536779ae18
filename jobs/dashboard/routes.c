#include "jobs/dashboard/routes.h"
#include "common/base/clock.h"
#include "jobs/dashboard/page.h"
#include "jobs/dashboard/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BEARER "Bearer "
#define HTML "text/html; charset=utf-8"
#define PLAIN "text/plain; charset=utf-8"

enum access { ACCESS_OPEN, ACCESS_TOKEN };

struct file_route {
    const char *path, *file, *type;
    enum access access;
};

static const struct file_route file_routes[] = {
    {"/", "index.html", HTML, ACCESS_TOKEN},
    {"/login", "login.html", HTML, ACCESS_OPEN},
    {"/page.css", "page.css", "text/css; charset=utf-8", ACCESS_OPEN},
    {"/favicon.svg", "favicon.svg", "image/svg+xml", ACCESS_OPEN},
    {"/page.js", "page.js", "text/javascript; charset=utf-8", ACCESS_TOKEN},
    {"/dom.js", "dom.js", "text/javascript; charset=utf-8", ACCESS_TOKEN},
    {"/chart.js", "chart.js", "text/javascript; charset=utf-8", ACCESS_TOKEN},
    {NULL, NULL, NULL, ACCESS_OPEN}};

/* A question that was put; its answer belongs to the call. */
struct work {
    struct ask *ask;
    struct ask_item *item;
};

static void say(struct http_answer *out, int status, const char *text)
{
    out->status = status;
    out->type = PLAIN;
    out->bytes = text;
    out->n_bytes = strlen(text);
}

static void set_header(struct http_answer *out, const char *name, const char *value)
{
    out->header = name;
    out->header_value = value;
}

/* ---- who asks ---- */

static bool has_token(const struct routes *routes, const struct http_request *request)
{
    const char *header = request->authorization, *cookie;
    size_t n_bytes = 0;

    if (!routes->token.text[0])
        return true;
    if (header && strncasecmp(header, BEARER, strlen(BEARER)) == 0 &&
        token_is(&routes->token, header + strlen(BEARER),
                 strlen(header + strlen(BEARER))))
        return true;
    cookie = url_find_cookie(request->cookie, ROUTES_COOKIE, &n_bytes);
    return cookie && token_is(&routes->token, cookie, n_bytes);
}

static void log_refusal(struct routes *routes, const struct http_request *request)
{
    bool has_one = request->authorization || request->cookie || request->n_body_bytes;

    log_bound_warn(&routes->turned_away, clock_mono_ms(), "turned away %s: %s token",
                   request->peer, has_one ? "a wrong" : "no");
}

static void refuse(struct http_answer *out, const char *path)
{
    if (strcmp(path, "/") == 0) {
        say(out, 303, "log in first\n");
        set_header(out, "Location", "/login");
    } else {
        say(out, 401, "a token is needed: Authorization: Bearer TOKEN\n");
        set_header(out, "WWW-Authenticate", "Bearer realm=\"vneva\"");
    }
}

static void log_in(struct routes *routes, const struct http_request *request,
                   struct http_answer *out)
{
    struct url form;
    const char *token;

    if (url_parse_form(&form, request->body, request->n_body_bytes, NULL) < 0) {
        say(out, 400, "this is no form\n");
        return;
    }
    token = url_param(&form, "token");
    if (token && token_is(&routes->token, token, strlen(token))) {
        say(out, 303, "welcome\n");
        set_header(out, "Location", "/");
        snprintf(out->cookie, sizeof(out->cookie),
                 ROUTES_COOKIE "=%s; Path=/; HttpOnly; SameSite=Strict",
                 routes->token.text);
    } else {
        log_refusal(routes, request);
        say(out, 303, "this is not the token\n");
        set_header(out, "Location", "/login#wrong");
    }
    url_fini(&form);
}

/* ---- what is there ---- */

static const struct page_file *find_file(const char *name)
{
    const struct page_file *file = page_files;

    while (file->name && strcmp(file->name, name) != 0)
        file++;
    return file->name ? file : NULL;
}

static const struct file_route *find_route(const char *path)
{
    for (const struct file_route *route = file_routes; route->path; route++)
        if (strcmp(route->path, path) == 0)
            return route;
    return NULL;
}

static void give_file(const struct file_route *route, struct http_answer *out)
{
    const struct page_file *file = find_file(route->file);

    if (!file) {
        say(out, 500, "this page was not built in\n");
        return;
    }
    out->type = route->type;
    out->bytes = file->bytes;
    out->n_bytes = file->n_bytes;
}

/* ---- questions ---- */

static void wake(void *call)
{
    http_resume(call);
}

void routes_drop(void *memory)
{
    struct work *work = memory;

    if (work->item)
        ask_drop(work->ask, work->item);
    free(work);
}

/* The answer goes out from where it lies; routes_drop, at the end of the call, lets go. */
static void give_answer(struct work *work, struct http_answer *out)
{
    const struct ask_text *text = ask_answer(work->ask, work->item);

    if (!text || !text->bytes) {
        say(out, text ? 500 : 503, "no answer can be had\n");
        return;
    }
    out->status = text->status;
    out->type = text->type;
    out->may_be_kept = text->may_be_kept != 0;
    out->bytes = text->bytes;
    out->n_bytes = text->n_bytes;
}

static enum http_when put_question(struct routes *routes, const char *question,
                                   struct http_call *call, void **memory,
                                   struct http_answer *out)
{
    struct work *work = calloc(1, sizeof(*work));
    struct err err;

    *memory = work;
    if (!work) {
        say(out, 500, "out of memory\n");
        return HTTP_NOW;
    }
    work->ask = routes->ask;
    work->item = ask_find(routes->ask, question);
    if (work->item) {
        give_answer(work, out);
        return HTTP_NOW;
    }
    http_suspend(call); /* before: the answer may be there before this returns */
    if (ask_begin(routes->ask, &work->item, question, wake, call, &err) < 0)
        http_resume(call); /* to be told, in routes_answer, that nothing was asked */
    return HTTP_LATER;
}

static bool is_question(const char *path)
{
    return strncmp(path, "/api/", 5) == 0 || strncmp(path, "/data/", 6) == 0 ||
           strcmp(path, "/metrics") == 0;
}

/* ---- all of them ---- */

static enum http_when route(struct routes *routes, const struct http_request *request,
                            const char *path, struct http_call *call, void **work,
                            struct http_answer *out)
{
    const struct file_route *file = find_route(path);
    bool is_get =
        strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
    bool is_login = strcmp(path, "/login") == 0;

    if (is_login && strcmp(request->method, "POST") == 0) {
        log_in(routes, request, out);
    } else if (!is_get) {
        say(out, 405, "this is only to be looked at\n");
        set_header(out, "Allow", is_login ? "GET, HEAD, POST" : "GET, HEAD");
    } else if (!(file && file->access == ACCESS_OPEN) && !has_token(routes, request)) {
        if (strcmp(path, "/") != 0)
            log_refusal(routes, request);
        refuse(out, path);
    } else if (file) {
        give_file(file, out);
    } else if (is_question(path)) {
        return put_question(routes, request->target, call, work, out);
    } else {
        say(out, 404, "there is nothing here\n");
    }
    return HTTP_NOW;
}

static bool may_ask(const struct routes *routes, const struct http_request *request)
{
    return !routes->is_loopback || routes->token.text[0] ||
           url_host_is_loopback(request->host);
}

enum http_when routes_answer(void *state, const struct http_request *request,
                             struct http_call *call, void **work, struct http_answer *out)
{
    struct routes *routes = state;
    enum http_when when = HTTP_NOW;
    struct url url;
    struct err err;

    if (*work) {
        struct work *put = *work;

        if (put->item)
            give_answer(put, out);
        else
            say(out, 503, "too many questions wait; ask again later\n");
        return HTTP_NOW;
    }
    if (!may_ask(routes, request)) {
        say(out, 403, "call it by localhost or 127.0.0.1\n");
        return HTTP_NOW;
    }
    if (url_parse(&url, request->target, &err) < 0) {
        say(out, err.code == ERR_LIMIT ? 414 : 400, "this is no address\n");
        return HTTP_NOW;
    }
    when = route(routes, request, url.path, call, work, out);
    url_fini(&url);
    return when;
}
