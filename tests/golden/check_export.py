#!/usr/bin/env python3
"""Loads an exported folder in transformers and compares greedy answers. Not run by ctest.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r check_export_requirements.txt
    /tmp/v/bin/python check_export.py build/bin EXPORTED [--tokens 64] IMAGE [IMAGE ...]

Asks `vneva generate --json` about each image, and about all of them together, in fp32; then
gives transformers the same prompt (its image tokens in place of ours) and the pixels of its
own processor. Says which token differs first, and fails if one does. Also: does
AutoProcessor load, and does it turn <image> into as many tokens as the model has patches?
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers: all there is lies in the folder

import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

QUESTION = "What is in the picture?"


def ask_vneva(args, images):
    command = [f"{args.bin}/vneva", "generate", "--model", args.folder, "--json",
               "--precision", "32", "--backend", args.backend,
               "--max-new-tokens", str(args.tokens), QUESTION]
    if args.template:
        command += ["--template", args.template]
    for image in images:
        command += ["--image", image]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    line = json.loads(said)
    return line["prompt_tokens"], line["tokens"]


def ask_transformers(model, processor, prompt, images, n_tokens):
    image_token = model.config.image_token_id
    ids = torch.tensor([[image_token if t < 0 else t for t in prompt]])
    pixels = processor.image_processor(
        images=[Image.open(path).convert("RGB") for path in images],
        return_tensors="pt")["pixel_values"]
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels,
        do_sample=False, num_beams=1, max_new_tokens=n_tokens)
    return out[0, ids.shape[1]:].tolist()


def compare(args, model, processor, images):
    prompt, ours = ask_vneva(args, images)
    theirs = ask_transformers(model, processor, prompt, images, args.tokens)
    end = model.generation_config.eos_token_id
    ends = end if isinstance(end, list) else [end]
    while theirs and theirs[-1] in ends:  # which ours leaves out
        theirs.pop()
    if ours == theirs:
        print(f"{len(images)} images: {len(ours)} tokens, the same")
        return True
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
                 min(len(ours), len(theirs)))
    print(f"{images}: token {first} differs:\n  ours   {ours}\n  theirs {theirs}")
    return False


def check_processor(model, processor, image):
    inputs = processor(text="USER: <image>\nWhat? ASSISTANT:",
                       images=Image.open(image).convert("RGB"), return_tensors="pt")
    n_image = int((inputs["input_ids"] == model.config.image_token_id).sum())
    n_features = model.get_image_features(
        pixel_values=inputs["pixel_values"],
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy)[0]
    same = n_image == n_features.shape[0]
    print(f"processor: {n_image} image tokens, {n_features.shape[0]} features")
    return same


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("folder")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--template", help="where the folder does not tell")
    args = parser.parse_args()
    if not Path(args.folder, "config.json").is_file():
        sys.exit(f"'{args.folder}' holds no config.json")
    model = LlavaForConditionalGeneration.from_pretrained(args.folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(args.folder)
    fine = check_processor(model, processor, args.images[0])
    for image in args.images:
        fine &= compare(args, model, processor, [image])
    fine &= compare(args, model, processor, args.images)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
