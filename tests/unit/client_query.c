/* vneva query against a scripted coordinator: what it asks and how it prints answers. */
#include "client_help.h"
#include "jobs/client/format.h"
#include "jobs/client/query_print.h"

#define TABLE_OF_TWO                                                                     \
    "{\"columns\": [{\"name\": \"id\", \"type\": \"integer\", \"unit\": \"\"},"          \
    " {\"name\": \"name\", \"type\": \"text\", \"unit\": \"\"},"                         \
    " {\"name\": \"memory_bytes\", \"type\": \"integer\", \"unit\": \"bytes\"},"         \
    " {\"name\": \"loss\", \"type\": \"real\", \"unit\": \"\"},"                         \
    " {\"name\": \"id_2\", \"type\": \"integer\", \"unit\": \"\"}], \"rows\": ["         \
    "[7, \"a \\\"b\\\", c\", 2097152, 0.123456789, 7], [8, null, null, 2, 8]]}"

#define LONG_TABLE                                                                       \
    "{\"columns\": [{\"name\": \"id\"}, {\"name\": \"reason\"}, {\"name\": \"step\"},"   \
    " {\"name\": \"id_2\"}], \"rows\": ["                                                \
    "[7, \"gr\u00fc\u00dfe of a place far away\", 123456789, 7]]}"
#define TABLE_WHOLE                                                                      \
    "ID  REASON                          STEP\n"                                         \
    " 7  gr\u00fc\u00dfe of a place far away  123456789\n"
#define TABLE_CUT                                                                        \
    "ID  REASON                    STEP\n"                                               \
    " 7  gr\u00fc\u00dfe of a place f\u2026  123456789\n"
#define TABLE_LEAST                                                                      \
    "ID  REASON           STEP\n"                                                        \
    " 7  gr\u00fc\u00dfe of \u2026  123456789\n"

static void query_prints_tables_json_lines_and_csv(void **state)
{
    static const struct fake_rule rules[] = {
        {.type = MSG_SELECT, .view = "ranks", .answer = MSG_TABLE, .text = TABLE_OF_TWO},
        {.type = MSG_NONE}};
    static const struct {
        const char *format, *out;
    } cases[] = {
        {"table", "ID  NAME       MEMORY      LOSS\n"
                  " 7  a \"b\", c  2.0 MiB  0.123457\n"
                  " 8                            2\n"},
        {"json", "[{\"id\": 7, \"name\": \"a \\\"b\\\", c\", \"memory_bytes\": 2097152, "
                 "\"loss\": 0.123456789},\n {\"id\": 8, \"name\": null, "
                 "\"memory_bytes\": null, \"loss\": 2}]\n"},
        {"jsonl", "{\"id\": 7, \"name\": \"a \\\"b\\\", c\", \"memory_bytes\": 2097152, "
                  "\"loss\": 0.123456789}\n{\"id\": 8, \"name\": null, "
                  "\"memory_bytes\": null, \"loss\": 2}\n"},
        {"csv", "id,name,memory_bytes,loss\n7,\"a \"\"b\"\", c\",2097152,0.123456789\n"
                "8,,,2\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct said said = run(rules, W("query", "ranks", "--format", cases[i].format));

        assert_int_equal(said.status, EXIT_DONE);
        assert_string_equal(said.out, cases[i].out);
        said_fini(&said);
    }
}

/* Prints the table of two on a terminal of so many columns. */
static void expect_table(int terminal_columns, const char *wanted)
{
    struct query_printer printer = {
        .format = QUERY_TABLE, .drops_last = true, .terminal_columns = terminal_columns};
    struct json *part = NULL;
    struct err err = {0};
    char *text = NULL;
    size_t n_bytes;

    printer.out = open_memstream(&text, &n_bytes);
    assert_int_equal(json_parse(&part, LONG_TABLE, strlen(LONG_TABLE), &err), 0);
    assert_int_equal(query_print_part(&printer, part, 10, &err), 0);
    query_print_end(&printer);
    fclose(printer.out);
    assert_string_equal(text, wanted);
    json_free(part);
    free(text);
}

static void long_texts_are_cut_to_the_terminal(void **state)
{
    (void)state;
    expect_table(0, TABLE_WHOLE);
    expect_table(80, TABLE_WHOLE);
    expect_table(34, TABLE_CUT);
    expect_table(5, TABLE_LEAST); /* numbers stay whole, and some of each text */
}

/* The cell of a table of one row and one column, and the same in CSV on a terminal. */
static void expect_cell(const char *value, const char *wanted)
{
    static const enum query_format formats[] = {QUERY_TABLE, QUERY_CSV};
    struct err err = {0};

    for (int i = 0; i < 2; i++) {
        struct query_printer printer = {.format = formats[i], .is_terminal = true};
        struct buf json = BUF_INIT, line = BUF_INIT;
        struct json *part = NULL;
        char *text = NULL;
        size_t n_bytes;

        printer.out = open_memstream(&text, &n_bytes);
        buf_add_str(&json, "{\"columns\": [{\"name\": \"name\"}], \"rows\": [[");
        json_write_string(&json, value, strlen(value));
        buf_add_str(&json, "]]}");
        assert_int_equal(json_parse(&part, buf_str(&json), json.n_bytes, &err), 0);
        assert_int_equal(query_print_part(&printer, part, 10, &err), 0);
        query_print_end(&printer);
        fclose(printer.out);
        buf_printf(&line, "\n%s\n", wanted);
        assert_string_equal(strchr(text, '\n'), buf_str(&line));
        json_free(part);
        buf_fini(&json);
        buf_fini(&line);
        free(text);
    }
}

static void names_do_not_steer_the_terminal(void **state)
{
    (void)state;
    expect_cell("a\033[31mred", "a?[31mred");
    expect_cell("a\xc2\x9b"
                "31mred\x7f",
                "a?31mred?");                       /* xterm's other CSI */
    expect_cell("exe.\xe2\x80\xaetxt", "exe.?txt"); /* turned round */
    expect_cell("gr\xc3\xbc\xc3\x9f"
                "e \xe2\x80\xa6",
                "gr\xc3\xbc\xc3\x9f"
                "e \xe2\x80\xa6");
}

static void wide_characters_take_two_columns(void **state)
{
    struct buf text = BUF_INIT;

    (void)state;
    assert_int_equal(format_width("\xe6\x97\xa5\xe6\x9c\xac 1"), 6);
    assert_int_equal(format_width("e\xcc\x81"), 1); /* an accent on the e */
    buf_add_str(&text, "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e");
    format_cut(&text, 4);
    assert_string_equal(buf_str(&text), "\xe6\x97\xa5\xe2\x80\xa6");
    buf_fini(&text);
}

static void query_hands_its_words_on(void **state)
{
    static const struct fake_rule rules[] = {
        {.type = MSG_SELECT, .answer = MSG_TABLE, .text = TABLE_OF_TWO},
        {.type = MSG_NONE}};
    struct fake *fake = fake_start(rules);
    struct said said = client_says(
        fake_home(fake), W("query", "jobs", "where", "state=running", "and", "loss<2",
                           "--columns", "id,loss", "--sort", "-loss", "--limit", "1"));
    const struct msg_select *asked = &fake_asked(fake, 0)->select;

    (void)state;
    assert_string_equal(asked->view, "jobs");
    assert_string_equal(asked->where, "[\"state=running\",\"and\",\"loss<2\"]");
    assert_string_equal(asked->columns, "id,loss");
    assert_string_equal(asked->sort, "-loss");
    assert_int_equal(asked->limit, 2); /* one more, to know whether there is one */
    assert_int_equal(asked->is_short, 1);
    assert_says(said.out, "\n 7  ");
    assert_null(strstr(said.out, "\n 8  "));
    assert_null(strstr(said.err, "there are more")); /* the limit was asked for */
    said_fini(&said);
    fake_stop(fake);
}

static void query_that_makes_no_sense_is_not_asked(void **state)
{
    (void)state;
    assert_run(no_rules, W("query"), EXIT_USAGE, NULL, "which view?");
    assert_run(no_rules, W("query", "jobs", "--sql", "select 1"), EXIT_USAGE, NULL,
               "--sql asks by itself");
    assert_run(no_rules, W("query", "--sql", ""), EXIT_USAGE, NULL, "no SELECT");
    assert_run(no_rules, W("query", "jobs", "--format", "xml"), EXIT_USAGE, NULL,
               "there are table, json, jsonl, csv");
    assert_run(no_rules, W("query", "jobs", "--limit", "-1"), EXIT_USAGE, NULL,
               "expected a whole number");
}

static void query_says_what_the_coordinator_says(void **state)
{
    static const struct fake_rule rules[] = {{.type = MSG_SELECT,
                                              .answer = MSG_ERROR,
                                              .code = "denied",
                                              .text = "'x' is none of the views"},
                                             {.type = MSG_NONE}};

    (void)state;
    assert_run(rules, W("query", "--sql", "select * from x"), EXIT_REFUSED, NULL,
               "none of the views");
}

static void query_is_watched_until_it_is_interrupted(void **state)
{
    static const struct fake_rule rules[] = {
        {.type = MSG_SELECT, .answer = MSG_TABLE, .text = TABLE_OF_TWO},
        {.type = MSG_NONE}};

    (void)state;
    interrupt_next_run();
    assert_run(rules, W("query", "ranks", "--watch", "60"), EXIT_INTERRUPTED, "2.0 MiB",
               NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(query_prints_tables_json_lines_and_csv),
        cmocka_unit_test(long_texts_are_cut_to_the_terminal),
        cmocka_unit_test(names_do_not_steer_the_terminal),
        cmocka_unit_test(wide_characters_take_two_columns),
        cmocka_unit_test(query_hands_its_words_on),
        cmocka_unit_test(query_that_makes_no_sense_is_not_asked),
        cmocka_unit_test(query_says_what_the_coordinator_says),
        cmocka_unit_test(query_is_watched_until_it_is_interrupted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
