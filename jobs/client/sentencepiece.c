#include "jobs/client/sentencepiece.h"

#include "common/base/fs.h"
#include "common/base/proto.h"

#define MODEL_MAX (64u << 20)
#define FIELD_PIECES 1

int64_t sentencepiece_count(const char *path)
{
    struct buf file = BUF_INIT;
    struct proto_field field;
    struct proto model;
    int64_t n = 0;
    int rc = -1;

    if (path && fs_read_file(&file, path, MODEL_MAX, NULL) == 0) {
        model = proto_of(buf_str(&file), file.n_bytes);
        while ((rc = proto_next(&model, &field)) > 0)
            n += field.number == FIELD_PIECES;
    }
    buf_fini(&file);
    return rc < 0 ? 0 : n;
}
