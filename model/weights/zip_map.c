#include "model/weights/zip_map.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Sizes of the records without their names and extra fields, and their first bytes. */
#define END_BYTES 22
#define END_MAGIC 0x06054b50U
#define END64_BYTES 56
#define END64_MAGIC 0x06064b50U
#define LOCATOR_BYTES 20
#define LOCATOR_MAGIC 0x07064b50U
#define CENTRAL_BYTES 46
#define CENTRAL_MAGIC 0x02014b50U
#define LOCAL_BYTES 30
#define LOCAL_MAGIC 0x04034b50U
#define COMMENT_MAX 65535
#define EXTRA_ZIP64 1

static uint64_t read_le(const char *at, int n_bytes)
{
    uint64_t value = 0;

    for (int i = n_bytes - 1; i >= 0; i--)
        value = value << 8 | (unsigned char)at[i];
    return value;
}

struct archive {
    char *bytes;
    uint64_t n_bytes;
};

/* True when [at, at + n) lies in the archive. */
static bool is_inside(const struct archive *a, uint64_t at, uint64_t n)
{
    return at <= a->n_bytes && n <= a->n_bytes - at;
}

/* The end record is the file's last but for a comment: searched from behind. */
static int find_end(const struct archive *a, uint64_t *end, struct err *err)
{
    for (uint64_t back = END_BYTES; back <= a->n_bytes && back <= END_BYTES + COMMENT_MAX;
         back++) {
        const char *at = a->bytes + a->n_bytes - back;

        if (read_le(at, 4) == END_MAGIC && read_le(at + 20, 2) == back - END_BYTES) {
            *end = a->n_bytes - back;
            return 0;
        }
    }
    return err_set(err, ERR_FORMAT, "the zip has no end: it is cut off or none");
}

/* Where the central directory lies and how many entries it has. */
static int read_end(const struct archive *a, uint64_t *at, uint64_t *n_bytes, uint64_t *n,
                    struct err *err)
{
    uint64_t end = 0, end64;
    const char *record;

    if (find_end(a, &end, err) < 0)
        return -1;
    record = a->bytes + end;
    *n = read_le(record + 10, 2);
    *n_bytes = read_le(record + 12, 4);
    *at = read_le(record + 16, 4);
    if (end >= LOCATOR_BYTES && read_le(record - LOCATOR_BYTES, 4) == LOCATOR_MAGIC) {
        end64 = read_le(record - LOCATOR_BYTES + 8, 8);
        if (!is_inside(a, end64, END64_BYTES) ||
            read_le(a->bytes + end64, 4) != END64_MAGIC)
            return err_set(err, ERR_FORMAT, "the zip's zip64 end lies nowhere");
        *n = read_le(a->bytes + end64 + 32, 8);
        *n_bytes = read_le(a->bytes + end64 + 40, 8);
        *at = read_le(a->bytes + end64 + 48, 8);
    }
    if (!is_inside(a, *at, *n_bytes) || *n > ZIP_ENTRIES_MAX)
        return err_set(err, ERR_FORMAT, "the zip's directory lies outside the file");
    return 0;
}

/* The zip64 field has, in this order, those of size, packed size and place that do not
 * fit 32 bits. */
static int read_zip64(const char *extra, uint64_t n_extra, uint64_t *values[3])
{
    while (n_extra >= 4) {
        uint64_t id = read_le(extra, 2), n = read_le(extra + 2, 2);

        if (n > n_extra - 4)
            return -1;
        for (int i = 0; i < 3 && id == EXTRA_ZIP64; i++) {
            if (*values[i] != UINT32_MAX)
                continue;
            if (n < 8)
                return -1;
            *values[i] = read_le(extra + 4, 8);
            extra += 8;
            n_extra -= 8;
            n -= 8;
        }
        extra += 4 + n;
        n_extra -= 4 + n;
    }
    return 0;
}

static int bad_entry(const struct zip_entry *entry, const char *what, struct err *err)
{
    int n = entry->n_name < 160 ? (int)entry->n_name : 160;

    return err_set(err, ERR_FORMAT, "the zip's entry '%.*s' %s", n, entry->name, what);
}

/* The record at `at` of the directory; *n_record: its length. */
static int read_entry(struct zip_entry *out, const struct archive *a, const char *at,
                      uint64_t n_left, uint64_t *n_record, struct err *err)
{
    uint64_t packed, place, n_name, n_extra, skip;
    uint64_t *values[3] = {&out->n_bytes, &packed, &place};

    if (n_left < CENTRAL_BYTES || read_le(at, 4) != CENTRAL_MAGIC)
        return err_set(err, ERR_FORMAT, "the zip's directory is damaged");
    n_name = read_le(at + 28, 2);
    n_extra = read_le(at + 30, 2);
    *n_record = CENTRAL_BYTES + n_name + n_extra + read_le(at + 32, 2);
    if (*n_record > n_left)
        return err_set(err, ERR_FORMAT, "the zip's directory is cut off");
    out->name = at + CENTRAL_BYTES;
    out->n_name = n_name;
    packed = read_le(at + 20, 4);
    out->n_bytes = read_le(at + 24, 4);
    place = read_le(at + 42, 4);
    if (read_zip64(at + CENTRAL_BYTES + n_name, n_extra, values) < 0)
        return bad_entry(out, "has a damaged zip64 field", err);
    if (read_le(at + 10, 2) != 0 || packed != out->n_bytes || read_le(at + 8, 2) & 1)
        return bad_entry(out, "is compressed or encrypted: torch.save stores plainly",
                         err);
    if (!is_inside(a, place, LOCAL_BYTES) || read_le(a->bytes + place, 4) != LOCAL_MAGIC)
        return bad_entry(out, "lies outside the file", err);
    skip = LOCAL_BYTES + read_le(a->bytes + place + 26, 2) +
           read_le(a->bytes + place + 28, 2);
    if (!is_inside(a, place, skip) || !is_inside(a, place + skip, out->n_bytes))
        return bad_entry(out, "is cut off", err);
    out->data = a->bytes + place + skip;
    return 0;
}

int zip_map_open(struct zip_map *out, char *bytes, uint64_t n_bytes, struct err *err)
{
    struct archive a = {bytes, n_bytes};
    uint64_t at = 0, n_directory = 0, n = 0, n_record = 0;

    *out = (struct zip_map){0};
    if (read_end(&a, &at, &n_directory, &n, err) < 0)
        return -1;
    out->directory = bytes + at;
    out->n_directory = n_directory;
    out->entries = calloc(n + 1, sizeof(*out->entries));
    if (!out->entries)
        return err_set(err, ERR_NOMEM, "cannot allocate a table of %llu zip entries",
                       (unsigned long long)n);
    for (uint64_t done = 0; (uint64_t)out->n_entries < n; out->n_entries++) {
        if (read_entry(&out->entries[out->n_entries], &a, out->directory + done,
                       n_directory - done, &n_record, err) < 0) {
            zip_map_close(out);
            return -1;
        }
        done += n_record;
    }
    return 0;
}

void zip_map_close(struct zip_map *zip)
{
    free(zip->entries);
    *zip = (struct zip_map){0};
}

const struct zip_entry *zip_map_find(const struct zip_map *zip, const char *ending)
{
    size_t n = strlen(ending);

    for (int i = 0; i < zip->n_entries; i++) {
        const struct zip_entry *entry = &zip->entries[i];

        if (entry->n_name >= n &&
            memcmp(entry->name + entry->n_name - n, ending, n) == 0 &&
            (entry->n_name == n || entry->name[entry->n_name - n - 1] == '/'))
            return entry;
    }
    return NULL;
}
