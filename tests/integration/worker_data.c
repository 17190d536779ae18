#include "tests/integration/worker_data.h"

#include "common/base/fs.h"
#include "dataprep/synth/synth.h"
#include "dataprep/text/tokenizer.h"
#include "jobs/spec/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXTS_MAX (4 * DATA_CLIPS)
#define KEYS_MAX 96

static void must(int rc, const struct err *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "test data: %s\n", err->text);
    abort();
}

/* Every question and answer, as a text of its own. Borrowed from json. */
static int64_t collect_texts(const char **texts, struct json **lines, struct buf *file,
                             struct err *err)
{
    int64_t n = 0, n_lines = 0;
    char *newline;

    for (char *at = file->data; (newline = strchr(at, '\n')); at = newline + 1) {
        const struct json *turns;

        must(json_parse(&lines[n_lines], at, (size_t)(newline - at), err), err);
        turns = json_get(lines[n_lines++], "conversations");
        for (size_t i = 0; i < json_count(turns); i++)
            texts[n++] = json_get_string(json_at(turns, i), "value");
    }
    return n;
}

static void make_tokenizer(const char *folder)
{
    struct json *lines[DATA_QUESTIONS] = {NULL};
    const char *texts[TEXTS_MAX];
    struct buf file = BUF_INIT;
    char path[FS_PATH_MAX];
    struct err err = {0};
    int64_t n;

    must(fs_path(path, &err, "%s/clips/annotations.jsonl", folder), &err);
    must(fs_read_file(&file, path, 1 << 20, &err), &err);
    n = collect_texts(texts, lines, &file, &err);
    must(fs_path(path, &err, "%s/tokenizer.model", folder), &err);
    must(tokenizer_train(path, texts, n, TOKENIZER_VOCAB_MIN + 20, &err), &err);
    for (int i = 0; i < DATA_QUESTIONS; i++)
        json_free(lines[i]);
    buf_fini(&file);
}

void data_make(const char *folder)
{
    char path[FS_PATH_MAX];
    struct synth_config config = {.output = path, .n_clips = DATA_CLIPS, .seed = 3};
    struct err err = {0};

    must(fs_path(path, &err, "%s/clips", folder), &err);
    must(synth_run(&config, &err), &err);
    make_tokenizer(folder);
}

/* file: of jobs/quickstart. keys: our own, then `more`. */
static void read_spec(struct buf *out, const char *file, struct buf *keys, int n_keys,
                      const char *const *more)
{
    const char *overrides[KEYS_MAX];
    const char *source = getenv("VNEVA_SOURCE");
    struct spec_notes notes = {0};
    struct spec *spec = NULL;
    char path[FS_PATH_MAX];
    struct err err = {0};
    int n = 0;

    for (; n < n_keys; n++)
        overrides[n] = buf_str(&keys[n]);
    for (; more && *more && n < KEYS_MAX; more++)
        overrides[n++] = *more;
    must(fs_path(path, &err, "%s/jobs/quickstart/%s", source ? source : ".", file), &err);
    must(spec_read(&spec, &notes, path, SPEC_NONE, overrides, n, &err), &err);
    json_write(out, spec->tree, 0);
    spec_notes_fini(&notes);
    spec_free(spec);
}

static void fini_keys(struct buf *keys, int n)
{
    for (int i = 0; i < n; i++)
        buf_fini(&keys[i]);
}

void data_spec_prepare(struct buf *out, const char *folder, const char *output,
                       const char *const *more)
{
    struct buf keys[6] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};

    buf_printf(&keys[0], "model.data.data_path=%s/clips/annotations.jsonl", folder);
    buf_printf(&keys[1], "model.data.video_folder=%s/clips", folder);
    buf_printf(&keys[2], "model.data.output=%s", output);
    buf_printf(&keys[3], "model.tokenizer.model=%s/tokenizer.model", folder);
    buf_printf(&keys[4], "model.mm_cfg.vision_encoder.crop_size=32");
    buf_printf(&keys[5], "model.data.shard_size=20");
    read_spec(out, "prepare.yaml", keys, 6, more);
    fini_keys(keys, 6);
}

void data_spec_train(struct buf *out, const char *folder, const char *dataset,
                     const char *const *more)
{
    static const char *const tiny[] = {
        "trainer.precision=32",
        "trainer.max_steps=12",
        "trainer.log_every_n_steps=2",
        "trainer.val_check_interval=6",
        "trainer.limit_val_batches=1",
        "exp_manager.checkpoint_callback_params.every_n_train_steps=4",
        "exp_manager.checkpoint_callback_params.save_top_k=2",
        "model.micro_batch_size=4",
        "model.global_batch_size=8",
        "model.num_layers=1",
        "model.hidden_size=32",
        "model.ffn_hidden_size=64",
        "model.num_attention_heads=2",
        "model.num_query_groups=2",
        "model.mm_cfg.vision_encoder.crop_size=32",
        "model.mm_cfg.vision_encoder.hidden_size=32",
        "model.mm_cfg.vision_encoder.ffn_hidden_size=64",
        "model.mm_cfg.vision_encoder.num_layers=1",
        "model.mm_cfg.vision_encoder.num_attention_heads=2",
        "model.optim.sched.warmup_steps=2",
        "threads=1",
    };
    enum { N_TINY = sizeof(tiny) / sizeof(tiny[0]), N_KEYS = N_TINY + 3 };
    struct buf keys[N_KEYS];

    for (int i = 0; i < N_KEYS; i++) {
        keys[i] = (struct buf)BUF_INIT;
        if (i < N_TINY)
            buf_add_str(&keys[i], tiny[i]);
    }
    buf_printf(&keys[N_TINY], "model.data.data_path=%s", dataset);
    buf_printf(&keys[N_TINY + 1], "model.data.validation_data_path=%s", dataset);
    buf_printf(&keys[N_TINY + 2], "model.tokenizer.model=%s/tokenizer.model", folder);
    read_spec(out, "train.yaml", keys, N_KEYS, more);
    fini_keys(keys, N_KEYS);
}

void data_spec_evaluate(struct buf *out, const char *run, const char *dataset,
                        const char *const *more)
{
    struct buf keys[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};

    buf_printf(&keys[0], "neva_model_file=%s", run);
    buf_printf(&keys[1], "prompt_file=%s", dataset);
    buf_printf(&keys[2], "model.data.shard_size=20");
    buf_printf(&keys[3], "inference.batch_size=8");
    read_spec(out, "evaluate.yaml", keys, 4, more);
    fini_keys(keys, 4);
}
