/* vneva keys: who may speak to the coordinator of this home over a network. Works on the
 * home's files; a coordinator that runs sees the change by itself. */
#include "jobs/client/client.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where the home's coordinator listens, or is said to; "" with a word when not known. */
static int find_endpoint(struct client *client, const struct args *args,
                         char out[KEY_ENDPOINT_BYTES], struct err *err)
{
    const char *given = args_value(args, "endpoint");
    struct err why;

    out[0] = '\0';
    if (given && strlen(given) >= KEY_ENDPOINT_BYTES)
        return err_set(err, ERR_LIMIT, "endpoint of more than %d bytes",
                       KEY_ENDPOINT_BYTES - 1);
    if (given) {
        memcpy(out, given, strlen(given) + 1);
        return net_check_remote(given, err);
    }
    if (keys_read_endpoint(out, client->home, &why) == 0)
        return 0;
    out[0] = '\0';
    fprintf(client->err,
            "vneva: the coordinator listens on no network yet (`vneva up --listen`), so "
            "the key\nnames no endpoint; say it with --endpoint, or to who uses it\n");
    return 0;
}

static int read_role(enum key_role *out, const struct args *args, struct err *err)
{
    const char *role = args_value(args, "role");

    if (!role)
        return err_set(err, ERR_INVALID,
                       "--role is missing: admin, user, worker or viewer");
    return key_role_parse(out, role, err);
}

/* NAME.key here, unless --out says another file. */
static int out_path(char *out, const struct args *args, struct err *err)
{
    const char *given = args_value(args, "out");

    return given ? fs_path(out, err, "%s", given)
                 : fs_path(out, err, "%s.key", args->words[1]);
}

static int one_name(const struct args *args, struct err *err)
{
    if (args->n_words != 2)
        return err_set(err, ERR_INVALID, "usage: vneva keys %s NAME (--help says more)",
                       args->words[0]);
    return key_check_name(args->words[1], err);
}

/* ---- init ---- */

static int init(struct client *client, const struct args *args, struct err *err)
{
    struct key coordinator;
    bool is_new;

    if (args->n_words > 1)
        return err_set(err, ERR_INVALID, "usage: vneva keys init");
    if (keys_init(client->home, &coordinator, &is_new, err) < 0)
        return -1;
    fprintf(client->out, "%s in '%s/keys'; its public key is %s\n",
            is_new ? "made a key for the coordinator" : "the coordinator has a key",
            client->home, coordinator.public_key);
    key_fini(&coordinator);
    return 0;
}

/* ---- add ---- */

static int authorize(struct client *client, const struct key *key, struct err *err)
{
    struct authorized one = key_authorized(key);

    return keys_authorize(client->home, &one, 1, err);
}

/* The pair was made elsewhere, so that its secret never travels. */
static int add_public(struct client *client, const struct args *args, enum key_role role,
                      struct err *err)
{
    const char *public_key = args_value(args, "public");
    struct key key = {.role = role};

    if (args_has(args, "out") || args_has(args, "endpoint"))
        return err_set(err, ERR_INVALID,
                       "--public adds a key whose file is there already: it goes with "
                       "neither --out nor --endpoint");
    if (key_check_public(public_key, err) < 0)
        return -1;
    memcpy(key.name, args->words[1], strlen(args->words[1]));
    memcpy(key.public_key, public_key, strlen(public_key));
    if (authorize(client, &key, err) < 0)
        return -1;
    fprintf(client->out, "%s may connect as %s\n", key.name, key_role_name(role));
    return 0;
}

/* File first: a key that is authorized and lost would keep its name. */
static int add_pair(struct client *client, const struct args *args, enum key_role role,
                    struct key *key, struct err *err)
{
    char path[FS_PATH_MAX], endpoint[KEY_ENDPOINT_BYTES];
    struct key coordinator;
    int rc;

    if (key_create(key, args->words[1], role, err) < 0 ||
        find_endpoint(client, args, endpoint, err) < 0 || out_path(path, args, err) < 0 ||
        keys_read_coordinator(&coordinator, client->home, err) < 0)
        return -1;
    rc = key_set_coordinator(key, coordinator.public_key, endpoint, err);
    key_fini(&coordinator);
    if (rc < 0)
        return -1;
    if (key_write(key, path, err) < 0)
        return -1;
    if (authorize(client, key, err) < 0) {
        unlink(path);
        return -1;
    }
    fprintf(client->out,
            "%s may connect as %s with the file '%s'; whoever has it is %s, so hand it "
            "over\nwhere nobody else can read it\n",
            key->name, key_role_name(role), path, key->name);
    return 0;
}

static int add(struct client *client, const struct args *args, struct err *err)
{
    enum key_role role = KEY_NONE;
    struct key key = {.role = KEY_NONE};
    int rc;

    if (one_name(args, err) < 0 || read_role(&role, args, err) < 0)
        return -1;
    if (args_has(args, "public"))
        return add_public(client, args, role, err);
    rc = add_pair(client, args, role, &key, err);
    key_fini(&key);
    return rc;
}

/* ---- pair ---- */

/* On the machine that is to use it: needs no home, authorizes nobody. */
static int make_pair(struct client *client, const struct args *args, enum key_role role,
                     struct key *key, struct err *err)
{
    const char *coordinator = args_value(args, "coordinator");
    const char *endpoint = args_value(args, "endpoint");
    char path[FS_PATH_MAX];

    if (!coordinator)
        return err_set(err, ERR_INVALID,
                       "--coordinator KEY is missing: the coordinator's public key, as "
                       "`vneva keys list` shows it where it runs");
    if (endpoint && net_check_remote(endpoint, err) < 0)
        return -1;
    if (key_create(key, args->words[1], role, err) < 0 ||
        key_set_coordinator(key, coordinator, endpoint ? endpoint : "", err) < 0 ||
        out_path(path, args, err) < 0)
        return -1;
    if (key_write(key, path, err) < 0)
        return -1;
    fprintf(client->out,
            "made '%s'; where the coordinator runs:\nvneva keys add %s --role %s "
            "--public '%s'\n",
            path, key->name, key_role_name(role), key->public_key);
    return 0;
}

static int pair(struct client *client, const struct args *args, struct err *err)
{
    enum key_role role = KEY_NONE;
    struct key key = {.role = KEY_NONE};
    int rc;

    if (one_name(args, err) < 0 || read_role(&role, args, err) < 0)
        return -1;
    rc = make_pair(client, args, role, &key, err);
    key_fini(&key);
    return rc;
}

/* ---- revoke, list ---- */

static int revoke(struct client *client, const struct args *args, struct err *err)
{
    if (args->n_words < 2)
        return err_set(err, ERR_INVALID, "usage: vneva keys revoke NAME ...");
    if (keys_revoke(client->home, &args->words[1], (size_t)args->n_words - 1, err) < 0)
        return -1;
    for (int i = 1; i < args->n_words; i++)
        fprintf(client->out, "%s may no longer connect\n", args->words[i]);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct authorized *one = a, *other = b;

    return strcmp(one->name, other->name);
}

static struct json *authorized_json(const struct authorized *key, struct err *err)
{
    struct json *one = json_new(JSON_OBJECT);

    if (json_set(one, "name", json_new_string(key->name), err) == 0 &&
        json_set(one, "role", json_new_string(key_role_name(key->role)), err) == 0 &&
        json_set(one, "public_key", json_new_string(key->public_key), err) == 0)
        return one;
    json_free(one);
    return NULL;
}

/* Unless making it failed. */
static int print_json(struct client *client, struct json *json, int rc)
{
    if (rc == 0)
        client_print_json(client, json);
    json_free(json);
    return rc;
}

static int list_json(struct client *client, const struct key *coordinator,
                     const char *endpoint, const struct authorized_list *list,
                     struct err *err)
{
    struct json *all = json_new(JSON_OBJECT), *keys = json_new(JSON_ARRAY), *one;
    int rc = 0;

    for (size_t i = 0; i < list->n_items && rc == 0; i++) {
        one = authorized_json(&list->items[i], err);
        rc = one ? json_append(keys, one, err) : -1;
    }
    if (rc == 0 &&
        json_set(all, "coordinator", json_new_string(coordinator->public_key), err) ==
            0 &&
        json_set(all, "endpoint", json_new_string(endpoint), err) == 0)
        return print_json(client, all, json_set(all, "keys", keys, err));
    json_free(keys);
    return print_json(client, all, -1);
}

static void list_text(struct client *client, const struct key *coordinator,
                      const char *endpoint, const struct authorized_list *list)
{
    int width = (int)strlen("NAME");

    for (size_t i = 0; i < list->n_items; i++)
        if ((int)strlen(list->items[i].name) > width)
            width = (int)strlen(list->items[i].name);
    fprintf(client->out, "coordinator %s  %s\n\n", coordinator->public_key,
            *endpoint ? endpoint : "listens on no network");
    fprintf(client->out, "%-*s  ROLE    PUBLIC KEY\n", width, "NAME");
    for (size_t i = 0; i < list->n_items; i++)
        fprintf(client->out, "%-*s  %-6s  %s\n", width, list->items[i].name,
                key_role_name(list->items[i].role), list->items[i].public_key);
}

static int list(struct client *client, const struct args *args, struct err *err)
{
    struct authorized_list keys;
    char endpoint[KEY_ENDPOINT_BYTES];
    struct key coordinator;
    int rc = 0;

    if (args->n_words > 1)
        return err_set(err, ERR_INVALID, "usage: vneva keys list [--json]");
    if (keys_read_coordinator(&coordinator, client->home, err) < 0)
        return -1;
    if (keys_read_authorized(&keys, client->home, err) < 0) {
        key_fini(&coordinator);
        return -1;
    }
    if (keys.n_items)
        qsort(keys.items, keys.n_items, sizeof(*keys.items), compare_names);
    if (keys_read_endpoint(endpoint, client->home, NULL) < 0)
        endpoint[0] = '\0';
    if (args_has(args, "json"))
        rc = list_json(client, &coordinator, endpoint, &keys, err);
    else
        list_text(client, &coordinator, endpoint, &keys);
    key_fini(&coordinator);
    authorized_fini(&keys);
    return rc;
}

int cmd_keys(struct client *client, const struct args *args)
{
    static const struct {
        const char *name;
        int (*run)(struct client *client, const struct args *args, struct err *err);
    } verbs[] = {
        {"init", init}, {"add", add}, {"pair", pair}, {"revoke", revoke}, {"list", list},
    };
    struct err err;

    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i].name, args->words[0]) == 0)
            return verbs[i].run(client, args, &err) < 0 ? client_fail(client, &err)
                                                        : EXIT_DONE;
    err_set(&err, ERR_INVALID, "no 'keys %s': there are init, add, pair, revoke and list",
            args->words[0]);
    return client_fail(client, &err);
}
