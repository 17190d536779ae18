extern "C" {
#include "dataprep/text/sentencepiece_c.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "dataprep/text/tokenizer.h"
}

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <exception>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

using sentencepiece::ImmutableSentencePieceText;
using sentencepiece::SentencePieceProcessor;
using sentencepiece::SentencePieceTrainer;

struct sp_model {
    SentencePieceProcessor processor;
};

namespace
{

/* Runs `work`, which returns 0 or -1; an exception becomes an error. */
template <typename Work> int guarded(struct err *err, Work work)
{
    try {
        return work();
    } catch (const std::bad_alloc &) {
        return err_set(err, ERR_NOMEM, "out of memory in sentencepiece");
    } catch (const std::exception &e) {
        return err_set(err, ERR_FORMAT, "sentencepiece: %s", e.what());
    } catch (...) {
        return err_set(err, ERR_FORMAT, "sentencepiece failed without a reason");
    }
}

int check(const sentencepiece::util::Status &status, struct err *err)
{
    if (status.ok())
        return 0;
    return err_set(err, ERR_FORMAT, "sentencepiece: %s", status.ToString().c_str());
}

/* The training lines, one after the other. */
class lines_iterator : public sentencepiece::SentenceIterator
{
  public:
    lines_iterator(const char *const *lines, int64_t n_lines)
        : lines_(lines), n_lines_(n_lines)
    {
        load();
    }
    bool done() const override
    {
        return at_ >= n_lines_;
    }
    void Next() override
    {
        at_++;
        load();
    }
    const std::string &value() const override
    {
        return value_;
    }
    sentencepiece::util::Status status() const override
    {
        return {};
    }

  private:
    void load()
    {
        if (!done())
            value_ = lines_[at_];
    }
    const char *const *lines_;
    int64_t n_lines_;
    int64_t at_ = 0;
    std::string value_;
};

} // namespace

extern "C" int sp_open(struct sp_model **out, const char *bytes, size_t n_bytes,
                       bool has_prefix, struct err *err)
{
    return guarded(err, [&] {
        auto model = std::make_unique<sp_model>();
        std::string proto(bytes, n_bytes);

        /* Fields that stand again at the end are merged: normalizer_spec (3) with
         * add_dummy_prefix (3) false. */
        if (!has_prefix)
            proto.append("\x1a\x02\x18\x00", 4);
        if (check(model->processor.LoadFromSerializedProto(proto), err) < 0)
            return -1;
        *out = model.release();
        return 0;
    });
}

extern "C" void sp_close(struct sp_model *model)
{
    delete model;
}

extern "C" int32_t sp_vocab(const struct sp_model *model)
{
    return model->processor.GetPieceSize();
}

extern "C" int32_t sp_bos(const struct sp_model *model)
{
    return model->processor.bos_id();
}

extern "C" int32_t sp_eos(const struct sp_model *model)
{
    return model->processor.eos_id();
}

extern "C" int32_t sp_find(const struct sp_model *model, const char *piece)
{
    int32_t found = -1;

    guarded(nullptr, [&] {
        int id = model->processor.PieceToId(piece);

        if (!model->processor.IsUnknown(id) || model->processor.IdToPiece(id) == piece)
            found = id;
        return 0;
    });
    return found;
}

extern "C" int sp_encode(const struct sp_model *model, struct buf *out, const char *text,
                         size_t n_bytes, uint32_t shift, struct err *err)
{
    return guarded(err, [&] {
        ImmutableSentencePieceText pieces;

        if (check(model->processor.Encode(absl::string_view(text, n_bytes),
                                          pieces.mutable_proto()),
                  err) < 0)
            return -1;
        for (size_t i = 0; i < pieces.pieces_size(); i++) {
            const auto piece = pieces.pieces(static_cast<int>(i));
            struct token_span span = {static_cast<int32_t>(piece.id()),
                                      piece.begin() + shift, piece.end() + shift};

            buf_add(out, &span, sizeof(span));
        }
        return buf_check(out, err);
    });
}

extern "C" int sp_decode(const struct sp_model *model, struct buf *out,
                         const int32_t *tokens, int64_t n_tokens, struct err *err)
{
    return guarded(err, [&] {
        std::vector<int> ids(tokens, tokens + n_tokens);
        std::string text;

        if (check(model->processor.Decode(ids, &text), err) < 0)
            return -1;
        buf_add(out, text.data(), text.size());
        return buf_check(out, err);
    });
}

/* The library's advice is about options of a program of its own. */
static int say_least_vocab(struct err *err)
{
    const char *found = strstr(err->text, "smaller than required_chars");
    int has, least;

    if (found &&
        sscanf(found, "smaller than required_chars. %d vs %d", &has, &least) == 2)
        err_set(err, ERR_INVALID,
                "these texts have so many characters that %d tokens are the least: take "
                "more with --vocab-size",
                least);
    return -1;
}

extern "C" int sp_train(struct buf *out, const char *const *lines, int64_t n_lines,
                        int64_t vocab, struct err *err)
{
    return guarded(err, [&] {
        /* One thread and no sampling, so that the same lines give the same bytes; text is
         * kept as it is (identity, no space removed), so that decoding gives it back. */
        const std::unordered_map<std::string, std::string> settings = {
            {"model_type", "bpe"},
            {"vocab_size", std::to_string(vocab)},
            {"hard_vocab_limit", "false"},
            {"byte_fallback", "true"},
            {"character_coverage", "1.0"},
            {"split_digits", "true"},
            {"normalization_rule_name", "identity"},
            {"remove_extra_whitespaces", "false"},
            {"user_defined_symbols",
             "<extra_id_0>,<extra_id_1>,<extra_id_2>,<extra_id_3>,<extra_id_4>,"
             "<extra_id_5>,<extra_id_6>,<extra_id_7>"},
            {"num_threads", "1"},
            {"shuffle_input_sentence", "false"},
            {"max_sentence_length", "1000000"},
            {"minloglevel", "2"},
        };
        lines_iterator iterator(lines, n_lines);
        std::string model;

        if (check(SentencePieceTrainer::Train(settings, &iterator, &model), err) < 0)
            return say_least_vocab(err);
        buf_add(out, model.data(), model.size());
        return buf_check(out, err);
    });
}
