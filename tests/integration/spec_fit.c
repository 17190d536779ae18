/* What does not fit is refused, and every alternative that is named does fit: its words are
 * read as overrides and the whole is calculated again. */
#include "jobs/spec/spec_fit.h"
#include "common/base/buf.h"
#include "jobs/spec/spec_estimate.h"
#include "tests/integration/spec_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define WORDS_MAX 16
#define N_BASE 5

static const char *const base[N_BASE] = {
    "model.hidden_size=256", "model.num_layers=8", "model.micro_batch_size=4",
    "model.global_batch_size=16", "trainer.precision=bf16"};

static struct spec_fit fit_of(const struct spec *spec, uint64_t memory)
{
    return (struct spec_fit){
        .spec = spec, .vocab = 1000, .n_tokens = 500, .memory_bytes = memory};
}

/* One alternative, "KEY=VALUE ... (SIZE)": read and calculated. */
static void assert_fits(char *text, const struct spec *from, uint64_t memory)
{
    const char *words[N_BASE + WORDS_MAX];
    char *rest = NULL, *size = strchr(text, '(');
    struct spec_fit fit;
    struct spec *spec;
    int n = N_BASE;

    assert_non_null(size);
    *size = '\0';
    memcpy(words, base, sizeof(base));
    for (char *word = strtok_r(text, " ", &rest); word && n < N_BASE + WORDS_MAX;
         word = strtok_r(NULL, " ", &rest))
        words[n++] = word;
    assert_true(n > N_BASE);
    spec = spec_model_read(words, n);
    fit = fit_of(spec, memory);
    assert_false(spec_fit_is_too_much(&fit));
    assert_int_equal(spec->model.hidden_size, from->model.hidden_size);
    assert_int_equal(spec->model.global_batch_size, from->model.global_batch_size);
    spec_free(spec);
}

/* Alternatives that are told for so much memory, each of them checked. */
static int count_alternatives(const struct spec *spec, uint64_t memory, struct buf *text)
{
    struct spec_fit fit = fit_of(spec, memory);
    char copy[1024], *rest = NULL, *at;
    int n = 0;

    assert_true(spec_fit_is_too_much(&fit));
    buf_reset(text);
    spec_fit_suggest(text, &fit);
    if (strstr(buf_str(text), "would fit: ") == NULL)
        return 0;
    snprintf(copy, sizeof(copy), "%s", strstr(buf_str(text), "fit: ") + strlen("fit: "));
    for (at = strtok_r(copy, ";", &rest); at; at = strtok_r(NULL, ";", &rest), n++)
        assert_fits(at, spec, memory);
    return n;
}

static void what_is_named_fits(void **state)
{
    struct spec *spec = spec_model_read(base, N_BASE);
    struct spec_fit fit = fit_of(spec, 0);
    uint64_t need = spec_fit_need(&fit);
    struct buf text = BUF_INIT;

    (void)state;
    assert_false(spec_fit_is_too_much(&fit)); /* not known */
    fit.memory_bytes = need;
    assert_false(spec_fit_is_too_much(&fit));
    assert_int_equal(count_alternatives(spec, need - 1, &text), 3);
    assert_non_null(strstr(buf_str(&text), "model.micro_batch_size=2 ("));
    assert_non_null(strstr(buf_str(&text), "granularity=selective ("));
    assert_non_null(
        strstr(buf_str(&text), "trainer.devices=2 model.tensor_model_parallel_size=2 ("));
    for (uint64_t memory = need; memory > need / 8; memory -= need / 20) {
        int n = count_alternatives(spec, memory - 1, &text);

        print_message("%5.1f MB: %s\n", (double)memory / 1e6, buf_str(&text));
        assert_true(n > 0 || strstr(buf_str(&text), "the least takes "));
    }
    buf_fini(&text);
    spec_free(spec);
}

static void several_changes_are_joined_where_one_is_not_enough(void **state)
{
    static const char *const words[] = {
        "model.hidden_size=256",    "model.num_layers=8",
        "model.micro_batch_size=4", "model.global_batch_size=16",
        "trainer.precision=bf16",   "model.num_query_groups=1"};
    struct spec *spec = spec_model_read(words, 6); /* no tensor parallelism */
    struct spec_fit fit = fit_of(spec, 0);
    uint64_t least = 0;
    struct buf text = BUF_INIT;

    (void)state;
    for (uint64_t memory = spec_fit_need(&fit); memory > 1 << 20; memory -= 1 << 20) {
        fit.memory_bytes = memory - 1;
        buf_reset(&text);
        spec_fit_suggest(&text, &fit);
        if (strstr(buf_str(&text), "this would fit: "))
            least++;
    }
    assert_true(least > 0);
    assert_non_null(strstr(buf_str(&text), "no micro batch, recomputation"));
    assert_non_null(strstr(buf_str(&text), "model.micro_batch_size=1 "));
    buf_fini(&text);
    spec_free(spec);
}

static void sizes_are_read(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } table[] = {{"80G", 80ULL << 30},
                 {"141 GiB", 141ULL << 30},
                 {"512MiB", 512 << 20},
                 {"1.5K", 1536},
                 {"85899345920", 80ULL << 30},
                 {"2TB", 2ULL << 40},
                 {"", 0},
                 {"G", 0},
                 {"80X", 0},
                 {"-1G", 0},
                 {"80GG", 0},
                 {"0", 0},
                 {"nan", 0},
                 {"1e30", 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint64_t bytes = 0;

        assert_int_equal(spec_fit_parse_bytes(&bytes, table[i].text),
                         table[i].bytes != 0);
        if (table[i].bytes)
            assert_int_equal(bytes, table[i].bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_named_fits),
        cmocka_unit_test(several_changes_are_joined_where_one_is_not_enough),
        cmocka_unit_test(sizes_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
