/* keys.h - who may speak to a coordinator over a network, and as what
 *
 * A key is a CURVE pair of ZeroMQ (Curve25519; https://rfc.zeromq.org/spec/26/) with a name
 * and a role. Texts of 40 characters (Z85) stand for its 32 bytes.
 *
 * A *key file* is all that a client or an agent on another machine needs:
 *
 *     vneva-key 1
 *     name alice
 *     role user
 *     public <40 characters>
 *     secret <40 characters>
 *     coordinator <its public key>
 *     endpoint tcp://head:7777
 *
 * The last two are missing in a coordinator's own, whose role is `coordinator`. It is the
 * user's own, of mode 0600, and no symbolic link, else it is refused.
 *
 * A *home* has keys/coordinator.key and keys/authorized, with a line for every key that
 * may connect: role, name, public key. The folder has mode 0700. Who changes the list holds
 * a lock on keys/lock and puts a new file in its place, so that a reader sees the old or
 * the new one, also after a crash. Names are unique in it, and so are public keys.
 *
 * Owns: nothing but lists. Secrets are cleared by key_fini and in every buffer here.
 * Threads: any; the lock is between processes too.
 */
#ifndef VNEVA_COMMON_NET_KEYS_H
#define VNEVA_COMMON_NET_KEYS_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define KEY_TEXT_BYTES 41      /* a key in Z85, with its NUL */
#define KEY_NAME_BYTES 64      /* letters, digits, '.', '_', '-'; with its NUL */
#define KEY_ENDPOINT_BYTES 320 /* the longest host name, and more */
#define KEYS_AUTHORIZED_MAX 10000

enum key_role {
    KEY_NONE = 0,
    KEY_ADMIN,  /* may do all */
    KEY_USER,   /* submits and cancels jobs, and looks at all */
    KEY_WORKER, /* an agent: registers and reports */
    KEY_VIEWER, /* looks, changes nothing */
    KEY_COORDINATOR,
    KEY_ROLE_COUNT
};

struct key {
    char name[KEY_NAME_BYTES];
    enum key_role role;
    char public_key[KEY_TEXT_BYTES], secret[KEY_TEXT_BYTES];
    char coordinator[KEY_TEXT_BYTES];  /* its public key; "" in its own file */
    char endpoint[KEY_ENDPOINT_BYTES]; /* where it listens; "": not known */
};

/* A line of keys/authorized. */
struct authorized {
    char name[KEY_NAME_BYTES];
    enum key_role role;
    char public_key[KEY_TEXT_BYTES];
};

struct authorized_list {
    struct authorized *items; /* in order of public_key */
    size_t n_items;
};

const char *key_role_name(enum key_role role); /* "admin" */
/* One of those a key may be given: not coordinator. ERR_INVALID names them. */
int key_role_parse(enum key_role *out, const char *text, struct err *err);
int key_check_name(const char *name, struct err *err);
int key_check_public(const char *public_key, struct err *err);

/* ---- one key ---- */

/* Makes a pair; coordinator and endpoint are "". */
int key_create(struct key *out, const char *name, enum key_role role, struct err *err);
/* Whom it is for: the coordinator's public key and where it listens ("": not known). */
int key_set_coordinator(struct key *key, const char *public_key, const char *endpoint,
                        struct err *err);
/* What the coordinator is to know of it: all but the secret. */
struct authorized key_authorized(const struct key *key);
/* Clears the secret. */
void key_fini(struct key *key);
/* Writes a new file of mode 0600, durably; ERR_EXISTS when there is one. */
int key_write(const struct key *key, const char *path, struct err *err);
/* ERR_NOT_FOUND; ERR_DENIED for a file that others may read, or that is not the user's;
 * ERR_FORMAT. */
int key_read(struct key *out, const char *path, struct err *err);

/* ---- the keys of a home ---- */

/* Makes folder, pair and an empty list, as far as they are missing; `coordinator` (may be
 * NULL) is its pair and *is_new (may be NULL) whether that was made now. */
int keys_init(const char *home, struct key *coordinator, bool *is_new, struct err *err);
/* The pair; ERR_NOT_FOUND says to make it with `vneva keys init`. */
int keys_read_coordinator(struct key *out, const char *home, struct err *err);

/* Adds keys, all of them or none, in one write. One that is there already under the same
 * name, role and public key is fine; ERR_EXISTS when only its name or key is. */
int keys_authorize(const char *home, const struct authorized *add, size_t n_add,
                   struct err *err);
/* Removes the keys of these names, all or none. ERR_NOT_FOUND. */
int keys_revoke(const char *home, const char *const *names, size_t n_names,
                struct err *err);
/* The list; ERR_NOT_FOUND as keys_read_coordinator. authorized_fini frees it. */
int keys_read_authorized(struct authorized_list *out, const char *home, struct err *err);
const struct authorized *authorized_find(const struct authorized_list *list,
                                         const char *public_key); /* NULL: not there */
void authorized_fini(struct authorized_list *list);

/* Where the coordinator of this home listens for others: the file HOME/endpoint, which it
 * writes when it is ready to answer there and removes at its end. */
int keys_read_endpoint(char out[KEY_ENDPOINT_BYTES], const char *home, struct err *err);
int keys_write_endpoint(const char *home, const char *endpoint, struct err *err);
int keys_remove_endpoint(const char *home, struct err *err);

#endif
