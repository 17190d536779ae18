/* Key files and the list of a home: what is written, and what is refused. */
#include "common/base/fs.h"
#include "common/net/keys.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define LONG_NAME "0123456789012345678901234567890123456789012345678901234567890123"

struct place {
    char home[64], file[96], list[96];
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    struct err err;

    if (!place)
        return -1;
    strcpy(place->home, "/tmp/vneva-keys-XXXXXX");
    if (!mkdtemp(place->home) || keys_init(place->home, NULL, NULL, &err) < 0)
        return -1;
    snprintf(place->file, sizeof(place->file), "%s/alice.key", place->home);
    snprintf(place->list, sizeof(place->list), "%s/keys/authorized", place->home);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;

    fs_remove_tree(place->home, NULL);
    free(place);
    return 0;
}

static unsigned mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

/* A key file of alice, at place->file. */
static void write_alice(const struct place *place, struct key *alice)
{
    struct key coordinator;
    struct err err = {ERR_NONE, ""};

    assert_int_equal(keys_read_coordinator(&coordinator, place->home, &err), 0);
    assert_int_equal(key_create(alice, "alice", KEY_USER, &err), 0);
    assert_int_equal(
        key_set_coordinator(alice, coordinator.public_key, "tcp://head:7777", &err), 0);
    if (key_write(alice, place->file, &err) < 0)
        fail_msg("%s", err.text);
    key_fini(&coordinator);
}

static void key_file_is_read_as_it_was_written(void **state)
{
    const struct place *place = *state;
    struct key written, read;
    struct err err;

    write_alice(place, &written);
    assert_int_equal(key_read(&read, place->file, &err), 0);
    assert_memory_equal(&read, &written, sizeof(read));
    assert_int_equal(mode_of(place->file), 0600);
    assert_int_equal(key_write(&written, place->file, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    key_fini(&read);
    for (size_t i = 0; i < sizeof(read); i++)
        assert_int_equal(((const char *)&read)[i], 0);
}

static void home_is_private_and_made_once(void **state)
{
    const struct place *place = *state;
    char path[128];
    struct key first, second;
    bool is_new = true;
    struct err err;

    assert_int_equal(keys_read_coordinator(&first, place->home, &err), 0);
    assert_int_equal(keys_init(place->home, &second, &is_new, &err), 0);
    assert_false(is_new);
    assert_string_equal(first.secret, second.secret);
    snprintf(path, sizeof(path), "%s/keys", place->home);
    assert_int_equal(mode_of(path), 0700);
    snprintf(path, sizeof(path), "%s/keys/coordinator.key", place->home);
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(mode_of(place->list), 0600);
}

static void expect_refused(const char *path, enum err_code code, const char *says)
{
    struct key key;
    struct err err = {ERR_NONE, ""};

    assert_int_equal(key_read(&key, path, &err), -1);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
}

static void key_file_open_to_others_is_refused(void **state)
{
    static const mode_t open_to_others[] = {0640, 0604, 0620, 0602, 0601, 0644, 0666};
    const struct place *place = *state;
    struct key key;

    write_alice(place, &key);
    for (size_t i = 0; i < sizeof(open_to_others) / sizeof(open_to_others[0]); i++) {
        assert_int_equal(chmod(place->file, open_to_others[i]), 0);
        expect_refused(place->file, ERR_DENIED, "chmod 600");
    }
    assert_int_equal(chmod(place->file, 0400), 0);
    assert_int_equal(key_read(&key, place->file, NULL), 0);
}

static void what_is_no_plain_file_is_refused(void **state)
{
    const struct place *place = *state;
    char path[128];
    struct key key;

    write_alice(place, &key);
    snprintf(path, sizeof(path), "%s/link.key", place->home);
    assert_int_equal(symlink(place->file, path), 0);
    expect_refused(path, ERR_DENIED, "symbolic link");
    snprintf(path, sizeof(path), "%s/fifo.key", place->home);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refused(path, ERR_DENIED, "plain file");
    expect_refused(place->home, ERR_DENIED, "plain file");
    snprintf(path, sizeof(path), "%s/none.key", place->home);
    expect_refused(path, ERR_NOT_FOUND, "none.key");
}

/* Replaces the file's text by what `change` makes of it. */
static void write_text(const char *path, const char *text, size_t n_bytes)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n_bytes, file), n_bytes);
    fclose(file);
    assert_int_equal(chmod(path, 0600), 0);
}

/* Every file that is one byte short, or has one other byte, is read as the same key or
 * refused; never crashes, never gives another pair. */
static void damaged_key_file_is_refused(void **state)
{
    const struct place *place = *state;
    struct buf text = BUF_INIT;
    struct key key, read;
    char *damaged;

    write_alice(place, &key);
    assert_int_equal(fs_read_file(&text, place->file, 4096, NULL), 0);
    damaged = malloc(text.n_bytes + 1);
    assert_non_null(damaged);
    for (size_t i = 0; i < text.n_bytes; i++) {
        write_text(place->file, text.data, i);
        if (key_read(&read, place->file, NULL) == 0)
            assert_string_equal(read.secret, key.secret);
        for (int j = 0; j < 3; j++) {
            memcpy(damaged, text.data, text.n_bytes + 1);
            damaged[i] = "\0\n "[j];
            write_text(place->file, damaged, text.n_bytes);
            if (key_read(&read, place->file, NULL) == 0)
                assert_string_equal(read.public_key, key.public_key);
        }
    }
    free(damaged);
    buf_fini(&text);
}

static void error_about_a_key_file_does_not_show_the_secret(void **state)
{
    const struct place *place = *state;
    struct buf text = BUF_INIT;
    struct key key, read;
    struct err err = {ERR_NONE, ""};

    write_alice(place, &key);
    buf_printf(&text, "vneva-key 1\nname alice\nrole user\npublic %s\nsekret %s\n",
               key.public_key, key.secret);
    write_text(place->file, text.data, text.n_bytes);
    assert_int_equal(key_read(&read, place->file, &err), -1);
    assert_int_equal(err.code, ERR_FORMAT);
    assert_null(strstr(err.text, key.secret));
    buf_fini(&text);
}

static void another_pairs_public_key_is_refused(void **state)
{
    const struct place *place = *state;
    struct key key, other;
    struct err err;

    write_alice(place, &key);
    assert_int_equal(key_create(&other, "bob", KEY_USER, &err), 0);
    memcpy(key.public_key, other.public_key, sizeof(key.public_key));
    assert_int_equal(unlink(place->file), 0);
    assert_int_equal(key_write(&key, place->file, &err), 0);
    expect_refused(place->file, ERR_FORMAT, "no pair");
}

/* ---- the list ---- */

static struct authorized one(const char *name, enum key_role role)
{
    struct authorized one;
    struct key key;

    assert_int_equal(key_create(&key, name, role, NULL), 0);
    one = key_authorized(&key);
    key_fini(&key);
    return one;
}

static size_t count(const struct place *place)
{
    struct authorized_list list;
    struct err err = {ERR_NONE, ""};
    size_t n;

    if (keys_read_authorized(&list, place->home, &err) < 0)
        fail_msg("%s", err.text);
    n = list.n_items;
    authorized_fini(&list);
    return n;
}

static void keys_are_authorized_and_revoked(void **state)
{
    const struct place *place = *state;
    struct authorized keys[] = {one("ann", KEY_ADMIN), one("bob", KEY_USER),
                                one("node-1.rack", KEY_WORKER), one("eve", KEY_VIEWER)};
    const char *gone[] = {"bob", "eve"};
    struct authorized_list list;
    struct err err;

    assert_int_equal(keys_authorize(place->home, keys, 4, &err), 0);
    assert_int_equal(keys_authorize(place->home, &keys[2], 1, &err), 0); /* the same */
    assert_int_equal(keys_read_authorized(&list, place->home, &err), 0);
    assert_int_equal(list.n_items, 4);
    for (int i = 0; i < 4; i++)
        assert_memory_equal(authorized_find(&list, keys[i].public_key), &keys[i],
                            sizeof(keys[i]));
    assert_null(authorized_find(&list, one("x", KEY_USER).public_key));
    assert_null(authorized_find(&list, ""));
    authorized_fini(&list);
    assert_int_equal(keys_revoke(place->home, gone, 2, &err), 0);
    assert_int_equal(count(place), 2);
    assert_int_equal(mode_of(place->list), 0600);
}

static void name_and_key_are_unique(void **state)
{
    const struct place *place = *state;
    struct authorized bob = one("bob", KEY_USER), other = one("bob", KEY_USER);
    struct authorized both[] = {one("carl", KEY_USER), other};
    struct err err;

    assert_int_equal(keys_authorize(place->home, &bob, 1, &err), 0);
    assert_int_equal(keys_authorize(place->home, &other, 1, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    bob.role = KEY_ADMIN; /* no second role by the back door */
    assert_int_equal(keys_authorize(place->home, &bob, 1, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(keys_authorize(place->home, both, 2, &err), -1);
    assert_int_equal(count(place), 1); /* all or none */
}

static void wrong_names_and_roles_are_refused(void **state)
{
    static const char *const names[] = {"",    "a b", "a\nb", "../x",     "-x",
                                        ".rc", "a/b", "a@b",  "\xc3\xa4", LONG_NAME};
    const struct place *place = *state;
    struct authorized good = one("good", KEY_USER), bad = good;
    const char *absent[] = {"absent"};
    struct err err;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(key_check_name(names[i], &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
    bad.role = KEY_COORDINATOR;
    assert_int_equal(keys_authorize(place->home, &bad, 1, &err), -1);
    bad = good;
    strcpy(bad.public_key, "short");
    assert_int_equal(keys_authorize(place->home, &bad, 1, &err), -1);
    assert_int_equal(keys_revoke(place->home, absent, 1, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(count(place), 0);
}

static void malformed_list_names_its_line(void **state)
{
    const struct place *place = *state;
    struct authorized_list list;
    char text[256];
    struct err err;
    int n = snprintf(text, sizeof(text), "# a comment\n\nuser bob %s\nboss carl %s\n",
                     one("bob", KEY_USER).public_key, one("carl", KEY_USER).public_key);

    write_text(place->list, text, (size_t)n);
    assert_int_equal(keys_read_authorized(&list, place->home, &err), -1);
    assert_non_null(strstr(err.text, "line 4"));
    assert_non_null(strstr(err.text, "admin, user, worker and viewer"));
}

/* Several processes at once: no line of one is lost to another. */
static void writers_at_once_lose_nothing(void **state)
{
    enum { WRITERS = 4, EACH = 8 };
    const struct place *place = *state;
    pid_t children[WRITERS];

    for (int w = 0; w < WRITERS; w++) {
        children[w] = fork();
        for (int i = 0; children[w] == 0 && i < EACH; i++) {
            char name[32];
            struct authorized key;

            snprintf(name, sizeof(name), "w%d-%d", w, i);
            key = one(name, KEY_WORKER);
            if (keys_authorize(place->home, &key, 1, NULL) < 0)
                _exit(1);
        }
        if (children[w] == 0)
            _exit(0);
    }
    for (int w = 0; w < WRITERS; w++) {
        int status;

        assert_int_equal(waitpid(children[w], &status, 0), children[w]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(count(place), WRITERS * EACH);
}

/* Authorizes and revokes for ever. */
static void change_list(const struct place *place)
{
    const char *name = "coming-and-going";
    struct authorized key = one(name, KEY_USER);

    for (;;)
        if (keys_authorize(place->home, &key, 1, NULL) < 0 ||
            keys_revoke(place->home, &name, 1, NULL) < 0)
            _exit(1);
}

static void writer_that_is_killed_leaves_a_whole_list(void **state)
{
    enum { KILLS = 40, KEYS = 50 };
    const struct place *place = *state;
    struct authorized keys[KEYS];

    for (int i = 0; i < KEYS; i++) {
        char name[16];

        snprintf(name, sizeof(name), "key-%d", i);
        keys[i] = one(name, KEY_WORKER);
    }
    assert_int_equal(keys_authorize(place->home, keys, KEYS, NULL), 0);
    for (int i = 0; i < KILLS; i++) {
        struct timespec wait = {.tv_nsec = (i * 7919 % 5000 + 200) * 1000L};
        pid_t child = fork();
        int status;
        size_t n;

        if (child == 0)
            change_list(place);
        nanosleep(&wait, NULL); /* a place to be killed at, another each time */
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        n = count(place);
        assert_true(n == KEYS || n == KEYS + 1);
        if (n > KEYS)
            assert_int_equal(
                keys_revoke(place->home, (const char *[]){"coming-and-going"}, 1, NULL),
                0);
    }
}

static void home_without_keys_says_how_to_make_them(void **state)
{
    struct authorized bob = one("bob", KEY_USER);
    struct authorized_list list;
    struct key key;
    struct err err;

    (void)state;
    assert_int_equal(keys_read_coordinator(&key, "/nonexistent", &err), -1);
    assert_non_null(strstr(err.text, "vneva keys init"));
    assert_int_equal(keys_read_authorized(&list, "/nonexistent", &err), -1);
    assert_non_null(strstr(err.text, "vneva keys init"));
    assert_int_equal(keys_authorize("/nonexistent", &bob, 1, &err), -1);
    assert_non_null(strstr(err.text, "vneva keys init"));
}

static void endpoint_of_a_home_is_written_read_and_removed(void **state)
{
    const struct place *place = *state;
    char endpoint[KEY_ENDPOINT_BYTES];
    struct err err;

    assert_int_equal(keys_write_endpoint(place->home, "tcp://head:7777", &err), 0);
    assert_int_equal(keys_read_endpoint(endpoint, place->home, &err), 0);
    assert_string_equal(endpoint, "tcp://head:7777");
    assert_int_equal(keys_remove_endpoint(place->home, &err), 0);
    assert_int_equal(keys_remove_endpoint(place->home, &err), 0);
    assert_int_equal(keys_read_endpoint(endpoint, place->home, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(key_file_is_read_as_it_was_written),
        TEST(home_is_private_and_made_once),
        TEST(key_file_open_to_others_is_refused),
        TEST(what_is_no_plain_file_is_refused),
        TEST(damaged_key_file_is_refused),
        TEST(error_about_a_key_file_does_not_show_the_secret),
        TEST(another_pairs_public_key_is_refused),
        TEST(keys_are_authorized_and_revoked),
        TEST(name_and_key_are_unique),
        TEST(wrong_names_and_roles_are_refused),
        TEST(malformed_list_names_its_line),
        TEST(writers_at_once_lose_nothing),
        TEST(writer_that_is_killed_leaves_a_whole_list),
        TEST(home_without_keys_says_how_to_make_them),
        TEST(endpoint_of_a_home_is_written_read_and_removed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
