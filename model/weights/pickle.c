#include "model/weights/pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PICKLE_BYTES_MAX ((size_t)256 << 20) /* of 700 tensors: 200 KB */
#define NAME_MAX_BYTES 100 /* of module and function, in an allow-list */

/* ---- the machine ---- */

struct machine {
    struct pickle *out;
    size_t capacity; /* of values */
    int32_t *stack;
    size_t n_stack;
    int32_t *memo; /* -1: nothing */
    size_t n_memo;
    const char *bytes;
    size_t n_bytes, at; /* at: of the operation at work */
    size_t next;
    struct err *err;
};

static const struct {
    const char *module, *name;
    enum pickle_global global;
} globals[] = {
    {"torch._utils", "_rebuild_tensor_v2", PICKLE_REBUILD_TENSOR},
    {"torch._utils", "_rebuild_parameter", PICKLE_REBUILD_PARAMETER},
    {"collections", "OrderedDict", PICKLE_ORDERED_DICT},
    {"torch", "FloatStorage", PICKLE_FLOAT},
    {"torch", "BFloat16Storage", PICKLE_BFLOAT16},
    {"torch", "HalfStorage", PICKLE_HALF},
    {"torch", "DoubleStorage", PICKLE_DOUBLE},
    {"torch", "LongStorage", PICKLE_LONG},
    {"torch", "IntStorage", PICKLE_INT32},
    {"torch", "ShortStorage", PICKLE_SHORT},
    {"torch", "CharStorage", PICKLE_CHAR},
    {"torch", "ByteStorage", PICKLE_BYTE},
    {"torch", "BoolStorage", PICKLE_BOOL},
};

static int bad(struct machine *m, const char *what)
{
    return err_set(m->err, ERR_FORMAT, "the pickle %s, at byte %zu", what, m->at);
}

static struct pickle_value *value_of(struct machine *m, int32_t i)
{
    return &m->out->values[i];
}

/* A new value on the stack. */
static int push_new(struct machine *m, struct pickle_value value)
{
    struct pickle *out = m->out;

    if ((size_t)out->n_values == m->capacity) {
        size_t capacity = m->capacity ? 2 * m->capacity : 1024;
        struct pickle_value *grown =
            realloc(out->values, capacity * sizeof(*out->values));

        if (!grown)
            return err_set(m->err, ERR_NOMEM, "cannot allocate %zu values of a pickle",
                           capacity);
        out->values = grown;
        m->capacity = capacity;
    }
    out->values[out->n_values] = value;
    m->stack[m->n_stack++] = out->n_values++;
    return 0;
}

/* The next n bytes of the operation; NULL and an error when there are less. */
static const char *take(struct machine *m, size_t n)
{
    const char *at = m->bytes + m->next;

    if (n > m->n_bytes - m->next) {
        bad(m, "is cut off");
        return NULL;
    }
    m->next += n;
    return at;
}

static int take_number(struct machine *m, int n_bytes, int64_t *out)
{
    const char *at = take(m, (size_t)n_bytes);
    uint64_t value = 0;

    if (!at)
        return -1;
    for (int i = n_bytes - 1; i >= 0; i--)
        value = value << 8 | (unsigned char)at[i];
    *out = (int64_t)value;
    return 0;
}

static int pop(struct machine *m, int32_t *out)
{
    if (m->n_stack == 0)
        return bad(m, "takes from an empty stack");
    *out = m->stack[--m->n_stack];
    return 0;
}

static int add_item(struct machine *m, int32_t to, int32_t item)
{
    struct pickle_value *list = value_of(m, to);

    if (list->n_items == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 4;
        int32_t *grown = realloc(list->items, capacity * sizeof(*grown));

        if (!grown)
            return err_set(m->err, ERR_NOMEM, "cannot allocate a list of %zu values",
                           capacity);
        list->items = grown;
        list->capacity = capacity;
    }
    list->items[list->n_items++] = item;
    return 0;
}

/* ---- operations ---- */

/* The n values on top become a list; n < 0: those above the last mark, which goes too. */
static int make_list(struct machine *m, int n)
{
    size_t count = (size_t)n, first;
    int32_t list;

    if (n < 0) {
        for (count = 0; count < m->n_stack; count++)
            if (value_of(m, m->stack[m->n_stack - 1 - count])->kind == PICKLE_MARK)
                break;
        if (count == m->n_stack)
            return bad(m, "has no mark");
    }
    if (count + (n < 0) > m->n_stack)
        return bad(m, "takes from an empty stack");
    first = m->n_stack - count;
    if (push_new(m, (struct pickle_value){.kind = PICKLE_LIST}) < 0)
        return -1;
    list = m->stack[m->n_stack - 1];
    for (size_t i = first; i < first + count; i++)
        if (add_item(m, list, m->stack[i]) < 0)
            return -1;
    m->n_stack = first - (n < 0);
    m->stack[m->n_stack++] = list;
    return 0;
}

/* Adds what lies above the mark (or the n values on top) to what lies below. */
static int add_all(struct machine *m, int n, enum pickle_kind kind)
{
    int32_t items = 0, to = 0;

    if (make_list(m, n) < 0 || pop(m, &items) < 0 || pop(m, &to) < 0)
        return -1;
    if (value_of(m, to)->kind != kind || to == items)
        return bad(m, "adds to what is no list or dict");
    if (kind == PICKLE_DICT && value_of(m, items)->n_items % 2)
        return bad(m, "has a key without a value");
    for (size_t i = 0; i < value_of(m, items)->n_items; i++)
        if (add_item(m, to, value_of(m, items)->items[i]) < 0)
            return -1;
    m->stack[m->n_stack++] = to;
    return 0;
}

/* A line of the text that follows, without its end. */
static const char *take_line(struct machine *m, size_t *n)
{
    const char *line = m->bytes + m->next;
    const char *end = memchr(line, '\n', m->n_bytes - m->next);

    if (!end) {
        bad(m, "is cut off");
        return NULL;
    }
    *n = (size_t)(end - line);
    m->next += *n + 1;
    return line;
}

static bool is_word(const char *line, size_t n, const char *word)
{
    return strlen(word) == n && memcmp(line, word, n) == 0;
}

static int do_global(struct machine *m)
{
    size_t n_module, n_name;
    const char *module = take_line(m, &n_module);
    const char *name = module ? take_line(m, &n_name) : NULL;

    if (!name)
        return -1;
    for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++)
        if (is_word(module, n_module, globals[i].module) &&
            is_word(name, n_name, globals[i].name))
            return push_new(m, (struct pickle_value){.kind = PICKLE_GLOBAL,
                                                     .whole = globals[i].global});
    return err_set(m->err, ERR_UNSUPPORTED,
                   "the pickle wants '%.*s.%.*s', at byte %zu: only tensors are read, "
                   "nothing is run",
                   (int)(n_module < NAME_MAX_BYTES ? n_module : NAME_MAX_BYTES), module,
                   (int)(n_name < NAME_MAX_BYTES ? n_name : NAME_MAX_BYTES), name, m->at);
}

static bool is_kind(struct machine *m, int32_t value, enum pickle_kind kind)
{
    return value_of(m, value)->kind == kind;
}

/* ("storage", type, key, place, count) becomes a storage */
static int do_persistent(struct machine *m)
{
    int32_t id = 0, storage, parts[3];
    struct pickle_value *list;

    if (pop(m, &id) < 0)
        return -1;
    list = value_of(m, id);
    if (list->kind != PICKLE_LIST || list->n_items != 5 ||
        !is_kind(m, list->items[0], PICKLE_TEXT) ||
        !is_word(value_of(m, list->items[0])->text, value_of(m, list->items[0])->n_text,
                 "storage") ||
        !is_kind(m, list->items[1], PICKLE_GLOBAL) ||
        value_of(m, list->items[1])->whole < PICKLE_FLOAT ||
        !is_kind(m, list->items[2], PICKLE_TEXT) ||
        !is_kind(m, list->items[4], PICKLE_INT))
        return bad(m, "refers to something that is no tensor's storage");
    parts[0] = list->items[1];
    parts[1] = list->items[2];
    parts[2] = list->items[4];
    if (push_new(m, (struct pickle_value){.kind = PICKLE_STORAGE}) < 0)
        return -1;
    storage = m->stack[m->n_stack - 1];
    for (int i = 0; i < 3; i++)
        if (add_item(m, storage, parts[i]) < 0)
            return -1;
    return 0;
}

/* (storage, offset, size, stride, ...) becomes a tensor */
static int make_tensor(struct machine *m, int32_t args)
{
    static const enum pickle_kind kinds[] = {PICKLE_STORAGE, PICKLE_INT, PICKLE_LIST,
                                             PICKLE_LIST};
    int32_t tensor;

    if (value_of(m, args)->n_items < 4)
        return bad(m, "makes a tensor of too little");
    for (int i = 0; i < 4; i++)
        if (!is_kind(m, value_of(m, args)->items[i], kinds[i]))
            return bad(m, "makes a tensor of other things than storage and shape");
    if (push_new(m, (struct pickle_value){.kind = PICKLE_TENSOR}) < 0)
        return -1;
    tensor = m->stack[m->n_stack - 1];
    for (int i = 0; i < 4; i++)
        if (add_item(m, tensor, value_of(m, args)->items[i]) < 0)
            return -1;
    return 0;
}

/* A call: of what the allow-list has, and noted only. */
static int do_reduce(struct machine *m)
{
    int32_t args = 0, callee = 0;

    if (pop(m, &args) < 0 || pop(m, &callee) < 0)
        return -1;
    if (!is_kind(m, args, PICKLE_LIST) || !is_kind(m, callee, PICKLE_GLOBAL))
        return bad(m, "calls what is no function");
    switch ((enum pickle_global)value_of(m, callee)->whole) {
    case PICKLE_REBUILD_TENSOR:
        return make_tensor(m, args);
    case PICKLE_REBUILD_PARAMETER:
        if (value_of(m, args)->n_items < 1 ||
            !is_kind(m, value_of(m, args)->items[0], PICKLE_TENSOR))
            return bad(m, "makes a parameter of no tensor");
        m->stack[m->n_stack++] = value_of(m, args)->items[0];
        return 0;
    case PICKLE_ORDERED_DICT:
        if (value_of(m, args)->n_items > 0)
            return bad(m, "makes a dict of a list");
        return push_new(m, (struct pickle_value){.kind = PICKLE_DICT});
    default:
        return bad(m, "calls what is no function");
    }
}

/* Attributes of a dict (_metadata of a state dict): of no use here. */
static int do_build(struct machine *m)
{
    int32_t state;

    if (pop(m, &state) < 0)
        return -1;
    if (m->n_stack == 0 || !is_kind(m, m->stack[m->n_stack - 1], PICKLE_DICT))
        return bad(m, "sets attributes of what is no dict");
    return 0;
}

static int do_put(struct machine *m, int n_bytes)
{
    int64_t key = 0;

    if (take_number(m, n_bytes, &key) < 0)
        return -1;
    if (m->n_stack == 0)
        return bad(m, "takes from an empty stack");
    if ((uint64_t)key >= m->n_memo)
        return bad(m, "keeps a value under too large a number");
    m->memo[key] = m->stack[m->n_stack - 1];
    return 0;
}

static int do_get(struct machine *m, int n_bytes)
{
    int64_t key = 0;

    if (take_number(m, n_bytes, &key) < 0)
        return -1;
    if ((uint64_t)key >= m->n_memo || m->memo[key] < 0)
        return bad(m, "asks for a value it has not kept");
    m->stack[m->n_stack++] = m->memo[key];
    return 0;
}

static int do_int(struct machine *m, int n_bytes)
{
    struct pickle_value value = {.kind = PICKLE_INT};

    if (take_number(m, n_bytes, &value.whole) < 0)
        return -1;
    if (n_bytes == 4) /* BININT has a sign */
        value.whole = (int32_t)(uint32_t)value.whole;
    return push_new(m, value);
}

/* LONG1: a length, and that many bytes, two's complement. */
static int do_long(struct machine *m)
{
    struct pickle_value value = {.kind = PICKLE_INT};
    int64_t n = 0;

    if (take_number(m, 1, &n) < 0)
        return -1;
    if (n > 8)
        return bad(m, "has a whole number of more than 64 bits");
    if (take_number(m, (int)n, &value.whole) < 0)
        return -1;
    if (n > 0 && n < 8 && value.whole >> (8 * n - 1))
        value.whole -= (int64_t)1 << (8 * n);
    return push_new(m, value);
}

static int do_text(struct machine *m, int n_bytes)
{
    struct pickle_value value = {.kind = PICKLE_TEXT};
    int64_t n = 0;

    if (take_number(m, n_bytes, &n) < 0)
        return -1;
    value.n_text = (size_t)n;
    value.text = take(m, value.n_text);
    return value.text ? push_new(m, value) : -1;
}

static int push_kind(struct machine *m, enum pickle_kind kind, int64_t whole)
{
    return push_new(m, (struct pickle_value){.kind = kind, .whole = whole});
}

/* One operation; 1 at the end of the program. */
static int step(struct machine *m)
{
    const char *op = take(m, 1);

    if (!op)
        return -1;
    switch ((unsigned char)*op) {
    case 0x80: /* PROTO */
        return take(m, 1) ? 0 : -1;
    case 'c': /* GLOBAL */
        return do_global(m);
    case 'R': /* REDUCE */
        return do_reduce(m);
    case 'b': /* BUILD */
        return do_build(m);
    case 'Q': /* BINPERSID */
        return do_persistent(m);
    case '(': /* MARK */
        return push_kind(m, PICKLE_MARK, 0);
    case '}': /* EMPTY_DICT */
        return push_kind(m, PICKLE_DICT, 0);
    case ']': /* EMPTY_LIST */
    case ')': /* EMPTY_TUPLE */
        return push_kind(m, PICKLE_LIST, 0);
    case 't': /* TUPLE */
        return make_list(m, -1);
    case 0x85: /* TUPLE1 */
    case 0x86: /* TUPLE2 */
    case 0x87: /* TUPLE3 */
        return make_list(m, (unsigned char)*op - 0x84);
    case 'a': /* APPEND */
        return add_all(m, 1, PICKLE_LIST);
    case 'e': /* APPENDS */
        return add_all(m, -1, PICKLE_LIST);
    case 's': /* SETITEM */
        return add_all(m, 2, PICKLE_DICT);
    case 'u': /* SETITEMS */
        return add_all(m, -1, PICKLE_DICT);
    case 'X': /* BINUNICODE */
        return do_text(m, 4);
    case 0x8c: /* SHORT_BINUNICODE */
        return do_text(m, 1);
    case 'J': /* BININT */
        return do_int(m, 4);
    case 'K': /* BININT1 */
        return do_int(m, 1);
    case 'M': /* BININT2 */
        return do_int(m, 2);
    case 0x8a: /* LONG1 */
        return do_long(m);
    case 0x88: /* NEWTRUE */
        return push_kind(m, PICKLE_INT, 1);
    case 0x89: /* NEWFALSE */
        return push_kind(m, PICKLE_INT, 0);
    case 'N': /* NONE */
        return push_kind(m, PICKLE_NONE, 0);
    case 'G': /* BINFLOAT */
        return take(m, 8) ? push_kind(m, PICKLE_NONE, 0) : -1;
    case 'q': /* BINPUT */
        return do_put(m, 1);
    case 'r': /* LONG_BINPUT */
        return do_put(m, 4);
    case 'h': /* BINGET */
        return do_get(m, 1);
    case 'j': /* LONG_BINGET */
        return do_get(m, 4);
    case '.': /* STOP */
        return 1;
    default:
        return err_set(m->err, ERR_UNSUPPORTED,
                       "the pickle has operation 0x%02x at byte %zu, which no tensor "
                       "needs: it is not run",
                       (unsigned char)*op, m->at);
    }
}

static int run(struct machine *m)
{
    int rc = 0;

    while (rc == 0) {
        m->at = m->next;
        rc = step(m);
    }
    if (rc < 0)
        return -1;
    return pop(m, &m->out->root);
}

int pickle_read(struct pickle *out, const char *bytes, size_t n_bytes, struct err *err)
{
    struct machine m = {.out = out, .bytes = bytes, .n_bytes = n_bytes, .err = err};
    int rc = -1;

    *out = (struct pickle){0};
    if (n_bytes > PICKLE_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "the pickle has %zu bytes, more than %zu", n_bytes,
                       PICKLE_BYTES_MAX);
    /* an operation takes a byte at least, and leaves one value more at most */
    m.n_memo = n_bytes + 1;
    m.stack = calloc(n_bytes + 1, sizeof(*m.stack));
    m.memo = malloc(m.n_memo * sizeof(*m.memo));
    if (m.stack && m.memo) {
        memset(m.memo, 0xff, m.n_memo * sizeof(*m.memo));
        rc = run(&m);
    } else {
        err_set(err, ERR_NOMEM, "cannot allocate the stack of a pickle");
    }
    free(m.stack);
    free(m.memo);
    if (rc < 0)
        pickle_free(out);
    return rc;
}

void pickle_free(struct pickle *pickle)
{
    for (int32_t i = 0; i < pickle->n_values; i++)
        free(pickle->values[i].items);
    free(pickle->values);
    *pickle = (struct pickle){0};
}
