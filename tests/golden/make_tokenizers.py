#!/usr/bin/env python3
"""Writes the reference data of the tokenizers' tests: tokenizer_NAME.*, tokenizer_texts.json.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r tokenizer_requirements.txt
    /tmp/v/bin/python make_tokenizers.py

tokenizer_texts.json holds the fragments that the texts are made of: make_text below, and
tests/unit/tokenizer_golden.c, put them together alike. A tokenizer is trained on some of
these texts, in the very form of a known one:

    llama3   Split by Llama 3's regex, ByteLevel, ignore_merges (some words have no merges)
    qwen2    NFC, Split by Qwen2's regex, ByteLevel, merges as "a b"
    gpt2     ByteLevel alone, with its regex and a space put before
    llama2   Prepend and Replace, byte fallback, fused unknowns: converted from
             tokenizer_sp.model as transformers converts Llama's
    mistral  the same vocabulary with Metaspace
    odds     the rarer parts: NFKC, Lowercase, Strip, regex Replace, Digits, Punctuation,
             Whitespace, Split with each behaviour, unknowns one by one, no decoder
    marks    NFD, Metaspace that splits, fused unknowns, Metaspace decoder; its
             alphabet is drawn among letters that are as frequent: another one each time
    sp       tokenizer_sp.model by sentencepiece; sp_legacy, sp_new: as transformers'
             LlamaTokenizer (slow) reads it in a folder, "legacy": true and false

tokenizer_NAME.crc: uint32 little endian. Of every text the CRC-32 of its ids (int32), and
of the text these decode to (UTF-8); then, where offsets are compared, of every tenth text's
spans (uint32 begin, end; see spans below), 0 where a normalizer changes letters: there the
library's offsets leave some out.
"""

import json
import struct
import tempfile
import unicodedata
import zlib
from pathlib import Path

import sentencepiece
from tokenizers import (
    AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
    trainers)
from transformers import LlamaTokenizer
from transformers.convert_slow_tokenizer import LlamaConverter

HERE = Path(__file__).parent
N_TEXTS = 10000  # of the tokenizers that people have
N_FEW = 2500     # of the others
N_POINTS = 64    # code points in a row, in a text of all of them
LAST_POINT = 0x32000
SPANS_EVERY = 10

SPECIALS = ["<|begin_of_text|>", "<|eot_id|>", "<|im_end|>", "<s>", "</s>", "<unk>",
            "<extra_id_4>", "<pad>", "<both>", "<word>", "<norm Ab>", "<|endoftext|>"]
FRAGMENTS = SPECIALS + [
    " ", "  ", "   ", " " * 17, "\n", "\n\n", "\r\n", "\t", "\t\t", " \n ", "\u00a0",
    "\u3000", "\u2003", "\u200b", "\u2028", "\x85", "\u180e", "\x00", "\x01", "\x07",
    "\x1b[31m", "\x7f", "\ufeff", "\ufffd", "\ufffe", "\U0010ffff", "\ue000", "\u2581",
    "\u2581\u2581", "the", " the", " The", "Hello", " world", "world's", " don't", "I'LL",
    "we'Ve", "they're", "x'\u017f", "'S", " left", "Which way does it move?", " moves",
    " circle", "blue", "square", "ing", "tion", " un", "believ", "able", "A", "b", " c",
    "aaaaaaaaaaaaaaaaaaaaaaaa", "abababababababab", "USER:", " ASSISTANT:", "<video>",
    "<image>", "<", ">", "<|", "|>", "<0x0A>", "<0xE4>", "</", "[INST]", " [/INST]",
    "<<SYS>>", "0", "1", "12", "123", "1234", "12345678901234567890", " 3.14", "1,000,000",
    "2024-05-06", "\u0661\u0662\u0663", "\u0967\u0968\u0969", "\u2167", "\u00bd", "\u00b2",
    "\u2460", ".", ",", "!", "?", "...", "!!!", " - ", "--", "_", "__init__", "a_b", "+",
    "=", "==", "$", "%", "&&", "#", "@", "~", "`", "^", "*", "**bold**", "(", ")", "{}",
    "[]", "\\", "/", "://", "https://example.org/a?b=c&d=%20", "mail@example.org",
    "def f(x):\n    return x + 1\n", "for (int i = 0; i < n; i++) {\n\t", "*/\r\n",
    "caf\u00e9", "cafe\u0301", "na\u00efve", "\u00fcber", "u\u0308ber", "\u00c5ngstr\u00f6m",
    "\u212b", "\ufb01n", "\u1e9b\u0323", "q\u0307\u0323", "\u0344", "\u0130stanbul", "\u0131",
    "STRASSE", "stra\u00dfe", "\u01c5", "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
    "\u0395\u03bb\u03bb\u03ac\u03b4\u03b1", "\u041f\u0440\u0438\u0432\u0435\u0442",
    " \u043c\u0438\u0440", "\u0439", "\u0438\u0306", "\u05e9\u05dc\u05d5\u05dd",
    "\u05e9\u05c1\u05b8", "\u0645\u0631\u062d\u0628\u0627", "\u0644\u0627\u064b",
    "\ufefb", "\u06f1\u06f2", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0915\u093c",
    "\u0958", "\u0995\u09cb", "\u0995\u09c7\u09be", "\u0ba8\u0bcb", "\u0c28\u0c2e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0e33", "\u0f40\u0f71\u0f72", "\u0f73",
    "\u10d2\u10d0\u10db", "\u1230\u120b\u121d", "\u1795\u17d2\u1791", "\u4f60\u597d",
    "\u4e16\u754c", "\u65e5\u672c\u8a9e", "\u3053\u3093\u306b\u3061\u306f", "\u304b\u3099",
    "\u304c", "\u30ab\u30bf\u30ab\u30ca", "\uff76\uff9e", "\uff21\uff22\uff11\uff12",
    "\uff01", "\u3002", "\u300c\u300d", "\ud55c\uad6d\uc5b4", "\u1112\u1161\u11ab",
    "\u1100\u1161", "\u11a8", "\uac00\u11a8", "\uf900", "\U0002f800", "\U00020000",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd",
    "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "1\ufe0f\u20e3", "\u00a9", "\u2122", "\u20ac",
    "\u2264", "\u222b", "\u2192", "\u2500\u2500", "\u2588", "\U0001d400\U0001d7d8",
    "\U00010330", "\U00013000", "\U0001f130", "e\u0301\u0323\u0302", "\u0301", " \u0301",
    "\u200d", "\u202e", "\u2066", "a\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307",
    "\u1d15e", "\U0001d15e", "\u2126", "\u00b5", "\u017f", "\u212a", "\u1e9e",
]

LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_REGEX = LLAMA3_REGEX.replace("{1,3}", "")
MASK = (1 << 64) - 1


class Draws:
    """splitmix64"""

    def __init__(self, seed):
        self.state = seed

    def next(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % n


def make_text(i, is_training=False):
    """Text i: a fragment, 64 code points in a row, or fragments as they are drawn."""
    n_points = LAST_POINT // N_POINTS
    if i < len(FRAGMENTS) and not is_training:
        return FRAGMENTS[i]
    if not is_training and i % 3 == 0 and i // 3 < n_points:
        first = i // 3 * N_POINTS
        return "".join(
            chr(c) for c in range(first, first + N_POINTS) if not 0xD800 <= c < 0xE000)
    draws = Draws(i + (1 << 32 if is_training else 0))
    out = []
    for _ in range(1 + draws.next(12)):
        fragment = FRAGMENTS[draws.next(len(FRAGMENTS))]
        times = 1 + draws.next(12) if draws.next(16) == 0 else 1
        out.append(fragment * times)
    return "".join(out)


def corpus():
    texts = (make_text(i, True) for i in range(3000))
    for text in texts:
        for special in SPECIALS:
            text = text.replace(special, "")
        yield text.replace("\x00", "")


def byte_level(vocab):
    return trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False)


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def make_llama3():
    tok = Tokenizer(models.BPE(ignore_merges=True))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_REGEX), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])
    tok.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    tok.train_from_iterator(corpus(), byte_level(900))
    tok.add_special_tokens([special("<|begin_of_text|>"), special("<|eot_id|>")])
    bos = tok.token_to_id("<|begin_of_text|>")
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True),
        processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)])])
    tree = json.loads(tok.to_str())
    merges = tree["model"]["merges"]  # every fourth of the words that no merge goes on with
    parts = {part for merge in merges for part in merge}
    ends = [merge for merge in merges if "".join(merge) not in parts]
    for merge in ends[::4]:
        merges.remove(merge)
    return tree


def make_qwen2():
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_REGEX), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False,
                                     use_regex=False)
    tok.post_processor = processors.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.train_from_iterator(corpus(), byte_level(900))
    tok.add_special_tokens([special("<|endoftext|>"), special("<|im_start|>"),
                            special("<|im_end|>")])
    tree = json.loads(tok.to_str())
    tree["model"]["merges"] = [" ".join(merge) for merge in tree["model"]["merges"]]
    return tree


def make_gpt2():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), byte_level(700))
    tok.add_special_tokens([special("<|endoftext|>"), special("<pad>", lstrip=True),
                            special("<both>", lstrip=True, rstrip=True)])
    tok.add_tokens([AddedToken("<word>", single_word=True, normalized=False),
                    AddedToken("<norm Ab>", normalized=True)])
    return json.loads(tok.to_str())


def train_sp():
    path = HERE / "tokenizer_sp.model"
    lines = [line for text in corpus() for line in text.split("\n") if line]
    with open(path, "wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=out, model_type="bpe",
            vocab_size=1000, byte_fallback=True, character_coverage=0.98,
            split_digits=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, num_threads=1, minloglevel=2,
            allow_whitespace_only_pieces=True)
    return path


def make_llama2():
    slow = LlamaTokenizer(str(HERE / "tokenizer_sp.model"), legacy=True)
    tok = LlamaConverter(slow).converted()
    tok.add_tokens([AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
                    AddedToken("<norm Ab>", normalized=True)])
    return json.loads(tok.to_str())


def make_mistral(llama2):
    tree = json.loads(json.dumps(llama2))
    tree["normalizer"] = None
    tree["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581",
                             "prepend_scheme": "first", "split": False}
    return tree


def make_odds():
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.normalizer = normalizers.Sequence([
        normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(),
        normalizers.Replace(Regex(r"\s{2,}"), " \u2581 "), normalizers.Replace("abab", "ba"),
        normalizers.NFKD()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("-", "merged_with_next"),
        pre_tokenizers.Split(Regex(r"[&%$]|\d(?=\d)"), "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"(?<=[=<])|[~`]+"), "removed"),
        pre_tokenizers.Split(Regex(r"[\w:]+|\p{Greek}"), "contiguous", invert=True),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Punctuation("isolated"),
        pre_tokenizers.Whitespace()])
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=500, limit_alphabet=200, special_tokens=["<unk>"], show_progress=False))
    tok.add_tokens([AddedToken("<norm Ab>", normalized=True)])
    return json.loads(tok.to_str())


def make_marks():
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tok.normalizer = normalizers.Sequence([
        normalizers.NFD(), normalizers.Prepend("a")])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.CharDelimiterSplit("#")])
    tok.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=500, limit_alphabet=200, special_tokens=["<unk>"], show_progress=False))
    return json.loads(tok.to_str())


def spans(offsets):
    """Characters of each token; of tokens that share one, it is the last's."""
    out = []
    for i, (begin, end) in enumerate(offsets):
        after = offsets[i + 1][0] if i + 1 < len(offsets) else end
        out.append((begin, max(begin, min(end, after))))
    return out


def crc_ids(ids):
    return zlib.crc32(struct.pack(f"<{len(ids)}i", *ids))


def write_crcs(name, n, encode, decode, offsets=None):
    rows, sample = [], []
    for i in range(n):
        text = make_text(i)
        ids = encode(text)
        rows += [crc_ids(ids), zlib.crc32(decode(ids).encode())]
        if offsets and i % SPANS_EVERY == 0:
            found = offsets(text)
            flat = [x for span in found or [] for x in span]
            sample.append(
                zlib.crc32(struct.pack(f"<{len(flat)}I", *flat)) if found is not None else 0)
    data = rows + sample
    (HERE / f"tokenizer_{name}.crc").write_bytes(struct.pack(f"<{len(data)}I", *data))


def write_json(name, tree, n):
    text = json.dumps(tree, ensure_ascii=False, separators=(",", ":"))
    (HERE / f"tokenizer_{name}.json").write_text(text)
    tok = Tokenizer.from_str(text)
    bare = dict(tree, post_processor=None)  # which would move the offsets
    plain = Tokenizer.from_str(json.dumps(bare))

    def offsets(text):
        changed = tok.normalizer and "NF" in str(tree["normalizer"])
        if changed and any(unicodedata.normalize(form, text) != text
                           for form in ("NFC", "NFD", "NFKC", "NFKD")):
            return None
        return spans(plain.encode(text, add_special_tokens=False).offsets)

    # what the rarer parts drop and put in has other offsets there than here
    write_crcs(name, n, lambda text: tok.encode(text, add_special_tokens=False).ids,
               lambda ids: tok.decode(ids, skip_special_tokens=False),
               None if name in ("odds", "marks") else offsets)


def slow_folder(folder, legacy):
    """As LLaVA-1.5 has it: no tokenizer.json."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((HERE / "tokenizer_sp.model").read_bytes())
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>",
              "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": 1000, "<both>": 1001}))
    return LlamaTokenizer.from_pretrained(str(folder))


def main():
    (HERE / "tokenizer_texts.json").write_text(json.dumps(FRAGMENTS, separators=(",", ":")))
    train_sp()
    llama2 = make_llama2()
    for name, tree, n in (
            ("llama3", make_llama3(), N_TEXTS), ("qwen2", make_qwen2(), N_TEXTS),
            ("gpt2", make_gpt2(), N_FEW), ("llama2", llama2, N_TEXTS),
            ("mistral", make_mistral(llama2), N_FEW), ("odds", make_odds(), N_FEW),
            ("marks", make_marks(), N_FEW)):
        write_json(name, tree, n)
    sp = sentencepiece.SentencePieceProcessor(str(HERE / "tokenizer_sp.model"))
    write_crcs("sp", N_TEXTS, sp.encode, sp.decode)
    with tempfile.TemporaryDirectory() as root:
        for legacy in (True, False):
            slow = slow_folder(Path(root) / str(legacy), legacy)
            write_crcs(
                "sp_legacy" if legacy else "sp_new", N_FEW,
                lambda text, slow=slow: slow.convert_tokens_to_ids(slow.tokenize(text)),
                lambda ids: "")


if __name__ == "__main__":
    main()
