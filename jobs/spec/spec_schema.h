/* spec_schema.h - the one table of keys: every key a specification may hold
 *
 * The table (spec_table.c) drives reading, defaults, type checks, suggestions, the list of
 * `vneva submit --keys` and the tests. A key is USED, IGNORED (NeMo's, without a meaning
 * here: accepted, listed as ignored) or FIXED (we can honour some of its values only).
 * Pure; no state.
 */
#ifndef VNEVA_JOBS_SPEC_SPEC_SCHEMA_H
#define VNEVA_JOBS_SPEC_SPEC_SCHEMA_H

#include "jobs/spec/spec.h"
#include "jobs/spec/spec_tree.h"

#include <stddef.h>

enum spec_type {
    SPEC_INT,        /* int64_t */
    SPEC_NUMBER,     /* double; whole numbers too */
    SPEC_BOOL,       /* bool */
    SPEC_STRING,     /* char *; "" is null */
    SPEC_PATH,       /* char *, made absolute where it is submitted */
    SPEC_MAYBE_PATH, /* char *, made absolute when it exists; else a name */
    SPEC_PATHS,      /* struct spec_list; one text or a list of them; "{" "}" not used */
    SPEC_STRINGS,    /* struct spec_list, alike, but no paths */
    SPEC_SIDE,       /* int64_t; S or [S, S] */
    SPEC_PAIR,       /* two doubles, beside each other; [a, b] */
    SPEC_SHARE,      /* struct spec_share; a whole number, or 0.0 to 1.0 */
    SPEC_PRECISION,  /* char *; 32, bf16, 16, also with -true and -mixed */
    SPEC_ANY,        /* not read: any scalar or list */
    SPEC_GROUP,      /* not read: a group with whatever in it */
};

enum spec_use { SPEC_USED, SPEC_IGNORED, SPEC_FIXED };

#define SPEC_OF(kind) (1u << (kind))
#define SPEC_OF_TRAINING (SPEC_OF(SPEC_PRETRAIN) | SPEC_OF(SPEC_FINETUNE))
#define SPEC_OF_ALL (SPEC_OF_TRAINING | SPEC_OF(SPEC_PREPARE) | SPEC_OF(SPEC_EVALUATE))

#define SPEC_OF_LLM 1u
#define SPEC_OF_VISION 2u

struct spec_key {
    const char *path;
    enum spec_type type;
    enum spec_use use;
    size_t offset;       /* in struct spec; USED only */
    const char *text;    /* default as YAML, may hold references; NULL: not set */
    unsigned kinds;      /* SPEC_OF(kind) bits: who reads it */
    unsigned needed;     /* SPEC_OF(kind) bits: who cannot do without */
    const char *choices; /* "a|b": valid values; NULL: any of the type */
    const char *now;     /* "a": the choices this version runs; NULL: all */
    double min, max;     /* numbers; equal: no bounds */
    unsigned weights;    /* SPEC_OF_LLM, SPEC_OF_VISION: not set, and a folder of weights
                            is named, the folder says it */
    const char *meaning; /* a few words; of IGNORED and FIXED why */
};

extern const struct spec_key spec_keys[];
extern const size_t spec_n_keys;

/* NULL: no such key. A key inside a SPEC_GROUP finds the group. */
const struct spec_key *spec_schema_find(const char *path);
/* Whether some key lies below path. */
bool spec_schema_is_group(const char *path);
/* The nearest known key, by the fewest edits of the last part or of the whole; near stays
 * as it is when none is near. */
void spec_schema_suggest(char near[SPEC_PATH_MAX], const char *path);
/* Whether value is one of "a|b|c", numbers by value. */
bool spec_value_is_one_of(const struct json *value, const char *choices);
const char *spec_type_name(enum spec_type type); /* "a whole number" */

/* Checks the resolved tree against the table and puts in every default the kind reads;
 * makes values plain (absolute paths, "bf16", lists). folder: what relative paths start
 * from, NULL to leave them. */
int spec_check(struct spec_tree *tree, enum spec_kind kind, const char *folder,
               struct spec_notes *notes, struct err *err);
/* Fills the struct from the checked tree. */
int spec_fill(struct spec *spec, const struct json *tree, struct err *err);
/* Which of SPEC_OF_LLM and SPEC_OF_VISION a folder of weights says, in a training run. */
unsigned spec_in_weights(const struct json *tree, enum spec_kind kind);
/* Weights: formats that are not read, two places for one thing (spec_sources.c). */
int spec_check_sources(const struct spec *spec, struct spec_notes *notes,
                       struct err *err);
/* What keys ask of each other: divisors, ranges. */
int spec_check_numbers(const struct spec *spec, struct spec_notes *notes,
                       struct err *err);

int spec_list_add(struct spec_list *list, const char *text, struct err *err);
void spec_list_fini(struct spec_list *list);

#endif
