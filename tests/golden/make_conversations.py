#!/usr/bin/env python3
"""Writes conversations.jsonl: what NeMo 2.0's preprocessing gives for the templates that
nemo_conversations.jsonl does not have (llama_3, yi_34b, interleaved).

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r conversations_requirements.txt
    /tmp/v/bin/python make_conversations.py

The rules are restated here from NeMo 2.0 (nemo/collections/multimodal/data/neva:
conversation.py, neva_dataset.py; the tokenizer's way with special tokens from
nemo/collections/common/tokenizers/sentencepiece_tokenizer.py): text laid out by the
template, media as runs of patch tokens, the whole tokenized at once, and all masked but
what a count of separately tokenized pieces says is an answer. No code of NeMo runs.

Lines {"tokenizer": file, "extra_tokens": [...]} say what the lines after them were made
with, the extra tokens numbered after the tokenizer's own. Each other line: template,
num_frames, patches_per_frame, use_im_start_end, source, tokens, labels.
tokenizer_llama3.json is byte-level (make_tokenizers.py).
"""

import copy
import json
from pathlib import Path

import sentencepiece
import tokenizers

HERE = Path(__file__).parent
IGNORED = -1
PATCHES = 4
LLAMA_3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<|reserved_special_token_3|>", "<|reserved_special_token_4|>",
           "<|reserved_special_token_5|>"]
EXTRA = [*LLAMA_3, "<|im_start|>", "<|im_end|>", "<pad>"]
MEDIA = [f"<extra_id_{i}>" for i in (3, 4, 5)]
MARKERS = {"llama_3": LLAMA_3[4:]}
SYSTEM = ("You are a helpful language and vision assistant. You are able to understand the "
          "visual content that the user provides, and assist the user with a variety of "
          "tasks using natural language.")


class Tokenizer:
    """A SentencePiece model with special tokens after it, looked for in the text first."""

    def __init__(self, path, extra):
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.extra = {text: len(self.model) + i for i, text in enumerate(extra)}

    def ids(self, text):
        out = []
        while text:
            places = {t: text.index(t) for t in self.extra if t in text}
            if not places:
                return out + self.model.encode(text)
            first = min(places, key=places.get)
            if places[first]:
                out += self.model.encode(text[:places[first]])
            out.append(self.extra[first])
            text = text[places[first] + len(first):]
        return out

    def id(self, token):
        return self.extra.get(token, self.model.piece_to_id(token))


class JsonTokenizer:
    """A tokenizer.json with special tokens after its own, as transformers adds them."""

    def __init__(self, path, extra):
        self.model = tokenizers.Tokenizer.from_file(str(path))
        self.model.add_special_tokens(extra)

    def ids(self, text):
        return self.model.encode(text, add_special_tokens=False).ids

    def id(self, token):
        return self.model.token_to_id(token)


def replace_media(text, template, n_patches, start_end):
    """The patch tokens of a medium, its start and end inside of them or around."""
    patch, start, end = MARKERS.get(template, MEDIA)
    media = start + patch * (n_patches if start_end else n_patches - 2) + end
    return text.replace("<video>", media)


def header(role):
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def llama_3(turns):
    """The text, and its rounds: one question with its answer each."""
    text = "<|begin_of_text|>" + header("system") + SYSTEM + "<|eot_id|>"
    for i, turn in enumerate(turns):
        text += header("assistant" if i % 2 else "user") + turn
        text += "<|eot_id|>" if turn or i % 2 == 0 else ""
    parts = text.split(header("user"))
    first = header("user").join(parts[:2])
    return text, [first] + [header("user") + part for part in parts[2:]], \
        header("assistant")


def yi_34b(turns):
    user, assistant = "<|im_start|>user\n", "<|im_start|>assistant\n"
    text = ""
    for i, turn in enumerate(turns):
        text += assistant + turn if i % 2 else user + turn.strip()
        text += "<|im_end|>" + ("\n" if turn or i % 2 == 0 else "")
    text = text.strip()
    if not all(turns[1::2]) and text.endswith("\n<|im_end|>"):
        text = text[:-len("\n<|im_end|>")] + "\n"
    parts = text.split(user)
    return text, [user.join(parts[:2])] + [user + part for part in parts[2:]], assistant


def mask(tokenizer, labels, rounds, separator):
    """Lengths of pieces tokenized apart say where the answers are."""
    at = 0
    for part in rounds:
        pieces = part.split(separator)
        if not part or len(pieces) != 2:
            break
        n_question = len(tokenizer.ids(pieces[0] + separator))
        labels[at:at + n_question] = [IGNORED] * n_question
        at += len(tokenizer.ids(part))
    labels[at:] = [IGNORED] * (len(labels) - at)


def preprocess(tokenizer, template, source, n_patches, start_end):
    turns = source["conversations"]
    if template == "interleaved":
        text = replace_media(turns, template, n_patches, start_end)
        tokens = tokenizer.ids(text)
        tokens = [0 if t == tokenizer.id(MEDIA[0]) else t for t in tokens]
        masked = {0, *map(tokenizer.id, (*MEDIA[1:], "<pad>"))}
        labels = [IGNORED if t in masked else t for t in tokens]
    else:
        values = [replace_media(t["value"], template, n_patches, start_end)
                  for t in turns]
        text, rounds, separator = {"llama_3": llama_3, "yi_34b": yi_34b}[template](values)
        tokens = tokenizer.ids(text)
        labels = copy.copy(tokens)
        mask(tokenizer, labels, rounds, separator)
    return tokens[:-1], labels[1:]


DIALOGUES = [
    ["<video>\nWhat moves?", "A ball."],
    ["What moves in <video>?", " A ball,  slowly.\n"],
    ["Describe.\n<video>", "Zwei rote Bälle; 两个红球 \U0001f534.", "And then?", "12:07 — ok"],
    ["  <video> Is it blue? \n", "No", "\u3000Why?\u00a0", "It is red.\nLike <t72>.",
     "Sure?", "Yes!"],
    ["No media here: 3 + 4 = ?", "7"],
    ["Hello", "Hi", "<video>\nAnd this?", "A dog"],
    ["<video>\nWho?", ""],
    ["<video>\nWho?", "A cat.", "Where?", ""],
    ["<video>\nWho?", "", "Where?", "There."],
    ["<video>\nWho?", "A cat.", "", "A black one."],
    ["<video>\ndef f(x):\n\treturn x", "    indented\n\n\nlines"],
    ["<video>", "x"],
]
TEXTS = [
    "First <video> then it turns left.",
    "<video>A caption\n",
    "<video> one <video> two, 3 and 两 — \U0001f534",
    "Only text, nothing to see.",
    "at the end <video>",  # cut apart by the shift without start and end tokens
    "padded <pad> and <extra_id_4> spelled out <video> twice",
]


def sources(template):
    if template == "interleaved":
        return TEXTS
    roles = ("human", "gpt")
    return [[{"from": roles[i % 2], "value": v} for i, v in enumerate(turns)]
            for turns in DIALOGUES]


def write_rows(out, tokenizer):
    for template in ("llama_3", "yi_34b", "interleaved"):
        for n, conversations in enumerate(sources(template)):
            for frames, start_end in ((1, False), (2, True)):
                if not start_end and str(conversations).endswith("<video>"):
                    continue
                source = {"id": f"{template}-{n}", "conversations": conversations}
                tokens, labels = preprocess(tokenizer, template, source,
                                            frames * PATCHES, start_end)
                row = {"template": template, "num_frames": frames,
                       "patches_per_frame": PATCHES, "use_im_start_end": start_end,
                       "source": source, "tokens": tokens, "labels": labels}
                print(json.dumps(row), file=out)


def main():
    with open(HERE / "conversations.jsonl", "w") as out:
        for make, name, extra in ((Tokenizer, "tiny_llama.model", EXTRA),
                                  (JsonTokenizer, "tokenizer_llama3.json", EXTRA + MEDIA)):
            print(json.dumps({"tokenizer": name, "extra_tokens": extra}), file=out)
            write_rows(out, make(HERE / name, extra))


if __name__ == "__main__":
    main()
