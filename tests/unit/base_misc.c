/* Random numbers, hashes, files, fault points: the rest of common/base. */
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/log_bound.h"
#include "common/base/map.h"
#include "common/base/proto.h"
#include "common/base/rng.h"
#include "common/base/utf8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Values of the xxHash specification's own test program (seed 0, and the empty input). */
static void hash64_gives_the_published_values(void **state)
{
    (void)state;
    assert_int_equal(hash64("", 0, 0), 0xEF46DB3751D8E999u);
    assert_int_equal(hash64("a", 1, 0), 0xD24EC4F1A98C6E5Bu);
    assert_int_equal(hash64("abc", 3, 0), 0x44BC2CF5AD770999u);
}

static void every_permutation_holds_every_number_once(void **state)
{
    static const uint64_t sizes[] = {1, 2, 3, 7, 64, 1000, 4097};

    (void)state;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            char *seen = calloc(sizes[s], 1);

            for (uint64_t i = 0; i < sizes[s]; i++) {
                uint64_t j = rng_permute(1234, epoch, i, sizes[s]);

                assert_true(j < sizes[s]);
                assert_int_equal(seen[j]++, 0);
            }
            free(seen);
        }
}

static void epochs_and_seeds_give_other_orders(void **state)
{
    int n_same_epoch = 0, n_same_seed = 0, n_in_place = 0;

    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t j = rng_permute(1, 0, i, 1000);

        n_same_epoch += j == rng_permute(1, 1, i, 1000);
        n_same_seed += j == rng_permute(2, 0, i, 1000);
        n_in_place += j == i;
    }
    assert_in_range(n_same_epoch, 0, 10); /* expected: 1 each */
    assert_in_range(n_same_seed, 0, 10);
    assert_in_range(n_in_place, 0, 10);
}

static void normals_have_mean_zero_and_variance_one(void **state)
{
    struct rng_key key = {7, rng_stream("test")};
    double sum = 0, squares = 0;
    int n = 100000;

    (void)state;
    for (int i = 0; i < n; i++) {
        double x = rng_normal(key, (uint64_t)i);

        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / n) < 0.02); /* six standard errors */
    assert_true(fabs(squares / n - 1) < 0.03);
}

static void below_stays_below_and_reaches_all(void **state)
{
    struct rng_key key = {1, 2};
    int counts[6] = {0};

    (void)state;
    for (uint64_t i = 0; i < 6000; i++)
        counts[rng_below(key, i, 6)]++;
    for (int i = 0; i < 6; i++)
        assert_in_range(counts[i], 850, 1150);
}

static void files_are_replaced_whole(void **state)
{
    char folder[] = "/tmp/vneva-base-XXXXXX", path[FS_PATH_MAX], copy[FS_PATH_MAX];
    struct buf text = BUF_INIT;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(fs_path(path, &err, "%s/a/b/c", folder), 0);
    assert_int_equal(fs_make_dirs(path, 0755, &err), 0);
    assert_int_equal(fs_path(path, &err, "%s/a/b/c/file", folder), 0);
    assert_int_equal(fs_write_file_atomic(path, "one", 3, &err), 0);
    assert_int_equal(fs_write_file_atomic(path, "three", 5, &err), 0);
    assert_int_equal(fs_read_file(&text, path, 100, &err), 0);
    assert_string_equal(buf_str(&text), "three");
    assert_int_equal(fs_read_file(&text, path, 4, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(fs_path(copy, &err, "%s/a/copy", folder), 0);
    assert_int_equal(fs_write_file_atomic(copy, "what was there", 14, &err), 0);
    assert_int_equal(fs_copy_file(copy, path, &err), 0);
    buf_reset(&text);
    assert_int_equal(fs_read_file(&text, copy, 100, &err), 0);
    assert_string_equal(buf_str(&text), "three");
    assert_int_equal(fs_copy_file(copy, "/no/such/file", &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(fs_make_dirs(path, 0755, &err), -1); /* a file is in the way */
    assert_int_equal(fs_must_exist(path, &err), 0);
    assert_int_equal(fs_must_exist("/no/such/file", &err), -1);
    assert_string_equal(err.text, "'/no/such/file' is not there");
    assert_int_equal(fs_path(copy, &err, "%s/below", path), 0);
    assert_int_equal(fs_must_exist(copy, &err), -1);
    assert_non_null(strstr(err.text, "below' cannot be reached: Not a directory"));
    assert_int_equal(fs_path(path, &err, "%s/a/b", folder), 0);
    assert_int_equal(fs_path(copy, &err, "%s/put", folder), 0);
    assert_int_equal(fs_put_dir(path, copy, &err), 0); /* where nothing is */
    assert_int_equal(fs_make_dirs(path, 0755, &err), 0);
    assert_int_equal(fs_put_dir(path, copy, &err), 0); /* over what is there */
    assert_false(fs_exists(path));
    assert_int_equal(fs_path(path, &err, "%s/c", copy), 0);
    assert_false(fs_exists(path));
    assert_int_equal(fs_remove_tree(folder, &err), 0);
    assert_false(fs_exists(folder));
    assert_int_equal(fs_remove_tree(folder, &err), 0);
    buf_fini(&text);
}

/* field 1: 150, field 2: "hi", field 3: four bytes, field 4: eight, then a cut one */
static void the_folder_of_a_path_is_named(void **state)
{
    static const char *const cases[][2] = {{"a/b/c", "a/b"}, {"/a/b", "/a"}, {"/a", "/"},
                                           {"/", "/"},       {"a", "."},     {"a/", "a"}};
    char folder[FS_PATH_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(fs_parent(folder, cases[i][0], NULL), 0);
        assert_string_equal(folder, cases[i][1]);
    }
}

static void protocol_buffers_are_read_field_by_field(void **state)
{
    static const uint8_t bytes[] = {0x08, 0x96, 0x01, 0x12, 2,    'h',  'i', 0x1D,
                                    1,    2,    3,    4,    0x21, 1,    2,   3,
                                    4,    5,    6,    7,    8,    0x12, 9,   'x'};
    struct proto proto = proto_of(bytes, sizeof(bytes));
    struct proto_field field;

    (void)state;
    assert_int_equal(proto_next(&proto, &field), 1);
    assert_int_equal(field.number, 1);
    assert_int_equal(field.value, 150);
    assert_int_equal(proto_next(&proto, &field), 1);
    assert_int_equal(field.bytes.end - field.bytes.at, 2);
    assert_memory_equal(field.bytes.at, "hi", 2);
    assert_int_equal(proto_next(&proto, &field), 1);
    assert_int_equal(field.wire, PROTO_FIXED32);
    assert_int_equal(proto_next(&proto, &field), 1);
    assert_int_equal(field.wire, PROTO_FIXED64);
    assert_int_equal(proto_next(&proto, &field), -1);
    proto = proto_of(bytes, 0);
    assert_int_equal(proto_next(&proto, &field), 0);
}

static void texts_are_mended_to_utf8(void **state)
{
    static const char *const pairs[][2] = {
        {"whole: \xC3\xA9", "whole: \xC3\xA9"},
        {"cut: \xC3", "cut: "},
        {"cut: \xE2\x82", "cut: "},
        {"cut: \xF0\x9F\x98", "cut: "},
        {"latin \xE9t\xE9", "latin ?t"},
        {"\x80\xFF.", "??."},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char text[32];

        snprintf(text, sizeof(text), "%s", pairs[i][0]);
        utf8_mend(text);
        assert_string_equal(text, pairs[i][1]);
    }
}

static void cut_characters_are_counted_as_unicode_does(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } cuts[] = {
        {"\xE2\x82z", 2}, {"\xF0\x9F\x98", 3}, {"\xC3", 1},     {"\x80\x80", 1},
        {"\xE0\x80", 1},  {"\xED\xA0\x80", 1}, {"\xF4\x90", 1}, {"\xF1\x80\x80z", 3},
        {"\xC0\x80", 1},  {"\xF5\x80", 1},     {"\xF0\x80", 1}, {"\xE1\x80", 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
        assert_int_equal(
            utf8_cut_length((const unsigned char *)cuts[i].bytes, strlen(cuts[i].bytes)),
            cuts[i].n);
}

static void long_errors_are_cut_between_characters(void **state)
{
    char name[2 * ERR_TEXT_MAX];
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = i % 2 ? '\xA9' : '\xC3';
    name[sizeof(name) - 1] = '\0';
    err_set(&err, ERR_IO, "%s", name);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 2); /* 255 whole ones */
    err_wrap(&err, "ab");
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 2);
    assert_int_equal(err.text[ERR_TEXT_MAX - 3], '\xA9');
}

static int status_of_child(const char *fault, int n_passages)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        int n_failed = 0;

        setenv("VNEVA_FAULT", fault, 1);
        for (int i = 0; i < n_passages; i++)
            n_failed += fault_hit("here");
        _exit(n_failed);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void fault_points_fail_and_kill_as_told(void **state)
{
    (void)state;
    assert_int_equal(status_of_child("", 3), 0);
    assert_int_equal(status_of_child("here:fail", 3), 3);
    assert_int_equal(status_of_child("there:fail,here:fail@2", 3), 1);
    assert_int_equal(status_of_child("here:kill@4", 3), 0);
    assert_int_equal(status_of_child("here:kill@3", 3), 128 + 9);
}

static void program_folder_holds_the_program(void **state)
{
    char folder[FS_PATH_MAX], path[FS_PATH_MAX];
    struct err err;

    (void)state;
    assert_int_equal(fs_program_folder(folder, &err), 0);
    assert_int_equal(fs_path(path, &err, "%s/base_misc", folder), 0);
    assert_true(fs_exists(path));
}

#define MAP_KEYS 500
#define MAP_TURNS 100000

/* Against a plain list of what should be there, with removals and keys of any bytes. */
static void maps_find_what_was_put_and_nothing_else(void **state)
{
    static uint32_t keys[MAP_KEYS];
    void *expected[MAP_KEYS] = {NULL};
    const struct rng_key key = {.seed = 1};
    struct map map = {0};
    struct err err;

    (void)state;
    assert_null(map_find(&map, "x", 1));
    for (uint32_t i = 0; i < MAP_KEYS; i++)
        keys[i] = i << 16;
    for (uint64_t t = 0; t < MAP_TURNS; t++) {
        uint64_t i = rng_below(key, 3 * t, MAP_KEYS), what = rng_below(key, 3 * t + 1, 3);

        if (what == 0) {
            map_remove(&map, &keys[i], sizeof(keys[i]));
            expected[i] = NULL;
        } else if (what == 1) {
            expected[i] = &keys[rng_below(key, 3 * t + 2, MAP_KEYS)];
            assert_int_equal(map_put(&map, &keys[i], sizeof(keys[i]), expected[i], &err),
                             0);
        }
        assert_ptr_equal(map_find(&map, &keys[i], sizeof(keys[i])), expected[i]);
    }
    for (uint32_t i = 0; i < MAP_KEYS; i++)
        assert_ptr_equal(map_find(&map, &keys[i], sizeof(keys[i])), expected[i]);
    assert_null(map_find(&map, keys, sizeof(keys[0]) - 1));
    assert_true(map.n_slots <= (size_t)MAP_KEYS * 4); /* removed ones do not pile up */
    map_fini(&map);
}

static void durations_are_read_with_their_units(void **state)
{
    static const char *const bad[] = {
        "",      "s",    "0",   "-5s", "5x",
        "5ms",   "1.5h", "5 s", "5s ", "99999999999999999999s",
        "36526d"};
    int64_t ms = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (clock_read_duration(&ms, bad[i], 1000) || ms != 7)
            fail_msg("'%s' is taken", bad[i]);
    assert_false(clock_read_duration(&ms, "5", 0));
    assert_true(clock_read_duration(&ms, "5", 1000));
    assert_int_equal(ms, 5000);
    assert_true(clock_read_duration(&ms, "90s", 0));
    assert_int_equal(ms, 90000);
    assert_true(clock_read_duration(&ms, "5m", 0));
    assert_int_equal(ms, 300000);
    assert_true(clock_read_duration(&ms, "2h", 1000));
    assert_int_equal(ms, 7200000);
    assert_true(clock_read_duration(&ms, "36525d", 0));
    assert_int_equal(ms, INT64_C(36525) * 86400000);
}

/* What a bounded log says of `n` lines, each said twice within its time. */
static int count_said(struct log_bound *bound, int64_t now_ms, int n, char *said,
                      size_t n_bytes)
{
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO), n_lines = 0;
    size_t n_read;

    assert_non_null(file);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    for (int i = 0; i < 2 * n; i++)
        log_bound_warn(bound, now_ms + i, "stranger %d", i % n);
    log_bound_turn(bound, now_ms + 2 * n);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    rewind(file);
    n_read = fread(said, 1, n_bytes - 1, file);
    said[n_read] = '\0';
    fclose(file);
    for (const char *at = said; (at = strchr(at, '\n')); at++)
        n_lines++;
    return n_lines;
}

static void strangers_fill_no_log_and_are_counted(void **state)
{
    struct log_bound bound = {0};
    char said[8192];

    (void)state;
    assert_int_equal(count_said(&bound, LOG_BOUND_MS, 3, said, sizeof(said)), 3);
    assert_null(strstr(said, "more like these")); /* not yet */
    assert_int_equal(
        count_said(&bound, LOG_BOUND_MS + 100, 2 * LOG_BOUND_LINES, said, sizeof(said)),
        LOG_BOUND_LINES - 3);
    assert_int_equal(count_said(&bound, 3 * LOG_BOUND_MS, 0, said, sizeof(said)), 1);
    assert_non_null(strstr(said, "66 more like these in the last 60 s"));
    assert_int_equal(count_said(&bound, 3 * LOG_BOUND_MS, 1, said, sizeof(said)), 1);
    assert_non_null(strstr(said, "stranger 0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* first: a process reads its fault points once */
        cmocka_unit_test(fault_points_fail_and_kill_as_told),
        cmocka_unit_test(program_folder_holds_the_program),
        cmocka_unit_test(maps_find_what_was_put_and_nothing_else),
        cmocka_unit_test(hash64_gives_the_published_values),
        cmocka_unit_test(every_permutation_holds_every_number_once),
        cmocka_unit_test(epochs_and_seeds_give_other_orders),
        cmocka_unit_test(normals_have_mean_zero_and_variance_one),
        cmocka_unit_test(below_stays_below_and_reaches_all),
        cmocka_unit_test(files_are_replaced_whole),
        cmocka_unit_test(the_folder_of_a_path_is_named),
        cmocka_unit_test(protocol_buffers_are_read_field_by_field),
        cmocka_unit_test(texts_are_mended_to_utf8),
        cmocka_unit_test(durations_are_read_with_their_units),
        cmocka_unit_test(cut_characters_are_counted_as_unicode_does),
        cmocka_unit_test(long_errors_are_cut_between_characters),
        cmocka_unit_test(strangers_fill_no_log_and_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
