#!/usr/bin/env python3
"""Turns real.txt into real_train.jsonl and real_test.jsonl, beside this script.

Both files are committed, so that the quickstart needs no Python. Run this after a change
of the table: python3 jobs/quickstart/make_real.py
"""
import json
import math
import os

TEST_QUESTIONS = 2  # a held-out segment; one to train on is asked them all


def read_table(path):
    """Returns the questions {key: (category, text)} and the scenes, a list of dicts."""
    questions, scenes, file = {}, [], None
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "question":
            questions[words[1]] = (words[2], " ".join(words[3:]))
        elif words[0] == "file":
            file = (words[1], float(words[2]))
        elif words[0] == "scene":
            start, end, n, held = words[1:]
            scenes.append({
                "file": file[0], "fps": file[1], "start": float(start), "end": float(end),
                "n": int(n), "held": set(map(int, held.split(","))), "answers": []})
        elif words[0] in questions and scenes:
            scenes[-1]["answers"].append((words[0], " ".join(words[1:])))
        else:
            raise SystemExit(f"{path}:{number}: cannot read '{line.strip()}'")
    return questions, scenes


def between_frames(seconds, fps):
    """The middle between two frames that is next to a time, in seconds."""
    return max(0.0, round((math.floor(seconds * fps + 0.5) - 0.5) / fps, 4))


def lines_of(number, scene, questions):
    """Yields (held out?, line) for the questions of every segment of a scene.

    A segment to train on is asked all of them. Of a held-out segment they go round, and
    begin at another one in every scene, so that all kinds are held out about equally.
    """
    length = (scene["end"] - scene["start"]) / scene["n"]
    stem = os.path.splitext(scene["file"])[0]
    turn = number
    for i in range(scene["n"]):
        held = i in scene["held"]
        start = between_frames(scene["start"] + i * length, scene["fps"])
        end = between_frames(scene["start"] + (i + 1) * length, scene["fps"])
        n_asked = TEST_QUESTIONS if held else len(scene["answers"])
        for k in range(min(n_asked, len(scene["answers"]))):
            key, answer = scene["answers"][(turn + k) % len(scene["answers"])]
            category, text = questions[key]
            yield held, {
                "id": f"{stem}-{start:g}-{key}", "video": scene["file"],
                "start": start, "end": end, "category": category,
                "conversations": [{"from": "human", "value": "<video>\n" + text},
                                  {"from": "gpt", "value": answer}]}
        if held:
            turn += n_asked


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    questions, scenes = read_table(os.path.join(here, "real.txt"))
    out = {True: [], False: []}
    for number, scene in enumerate(scenes):
        for held, line in lines_of(number, scene, questions):
            out[held].append(line)
    for held, name in ((False, "real_train.jsonl"), (True, "real_test.jsonl")):
        ids = [line["id"] for line in out[held]]
        assert len(ids) == len(set(ids)), "an id is there twice"
        with open(os.path.join(here, name), "w", encoding="utf-8") as file:
            for line in out[held]:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(f"{name}: {len(out[held])} lines")


if __name__ == "__main__":
    main()
