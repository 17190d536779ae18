#!/usr/bin/env python3
"""Writes the reference data of media's tests: preprocess.bin, photo_* and picks.txt.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r media_requirements.txt
    /tmp/v/bin/python make_media.py

photo_*: crops of sample photographs that scikit-image's package holds, all of them public
domain or CC0 (photos.txt), as PNG, JPEG with half the colours, JPEG of CMYK, and WebP.
preprocess.bin, little endian: int32 number of cases; for each int32 photo (-1: none),
width, height, size, n_sampled and step; without a photo the picture [height, width, 3];
then pixels 0, step, 2 step... (n_sampled of them, 3 bytes each) of the [size, size, 3]
that Hugging Face's CLIPImageProcessor gives for a square and a pad, and likewise
SiglipImageProcessor.
picks.txt: lines "n num_frames: i i i...", by numpy as NeMo 2.0 picks the frames of a video.
"""

import struct
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from transformers import CLIPImageProcessor, SiglipImageProcessor

HERE = Path(__file__).parent
N_SAMPLED = 190
CASES = [  # width, height, size
    (96, 54, 32), (54, 96, 32), (64, 64, 32), (37, 23, 24), (20, 31, 48), (150, 40, 16),
    (33, 100, 28), (24, 24, 24), (24, 50, 24), (9, 7, 20), (128, 96, 64), (101, 75, 30),
    (1, 1, 32), (1, 50, 32), (50, 1, 32), (400, 3, 45), (3, 400, 32), (2, 90, 448),
    (95, 61, 95), (61, 95, 61), (127, 33, 336),
]
PHOTOS = [  # file, picture, left, top, width, height, mode, how it is saved
    ("astronaut.png", data.astronaut, 130, 10, 121, 151, "RGB", {"optimize": True}),
    ("chelsea.jpg", data.chelsea, 120, 60, 133, 177, "RGB", {"quality": 85}),
    ("coffee_cmyk.jpg", data.coffee, 180, 90, 141, 95, "CMYK", {"quality": 70}),
    ("coffee.webp", data.coffee, 180, 90, 256, 145, "RGB", {"quality": 80}),
]
SIZES = (32, 33, 64, 97, 145, 224, 336, 384, 448)


def picture(rng, width, height):
    """Smooth shading, hard edges and noise, so that ringing and clipping both occur."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 4 % 256], -1)
    edges = ((x // 5 + y // 3) % 2 * 255)[..., None]
    noise = rng.integers(0, 256, (height, width, 3))
    weight = np.where(x < width / 3, 0, np.where(x < 2 * width / 3, 1, 2))[..., None]
    return np.choose(weight, [smooth, edges + 0 * smooth, noise]).astype(np.uint8)


def expand_to_square(image, mean):
    """LLaVA's expand2square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(x * 255) for x in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def processed(image, size):
    """What the two processors give before they rescale and normalise; NeMo's pad is a
    picture padded by their mean and then as ever. Left to themselves the processors take
    a picture that is 1 or 3 pixels high for one with its channels first."""
    bytes_only = {"do_rescale": False, "do_normalize": False}
    clip = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size, **bytes_only)
    siglip = SiglipImageProcessor(size={"height": size, "width": size}, **bytes_only)
    for processor in (clip, siglip):
        for given in (image, expand_to_square(image, processor.image_mean)):
            out = processor(given, return_tensors="np", input_data_format="channels_last",
                            data_format="channels_last")["pixel_values"][0]
            yield out.astype(np.uint8)


def write_case(out, image, photo, size):
    step = max(1, size * size // N_SAMPLED) | 1
    n_sampled = (size * size - 1) // step + 1
    out.write(struct.pack("<6i", photo, *image.size, size, n_sampled, step))
    if photo < 0:
        out.write(np.asarray(image).tobytes())
    for result in processed(image, size):
        assert result.shape == (size, size, 3)
        out.write(result.reshape(-1, 3)[::step].tobytes())


def write_preprocess():
    rng = np.random.default_rng(20240501)
    with open(HERE / "preprocess.bin", "wb") as out:
        out.write(struct.pack("<i", len(CASES) + len(PHOTOS) * len(SIZES)))
        for width, height, size in CASES:
            write_case(out, Image.fromarray(picture(rng, width, height)), -1, size)
        for number, (name, load, left, top, width, height, mode, how) in enumerate(PHOTOS):
            image = Image.fromarray(load()[top:top + height, left:left + width])
            image.convert(mode).save(HERE / f"photo_{name}", **how)
            image = Image.open(HERE / f"photo_{name}").convert("RGB")
            for size in SIZES:
                write_case(out, image, number, size)


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
