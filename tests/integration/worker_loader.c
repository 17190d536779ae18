/* Micro batches from prepared samples: what is asked of the decoders, what the model gets.
 */
#define _GNU_SOURCE /* mkdtemp */
#include "common/base/fs.h"
#include "dataprep/prepare/from_spec.h"
#include "tests/integration/worker_data.h"
#include "worker/rank/loader.h"
#include "worker/rank/order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MICRO 4
#define N_BATCHES 6
#define SIZE 32
#define PATCHES 4
#define FRAME_BYTES ((size_t)SIZE * SIZE * 3)
#define TICKETS_MAX 64

/* A frame service over another one: bounded, counted, and with one file it cannot open. */
struct counted {
    struct frame_service inner;
    int limit, n_open, most_open, n_submits, n_looks;
    const char *broken; /* NULL: none */
};

struct world {
    char folder[64], plain[128], stored[128];
    struct frame_config frames;
    struct media_limits limits;
    struct order order;
};

/* ---- the service ---- */

static int counted_submit(void *state, const struct frame_request *request,
                          bool only_probe, int64_t *ticket, struct err *err)
{
    struct counted *counted = state;

    if (counted->n_open == counted->limit)
        return err_set(err, ERR_LIMIT, "full");
    if (counted->inner.submit(counted->inner.state, request, only_probe, ticket, err) < 0)
        return -1;
    counted->n_submits++;
    counted->n_open++;
    if (counted->n_open > counted->most_open)
        counted->most_open = counted->n_open;
    return 0;
}

static int counted_wait(void *state, int64_t ticket, const uint8_t **frames,
                        struct media_info *info, struct err *err)
{
    struct counted *counted = state;

    if (counted->broken)
        return err_set(err, ERR_PEER, "%s", counted->broken);
    return counted->inner.wait(counted->inner.state, ticket, frames, info, err);
}

static void counted_release(void *state, int64_t ticket)
{
    struct counted *counted = state;

    counted->n_open--;
    counted->inner.release(counted->inner.state, ticket);
}

/* Of a batch's four tickets, which are asked in turn, every sixth is not. */
static bool counted_is_ready(void *state, int64_t ticket)
{
    struct counted *counted = state;

    (void)ticket;
    return !counted->broken && ++counted->n_looks % 6 > 0;
}

static struct frame_service counted_open(struct counted *counted,
                                         const struct world *world, int limit)
{
    struct err err = {0};

    *counted = (struct counted){.limit = limit};
    assert_int_equal(media_direct_service(&counted->inner, &world->limits, &err), 0);
    return (struct frame_service){counted, counted_submit, counted_wait, counted_release,
                                  counted_is_ready};
}

/* ---- the world ---- */

static void prepare(const struct world *world, const char *output,
                    const char *const *more)
{
    struct media_limits limits = world->limits;
    struct prepare_config config;
    struct frame_service service;
    struct buf text = BUF_INIT;
    struct spec *spec = NULL;
    struct json *summary = NULL;
    struct err err = {0};
    int64_t n = 0, n_rejects = 0;

    data_spec_prepare(&text, world->folder, output, more);
    if (spec_from_json(&spec, buf_str(&text), text.n_bytes, &err) < 0 ||
        prepare_from_spec(&config, spec, &err) < 0 ||
        media_direct_service(&service, &limits, &err) < 0 ||
        prepare_plan(&config, &n, &err) < 0)
        fail_msg("%s", err.text);
    for (int64_t first = 0; first < n; first += config.shard_size) {
        int64_t count = n - first < config.shard_size ? n - first : config.shard_size;

        if (prepare_range(&config, &service, first, count, NULL, &n_rejects, &err) < 0)
            fail_msg("%s", err.text);
    }
    if (prepare_finish(&config, &summary, &err) < 0)
        fail_msg("%s", err.text);
    json_free(summary);
    media_direct_service_close(&service);
    spec_free(spec);
    buf_fini(&text);
}

static int setup(void **state)
{
    static const char *const with_frames[] = {"model.data.store_frames=true", NULL};
    struct world *world = calloc(1, sizeof(*world));

    *state = world;
    strcpy(world->folder, "/tmp/vneva-loader-XXXXXX");
    if (!mkdtemp(world->folder))
        return -1;
    world->limits = (struct media_limits){1 << 24, 1000};
    world->frames = (struct frame_config){
        .num_frames = 4, .image_size = SIZE, .frame_tokens = 4, .max_tokens = 256};
    world->order = (struct order){.seed = 9,
                                  .n_samples = DATA_QUESTIONS,
                                  .micro = MICRO,
                                  .global = 2 * MICRO,
                                  .n_data = 1};
    snprintf(world->plain, sizeof(world->plain), "%s/plain", world->folder);
    snprintf(world->stored, sizeof(world->stored), "%s/stored", world->folder);
    data_make(world->folder);
    prepare(world, world->plain, NULL);
    prepare(world, world->stored, with_frames);
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;

    fs_remove_tree(world->folder, NULL);
    free(world);
    return 0;
}

static int64_t numbers(void *state, int64_t k, int64_t *out)
{
    const struct world *world = state;

    if (k >= N_BATCHES)
        return 0;
    order_train_batch(&world->order, k, out);
    return MICRO;
}

/* All tokens, labels and pixels of N_BATCHES micro batches, as bytes. */
static void load_all(struct buf *out, struct world *world, const char *dataset,
                     struct frame_service *service, int64_t n_ahead)
{
    struct loader_config config = {
        .source = {.frames = &world->frames, .service = service},
        .capacity = MICRO,
        .n_ahead = n_ahead,
        .state = world,
        .numbers = numbers};
    struct loader *loader = NULL;
    const struct batch *batch;
    struct err err = {0};
    int n = 0, rc;

    if (corpus_open(&config.source.corpus, &dataset, 1, &err) < 0 ||
        loader_create(&loader, &config, &err) < 0)
        fail_msg("%s", err.text);
    while ((rc = loader_next(loader, &batch, &err)) > 0) {
        const struct neva_batch *it = batch_get(batch);
        size_t n_tokens = (size_t)(it->n_samples * it->n_tokens);

        buf_add(out, it->tokens, n_tokens * sizeof(*it->tokens));
        buf_add(out, it->labels, n_tokens * sizeof(*it->labels));
        buf_add(out, it->pixels, (size_t)it->n_frames * FRAME_BYTES);
        n++;
    }
    if (rc < 0)
        fail_msg("%s", err.text);
    assert_int_equal(n, N_BATCHES);
    assert_true(loader_take_wait_ns(loader) > 0);
    assert_int_equal(loader_take_wait_ns(loader), 0);
    loader_destroy(loader);
    corpus_close(config.source.corpus);
}

/* ---- tests ---- */

static const uint8_t *bytes_of(const struct batch *batch, size_t *n_bytes)
{
    *n_bytes = (size_t)batch_get(batch)->n_frames * FRAME_BYTES;
    return batch_get(batch)->pixels;
}

/* Now and then there is something to be seen; it is what comes, once. */
static void peek_changes_neither_order_nor_number(void **state)
{
    struct world *world = *state;
    struct counted counted;
    struct frame_service service = counted_open(&counted, world, TICKETS_MAX);
    struct loader_config config = {
        .source = {.frames = &world->frames, .service = &service},
        .capacity = MICRO,
        .n_ahead = 1,
        .state = world,
        .numbers = numbers};
    const char *dataset = world->plain;
    struct buf plain = BUF_INIT, peeked = BUF_INIT;
    struct loader *loader = NULL;
    const struct batch *batch, *next = NULL;
    int n_seen = 0, n_given = 0, rc;
    struct err err = {0};

    assert_int_equal(corpus_open(&config.source.corpus, &dataset, 1, &err), 0);
    for (int is_peeking = 0; is_peeking < 2; is_peeking++) {
        struct buf *out = is_peeking ? &peeked : &plain;

        assert_int_equal(loader_create(&loader, &config, &err), 0);
        while ((rc = loader_next(loader, &batch, &err)) > 0) {
            size_t n_bytes;
            const uint8_t *bytes = bytes_of(batch, &n_bytes);

            assert_true(!next || next == batch);
            buf_add(out, bytes, n_bytes);
            next = NULL;
            n_seen += is_peeking && loader_peek(loader, &next);
            n_given++;
        }
        assert_int_equal(rc, 0);
        loader_destroy(loader);
    }
    assert_int_equal(n_given, 2 * N_BATCHES);
    assert_true(n_seen > 0 && n_seen < N_BATCHES);
    assert_int_equal(plain.n_bytes, peeked.n_bytes);
    assert_memory_equal(plain.data, peeked.data, plain.n_bytes);
    assert_int_equal(counted.n_submits, 2 * N_BATCHES * MICRO);
    assert_int_equal(counted.n_open, 0);
    corpus_close(config.source.corpus);
    media_direct_service_close(&counted.inner);
    buf_fini(&plain);
    buf_fini(&peeked);
}

static void short_queue_gives_the_same_batches(void **state)
{
    struct world *world = *state;
    struct buf wide = BUF_INIT, narrow = BUF_INIT;
    struct counted counted;
    struct frame_service service = counted_open(&counted, world, TICKETS_MAX);

    load_all(&wide, world, world->plain, &service, 4);
    assert_int_equal(counted.n_submits, N_BATCHES * MICRO);
    assert_int_equal(counted.most_open, 5 * MICRO); /* the one in use and four ahead */
    assert_int_equal(counted.n_open, 0);
    media_direct_service_close(&counted.inner);
    service = counted_open(&counted, world, 1);
    load_all(&narrow, world, world->plain, &service, 4);
    assert_int_equal(counted.most_open, 1);
    assert_int_equal(counted.n_open, 0);
    media_direct_service_close(&counted.inner);
    assert_int_equal(wide.n_bytes, narrow.n_bytes);
    assert_memory_equal(wide.data, narrow.data, wide.n_bytes);
    buf_fini(&wide);
    buf_fini(&narrow);
}

static void stored_frames_are_those_decoded(void **state)
{
    struct world *world = *state;
    struct buf plain = BUF_INIT, stored = BUF_INIT;
    struct counted counted;
    struct frame_service service = counted_open(&counted, world, TICKETS_MAX);

    load_all(&plain, world, world->plain, &service, 1);
    assert_int_equal(counted.n_submits, N_BATCHES * MICRO);
    load_all(&stored, world, world->stored, &service, 1);
    assert_int_equal(counted.n_submits, N_BATCHES * MICRO); /* no more */
    assert_int_equal(plain.n_bytes, stored.n_bytes);
    assert_memory_equal(plain.data, stored.data, plain.n_bytes);
    media_direct_service_close(&counted.inner);
    buf_fini(&plain);
    buf_fini(&stored);
}

static void stored_frames_of_other_settings_are_not_used(void **state)
{
    struct world *world = *state, other = *world;
    struct buf bytes = BUF_INIT;
    struct counted counted;
    struct frame_service service = counted_open(&counted, world, TICKETS_MAX);

    other.frames.splice = MEDIA_SPLICE_LAST;
    load_all(&bytes, &other, world->stored, &service, 1);
    assert_int_equal(counted.n_submits, N_BATCHES * MICRO);
    media_direct_service_close(&counted.inner);
    buf_fini(&bytes);
}

static void lengths_of_batches_are_few(void **state)
{
    int n_lengths = 0;

    (void)state;
    assert_int_equal(batch_round_tokens(1, 256), 8);
    assert_int_equal(batch_round_tokens(9, 256), 16);
    assert_int_equal(batch_round_tokens(2305, 4096), 2368);
    assert_int_equal(batch_round_tokens(4096, 4096), 4096);
    assert_int_equal(batch_round_tokens(4090, 4091), 4091);
    for (int64_t n = 1, last = 0; n <= 4091; n++) {
        int64_t rounded = batch_round_tokens(n, 4091);

        assert_in_range(rounded, n, 4091);
        n_lengths += rounded != last;
        last = rounded;
    }
    assert_in_range(n_lengths, 1, BATCH_LENGTHS_MAX);
}

static void batch_is_padded_and_marked(void **state)
{
    struct world *world = *state;
    struct batch_source source = {.frames = &world->frames};
    struct counted counted;
    struct frame_service service = counted_open(&counted, world, TICKETS_MAX);
    const char *dataset = world->plain;
    const int64_t samples[] = {0, 1, 2};
    const struct neva_batch *it;
    struct batch *batch = NULL;
    struct err err = {0};

    source.service = &service;
    assert_int_equal(corpus_open(&source.corpus, &dataset, 1, &err), 0);
    assert_int_equal(batch_create(&batch, &source, MICRO, &err), 0);
    assert_int_equal(batch_plan(batch, samples, 3, &err), 0);
    assert_int_equal(batch_finish(batch, &err), 0);
    it = batch_get(batch);
    assert_int_equal(it->n_samples, 3);
    assert_int_equal(it->n_tokens % BATCH_TOKENS_MULTIPLE, 0);
    assert_int_equal(it->n_frames, 3 * 4);
    for (int64_t i = 0; i < 3; i++) {
        int n_media = 0, n_labels = 0;

        for (int64_t t = 0; t < it->n_tokens; t++) {
            n_media += it->tokens[i * it->n_tokens + t] == NEVA_TOKEN_MEDIA;
            n_labels += it->labels[i * it->n_tokens + t] >= 0;
            if (t >= it->lens[i]) {
                assert_int_equal(it->tokens[i * it->n_tokens + t], 0);
                assert_int_equal(it->labels[i * it->n_tokens + t], -1);
            }
        }
        assert_int_equal(n_media, 4 * PATCHES);
        assert_true(n_labels > 0);
    }
    batch_destroy(batch);
    corpus_close(source.corpus);
    media_direct_service_close(&counted.inner);
}

static void prompt_holds_no_answer(void **state)
{
    struct world *world = *state;
    struct batch_source source = {.frames = &world->frames, .is_prompt = true};
    struct counted counted;
    struct frame_service service = counted_open(&counted, world, TICKETS_MAX);
    const char *dataset = world->plain;
    const int64_t samples[] = {5};
    const struct dataset_sample *sample;
    struct batch *batch = NULL;
    struct err err = {0};

    source.service = &service;
    assert_int_equal(corpus_open(&source.corpus, &dataset, 1, &err), 0);
    assert_int_equal(batch_create(&batch, &source, MICRO, &err), 0);
    assert_int_equal(batch_plan(batch, samples, 1, &err), 0);
    sample = batch_sample(batch, 0);
    assert_true(sample->n_prompt < sample->n_tokens);
    /* one mark stands for four frames of patches */
    assert_int_equal(batch_get(batch)->lens[0], sample->n_prompt - 1 + 4 * PATCHES);
    batch_destroy(batch);
    corpus_close(source.corpus);
    media_direct_service_close(&counted.inner);
}

/* The same question of a dataset of prompts gives the same entries, and is never learnt. */
static void dataset_of_prompts_is_asked_and_not_learnt(void **state)
{
    static const char *const prompts_only[] = {"model.data.prompts_only=true", NULL};
    struct world *world = *state;
    struct batch_source source = {.frames = &world->frames, .is_prompt = true};
    struct counted counted;
    struct frame_service service = counted_open(&counted, world, TICKETS_MAX);
    char path[128];
    const char *dataset = path;
    const int64_t samples[] = {5};
    struct batch *batch = NULL;
    struct err err = {0};

    snprintf(path, sizeof(path), "%s/prompts", world->folder);
    prepare(world, path, prompts_only);
    source.service = &service;
    assert_int_equal(corpus_open(&source.corpus, &dataset, 1, &err), 0);
    for (int is_prompt = 1; is_prompt >= 0; is_prompt--) {
        source.is_prompt = is_prompt;
        assert_int_equal(batch_create(&batch, &source, MICRO, &err), 0);
        assert_int_equal(batch_plan(batch, samples, 1, &err), is_prompt ? 0 : -1);
        if (is_prompt)
            assert_int_equal(batch_get(batch)->lens[0],
                             batch_sample(batch, 0)->n_prompt - 1 + 4 * PATCHES);
        batch_destroy(batch);
    }
    assert_non_null(strstr(err.text, "prompts_only"));
    corpus_close(source.corpus);
    media_direct_service_close(&counted.inner);
}

static void decoder_that_died_is_the_samples_fault(void **state)
{
    struct world *world = *state;
    struct batch_source source = {.frames = &world->frames};
    struct counted counted;
    struct frame_service service = counted_open(&counted, world, TICKETS_MAX);
    const char *dataset = world->plain;
    const int64_t samples[] = {0};
    struct batch *batch = NULL;
    struct err err = {0};

    counted.broken = "the decoder died";
    source.service = &service;
    assert_int_equal(corpus_open(&source.corpus, &dataset, 1, &err), 0);
    assert_int_equal(batch_create(&batch, &source, MICRO, &err), 0);
    assert_int_equal(batch_plan(batch, samples, 1, &err), 0);
    assert_int_equal(batch_finish(batch, &err), -1);
    assert_int_equal(err.code, ERR_FORMAT); /* not ERR_PEER: that is a lost rank */
    assert_non_null(strstr(err.text, batch_sample(batch, 0)->id));
    assert_non_null(strstr(err.text, ".mp4"));
    batch_destroy(batch);
    assert_int_equal(counted.n_open, 0); /* its ticket was given back */
    corpus_close(source.corpus);
    media_direct_service_close(&counted.inner);
}

static void datasets_are_numbered_through(void **state)
{
    const struct world *world = *state;
    const char *both[] = {world->plain, world->stored};
    struct dataset_sample *first = NULL, *second = NULL;
    const struct dataset_info *info;
    struct corpus *corpus = NULL;
    struct err err = {0};

    assert_int_equal(corpus_open(&corpus, both, 2, &err), 0);
    assert_int_equal(corpus_n_samples(corpus), 2 * DATA_QUESTIONS);
    assert_int_equal(corpus_read(corpus, 7, &first, &info, &err), 0);
    assert_false(info->has_frames);
    assert_int_equal(corpus_read(corpus, DATA_QUESTIONS + 7, &second, &info, &err), 0);
    assert_true(info->has_frames);
    assert_string_equal(first->id, second->id);
    assert_int_equal(corpus_read(corpus, 2 * DATA_QUESTIONS, &first, &info, &err), -1);
    dataset_sample_free(first);
    dataset_sample_free(second);
    corpus_close(corpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_queue_gives_the_same_batches),
        cmocka_unit_test(peek_changes_neither_order_nor_number),
        cmocka_unit_test(stored_frames_are_those_decoded),
        cmocka_unit_test(stored_frames_of_other_settings_are_not_used),
        cmocka_unit_test(lengths_of_batches_are_few),
        cmocka_unit_test(batch_is_padded_and_marked),
        cmocka_unit_test(prompt_holds_no_answer),
        cmocka_unit_test(dataset_of_prompts_is_asked_and_not_learnt),
        cmocka_unit_test(decoder_that_died_is_the_samples_fault),
        cmocka_unit_test(datasets_are_numbered_through),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
