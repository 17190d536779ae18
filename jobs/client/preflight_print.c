#include "jobs/client/format.h"
#include "jobs/client/preflight.h"

#include <inttypes.h>
#include <string.h>

static const char *count_text(struct buf *out, int64_t n)
{
    buf_reset(out);
    format_count(out, n);
    return buf_str(out);
}

static const char *bytes_text(struct buf *out, const struct json *memory, const char *key)
{
    buf_reset(out);
    format_bytes(out, (uint64_t)json_get_int(memory, key, 0));
    return buf_str(out);
}

static void print_data(FILE *out, const struct json *data)
{
    for (size_t i = 0; i < json_count(data); i++) {
        const struct json *entry = json_at(data, i);
        const char *kind = json_get_string(entry, "kind");

        fprintf(out, "%-12s %s", i ? "" : "data", json_get_string(entry, "path"));
        if (kind && strcmp(kind, "dataset") == 0)
            fprintf(out, " (%" PRId64 " samples, the longest %" PRId64 " tokens)\n",
                    json_get_int(entry, "samples", 0),
                    json_get_int(entry, "longest_tokens", 0));
        else
            fprintf(out, " (annotations)\n");
    }
}

static void print_sample(FILE *out, const struct json *sample)
{
    int64_t frames = json_get_int(sample, "frames", 0);
    int64_t patches = json_get_int(sample, "patches", 0);
    int64_t n_each = json_get_int(sample, "frame_tokens", 0);

    fprintf(out, "%-12s ", "sample");
    if (frames < 0)
        fprintf(out, "every frame x ");
    else
        fprintf(out, "%" PRId64 " frame%s x ", frames, frames == 1 ? "" : "s");
    if (n_each == patches)
        fprintf(out, "%" PRId64 " patches", patches);
    else
        fprintf(out, "%" PRId64 " tokens of %" PRId64 " patches", n_each, patches);
    if (frames >= 0)
        fprintf(out, " = %" PRId64 " tokens", json_get_int(sample, "media_tokens", 0));
    fprintf(out, ", and text; at most %" PRId64 "\n",
            json_get_int(sample, "most_tokens", 0));
}

static void print_parameters(FILE *out, const struct json *p)
{
    static const char *const parts[] = {"vision", "projector", "llm"};
    struct buf text = BUF_INIT;

    fprintf(out, "%-12s %s", "parameters",
            count_text(&text, json_get_int(p, "total", 0)));
    fprintf(out, " (%" PRId64 "):", json_get_int(p, "total", 0));
    for (size_t i = 0; i < 3; i++)
        fprintf(out, " %s %s,", parts[i],
                count_text(&text, json_get_int(p, parts[i], 0)));
    fprintf(out, " trained %s\n", count_text(&text, json_get_int(p, "trained", 0)));
    buf_fini(&text);
}

static void print_memory(FILE *out, const struct json *memory)
{
    static const char *const parts[] = {"weights",     "gradients", "optimizer",
                                        "activations", "logits",    "backend"};
    struct buf text = BUF_INIT;

    fprintf(out, "%-12s about %s on each rank:", "memory",
            bytes_text(&text, memory, "total"));
    for (size_t i = 0; i < 6; i++)
        if (json_get_int(memory, parts[i], 0) > 0)
            fprintf(out, "%s %s %s", i ? "," : "", parts[i],
                    bytes_text(&text, memory, parts[i]));
    fprintf(out, "\n");
    if (json_get(memory, "device"))
        fprintf(out, "%-12s of %s a rank may take\n", "",
                bytes_text(&text, memory, "device"));
    buf_fini(&text);
}

static void print_training(FILE *out, const struct json *report)
{
    const struct json *t = json_get(report, "training");

    fprintf(out,
            "%-12s %" PRId64 " of %" PRId64 " samples, %" PRId64
            " micro batch%s of %" PRId64 " on each rank\n",
            "steps", json_get_int(t, "steps", 0), json_get_int(t, "global_batch", 0),
            json_get_int(t, "micro_batches", 0),
            json_get_int(t, "micro_batches", 0) == 1 ? "" : "es",
            json_get_int(t, "micro_batch", 0));
    if (json_get(report, "parameters"))
        print_parameters(out, json_get(report, "parameters"));
    else
        fprintf(out, "%-12s as the weights say\n", "parameters");
    fprintf(out, "%-12s %" PRId64 " entries%s\n", "vocabulary",
            json_get_int(t, "vocab", 0),
            json_bool(json_get(t, "is_vocab_assumed"), false)
                ? " (assumed: neither a prepared dataset nor a tokenizer says)"
                : "");
    if (json_get(report, "memory_bytes"))
        print_memory(out, json_get(report, "memory_bytes"));
}

static void print_weights(FILE *out, const struct json *list)
{
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *entry = json_at(list, i);
        const char *from = json_get_string(entry, "from");

        fprintf(out, "%-12s %s: ", i ? "" : "weights", json_get_string(entry, "part"));
        if (from)
            fprintf(out, "%s (%s)\n", from, json_get_string(entry, "what"));
        else
            fprintf(out, "fresh\n");
    }
}

void preflight_print_shared(FILE *out, const char *before, const struct json *report)
{
    const struct json *data = json_get(report, "data");

    for (size_t i = 0; i < json_count(data); i++) {
        const char *file = json_get_string(json_at(data, i), "trained_on");

        if (file)
            fprintf(out,
                    "%svalidation_data_path '%s' is of '%s', which is trained on: its "
                    "loss says what the model remembers\n",
                    before, json_get_string(json_at(data, i), "path"), file);
    }
}

void preflight_print(FILE *out, const struct json *report)
{
    const struct json *refused = json_get(report, "refused");
    const struct json *training = json_get(report, "training");

    fprintf(out, "%-12s %s '%s'\n", "job", json_get_string(report, "kind"),
            json_get_string(report, "name"));
    fprintf(out, "%-12s %" PRId64 ": tensor parallel %" PRId64, "ranks",
            json_get_int(report, "ranks", 0), json_get_int(report, "tensor_parallel", 1));
    if (training)
        fprintf(out, " x data parallel %" PRId64 "\n",
                json_get_int(training, "data_parallel", 1));
    else
        fprintf(out, "; as many attempts at once as there are devices\n");
    print_weights(out, json_get(report, "weights"));
    print_data(out, json_get(report, "data"));
    if (json_get(report, "sample"))
        print_sample(out, json_get(report, "sample"));
    if (training)
        print_training(out, report);
    preflight_print_shared(out, "note         ", report);
    if (json_count(json_get(report, "ignored")))
        fprintf(out, "%-12s %zu keys without a meaning here (--json lists them)\n",
                "ignored", json_count(json_get(report, "ignored")));
    if (!json_count(refused)) {
        fprintf(out, "%-12s fine\n", "check");
        return;
    }
    fprintf(out, "%-12s the file is valid, but a submit would be refused:\n", "check");
    for (size_t i = 0; i < json_count(refused); i++)
        fprintf(out, "  - %s\n", json_string(json_at(refused, i)));
}
