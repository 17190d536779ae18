#include "dataprep/text/aligned.h"

void aligned_fini(struct aligned *aligned)
{
    buf_fini(&aligned->text);
    buf_fini(&aligned->origins);
}

void aligned_reset(struct aligned *aligned)
{
    buf_reset(&aligned->text);
    buf_reset(&aligned->origins);
    aligned->end = 0;
}

#define ORIGINS_AT_ONCE 64

/* n origins from `at` on, each `step` after the one before. */
static void add_origins(struct aligned *out, size_t n, uint32_t at, uint32_t step)
{
    uint32_t origins[ORIGINS_AT_ONCE];

    while (n) {
        size_t now = n < ORIGINS_AT_ONCE ? n : ORIGINS_AT_ONCE;

        for (size_t i = 0; i < now; i++)
            origins[i] = at + (uint32_t)i * step;
        buf_add(&out->origins, origins, now * sizeof(*origins));
        at += (uint32_t)now * step;
        n -= now;
    }
}

void aligned_add_same(struct aligned *out, const char *bytes, size_t n_bytes, uint32_t at)
{
    buf_add(&out->text, bytes, n_bytes);
    add_origins(out, n_bytes, at, 1);
}

void aligned_add_for(struct aligned *out, const char *bytes, size_t n_bytes, uint32_t at)
{
    buf_add(&out->text, bytes, n_bytes);
    add_origins(out, n_bytes, at, 0);
}

void aligned_add_part(struct aligned *out, const struct aligned *from, size_t begin,
                      size_t end)
{
    if (begin == end)
        return;
    buf_add(&out->text, from->text.data + begin, end - begin);
    buf_add(&out->origins, from->origins.data + begin * sizeof(uint32_t),
            (end - begin) * sizeof(uint32_t));
}

uint32_t aligned_origin(const struct aligned *aligned, size_t at)
{
    const uint32_t *origins = (const uint32_t *)(const void *)aligned->origins.data;

    return at < aligned->text.n_bytes ? origins[at] : aligned->end;
}

int aligned_check(const struct aligned *aligned, struct err *err)
{
    if (buf_check(&aligned->text, err) < 0)
        return -1;
    return buf_check(&aligned->origins, err);
}
