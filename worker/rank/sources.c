#include "worker/rank/sources.h"

#include "common/base/log.h"
#include "worker/rank/config.h"

#include <inttypes.h>
#include <string.h>

#define N_PARTS 3

static const struct {
    unsigned part;
    const char *name;
} part_names[N_PARTS] = {{WEIGHTS_VISION, "vision encoder"},
                         {WEIGHTS_PROJECTOR, "projector"},
                         {WEIGHTS_LLM, "LLM"}};

/* "vision encoder and projector" */
static void name_parts(struct buf *out, unsigned parts)
{
    const char *between = "";

    for (int i = 0; i < N_PARTS; i++)
        if (parts & part_names[i].part) {
            buf_printf(out, "%s%s", between, part_names[i].name);
            between = " and ";
        }
}

static int check_parts(const struct source *source, struct err *err)
{
    const struct weights_info *info = weights_info(source->weights);
    unsigned missing = source->parts & ~info->parts;
    struct buf has = BUF_INIT, lacks = BUF_INIT;

    if (!missing)
        return 0;
    name_parts(&has, info->parts);
    name_parts(&lacks, missing);
    err_set(err, ERR_INVALID, "%s: '%s' (%s) holds %s and no %s", source->key,
            source->path, info->architecture, buf_str(&has), buf_str(&lacks));
    buf_fini(&has);
    buf_fini(&lacks);
    return -1;
}

int sources_add(struct sources *sources, const char *key, const char *path,
                unsigned parts, struct err *err)
{
    struct source *source = &sources->list[sources->n];

    *source = (struct source){.key = key, .path = path, .parts = parts};
    if (weights_open(&source->weights, path, err) < 0)
        return err_wrap(err, "%s", key);
    sources->n++;
    return check_parts(source, err);
}

void sources_close(struct sources *sources)
{
    for (int i = 0; i < sources->n; i++)
        weights_close(sources->list[i].weights);
    *sources = (struct sources){0};
}

static unsigned parts_of(const struct sources *sources)
{
    unsigned parts = 0;

    for (int i = 0; i < sources->n; i++)
        parts |= sources->list[i].parts;
    return parts;
}

/* Of the folder with the LLM; 0: there is none. */
static int64_t weights_vocab(const struct sources *sources)
{
    for (int i = 0; i < sources->n; i++)
        if (sources->list[i].parts & WEIGHTS_LLM)
            return weights_info(sources->list[i].weights)->config.llm.vocab;
    return 0;
}

int64_t sources_vocab(const struct sources *sources, int64_t data_vocab)
{
    int64_t vocab = weights_vocab(sources);

    return vocab > data_vocab ? vocab : data_vocab;
}

int sources_config(const struct sources *sources, const struct spec *spec,
                   struct neva_config *config, struct err *err)
{
    for (int i = 0; i < sources->n; i++) {
        const struct source *source = &sources->list[i];

        if (config_from_weights(config, spec, weights_info(source->weights),
                                source->parts, source->path, err) < 0)
            return -1;
    }
    return 0;
}

int sources_load(const struct sources *sources, struct neva *model, struct err *err)
{
    int64_t vocab = neva_config(model)->llm.vocab, has = weights_vocab(sources);
    unsigned fresh = WEIGHTS_ALL & ~parts_of(sources);

    if (has && vocab > has) {
        log_info("the vocabulary grows from %" PRId64 " to %" PRId64 ": %" PRId64
                 " new rows begin fresh",
                 has, vocab, vocab - has);
        fresh |= WEIGHTS_LLM;
    }
    if (fresh && neva_init_fresh(model, fresh, err) < 0)
        return -1;
    for (int i = 0; i < sources->n; i++) {
        const struct source *source = &sources->list[i];
        struct buf parts = BUF_INIT;

        if (weights_load(model, source->weights, source->parts, err) < 0)
            return err_wrap(err, "%s", source->key);
        name_parts(&parts, source->parts);
        log_info("%s of '%s' (%s)", buf_str(&parts), source->path,
                 weights_info(source->weights)->architecture);
        buf_fini(&parts);
    }
    return 0;
}
