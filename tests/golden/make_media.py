#!/usr/bin/env python3
"""Writes the reference data of media's tests: preprocess.bin and picks.txt.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r media_requirements.txt
    /tmp/v/bin/python make_media.py

preprocess.bin: int32 number of pictures; for each int32 width, height, size, the picture
[height, width, 3], then three times (square, pad, keep) [size, size, 3] as Hugging Face's
CLIPImageProcessor gives it. Little endian.
picks.txt: lines "n num_frames: i i i...", by numpy as NeMo 2.0 picks the frames of a video.
"""

import struct
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessor

HERE = Path(__file__).parent
MEAN = (0.48145466, 0.4578275, 0.40821073)
SQUARE, PAD, KEEP = 0, 1, 2
CASES = [  # width, height, size
    (96, 54, 32), (54, 96, 32), (64, 64, 32), (37, 23, 24), (20, 31, 48), (150, 40, 16),
    (33, 100, 28), (24, 24, 24), (24, 50, 24), (9, 7, 20), (128, 96, 64), (161, 121, 30),
]


def picture(rng, width, height):
    """Smooth shading, hard edges and noise, so that ringing and clipping both occur."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 4 % 256], -1)
    edges = ((x // 5 + y // 3) % 2 * 255)[..., None]
    noise = rng.integers(0, 256, (height, width, 3))
    weight = np.where(x < width / 3, 0, np.where(x < 2 * width / 3, 1, 2))[..., None]
    return np.choose(weight, [smooth, edges + 0 * smooth, noise]).astype(np.uint8)


def expand_to_square(image):
    """LLaVA's expand2square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(x * 255) for x in MEAN))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def processed(image, size, aspect):
    """What CLIPImageProcessor gives before it rescales and normalises."""
    if aspect == PAD:
        image = expand_to_square(image)
    shape = {"height": size, "width": size} if aspect == SQUARE else {"shortest_edge": size}
    processor = CLIPImageProcessor(size=shape, crop_size=size, do_rescale=False,
                                   do_normalize=False, do_center_crop=aspect != SQUARE)
    out = processor(image, return_tensors="np")["pixel_values"][0]
    return out.transpose(1, 2, 0).astype(np.uint8)


def write_preprocess():
    rng = np.random.default_rng(20240501)
    with open(HERE / "preprocess.bin", "wb") as out:
        out.write(struct.pack("<i", len(CASES)))
        for width, height, size in CASES:
            pixels = picture(rng, width, height)
            out.write(struct.pack("<3i", width, height, size) + pixels.tobytes())
            for aspect in (SQUARE, PAD, KEEP):
                result = processed(Image.fromarray(pixels), size, aspect)
                assert result.shape == (size, size, 3)
                out.write(result.tobytes())


def write_picks():
    with open(HERE / "picks.txt", "w") as out:
        for n in [*range(1, 41), 100, 255, 300, 1001, 5402, 123457]:
            for wanted in (1, 2, 3, 4, 5, 7, 8, 12, 16, 33):
                picks = list(np.linspace(0, n - 1, min(n, wanted), dtype=int))
                while len(picks) < wanted:
                    picks.append(picks[-1])
                out.write(f"{n} {wanted}: {' '.join(map(str, picks))}\n")


if __name__ == "__main__":
    write_preprocess()
    write_picks()
