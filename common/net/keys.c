#define _DEFAULT_SOURCE /* explicit_bzero */
/* One key: its pair, its file. See keys.h. */
#include "common/net/keys.h"
#include "common/net/keys_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define KEY_FILE_MAX 4096 /* bytes; a true one has some 300 */
#define KEY_HEADER "vneva-key 1"

static const char *const role_names[KEY_ROLE_COUNT] = {
    [KEY_NONE] = "none",     [KEY_ADMIN] = "admin",   [KEY_USER] = "user",
    [KEY_WORKER] = "worker", [KEY_VIEWER] = "viewer", [KEY_COORDINATOR] = "coordinator",
};

const char *key_role_name(enum key_role role)
{
    return role_names[role];
}

int key_role_parse(enum key_role *out, const char *text, struct err *err)
{
    for (int role = KEY_ADMIN; role < KEY_COORDINATOR; role++)
        if (strcmp(text, role_names[role]) == 0) {
            *out = (enum key_role)role;
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "no role '%.40s'; there are admin, user, worker and viewer", text);
}

int key_check_name(const char *name, struct err *err)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && (!i || !strchr("._-", name[i])))
            n = 0;
    if (n && n < KEY_NAME_BYTES)
        return 0;
    return err_set(err, ERR_INVALID,
                   "'%.80s' is no name for a key: it has 1 to %d letters, digits, '.', "
                   "'_' and '-', and begins with a letter or digit",
                   name, KEY_NAME_BYTES - 1);
}

int key_check_public(const char *public_key, struct err *err)
{
    uint8_t bytes[32];

    if (strlen(public_key) == KEY_TEXT_BYTES - 1 && zmq_z85_decode(bytes, public_key))
        return 0;
    return err_set(err, ERR_INVALID,
                   "'%.60s' is no public key: it has %d characters (Z85)", public_key,
                   KEY_TEXT_BYTES - 1);
}

int key_create(struct key *out, const char *name, enum key_role role, struct err *err)
{
    memset(out, 0, sizeof(*out));
    if (key_check_name(name, err) < 0)
        return -1;
    snprintf(out->name, sizeof(out->name), "%s", name);
    out->role = role;
    if (zmq_curve_keypair(out->public_key, out->secret) < 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "cannot make a pair of keys: %s; libzmq must have been built "
                       "with CURVE",
                       zmq_strerror(errno));
    return 0;
}

int key_set_coordinator(struct key *key, const char *public_key, const char *endpoint,
                        struct err *err)
{
    size_t n_bytes = strlen(endpoint);

    if (key_check_public(public_key, err) < 0)
        return -1;
    if (n_bytes >= sizeof(key->endpoint))
        return err_set(err, ERR_LIMIT, "endpoint of more than %zu bytes",
                       sizeof(key->endpoint) - 1);
    memcpy(key->coordinator, public_key, sizeof(key->coordinator));
    memcpy(key->endpoint, endpoint, n_bytes + 1);
    return 0;
}

struct authorized key_authorized(const struct key *key)
{
    struct authorized one = {.role = key->role};

    memcpy(one.name, key->name, sizeof(one.name));
    memcpy(one.public_key, key->public_key, sizeof(one.public_key));
    return one;
}

void key_fini(struct key *key)
{
    explicit_bzero(key, sizeof(*key));
}

int key_write(const struct key *key, const char *path, struct err *err)
{
    char text[KEY_FILE_MAX];
    int n = snprintf(text, sizeof(text), "%s\nname %s\nrole %s\npublic %s\nsecret %s\n",
                     KEY_HEADER, key->name, key_role_name(key->role), key->public_key,
                     key->secret);
    int rc;

    if (key->coordinator[0])
        n += snprintf(text + n, sizeof(text) - (size_t)n, "coordinator %s\n",
                      key->coordinator);
    if (key->endpoint[0])
        n += snprintf(text + n, sizeof(text) - (size_t)n, "endpoint %s\n", key->endpoint);
    rc = keys_file_create(path, text, (size_t)n, err);
    explicit_bzero(text, sizeof(text));
    return rc;
}

/* ---- reading ---- */

/* A field of the file: where its text goes. */
static char *field_of(struct key *key, const char *word, size_t *n_bytes)
{
    const struct {
        const char *word;
        char *text;
        size_t n_bytes;
    } fields[] = {
        {"name", key->name, sizeof(key->name)},
        {"public", key->public_key, sizeof(key->public_key)},
        {"secret", key->secret, sizeof(key->secret)},
        {"coordinator", key->coordinator, sizeof(key->coordinator)},
        {"endpoint", key->endpoint, sizeof(key->endpoint)},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (strcmp(fields[i].word, word) == 0) {
            *n_bytes = fields[i].n_bytes;
            return fields[i].text;
        }
    return NULL;
}

/* "word value", whose text is not repeated in an error: it may be the secret. */
static int read_line(struct key *key, char *line, int number, struct err *err)
{
    char *value = strchr(line, ' '), *field;
    size_t n_bytes = 0;

    if (!value)
        return err_set(err, ERR_FORMAT, "line %d is not a word and its value", number);
    *value++ = '\0';
    if (strcmp(line, "role") == 0) {
        if (strcmp(value, role_names[KEY_COORDINATOR]) != 0)
            return key_role_parse(&key->role, value, err);
        key->role = KEY_COORDINATOR;
        return 0;
    }
    field = field_of(key, line, &n_bytes);
    if (!field || field[0] || !value[0] || strlen(value) >= n_bytes)
        return err_set(err, ERR_FORMAT,
                       "line %d has an unknown word, one that came "
                       "before, or too long a value",
                       number);
    memcpy(field, value, strlen(value) + 1);
    return 0;
}

static int check_read(const struct key *key, struct err *err)
{
    char derived[KEY_TEXT_BYTES];
    bool is_own = key->role == KEY_COORDINATOR;
    uint8_t bytes[32];
    int rc = 0;

    if (key->role == KEY_NONE)
        return err_set(err, ERR_FORMAT, "it has no role");
    if (key_check_name(key->name, err) < 0)
        return -1;
    if (strlen(key->secret) != KEY_TEXT_BYTES - 1 ||
        !zmq_z85_decode(bytes, key->secret) ||
        zmq_curve_public(derived, key->secret) < 0 ||
        strcmp(derived, key->public_key) != 0)
        rc = err_set(err, ERR_FORMAT, "its secret and its public key are no pair");
    explicit_bzero(bytes, sizeof(bytes));
    if (rc == 0 && !is_own && key_check_public(key->coordinator, err) < 0)
        rc = err_wrap(err, "the coordinator's key");
    return rc;
}

static int parse(struct key *out, char *text, struct err *err)
{
    char *rest = NULL, *line = strtok_r(text, "\n", &rest);
    int number = 1;

    if (!line || strcmp(line, KEY_HEADER) != 0)
        return err_set(err, ERR_FORMAT, "it does not begin with '%s'", KEY_HEADER);
    while ((line = strtok_r(NULL, "\n", &rest)))
        if (read_line(out, line, ++number, err) < 0)
            return -1;
    return check_read(out, err);
}

int key_read(struct key *out, const char *path, struct err *err)
{
    char text[KEY_FILE_MAX];
    size_t n_bytes;
    int rc;

    memset(out, 0, sizeof(*out));
    if (keys_file_read(path, text, sizeof(text), &n_bytes, err) < 0)
        return -1;
    rc = parse(out, text, err);
    explicit_bzero(text, sizeof(text));
    if (rc < 0) {
        key_fini(out);
        if (err)
            err->code = ERR_FORMAT;
        return err_wrap(err, "'%s' is no key file", path);
    }
    return 0;
}
