/* YAML, scalars, references and overrides. */
#include "spec_help.h"

#include "jobs/spec/spec_tree.h"

/* ---- helpers: one tree, one value ---- */

static struct spec_tree tree_of(const char *text)
{
    struct spec_tree tree;
    struct err err;

    assert_int_equal(spec_tree_init(&tree, &err), 0);
    if (spec_yaml_read(&tree, "f.yaml", text, strlen(text), &err) < 0)
        fail_msg("%s", err.text);
    return tree;
}

static void assert_value(const struct spec_tree *tree, const char *path, const char *json)
{
    struct buf text = BUF_INIT;

    assert_non_null(spec_tree_get(tree->root, path));
    json_write(&text, spec_tree_get(tree->root, path), 0);
    assert_string_equal(buf_str(&text), json);
    buf_fini(&text);
}

static void assert_yaml_error(const char *text, const char *says)
{
    struct spec_tree tree;
    struct err err;

    assert_int_equal(spec_tree_init(&tree, &err), 0);
    assert_int_equal(spec_yaml_read(&tree, "f.yaml", text, strlen(text), &err), -1);
    assert_says(err.text, says);
    spec_tree_fini(&tree);
}

static void assert_resolves(const char *text, const char *path, const char *json)
{
    struct spec_tree tree = tree_of(text);
    struct err err;

    if (spec_resolve(&tree, &err) < 0)
        fail_msg("%s", err.text);
    assert_value(&tree, path, json);
    spec_tree_fini(&tree);
}

static void assert_unresolved(const char *text, const char *says, const char *says2)
{
    struct spec_tree tree = tree_of(text);
    struct err err;

    assert_int_equal(spec_resolve(&tree, &err), -1);
    assert_says(err.text, says);
    assert_says(err.text, says2);
    spec_tree_fini(&tree);
}

/* ---- YAML ---- */

static void scalars_are_read_as_omegaconf_reads_them(void **state)
{
    static const struct {
        const char *text, *json;
    } table[] = {
        {"true", "true"},       {"True", "true"},
        {"no", "false"},        {"off", "false"},
        {"null", "null"},       {"~", "null"},
        {"", "null"},           {"12", "12"},
        {"-7", "-7"},           {"1_000", "1000"},
        {"0x10", "16"},         {"010", "8"},
        {"0b101", "5"},         {"1e-5", "1e-05"},
        {"2e-3", "0.002"},      {"0.", "0.0"},
        {".5", "0.5"},          {"1.5E+3", "1.5e+03"},
        {"'12'", "\"12\""},     {"\"true\"", "\"true\""},
        {"abc", "\"abc\""},     {"1e", "\"1e\""},
        {"1.2.3", "\"1.2.3\""}, {"08", "\"08\""},
        {".inf", "\".inf\""},   {"-", "\"-\""},
        {"!!str 5", "\"5\""},   {"4294967296", "4294967296"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char text[64];
        struct spec_tree tree;

        if (strcmp(table[i].text, "-") == 0)
            continue; /* a list item in YAML; as an override below */
        snprintf(text, sizeof(text), "a: %s\n", table[i].text);
        tree = tree_of(text);
        assert_value(&tree, "a", table[i].json);
        spec_tree_fini(&tree);
    }
}

static void merge_keys_fill_in_what_is_not_there(void **state)
{
    struct spec_tree tree = tree_of("base: &b {x: 1, y: 2}\n"
                                    "other: &o {y: 3, z: 4}\n"
                                    "one:\n  y: 9\n  <<: *b\n"
                                    "two: {<<: [*o, *b]}\n"
                                    "same: *b\n");

    (void)state;
    assert_value(&tree, "one", "{\"y\": 9, \"x\": 1}");
    assert_value(&tree, "two", "{\"y\": 3, \"z\": 4, \"x\": 1}");
    assert_value(&tree, "same.y", "2");
    spec_tree_fini(&tree);
}

static void bad_yaml_is_refused_with_its_line(void **state)
{
    (void)state;
    assert_yaml_error("a: 1\nb: 2\na: 3\n", "f.yaml:3: key is there twice: 'a'");
    assert_yaml_error("a: [1, 2\n", "f.yaml:2: ");
    assert_yaml_error("a: *nobody\n", "anchor: 'nobody'");
    assert_yaml_error("a: &a [*a]\n", "anchor");
    assert_yaml_error("a: 1\n---\nb: 2\n", "second document");
    assert_yaml_error("- 1\n- 2\n", "mapping");
    assert_yaml_error("a: !thing 1\n", "tag");
    assert_yaml_error("? [1]\n: 2\n", "f.yaml:1: a key must be a word");
    assert_yaml_error("a:\n\tb: 1\n", "f.yaml:2: a tab before the first word");
    assert_yaml_error("a: 1\n\tb: 1\n", "f.yaml:2: a tab");
    assert_yaml_error("# äö\na:\n  b: 1\n \tc: 1\n", "f.yaml:4: a tab");
    assert_yaml_error("a: {<<: 3}\n", "'<<' takes");
}

static void aliases_of_aliases_do_not_explode(void **state)
{
    struct buf text = BUF_INIT;

    (void)state;
    buf_add_str(&text, "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
    for (int i = 1; i < 9; i++)
        buf_printf(&text, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i,
                   i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    assert_yaml_error(buf_str(&text), "more values");
    buf_fini(&text);
}

/* ---- references ---- */

static void references_take_value_and_type(void **state)
{
    static const char text[] =
        "a: {b: {c: 3, d: '${.c}', e: '${..f}'}, f: yes, g: '${a.b.c}'}\n"
        "list: [5, '${.0}', {x: '${a.f}'}]\n"
        "i: ${list[0]}\n"
        "group: ${a.b}\n"
        "text: run-${a.b.c}-${a.f}\n"
        "which: b\n"
        "nested: ${a.${which}.c}\n"
        "through: ${group.c}\n"
        "kept: '\\${x}'\n";

    (void)state;
    assert_resolves(text, "a.b.d", "3");
    assert_resolves(text, "a.b.e", "true");
    assert_resolves(text, "a.g", "3");
    assert_resolves(text, "list.1", "5");
    assert_resolves(text, "list.2.x", "true");
    assert_resolves(text, "i", "5");
    assert_resolves(text, "group", "{\"c\": 3, \"d\": 3, \"e\": true}");
    assert_resolves(text, "text", "\"run-3-True\"");
    assert_resolves(text, "nested", "3");
    assert_resolves(text, "through", "3");
    assert_resolves(text, "kept", "\"${x}\"");
}

static void multiply_takes_numbers_and_references(void **state)
{
    (void)state;
    assert_resolves("a: 3\nb: ${multiply:${a}, ${a}}\n", "b", "9");
    assert_resolves("a: 3\nb: ${multiply:4,${.a}}\n", "b", "12");
    assert_resolves("a: 0.5\nb: ${multiply:${a},3}\n", "b", "1.5");
    assert_resolves("a: 2\nb: ${multiply:${multiply:${a},3},${a}}\n", "b", "12");
    assert_unresolved("a: x\nb: ${multiply:${a},2}\n", "two numbers", "f.yaml:2: b");
    assert_unresolved("b: ${multiply:1}\n", "two numbers", "b");
    assert_unresolved("b: ${multiply:1,2,3}\n", "two arguments", "b");
    assert_unresolved("b: ${divide:1,2}\n", "no function 'divide'", "multiply");
    assert_unresolved("b: ${multiply:9223372036854775807,2}\n", "too large", "b");
}

static void references_reach_defaults_of_the_schema(void **state)
{
    (void)state;
    assert_resolves("a: ${model.seed}\n", "a", "1234");
}

static void wrong_references_are_named(void **state)
{
    (void)state;
    assert_unresolved("a: ${b}\nb: ${c}\nc: ${a}\n", "circle", "a -> b -> c -> a");
    assert_unresolved("a: {x: '${a}'}\n", "circle", "a.x -> a.x");
    assert_unresolved("a: ${nothing}\n", "f.yaml:1: a", "'nothing'");
    assert_unresolved("model: {x: '${model.sed}'}\n", "did you mean 'model.seed'", "x");
    assert_unresolved("a: ${..b}\n", "above the top", "a");
    assert_unresolved("a: ${b\n", "not closed", "a");
    assert_unresolved("a: x${b}\nb: [1]\n", "list cannot be part", "a");
}

/* ---- overrides ---- */

static void assert_override(const char *override, const char *path, const char *json)
{
    struct spec_tree tree = tree_of(TRAIN_TEXT);
    struct err err;

    if (spec_override_apply(&tree, override, &err) < 0)
        fail_msg("%s", err.text);
    if (json)
        assert_value(&tree, path, json);
    else
        assert_null(spec_tree_get(tree.root, path));
    spec_tree_fini(&tree);
}

static void assert_override_error(const char *override, const char *says)
{
    struct spec_tree tree = tree_of(TRAIN_TEXT);
    struct err err;

    assert_int_equal(spec_override_apply(&tree, override, &err), -1);
    assert_says(err.text, says);
    assert_says(err.text, "override '");
    spec_tree_fini(&tree);
}

static void overrides_set_add_and_remove(void **state)
{
    (void)state;
    assert_override("model.num_layers=4", "model.num_layers", "4");
    assert_override("model.optim.lr=2e-4", "model.optim.lr", "0.0002");
    assert_override("model.seed=5", "model.seed", "5"); /* known, not in the file */
    assert_override("+model.bias=False", "model.bias", "false");
    assert_override("++model.num_layers=3", "model.num_layers", "3");
    assert_override("~model.optim", "model.optim", NULL);
    assert_override("~model.num_layers=2", "model.num_layers", NULL);
    assert_override("name=", "name", "\"\"");
    assert_override("name=yes", "name", "\"yes\"");
    assert_override("name=a=b", "name", "\"a=b\"");
    assert_override("name='4'", "name", "\"4\"");
    assert_override("name=\"a, b\"", "name", "\"a, b\"");
    assert_override("name=a\\,b", "name", "\"a,b\"");
    assert_override("name=NULL", "name", "null");
    assert_override("name=-", "name", "\"-\"");
    assert_override("name=${multiply:${model.num_layers},2}", "name",
                    "\"${multiply:${model.num_layers},2}\"");
    assert_override("model.data.data_path=[a.jsonl, 'b c']", "model.data.data_path",
                    "[\"a.jsonl\", \"b c\"]");
    assert_override("model.optim={lr: 1e-2, betas: [0.9,0.95]}", "model.optim",
                    "{\"lr\": 0.01, \"betas\": [0.9, 0.95]}");
    assert_override("model.data.data_path=[]", "model.data.data_path", "[]");
}

static void wrong_overrides_say_what_is_wrong(void **state)
{
    (void)state;
    assert_override_error("model.num_layer=4", "did you mean 'model.num_layers'?");
    assert_override_error("+model.num_layers=4", "leave out the +");
    assert_override_error("~model.seed", "nothing to remove");
    assert_override_error("~model.num_layers=9", "another value");
    assert_override_error("model.num_layers", "key=value expected");
    assert_override_error("=4", "key=value expected");
    assert_override_error("name=a,b", "[a,b]");
    assert_override_error("name=[a,b", "']' is missing");
    assert_override_error("name=[a]x", "more text");
    assert_override_error("name='a", "not closed");
    assert_override_error("name=${a", "not closed");
    assert_override_error("+a..b=1", "empty part");
    assert_override_error("+model.num_layers.x=1", "not a group");
    assert_override_error("name={a}", "'key: value' expected");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_are_read_as_omegaconf_reads_them),
        cmocka_unit_test(merge_keys_fill_in_what_is_not_there),
        cmocka_unit_test(bad_yaml_is_refused_with_its_line),
        cmocka_unit_test(aliases_of_aliases_do_not_explode),
        cmocka_unit_test(references_take_value_and_type),
        cmocka_unit_test(multiply_takes_numbers_and_references),
        cmocka_unit_test(references_reach_defaults_of_the_schema),
        cmocka_unit_test(wrong_references_are_named),
        cmocka_unit_test(overrides_set_add_and_remove),
        cmocka_unit_test(wrong_overrides_say_what_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
