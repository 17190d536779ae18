/* The keys of a home: the coordinator's own pair, and the list of those authorized. */
#include "common/base/fs.h"
#include "common/net/keys.h"
#include "common/net/keys_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define AUTHORIZED_HEADER "# role name public-key; changed by `vneva keys`\n"
#define AUTHORIZED_LINE_MAX (KEY_NAME_BYTES + KEY_TEXT_BYTES + 16)
#define AUTHORIZED_FILE_MAX (KEYS_AUTHORIZED_MAX * AUTHORIZED_LINE_MAX)
#define ENDPOINT_FILE "endpoint"

static int path_of(char *out, const char *home, const char *name, struct err *err)
{
    return fs_path(out, err, "%s/keys/%s", home, name);
}

static int say_init(const char *home, struct err *err)
{
    return err_set(err, ERR_NOT_FOUND,
                   "'%s' has no keys yet; make them with `vneva keys init`", home);
}

/* ---- the list ---- */

static int compare_keys(const void *a, const void *b)
{
    const struct authorized *one = a, *other = b;

    return strcmp(one->public_key, other->public_key);
}

static int compare_names(const void *a, const void *b)
{
    const struct authorized *one = a, *other = b;

    return strcmp(one->name, other->name);
}

void authorized_fini(struct authorized_list *list)
{
    free(list->items);
    *list = (struct authorized_list){NULL, 0};
}

const struct authorized *authorized_find(const struct authorized_list *list,
                                         const char *public_key)
{
    struct authorized key;

    if (!list->items || strlen(public_key) >= sizeof(key.public_key))
        return NULL;
    memcpy(key.public_key, public_key, strlen(public_key) + 1);
    return bsearch(&key, list->items, list->n_items, sizeof(key), compare_keys);
}

static int check_authorized(const struct authorized *one, struct err *err)
{
    if (one->role <= KEY_NONE || one->role >= KEY_COORDINATOR)
        return err_set(err, ERR_INVALID, "key '%s' has no role", one->name);
    if (key_check_name(one->name, err) < 0)
        return -1;
    return key_check_public(one->public_key, err);
}

static int parse_line(struct authorized *out, const char *line, struct err *err)
{
    char role[16], name[KEY_NAME_BYTES], public_key[KEY_TEXT_BYTES];
    int n_read = 0;

    if (sscanf(line, "%15s %63s %40s%n", role, name, public_key, &n_read) != 3 ||
        line[n_read])
        return err_set(err, ERR_FORMAT, "it is not a role, a name and a public key");
    memset(out, 0, sizeof(*out));
    memcpy(out->name, name, strlen(name));
    memcpy(out->public_key, public_key, strlen(public_key));
    if (key_role_parse(&out->role, role, err) < 0)
        return -1;
    return check_authorized(out, err);
}

/* A copy at the end, out of order. */
static int append(struct authorized_list *list, const struct authorized *one,
                  struct err *err)
{
    struct authorized *items;

    if (list->n_items >= KEYS_AUTHORIZED_MAX)
        return err_set(err, ERR_LIMIT, "more than %d keys", KEYS_AUTHORIZED_MAX);
    items = realloc(list->items, (list->n_items + 1) * sizeof(*items));
    if (!items)
        return err_set(err, ERR_NOMEM, "no memory for %zu keys", list->n_items + 1);
    items[list->n_items++] = *one;
    list->items = items;
    return 0;
}

static void sort(struct authorized_list *list,
                 int (*compare)(const void *a, const void *b))
{
    if (list->items && list->n_items)
        qsort(list->items, list->n_items, sizeof(*list->items), compare);
}

static int parse_list(struct authorized_list *out, char *text, struct err *err)
{
    struct authorized one;
    char *rest = NULL;
    int number = 0;

    for (char *line = text; line && *line; line = rest) {
        rest = strchr(line, '\n');
        if (rest)
            *rest++ = '\0';
        number++;
        if (!line[0] || line[0] == '#')
            continue;
        if (parse_line(&one, line, err) < 0 || append(out, &one, err) < 0)
            return err_wrap(err, "line %d", number);
    }
    sort(out, compare_keys);
    for (size_t i = 1; i < out->n_items; i++)
        if (compare_keys(&out->items[i - 1], &out->items[i]) == 0)
            return err_set(err, ERR_FORMAT, "'%s' and '%s' have the same key",
                           out->items[i - 1].name, out->items[i].name);
    return 0;
}

int keys_read_authorized(struct authorized_list *out, const char *home, struct err *err)
{
    char path[FS_PATH_MAX], *text;
    size_t n_bytes;
    int rc;

    *out = (struct authorized_list){NULL, 0};
    if (path_of(path, home, "authorized", err) < 0)
        return -1;
    text = malloc(AUTHORIZED_FILE_MAX);
    if (!text)
        return err_set(err, ERR_NOMEM, "no memory for '%s'", path);
    rc = keys_file_read(path, text, AUTHORIZED_FILE_MAX, &n_bytes, err);
    if (rc < 0 && err && err->code == ERR_NOT_FOUND)
        say_init(home, err);
    if (rc == 0 && parse_list(out, text, err) < 0) {
        authorized_fini(out);
        rc = err_wrap(err, "'%s'", path);
    }
    free(text);
    return rc;
}

static int write_authorized(struct authorized_list *list, const char *home,
                            struct err *err)
{
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    int rc;

    sort(list, compare_names);
    buf_add_str(&text, AUTHORIZED_HEADER);
    for (size_t i = 0; i < list->n_items; i++)
        buf_printf(&text, "%s %s %s\n", key_role_name(list->items[i].role),
                   list->items[i].name, list->items[i].public_key);
    rc = buf_check(&text, err);
    if (rc == 0)
        rc = path_of(path, home, "authorized", err);
    if (rc == 0)
        rc = keys_file_replace(path, text.data, text.n_bytes, err);
    buf_fini(&text);
    return rc;
}

/* ---- changing it ---- */

/* Held until the descriptor is closed, or the process ends. */
static int lock_keys(const char *home, struct err *err)
{
    char path[FS_PATH_MAX];
    int fd;

    if (path_of(path, home, "lock", err) < 0)
        return -1;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == ENOENT)
        return say_init(home, err);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR) {
            err_set(err, ERR_IO, "cannot lock '%s': %s", path, strerror(errno));
            close(fd);
            return -1;
        }
    return fd;
}

static struct authorized *find_name(const struct authorized_list *list, const char *name)
{
    for (size_t i = 0; i < list->n_items; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    return NULL;
}

static bool is_same(const struct authorized *a, const struct authorized *b)
{
    return a->role == b->role && strcmp(a->name, b->name) == 0 &&
           strcmp(a->public_key, b->public_key) == 0;
}

/* Keeps the order that authorized_find needs. */
static int add_one(struct authorized_list *list, const struct authorized *add,
                   struct err *err)
{
    const struct authorized *known = authorized_find(list, add->public_key);

    if (check_authorized(add, err) < 0)
        return -1;
    if (known && is_same(known, add))
        return 0;
    if (known)
        return err_set(err, ERR_EXISTS, "the key of '%s' is there already, as %s '%s'",
                       add->name, key_role_name(known->role), known->name);
    if (find_name(list, add->name))
        return err_set(err, ERR_EXISTS,
                       "there is a key of the name '%s' already; revoke it first, or "
                       "take another name",
                       add->name);
    if (append(list, add, err) < 0)
        return -1;
    sort(list, compare_keys);
    return 0;
}

static int remove_one(struct authorized_list *list, const char *name, struct err *err)
{
    struct authorized *one = find_name(list, name);
    size_t at;

    if (!one)
        return err_set(err, ERR_NOT_FOUND, "no key has the name '%.80s'", name);
    at = (size_t)(one - list->items);
    memmove(one, one + 1, (list->n_items - at - 1) * sizeof(*one));
    list->n_items--;
    return 0;
}

/* Adds keys and removes others by their names. */
static int change(const char *home, const struct authorized *add, size_t n_add,
                  const char *const *names, size_t n_names, struct err *err)
{
    struct authorized_list list = {NULL, 0};
    int lock = lock_keys(home, err), rc;

    if (lock < 0)
        return -1;
    rc = keys_read_authorized(&list, home, err);
    for (size_t i = 0; i < n_add && rc == 0; i++)
        rc = add_one(&list, &add[i], err);
    for (size_t i = 0; i < n_names && rc == 0; i++)
        rc = remove_one(&list, names[i], err);
    if (rc == 0)
        rc = write_authorized(&list, home, err);
    authorized_fini(&list);
    close(lock);
    return rc;
}

int keys_authorize(const char *home, const struct authorized *add, size_t n_add,
                   struct err *err)
{
    return change(home, add, n_add, NULL, 0, err);
}

int keys_revoke(const char *home, const char *const *names, size_t n_names,
                struct err *err)
{
    return change(home, NULL, 0, names, n_names, err);
}

/* ---- the coordinator's own ---- */

int keys_read_coordinator(struct key *out, const char *home, struct err *err)
{
    char path[FS_PATH_MAX];
    struct err why;

    if (path_of(path, home, "coordinator.key", err) < 0)
        return -1;
    if (key_read(out, path, &why) < 0)
        return why.code == ERR_NOT_FOUND ? say_init(home, err)
                                         : err_set(err, why.code, "%s", why.text);
    if (out->role == KEY_COORDINATOR)
        return 0;
    key_fini(out);
    return err_set(err, ERR_FORMAT, "'%s' is not the key of a coordinator", path);
}

/* Under the lock. */
static int make_missing(const char *home, bool *is_new, struct err *err)
{
    char path[FS_PATH_MAX];
    struct key key;
    int rc;

    *is_new = false;
    if (path_of(path, home, "authorized", err) < 0)
        return -1;
    if (!fs_exists(path) &&
        keys_file_create(path, AUTHORIZED_HEADER, strlen(AUTHORIZED_HEADER), err) < 0)
        return -1;
    if (path_of(path, home, "coordinator.key", err) < 0)
        return -1;
    if (fs_exists(path))
        return 0;
    *is_new = true;
    rc = key_create(&key, "coordinator", KEY_COORDINATOR, err);
    if (rc == 0)
        rc = key_write(&key, path, err);
    key_fini(&key);
    return rc;
}

static int check_folder(const char *folder, struct err *err)
{
    struct stat st;

    if (stat(folder, &st) < 0)
        return err_set(err, ERR_IO, "cannot look at '%s': %s", folder, strerror(errno));
    if (st.st_uid == geteuid() && !(st.st_mode & (S_IRWXG | S_IRWXO)))
        return 0;
    return err_set(err, ERR_DENIED,
                   "folder '%s' is not private; make it so with chmod 700", folder);
}

int keys_init(const char *home, struct key *coordinator, bool *is_new, struct err *err)
{
    char folder[FS_PATH_MAX];
    bool is_made;
    int lock, rc;

    if (path_of(folder, home, "", err) < 0 || fs_make_dirs(home, 0700, err) < 0 ||
        fs_make_dirs(folder, 0700, err) < 0)
        return -1;
    if (check_folder(folder, err) < 0)
        return -1;
    lock = lock_keys(home, err);
    if (lock < 0)
        return -1;
    rc = make_missing(home, is_new ? is_new : &is_made, err);
    close(lock);
    if (rc == 0 && coordinator)
        rc = keys_read_coordinator(coordinator, home, err);
    return rc;
}

/* ---- where it listens ---- */

static int endpoint_path(char *out, const char *home, struct err *err)
{
    return fs_path(out, err, "%s/" ENDPOINT_FILE, home);
}

int keys_read_endpoint(char out[KEY_ENDPOINT_BYTES], const char *home, struct err *err)
{
    char path[FS_PATH_MAX];
    size_t n_bytes;

    if (endpoint_path(path, home, err) < 0 ||
        keys_file_read(path, out, KEY_ENDPOINT_BYTES, &n_bytes, err) < 0)
        return -1;
    out[strcspn(out, "\n")] = '\0';
    return 0;
}

int keys_write_endpoint(const char *home, const char *endpoint, struct err *err)
{
    char path[FS_PATH_MAX], line[KEY_ENDPOINT_BYTES];
    int n = snprintf(line, sizeof(line), "%s\n", endpoint);

    if (n >= (int)sizeof(line))
        return err_set(err, ERR_LIMIT, "endpoint of more than %zu bytes",
                       sizeof(line) - 2);
    if (endpoint_path(path, home, err) < 0)
        return -1;
    return keys_file_replace(path, line, (size_t)n, err);
}

int keys_remove_endpoint(const char *home, struct err *err)
{
    char path[FS_PATH_MAX];

    if (endpoint_path(path, home, err) < 0)
        return -1;
    if (unlink(path) < 0 && errno != ENOENT)
        return err_set(err, ERR_IO, "cannot remove '%s': %s", path, strerror(errno));
    return 0;
}
