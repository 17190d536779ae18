/* pytorch_model.bin: what torch.save writes is read, and nothing else is; no pickle is run.
 * Files are made here, byte by byte. */
#include "tests/op/expect.h"
#include "tests/unit/weights_help.h"

#include <stdlib.h>
#include <string.h>

/* ---- a zip of stored entries ---- */

struct zip {
    struct buf bytes, directory;
    int n_entries;
    int method;  /* 0: stored */
    bool is_64;  /* sizes and places in 64 bits, as of files above 4 GB */
    int n_more;  /* bytes that entries claim behind their end */
    int n_extra; /* of the zip64 field's 24 bytes, when less are written */
};

static void put(struct buf *out, uint64_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        buf_add_char(out, i < 8 ? (char)(value >> (8 * i)) : 0);
}

static void put_sizes(struct buf *out, uint64_t n, uint64_t at, int n_extra)
{
    const uint64_t values[] = {n, n, at};

    for (int i = 0; i < 3 && i < n_extra / 8; i++)
        put(out, values[i], 8);
}

static void zip_add(struct zip *zip, const char *name, const void *data, size_t n)
{
    size_t at = zip->bytes.n_bytes, n_said = n + (size_t)zip->n_more;

    put(&zip->bytes, 0x04034b50, 4);
    put(&zip->bytes, 0, 22); /* version, flags, method, time, sum, sizes: not read */
    put(&zip->bytes, strlen(name), 2);
    put(&zip->bytes, 0, 2);
    buf_add_str(&zip->bytes, name);
    buf_add(&zip->bytes, data, n);
    put(&zip->directory, 0x02014b50, 4);
    put(&zip->directory, 0, 6);
    put(&zip->directory, (uint64_t)zip->method, 2);
    put(&zip->directory, 0, 8);
    put(&zip->directory, zip->is_64 ? UINT32_MAX : n_said, 4);
    put(&zip->directory, zip->is_64 ? UINT32_MAX : n_said, 4);
    put(&zip->directory, strlen(name), 2);
    put(&zip->directory, zip->is_64 ? 8 + 4 + (uint64_t)zip->n_extra : 0, 2);
    put(&zip->directory, 0, 10);
    put(&zip->directory, zip->is_64 ? UINT32_MAX : at, 4);
    buf_add_str(&zip->directory, name);
    if (zip->is_64) {
        put(&zip->directory, 0x5555, 2); /* a field that means nothing */
        put(&zip->directory, 4, 2);
        put(&zip->directory, 7, 4);
        put(&zip->directory, 1, 2);
        put(&zip->directory, (uint64_t)zip->n_extra, 2);
        put_sizes(&zip->directory, n_said, at, zip->n_extra);
    }
    zip->n_entries++;
}

static void zip_write(struct zip *zip, const char *path)
{
    size_t at = zip->bytes.n_bytes, end;

    buf_add(&zip->bytes, zip->directory.data, zip->directory.n_bytes);
    end = zip->bytes.n_bytes;
    if (zip->is_64) {
        put(&zip->bytes, 0x06064b50, 4);
        put(&zip->bytes, 44, 8);
        put(&zip->bytes, 0, 12);
        put(&zip->bytes, (uint64_t)zip->n_entries, 8);
        put(&zip->bytes, (uint64_t)zip->n_entries, 8);
        put(&zip->bytes, zip->directory.n_bytes, 8);
        put(&zip->bytes, at, 8);
        put(&zip->bytes, 0x07064b50, 4);
        put(&zip->bytes, 0, 4);
        put(&zip->bytes, end, 8);
        put(&zip->bytes, 1, 4);
    }
    put(&zip->bytes, 0x06054b50, 4);
    put(&zip->bytes, 0, 4);
    put(&zip->bytes, zip->is_64 ? UINT16_MAX : (uint64_t)zip->n_entries, 2);
    put(&zip->bytes, zip->is_64 ? UINT16_MAX : (uint64_t)zip->n_entries, 2);
    put(&zip->bytes, zip->is_64 ? UINT32_MAX : zip->directory.n_bytes, 4);
    put(&zip->bytes, zip->is_64 ? UINT32_MAX : at, 4);
    put(&zip->bytes, 0, 2);
    help_write(path, zip->bytes.data, zip->bytes.n_bytes);
    buf_fini(&zip->bytes);
    buf_fini(&zip->directory);
}

/* ---- a pickle of one tensor, "mm_projector.weight" ---- */

struct spec {
    const char *storage; /* as the pickle names it */
    const char *key;     /* of its entry */
    int numel, offset, rows, columns, row_stride, column_stride;
};

static const struct spec plain = {"torch\nFloatStorage\n", "0", 6, 0, 3, 2, 2, 1};

static void put_text(struct buf *out, const char *text)
{
    buf_add_char(out, 'X');
    put(out, strlen(text), 4);
    buf_add_str(out, text);
}

static void put_int(struct buf *out, int value)
{
    buf_add_char(out, 'J');
    put(out, (uint32_t)value, 4);
}

static void put_pair(struct buf *out, int a, int b)
{
    put_int(out, a);
    put_int(out, b);
    buf_add_char(out, (char)0x86);
}

static void put_tensor(struct buf *out, const struct spec *spec)
{
    buf_add_str(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(out, "storage");
    buf_add_char(out, 'c');
    buf_add_str(out, spec->storage);
    put_text(out, spec->key);
    put_text(out, "cpu");
    put_int(out, spec->numel);
    buf_add_str(out, "tQ");
    put_int(out, spec->offset);
    put_pair(out, spec->rows, spec->columns);
    put_pair(out, spec->row_stride, spec->column_stride);
    buf_add_char(out, (char)0x89);
    buf_add_str(out, "ccollections\nOrderedDict\n)RtR");
}

static const float numbers[6] = {1, 2, 3, 4, 5, 6};

static void write_zip(struct zip zip, const char *path, const char *pickle, size_t n)
{
    zip_add(&zip, "archive/data.pkl", pickle, n);
    zip_add(&zip, "archive/byteorder", "little", 6);
    zip_add(&zip, "archive/data/0", numbers, sizeof(numbers));
    zip_write(&zip, path);
}

static void write_pickle(const char *path, const char *pickle, size_t n)
{
    write_zip((struct zip){.method = 0}, path, pickle, n);
}

/* {"mm_projector.weight": the tensor, "mm_projector.bias": its first column} */
static void write_tensor(const char *path, const struct spec *spec)
{
    static const struct spec bias = {"torch\nFloatStorage\n", "0", 6, 3, 3, 1, 1, 1};
    struct buf out = BUF_INIT;

    buf_add_str(&out, "\x80\x02}(");
    put_text(&out, "mm_projector.weight");
    put_tensor(&out, spec);
    put_text(&out, "mm_projector.bias");
    put_tensor(&out, &bias);
    buf_add_str(&out, "u.");
    write_pickle(path, out.data, out.n_bytes);
    buf_fini(&out);
}

/* ---- tensors ---- */

static void put_one_tensor(struct buf *out)
{
    struct spec weight = plain;

    weight.rows = weight.columns = 2;
    weight.offset = 1;
    buf_add_str(out, "\x80\x02}(");
    put_text(out, "mm_projector.weight");
    put_tensor(out, &weight);
    buf_add_str(out, "u.");
}

static void expect_one_tensor(void)
{
    struct weights *weights;
    struct err err = {0};
    float got[4] = {0};

    weights = help_opened("ok.bin"); /* no bias: projector_no_bias */
    if (!weights)
        return;
    EXPECT(weights_info(weights)->config.projector == NEVA_PROJECTOR_LINEAR &&
           weights_info(weights)->config.projector_no_bias &&
           weights_params(weights)->n_params == 1);
    EXPECT_OK(weights_read(weights, 0, got, &err), &err);
    EXPECT(got[0] == 2 && got[3] == 5);
    weights_close(weights);
}

static void tensors_of_any_offset_are_read(void)
{
    struct buf out = BUF_INIT;

    put_one_tensor(&out);
    write_pickle("ok.bin", out.data, out.n_bytes);
    expect_one_tensor();
    buf_fini(&out);
}

static void zips_of_64_bits_are_read(void)
{
    struct buf out = BUF_INIT;

    put_one_tensor(&out);
    write_zip((struct zip){.is_64 = true, .n_extra = 24}, "ok.bin", out.data,
              out.n_bytes);
    expect_one_tensor();
    write_zip((struct zip){.is_64 = true, .n_extra = 16}, "ok.bin", out.data,
              out.n_bytes);
    help_refused("ok.bin", "has a damaged zip64 field", "data.pkl'");
    buf_fini(&out);
}

static void tensors_that_cannot_be_are_named(void)
{
    static const struct {
        struct spec spec;
        const char *says;
    } cases[] = {
        {{"torch\nFloatStorage\n", "0", 6, 0, 2, 3, 1, 2}, "is not contiguous"},
        {{"torch\nFloatStorage\n", "0", 6, 0, 3, 2, 3, 1}, "is not contiguous"},
        {{"torch\nFloatStorage\n", "0", 6, 1, 3, 2, 2, 1}, "lies outside its storage"},
        {{"torch\nFloatStorage\n", "0", 6, -1, 3, 2, 2, 1}, "lies outside its storage"},
        {{"torch\nFloatStorage\n", "0", 7, 0, 3, 2, 2, 1}, "storage of another size"},
        {{"torch\nFloatStorage\n", "0", -6, 0, 3, 2, 2, 1}, "storage of another size"},
        {{"torch\nHalfStorage\n", "0", 6, 0, 3, 2, 2, 1}, "storage of another size"},
        {{"torch\nFloatStorage\n", "1", 6, 0, 3, 2, 2, 1}, "not in the file"},
        {{"torch\nFloatStorage\n", "../../etc/passwd", 6, 0, 3, 2, 2, 1},
         "not in the file"},
        {{"torch\nFloatStorage\n", "0", 6, 0, -3, 2, 2, 1}, "shape that cannot be"},
        {{"torch\nDoubleStorage\n", "0", 3, 0, 3, 1, 1, 1}, "has dtype F64"},
        {{"torch\nCharStorage\n", "0", 24, 0, 3, 2, 2, 1}, "has dtype I8"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_tensor("bad.bin", &cases[i].spec);
        help_refused("bad.bin", "tensor 'mm_projector.weight'", cases[i].says);
        help_refused("bad.bin", "bad.bin'", NULL);
    }
    write_tensor("bad.bin", &plain);
    help_refused("bad.bin", "tensor 'mm_projector.bias' has not the shape", "[3,1] in");
}

/* ---- programs ---- */

#define P(text) text, sizeof(text) - 1

static void no_program_is_run(void)
{
    static const struct {
        const char *pickle;
        size_t n;
        const char *says;
    } cases[] = {
        {P("\x80\x02"
           "cposix\nsystem\nX\x08\0\0\0touch /x\x85R."),
         "wants 'posix.system', at byte 2"},
        {P("cbuiltins\neval\n."), "wants 'builtins.eval', at byte 0"},
        {P("ctorch._utils\n_rebuild_tensor\n."), "wants 'torch._utils._rebuild_tensor'"},
        {P("ctorch\nFloatStorage\n)R."), "calls what is no function, at byte 21"},
        {P("(iposix\nsystem\n."), "operation 0x69 at byte 1"},
        {P("\x80\x04\x8c\x05posix\x8c\x06system\x93."), "operation 0x93 at byte 17"},
        {P("ccollections\nOrderedDict\n)\x81."), "operation 0x81"},
        {P("c__builtin__\n"), "is cut off"},
        {P("ctorch._utils\n_rebuild_tensor_v2\n)R."), "makes a tensor of too little"},
        {P("ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR."), "other things than storage"},
        {P("ctorch._utils\n_rebuild_parameter\n(NtR."), "a parameter of no tensor"},
        {P("ccollections\nOrderedDict\n(NtR."), "makes a dict of a list"},
        {P("ccollections\nOrderedDict\nNR."), "calls what is no function"},
        {P("NR."), "takes from an empty stack"},
        {P("R."), "takes from an empty stack"},
        {P("}NR."), "calls what is no function"},
        {P("t."), "has no mark"},
        {P("\x86."), "takes from an empty stack"},
        {P("](Ne"), "is cut off"},
        {P("](Neu."), "has no mark"},
        {P("N(Nu."), "adds to what is no list or dict"},
        {P("}(Nu."), "a key without a value"},
        {P("NNb."), "sets attributes of what is no dict"},
        {P("NQ."), "no tensor's storage"},
        {P("(X\x07\0\0\0storageNNNNtQ."), "no tensor's storage"},
        {P("Nr\xff\xff\xff\xff."), "under too large a number"},
        {P("h\x01."), "a value it has not kept"},
        {P("q\x01."), "takes from an empty stack"},
        {P("\x8a\x09"
           "123456789."),
         "more than 64 bits"},
        {P("X\xff\xff\xff\xff"
           "a."),
         "is cut off"},
        {P("."), "takes from an empty stack"},
        {P("N."), "holds no dict of tensors"},
        {P("(."), "holds no dict of tensors"},
        {P("}(NNu."), "a key that is no name"},
        {P("}(X\x01\0\0\0aNu."), "tensor 'a' is no tensor"},
        {P("}(X\x03\0\0\0a\0bNu."), "a key that is no name"},
        {P("}."), "is no projector"},
        {P(""), "is cut off"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_pickle("evil.bin", cases[i].pickle, cases[i].n);
        help_refused("evil.bin", cases[i].says, "evil.bin'");
    }
}

/* A list inside itself, and one appended to itself for ever, end. */
static void circles_end(void)
{
    write_pickle("circle.bin", P("]q\0h\0a."));
    help_refused("circle.bin", "holds no dict of tensors", NULL);
    write_pickle("circle.bin", P("}q\0X\x01\0\0\0ah\0s."));
    help_refused("circle.bin", "tensor 'a' is no tensor", NULL);
}

/* ---- files ---- */

static void files_that_are_no_zips_of_tensors_say_so(void)
{
    static const char legacy[] =
        "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.more";
    struct zip zip = {.method = 0};

    help_write("old.bin", legacy, sizeof(legacy));
    help_refused("old.bin", "torch before 1.6", "torch.save(torch.load(");
    help_write("none.bin", "0123456789", 10);
    help_refused("none.bin", "no file of torch.save", "has no end");
    zip_add(&zip, "archive/other", "x", 1);
    zip_write(&zip, "other.bin");
    help_refused("other.bin", "has no data.pkl", NULL);
    zip = (struct zip){.method = 8};
    zip_add(&zip, "archive/data.pkl", "x", 1);
    zip_write(&zip, "packed.bin");
    help_refused("packed.bin", "entry 'archive/data.pkl' is compressed", NULL);
    zip = (struct zip){.n_more = 4096};
    zip_add(&zip, "archive/data.pkl", "x", 1);
    zip_write(&zip, "long.bin");
    help_refused("long.bin", "entry 'archive/data.pkl' is cut off", "long.bin'");
    zip = (struct zip){.is_64 = true, .n_extra = 24, .n_more = INT32_MAX};
    zip_add(&zip, "archive/data.pkl", "x", 1);
    zip_write(&zip, "long.bin");
    help_refused("long.bin", "entry 'archive/data.pkl' is cut off", NULL);
    zip = (struct zip){.method = 0};
    zip_add(&zip, "archive/data.pkl", "x", 1);
    zip_add(&zip, "archive/byteorder", "big", 3);
    zip_write(&zip, "big.bin");
    help_refused("big.bin", "another byte order", NULL);
}

static void damaged_files_do_no_harm(void)
{
    struct buf bytes = BUF_INIT;
    int n_refused = 0, n = 0;

    help_copy("projector", "projector");
    help_read(&bytes, "projector/mm_projector.bin");
    for (size_t at = 0; at < bytes.n_bytes; at += 5) {
        struct weights *weights = NULL;
        struct err err = {0};
        char path[HELP_PATH_MAX];

        help_path(path, "projector");
        bytes.data[at] ^= (char)(1 << (at % 8));
        help_write("projector/mm_projector.bin", bytes.data, bytes.n_bytes);
        n_refused += weights_open(&weights, path, &err) < 0;
        weights_close(weights);
        bytes.data[at] ^= (char)(1 << (at % 8));
        n++;
    }
    for (size_t length = 0; length < bytes.n_bytes; length += 64) {
        help_write("projector/mm_projector.bin", bytes.data, length);
        help_refused("projector", "mm_projector.bin'", NULL);
    }
    EXPECT_MSG(n_refused > 20 && n_refused < n, "%d of %d refused", n_refused, n);
    buf_fini(&bytes);
}

int main(void)
{
    help_begin();
    EXPECT_RUN(tensors_of_any_offset_are_read);
    EXPECT_RUN(zips_of_64_bits_are_read);
    EXPECT_RUN(tensors_that_cannot_be_are_named);
    EXPECT_RUN(no_program_is_run);
    EXPECT_RUN(circles_end);
    EXPECT_RUN(files_that_are_no_zips_of_tensors_say_so);
    EXPECT_RUN(damaged_files_do_no_harm);
    help_end();
    return expect_end();
}
