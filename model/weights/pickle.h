/* pickle.h - the values of a pickle that holds tensors, without running it
 *
 * A pickle is a program for a small machine. This one knows the operations that torch.save
 * emits for a state dict and the few functions of an allow-list, which are only noted;
 * anything else is refused by name and offset. Nothing is imported or executed.
 * Bounds: every operation makes at most one value, so there are never more values than
 * bytes.
 * Source: CPython's Lib/pickletools.py (operations), torch/serialization.py and
 * torch/_utils.py (what is pickled).
 */
#ifndef VNEVA_MODEL_WEIGHTS_PICKLE_H
#define VNEVA_MODEL_WEIGHTS_PICKLE_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pickle_kind {
    PICKLE_NONE, /* None, floats: of no use to tensors */
    PICKLE_INT,  /* and True, False */
    PICKLE_TEXT,
    PICKLE_LIST, /* tuples too */
    PICKLE_DICT, /* items: key, value, key, value... */
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR,
    PICKLE_MARK,
};

/* The functions and types a pickle may name. */
enum pickle_global {
    PICKLE_REBUILD_TENSOR,
    PICKLE_REBUILD_PARAMETER,
    PICKLE_ORDERED_DICT,
    PICKLE_FLOAT, /* from here on: types of storages */
    PICKLE_BFLOAT16,
    PICKLE_HALF,
    PICKLE_DOUBLE,
    PICKLE_LONG,
    PICKLE_INT32,
    PICKLE_SHORT,
    PICKLE_CHAR,
    PICKLE_BYTE,
    PICKLE_BOOL,
};

/* Items refer to values by number. */
struct pickle_value {
    enum pickle_kind kind;
    int64_t whole;    /* INT; GLOBAL: enum pickle_global */
    const char *text; /* TEXT, no NUL behind it */
    size_t n_text;
    int32_t
        *items; /* LIST, DICT; STORAGE: type, key, count; TENSOR: storage, offset, size,
                       stride */
    size_t n_items, capacity;
};

struct pickle {
    struct pickle_value *values;
    int32_t n_values;
    int32_t root;
};

int pickle_read(struct pickle *out, const char *bytes, size_t n_bytes, struct err *err);
void pickle_free(struct pickle *pickle);

#endif
