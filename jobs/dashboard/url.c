#include "jobs/dashboard/url.h"
#include "common/base/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes text in place. */
static int decode(char *text, bool plus_is_space, struct err *err)
{
    char *to = text;

    for (const char *at = text; *at; at++) {
        int c = (unsigned char)*at;

        if (c == '%') {
            int high = digit_of(at[1]), low = high < 0 ? -1 : digit_of(at[2]);

            if (low < 0)
                return err_set(err, ERR_INVALID, "a %% without two digits behind it");
            c = high * 16 + low;
            at += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f)
            return err_set(err, ERR_INVALID, "a control character in the address");
        *to++ = (char)c;
    }
    *to = '\0';
    for (const char *at = text; at < to;) {
        size_t n = utf8_length((const unsigned char *)at, (size_t)(to - at));

        if (!n)
            return err_set(err, ERR_INVALID, "the address is no UTF-8");
        at += n;
    }
    return 0;
}

/* "a=1&b=2", cut to pieces. */
static int take_params(struct url *url, char *text, struct err *err)
{
    char *save = NULL;

    for (char *pair = strtok_r(text, "&", &save); pair;
         pair = strtok_r(NULL, "&", &save)) {
        char *value = strchr(pair, '=');

        if (url->n_params == URL_PARAMS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d parameters", URL_PARAMS_MAX);
        if (value)
            *value++ = '\0';
        else
            value = pair + strlen(pair);
        if (decode(pair, true, err) < 0 || decode(value, true, err) < 0)
            return -1;
        url->params[url->n_params++] = (struct url_param){pair, value};
    }
    return 0;
}

static int copy_text(struct url *url, const char *text, size_t n_bytes, struct err *err)
{
    memset(url, 0, sizeof(*url));
    url->path = "";
    if (n_bytes >= URL_MAX)
        return err_set(err, ERR_LIMIT, "more than %d bytes are asked with", URL_MAX - 1);
    url->memory = strndup(text, n_bytes);
    return url->memory ? 0 : err_set(err, ERR_NOMEM, "no memory for an address");
}

int url_parse(struct url *out, const char *target, struct err *err)
{
    char *query;
    int rc = copy_text(out, target, strlen(target), err);

    if (rc < 0)
        return -1;
    query = strchr(out->memory, '?');
    if (query)
        *query++ = '\0';
    out->path = out->memory;
    rc = decode(out->memory, false, err);
    if (rc == 0 && out->path[0] != '/')
        rc = err_set(err, ERR_INVALID, "an address begins with '/'");
    if (rc == 0 && query)
        rc = take_params(out, query, err);
    if (rc < 0)
        url_fini(out);
    return rc;
}

int url_parse_form(struct url *out, const char *form, size_t n_bytes, struct err *err)
{
    if (copy_text(out, form, n_bytes, err) < 0)
        return -1;
    if (strlen(out->memory) == n_bytes && take_params(out, out->memory, err) == 0)
        return 0;
    if (strlen(out->memory) != n_bytes)
        err_set(err, ERR_INVALID, "a form with a zero byte in it");
    url_fini(out);
    return -1;
}

void url_fini(struct url *url)
{
    free(url->memory);
    memset(url, 0, sizeof(*url));
    url->path = "";
}

const char *url_param(const struct url *url, const char *name)
{
    for (int i = 0; i < url->n_params; i++)
        if (strcmp(url->params[i].name, name) == 0)
            return url->params[i].value;
    return NULL;
}

int url_param_int(const struct url *url, const char *name, int64_t min, int64_t max,
                  int64_t otherwise, int64_t *out, struct err *err)
{
    const char *text = url_param(url, name);
    char *end;
    long long value;

    *out = otherwise;
    if (!text)
        return 0;
    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno || end == text || *end || isspace((unsigned char)*text) || value < min ||
        value > max)
        return err_set(err, ERR_INVALID, "%s is a whole number from %lld to %lld", name,
                       (long long)min, (long long)max);
    *out = value;
    return 0;
}

int url_check_params(const struct url *url, const char *const *known, struct err *err)
{
    for (int i = 0; i < url->n_params; i++) {
        const char *const *name = known;

        while (*name && strcmp(*name, url->params[i].name) != 0)
            name++;
        if (!*name)
            return err_set(err, ERR_INVALID, "no parameter '%s' here",
                           url->params[i].name);
    }
    return 0;
}

/* ---- headers ---- */

static bool is_port(const char *text)
{
    if (*text == '\0')
        return true;
    return *text == ':' && strspn(text + 1, "0123456789") == strlen(text + 1);
}

bool url_host_is_loopback(const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};

    for (size_t i = 0; host && i < sizeof(names) / sizeof(names[0]); i++) {
        size_t n = strlen(names[i]);

        if (strncasecmp(host, names[i], n) == 0 && is_port(host + n))
            return true;
    }
    return false;
}

const char *url_find_cookie(const char *header, const char *name, size_t *n_bytes)
{
    size_t n_name = strlen(name);

    while (header && *header) {
        header += strspn(header, " ;");
        if (strncmp(header, name, n_name) == 0 && header[n_name] == '=') {
            *n_bytes = strcspn(header + n_name + 1, "; ");
            return header + n_name + 1;
        }
        header += strcspn(header, ";");
    }
    return NULL;
}
