/* spec_help.h - specifications from texts, for tests */
#ifndef VNEVA_TESTS_UNIT_SPEC_HELP_H
#define VNEVA_TESTS_UNIT_SPEC_HELP_H

#include "common/base/fs.h"
#include "jobs/spec/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The least a training run must say. */
#define TRAIN_TEXT                                                                       \
    "kind: pretrain\n"                                                                   \
    "trainer: {max_steps: 10}\n"                                                         \
    "model:\n"                                                                           \
    "  global_batch_size: 4\n"                                                           \
    "  num_layers: 2\n"                                                                  \
    "  hidden_size: 64\n"                                                                \
    "  num_attention_heads: 4\n"                                                         \
    "  encoder_seq_length: 8192\n"                                                       \
    "  data: {data_path: /data/train}\n"                                                 \
    "  optim: {lr: 1e-3}\n"

struct outcome {
    struct spec *spec; /* NULL: refused, see err */
    struct spec_notes notes;
    struct err err;
};

/* overrides: NULL-terminated, or NULL. */
static inline struct outcome read_text(const char *text, enum spec_kind kind,
                                       const char *const *overrides)
{
    char path[] = "/tmp/vneva-spec-XXXXXX";
    struct outcome out = {NULL, {{NULL, 0}, {NULL, 0}}, {ERR_NONE, ""}};
    int fd = mkstemp(path), n = 0;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    while (overrides && overrides[n])
        n++;
    if (spec_read(&out.spec, &out.notes, path, kind, overrides, n, &out.err) < 0) {
        assert_null(out.spec);
        assert_true(out.err.text[0]);
    }
    unlink(path);
    return out;
}

static inline void outcome_fini(struct outcome *out)
{
    spec_free(out->spec);
    spec_notes_fini(&out->notes);
}

static inline void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' does not say '%s'", text, part);
}

/* The text is refused, for a reason that holds every part given (NULL ends them). */
static inline void assert_refused(const char *text, const char *const *overrides,
                                  const char *part, const char *part2)
{
    struct outcome out = read_text(text, SPEC_NONE, overrides);

    if (out.spec)
        fail_msg("was read, should say '%s'", part);
    assert_says(out.err.text, part);
    if (part2)
        assert_says(out.err.text, part2);
    outcome_fini(&out);
}

#endif
