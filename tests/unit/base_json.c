/* JSON: what is read is what was written, and what is not JSON is refused with a place. */
#include "common/base/fs.h"
#include "common/base/json_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *written(const struct json *json)
{
    struct buf out = BUF_INIT;

    json_write(&out, json, 0);
    return buf_take(&out);
}

static void assert_round_trip(const char *text, const char *expected)
{
    struct json *json = NULL;
    struct err err;
    char *again;

    if (json_parse(&json, text, strlen(text), &err) < 0)
        fail_msg("%s: %s", text, err.text);
    again = written(json);
    assert_string_equal(again, expected);
    free(again);
    json_free(json);
}

static void long_arrays_come_back(void **state)
{
    (void)state;
    assert_round_trip("[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]",
                      "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, "
                      "18, 19, 20]");
}

static void values_come_back_as_they_were(void **state)
{
    (void)state;
    assert_round_trip("null", "null");
    assert_round_trip(" [1,-2, 3.5 ,1e3, true,false,null] ",
                      "[1, -2, 3.5, 1e+03, true, false, null]");
    assert_round_trip("{\"b\":{\"a\":[]},\"a\":{}}", "{\"b\": {\"a\": []}, \"a\": {}}");
    assert_round_trip("9223372036854775807", "9223372036854775807");
    assert_round_trip("0.1", "0.1");
    assert_round_trip("2.0", "2.0");
    assert_round_trip("\"a\\n\\u00e9\\ud83d\\ude00\\\"\\u0001\"",
                      "\"a\\n\xc3\xa9\xf0\x9f\x98\x80\\\"\\u0001\"");
}

static void text_that_is_no_json_is_refused_with_its_place(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "text ends"},
        {"{\"a\":1,}", "key in quotes expected at line 1, column 8"},
        {"[1,\n2,]", "line 2"},
        {"{\"a\":1 \"b\":2}", "',' or '}' expected"},
        {"{\"a\":1,\"a\":2}", "twice"},
        {"\"\xff\"", "invalid UTF-8"},
        {"\"\xc0\x80\"", "invalid UTF-8"},
        {"\"\xed\xa0\x80\"", "invalid UTF-8"},
        {"\"\\ud800\"", "surrogate"},
        {"\"tab\there\"", "control character"},
        {"01", "more text after"},
        {"1.", "digit expected"},
        {"nul", "value expected"},
        {"\"open", "string without end"},
        {"[1] x", "more text after the value"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct json *json = NULL;
        struct err err;

        assert_int_equal(json_parse(&json, bad[i].text, strlen(bad[i].text), &err), -1);
        assert_null(json);
        assert_int_equal(err.code, ERR_FORMAT);
        if (!strstr(err.text, bad[i].says))
            fail_msg("'%s' gave '%s', not '%s'", bad[i].text, err.text, bad[i].says);
    }
}

static void nesting_has_a_bound(void **state)
{
    char text[2 * JSON_DEPTH_MAX + 8] = "";
    struct json *json = NULL;
    struct err err;

    (void)state;
    memset(text, '[', JSON_DEPTH_MAX + 2);
    assert_int_equal(json_parse(&json, text, strlen(text), &err), -1);
    assert_non_null(strstr(err.text, "too deep"));
}

/* Every prefix of a valid text is an error, never a crash (run under ASan). */
static void every_cut_is_an_error(void **state)
{
    const char *text = "{\"a\":[1.5e3,\"\\u00e9\\n\",{\"b\":null}],\"c\":true}";

    (void)state;
    for (size_t n = 0; n < strlen(text); n++) {
        char *cut = strndup(text, n); /* exact size, so that reading on is seen */
        struct json *json = NULL;

        assert_int_equal(json_parse(&json, cut, n, NULL), -1);
        free(cut);
    }
}

static void objects_set_replace_and_remove(void **state)
{
    struct json *json = json_new(JSON_OBJECT), *copy;
    char *text;

    (void)state;
    for (int i = 0; i < 10; i++) {
        char key[8];

        snprintf(key, sizeof(key), "k%d", i);
        assert_int_equal(json_set(json, key, json_new_int(i), NULL), 0);
    }
    assert_int_equal(json_set(json, "k3", json_new_string("three"), NULL), 0);
    assert_int_equal(json_remove(json, "k0"), 0);
    assert_int_equal(json_remove(json, "k0"), -1);
    assert_int_equal(json_count(json), 9);
    assert_string_equal(json_get_string(json, "k3"), "three");
    assert_int_equal(json_get_int(json, "k9", -1), 9);
    assert_int_equal(json_get_int(json, "k3", -1), -1);
    copy = json_clone(json);
    json_free(json);
    text = written(copy);
    assert_string_equal(text, "{\"k1\": 1, \"k2\": 2, \"k3\": \"three\", \"k4\": 4, "
                              "\"k5\": 5, \"k6\": 6, \"k7\": 7, \"k8\": 8, \"k9\": 9}");
    free(text);
    json_free(copy);
}

/* Large objects find their keys another way than small ones. */
static void large_objects_behave_as_small_ones_do(void **state)
{
    enum { N = 5000 };
    struct json *json = json_new(JSON_OBJECT), *again = NULL;
    struct buf text = BUF_INIT;
    struct err err;
    char key[16];

    (void)state;
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_int_equal(json_set(json, key, json_new_int(i), &err), 0);
    }
    assert_int_equal(json_set(json, "k77", json_new_int(-1), &err), 0);
    assert_int_equal(json_remove(json, "k4000"), 0);
    assert_int_equal(json_remove(json, "k4000"), -1);
    assert_int_equal(json_count(json), N - 1);
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_int_equal(json_get_int(json, key, -2), i == 77 ? -1 : i == 4000 ? -2 : i);
    }
    assert_null(json_get(json, "k5000"));
    assert_string_equal(json_key_at(json, 4000), "k4001");

    json_write(&text, json, 0);
    assert_int_equal(json_parse(&again, buf_str(&text), text.n_bytes, &err), 0);
    assert_int_equal(json_get_int(again, "k4999", -1), 4999);
    json_free(again);
    text.n_bytes--; /* the brace */
    buf_add_str(&text, ", \"k3\": 0}");
    assert_int_equal(json_parse(&again, buf_str(&text), text.n_bytes, &err), -1);
    assert_non_null(strstr(err.text, "stands twice"));
    buf_fini(&text);
    json_free(json);
}

static void a_piece_of_a_file_counts_from_where_it_stands(void **state)
{
    struct json *json = NULL;
    struct err err;

    (void)state;
    assert_int_equal(json_parse_at(&json, "[1,]", 4, 7, 3, &err), -1);
    assert_non_null(strstr(err.text, "line 7, column 6"));
    assert_int_equal(json_parse_at(&json, "[1,\n]", 5, 7, 3, &err), -1);
    assert_non_null(strstr(err.text, "line 8, column 1"));
}

static void files_are_written_read_and_missed(void **state)
{
    char folder[] = "/tmp/vneva-json-XXXXXX", path[FS_PATH_MAX];
    struct json *json = NULL, *again = json_new(JSON_NULL);
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(json_parse(&json, "{\"a\": [1, 2]}", 13, &err), 0);
    assert_int_equal(json_file_write(folder, "x.json", json, &err), 0);
    json_free(json);
    json_free(again);
    assert_int_equal(json_file_find(&again, folder, "none.json", 100, &err), 0);
    assert_null(again);
    assert_int_equal(json_file_read(&again, folder, "none.json", 100, &err), -1);
    assert_non_null(strstr(err.text, "none.json"));
    assert_int_equal(json_file_find(&again, folder, "x.json", 100, &err), 0);
    assert_int_equal(json_count(json_get(again, "a")), 2);
    json_free(again);
    assert_int_equal(json_file_read(&again, folder, "x.json", 5, &err),
                     -1); /* too long */

    assert_int_equal(fs_path(path, &err, "%s/x.json", folder), 0);
    assert_int_equal(fs_write_file_atomic(path, "{", 1, &err), 0);
    assert_int_equal(json_file_read(&again, folder, "x.json", 100, &err), -1);
    assert_non_null(strstr(err.text, "x.json"));
    assert_non_null(strstr(err.text, "line 1, column 2"));
    assert_int_equal(fs_remove_tree(folder, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_piece_of_a_file_counts_from_where_it_stands),
        cmocka_unit_test(long_arrays_come_back),
        cmocka_unit_test(values_come_back_as_they_were),
        cmocka_unit_test(text_that_is_no_json_is_refused_with_its_place),
        cmocka_unit_test(nesting_has_a_bound),
        cmocka_unit_test(every_cut_is_an_error),
        cmocka_unit_test(objects_set_replace_and_remove),
        cmocka_unit_test(files_are_written_read_and_missed),
        cmocka_unit_test(large_objects_behave_as_small_ones_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
