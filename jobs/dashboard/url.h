/* url.h - what a browser asks for, taken apart
 *
 * Strict: a target begins with "/", its escapes are whole, and what they stand for is
 * UTF-8 without control characters; anything else is ERR_INVALID, a longer one ERR_LIMIT.
 * Source: RFC 3986, sections 2.1 and 3.4; of forms "+" is a space (the URL standard,
 * application/x-www-form-urlencoded).
 * Owns: a struct url owns its texts; url_fini frees them. Threads: any.
 */
#ifndef VNEVA_JOBS_DASHBOARD_URL_H
#define VNEVA_JOBS_DASHBOARD_URL_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define URL_MAX 4096 /* bytes of a target, or of a form */
#define URL_PARAMS_MAX 48

struct url_param {
    const char *name, *value;
};

struct url {
    const char *path; /* "/api/jobs"; of a form "" */
    struct url_param params[URL_PARAMS_MAX];
    int n_params;
    char *memory;
};

/* target: "/api/jobs?where=id%3D3", as it stands in the request line. */
int url_parse(struct url *out, const char *target, struct err *err);
/* The body of a form: "token=...". */
int url_parse_form(struct url *out, const char *form, size_t n_bytes, struct err *err);
void url_fini(struct url *url);

/* The first of that name; NULL: none. */
const char *url_param(const struct url *url, const char *name);
/* As a whole number in [min, max]; `otherwise` where there is none. */
int url_param_int(const struct url *url, const char *name, int64_t min, int64_t max,
                  int64_t otherwise, int64_t *out, struct err *err);
/* ERR_INVALID names the first that is not in the list, which ends with NULL. */
int url_check_params(const struct url *url, const char *const *known, struct err *err);

/* Whether a Host header names this machine by a loopback name, with any port. Another
 * name means that a page elsewhere had its own name resolve to 127.0.0.1. */
bool url_host_is_loopback(const char *host);

/* The cookie of that name in a Cookie header, borrowed; NULL: none. */
const char *url_find_cookie(const char *header, const char *name, size_t *n_bytes);

#endif
