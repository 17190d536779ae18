#!/usr/bin/env python3
"""Eight frames of each video, side by side with PyAV and decord where they are installed.

    python3 tests/bench/bench_decode.py build/bin/bench_decode FILE...

Everybody opens the file, takes frames linspace(0, n - 1, 8), exact, as RGB of 224 x 224, on
one thread. vneva 2nd: the same again, with the packet index kept; cuda: that on the GPU, "-"
where there is no NVDEC. Best of three.
"""

import subprocess
import sys
import time

import numpy as np

SIZE, COUNT, ROUNDS = 224, 8, 3


def prepared(pixels):
    from PIL import Image
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.BICUBIC))


def take_pyav(path):
    """PyAV has no frame numbers: the frames are counted, then decoded from the start."""
    import av
    with av.open(path) as container:
        stream = container.streams.video[0]
        count = sum(1 for p in container.demux(stream) if p.size)
    wanted = set(np.linspace(0, count - 1, COUNT, dtype=int))
    with av.open(path) as container:
        container.streams.video[0].thread_count = 1
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                prepared(frame.to_ndarray(format="rgb24"))
            if i >= max(wanted):
                break


def take_decord(path):
    import decord
    reader = decord.VideoReader(path, num_threads=1)
    wanted = np.linspace(0, len(reader) - 1, COUNT, dtype=int)
    for pixels in reader.get_batch(wanted).asnumpy():
        prepared(pixels)


def seconds(take, path):
    start = time.perf_counter()
    try:
        take(path)
    except ImportError:
        return None
    except Exception as problem:  # a peer that cannot read the file is part of the table
        print(f"{take.__name__}: {path}: {str(problem).splitlines()[0][:80]}", file=sys.stderr)
        return None
    return time.perf_counter() - start


def best(values):
    values = [v for v in values if v is not None]
    return min(values) if values else None


def vneva(program, paths):
    """path -> (first, second, on the GPU)"""
    out = {}
    for _ in range(ROUNDS):
        lines = subprocess.run([program, *paths], capture_output=True, text=True).stdout
        for path, *values in (line.split("\t") for line in lines.splitlines()):
            values = [None if v == "-" else float(v) for v in values]
            old = out.get(path, [None] * len(values))
            out[path] = [best(pair) for pair in zip(old, values)]
    return out


def cell(value):
    return f"{value:9.4f}" if value is not None else f"{'-':>9}"


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    program, paths = sys.argv[1], sys.argv[2:]
    ours = vneva(program, paths)
    rows = []
    for path in paths:
        peers = [best(seconds(take, path) for _ in range(ROUNDS))
                 for take in (take_pyav, take_decord)]
        rows.append((path, [*ours.get(path, (None, None, None)), *peers]))
    print(f"{'seconds for 8 frames':28} {'vneva':>9} {'2nd':>9} {'cuda':>9} {'PyAV':>9} {'decord':>9}")
    for path, row in rows:
        print(f"{path.rsplit('/', 1)[-1][:28]:28} {' '.join(cell(v) for v in row)}")
    # a rate over the videos that everybody present could read
    used = [c for c in range(5) if any(row[c] is not None for _, row in rows)]
    common = [row for _, row in rows if all(row[c] is not None for c in used)]
    rates = [len(common) / sum(r[c] for r in common) if c in used and common else None
             for c in range(5)]
    print(f"{f'videos/s over {len(common)} videos':28} {' '.join(cell(v) for v in rates)}")


if __name__ == "__main__":
    main()
