#include "model/checkpoint/slice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void slice_note_print(char *out, size_t n_bytes, const struct slice_note *note)
{
    int used = snprintf(out, n_bytes, "axis=%d first=%" PRId64 " whole=", note->axis,
                        note->first);

    for (int i = 0; i < note->n_dims && used > 0 && (size_t)used < n_bytes; i++)
        used += snprintf(out + used, n_bytes - (size_t)used, "%s%" PRId64, i ? "," : "",
                         note->whole[i]);
}

/* "KEY=" at *at, then a number up to a space, comma or the end. */
static int read_number(const char **at, const char *key, int64_t least, int64_t *out)
{
    size_t length = strlen(key);
    char *end;

    if (strncmp(*at, key, length) != 0)
        return -1;
    errno = 0;
    *out = strtoll(*at + length, &end, 10);
    if (errno || end == *at + length || *out < least)
        return -1;
    *at = end;
    return 0;
}

static int parse_note(struct slice_note *out, const char *at)
{
    int64_t axis;
    char *end;

    if (read_number(&at, "axis=", -1, &axis) < 0 || axis >= TENSOR_DIMS_MAX ||
        read_number(&at, " first=", 0, &out->first) < 0)
        return -1;
    out->axis = (int)axis;
    for (out->n_dims = 0; *at != ' ' || out->n_dims == 0; out->n_dims++)
        if (out->n_dims == TENSOR_DIMS_MAX ||
            read_number(&at, out->n_dims ? "," : " whole=", 0, &out->whole[out->n_dims]) <
                0)
            return -1;
    if (strncmp(at, " xxh64=", 7) != 0 || strlen(at) != 7 + 16)
        return -1;
    errno = 0;
    out->hash = strtoull(at + 7, &end, 16);
    return *end || errno ? -1 : 0;
}

int slice_note_read(struct slice_note *out, const struct safetensor *tensor,
                    struct err *err)
{
    const struct tensor *t = &tensor->tensor;
    bool fits = parse_note(out, tensor->note) == 0 && out->n_dims == t->n_dims &&
                out->axis < t->n_dims;

    for (int i = 0; fits && i < t->n_dims; i++) {
        int64_t room = out->whole[i] - (i == out->axis ? out->first : 0);

        fits = i == out->axis ? t->dims[i] <= room : t->dims[i] == room;
    }
    if (fits)
        return 0;
    return err_set(err, ERR_FORMAT, "tensor '%s' has no place in a whole: note '%s'",
                   tensor->name, tensor->note);
}
