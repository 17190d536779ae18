#!/usr/bin/env python3
"""Training, forward pass and generation of one LLaVA, side by side with PyTorch and
transformers (tests/bench/bench_model_requirements.txt).

    python3 tests/bench/bench_model.py build/tests/bench_model [--rounds N] [--threads N]
                                       [--json FILE] [--only "ROW;ROW"]

Each side holds the model in a process of its own; they take turns, one command each a
round. Rates are medians over the rounds, ratios medians of each round's ratio. Beside other
work compare CPU times (user and system), with OMP_WAIT_POLICY=passive, so that threads that
wait do not count.

The peer has what was fastest for it: sdpa attention, fused AdamW, gradients dropped and not
zeroed, no checkpointing, logits of the answer's rows only (logits_to_keep; a `default` row
is without, as transformers' Trainer trains). In bf16: autocast over fp32 weights for
training, bf16 weights for the rest. Weights are random on both sides; only their number is
compared.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

OURS_TYPE = {"bf16": "bf16", "fp32": "f32"}
NEW_TOKENS = 128

# name, type, rows of the batch, command, peer's variant, rounds at most
WORK = [
    ("forward", "bf16", 2, "forward", "kept", 3),
    ("step", "bf16", 2, "step", "kept", 2),
    ("forward", "fp32", 2, "forward", "kept", 99),
    ("step", "fp32", 2, "step", "kept", 99),
    ("step, default", "fp32", 2, "step", "default", 99),
    ("generate 1 row", "bf16", 1, "generate", "kept", 99),
    ("generate 8 rows", "bf16", 8, "generate", "kept", 3),
    ("generate 1 row", "fp32", 1, "generate", "kept", 99),
    ("generate 8 rows", "fp32", 8, "generate", "kept", 99),
]


# ---- the peer ----

def build(shape, kind, is_training):
    import torch
    from transformers import (CLIPVisionConfig, LlamaConfig, LlavaConfig,
                              LlavaForConditionalGeneration)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=shape["vision_width"], intermediate_size=shape["vision_ffn"],
            num_hidden_layers=shape["vision_layers"],
            num_attention_heads=shape["vision_heads"], image_size=shape["image_size"],
            patch_size=shape["patch"]),
        text_config=LlamaConfig(
            vocab_size=shape["vocab"], hidden_size=shape["width"],
            intermediate_size=shape["ffn"], num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"], num_key_value_heads=shape["heads"],
            max_position_embeddings=shape["max_tokens"], tie_word_embeddings=False),
        image_token_index=shape["vocab"] - 1, vision_feature_layer=shape["select_layer"],
        attn_implementation="sdpa")
    torch.manual_seed(1)
    model = LlavaForConditionalGeneration(config)
    if kind == "bf16" and not is_training:
        model = model.bfloat16()
    model.generation_config.eos_token_id = None  # every row to its full length
    model.generation_config.pad_token_id = 0
    return model


class Peer:
    def __init__(self, shape, kind, variant, is_training):
        import torch
        self.torch, self.shape, self.variant = torch, shape, variant
        self.model = build(shape, kind, is_training)
        self.autocast = torch.autocast("cpu", torch.bfloat16,
                                       enabled=kind == "bf16" and is_training)
        rows, n, media = shape["samples"], shape["tokens"], shape["vocab"] - 1
        n_media = shape["frames_each"] * (shape["image_size"] // shape["patch"]) ** 2
        self.ids = torch.randint(0, media, (rows, n))
        self.ids[:, :n_media] = media
        self.labels = self.ids.clone()
        self.labels[:, :-shape["labels_each"]] = -100
        size = shape["image_size"]
        self.pixels = torch.randn(rows * shape["frames_each"], 3, size, size)
        self.pixels = self.pixels.to(self.model.dtype)
        self.optimizer = None

    def loss(self):
        if self.variant == "default":
            return self.model(input_ids=self.ids, pixel_values=self.pixels,
                              labels=self.labels).loss
        n = self.shape["labels_each"]
        logits = self.model(input_ids=self.ids, pixel_values=self.pixels,
                            logits_to_keep=n + 1).logits[:, :-1].float()
        return self.torch.nn.functional.cross_entropy(logits.flatten(0, 1),
                                                      self.labels[:, -n:].flatten())

    def forward(self):
        self.model.eval()
        with self.torch.inference_mode(), self.autocast:
            return float(self.loss())

    def step(self):
        torch = self.torch
        self.model.train()
        if not self.optimizer:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4,
                                               betas=(0.9, 0.98), weight_decay=0.01,
                                               fused=True)
        with self.autocast:
            loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss)

    def generate(self, n_new):
        self.model.eval()
        with self.torch.inference_mode():
            out = self.model.generate(input_ids=self.ids, pixel_values=self.pixels,
                                      attention_mask=self.torch.ones_like(self.ids),
                                      max_new_tokens=n_new, do_sample=False)
        if out.shape[1] - self.ids.shape[1] != n_new:
            raise RuntimeError(f"{out.shape[1] - self.ids.shape[1]} new tokens")
        return 0.0


def serve(options):
    import torch
    torch.set_num_threads(options.threads)
    shape, peer = json.loads(options.peer), None
    for line in sys.stdin:
        words = line.split()
        if words[0] == "shape":
            peer = Peer(shape, options.kind, options.variant, options.training)
            n_params = sum(p.numel() for p in peer.model.parameters())
            print(json.dumps({"params": n_params, "torch": torch.__version__}), flush=True)
            continue
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        loss = getattr(peer, words[0])(*[int(w) for w in words[1:]])
        after, wall = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - start
        cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
        print(json.dumps({"wall_s": wall, "cpu_s": cpu, "loss": loss,
                          "peak_mb": after.ru_maxrss / 1024}), flush=True)


# ---- taking turns ----

class Side:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True,
                                        stderr=subprocess.DEVNULL)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args[:2]} ended at '{line}'")
        return json.loads(answer)

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def open_sides(options, kind, rows, command, variant):
    threads = ["--threads", str(options.threads)]
    ours = Side([options.program, "--dtype", OURS_TYPE[kind], "--batch", str(rows)] + threads +
                ([] if command == "step" else ["--frozen"]))
    shape = ours.ask("shape")
    peer = Side([sys.executable, __file__, options.program, "--peer", json.dumps(shape),
                 "--kind", kind, "--variant", variant] + threads +
                (["--training"] if command == "step" else []))
    about = peer.ask("shape")
    if about["params"] != shape["params"]:
        raise RuntimeError(f"{shape['params']} parameters here, {about['params']} there")
    return ours, peer, shape, about


def measure(options, name, kind, rows, command, variant, rounds):
    """One row of the table: every round both sides do the same, one after the other."""
    ours, peer, shape, about = open_sides(options, kind, rows, command, variant)
    sides = {"ours": ours, "peer": peer}
    lines = [command]
    if command == "generate":
        lines = ["generate 1", f"generate {NEW_TOKENS}"]
    for side in sides.values():
        side.ask(lines[0])  # warm: memory, primitives, a first step without moments
    answers = {side: {line: [] for line in lines} for side in sides}
    for _ in range(min(rounds, options.rounds)):
        for line in lines:
            for side, it in sides.items():
                answers[side][line].append(it.ask(line))
    for side in sides.values():
        side.end()
    return summary(name, kind, rows, lines, answers, shape, about)


def summary(name, kind, rows, lines, answers, shape, about):
    last, work = lines[-1], rows * (NEW_TOKENS if len(lines) > 1 else 1)
    row = {"name": name, "type": kind, "unit": "tokens/s" if len(lines) > 1 else "samples/s",
           "params": shape["params"], "torch": about["torch"]}
    for clock in ("wall_s", "cpu_s"):
        pairs = list(zip(answers["ours"][last], answers["peer"][last]))
        row[f"ratio_{clock}"] = statistics.median(p[clock] / o[clock] for o, p in pairs)
    for side in answers:
        got = answers[side][last]
        wall = statistics.median(a["wall_s"] for a in got)
        row[side] = {"rate": work / wall, "wall_s": wall, "peak_mb": got[-1]["peak_mb"],
                     "cpu_s": statistics.median(a["cpu_s"] for a in got),
                     "loss": got[-1]["loss"]}
        if len(lines) > 1:  # without the prompts; 0: drowned in noise
            left = statistics.median(long["wall_s"] - short["wall_s"] for long, short in
                                     zip(got, answers[side][lines[0]]))
            row[side]["decode_rate"] = rows * (NEW_TOKENS - 1) / left if left > 0 else 0
    row["ratio_peak"] = row["ours"]["peak_mb"] / row["peer"]["peak_mb"]
    return row


def show(row):
    ours, peer = row["ours"], row["peer"]
    print(f"| {row['name']}, {row['type']} ({row['unit']}) | {ours['rate']:.2f} "
          f"| {peer['rate']:.2f} | {row['ratio_wall_s']:.2f} | {row['ratio_cpu_s']:.2f} "
          f"| {ours['peak_mb']:.0f} | {peer['peak_mb']:.0f} |", flush=True)
    if ours.get("decode_rate") and peer["decode_rate"]:
        print(f"|   the same without the prompts | {ours['decode_rate']:.2f} "
              f"| {peer['decode_rate']:.2f} "
              f"| {ours['decode_rate'] / peer['decode_rate']:.2f} | | | |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    parser.add_argument("--only", default="", help="rows, apart by ;")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--training", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        serve(options)
        return
    rows = []
    print("| what | vneva | transformers | ratio | CPU time ratio | peak MB | peer's peak |\n"
          "|---|---:|---:|---:|---:|---:|---:|")
    for work in WORK:
        if options.only and f"{work[0]}, {work[1]}" not in options.only.split(";"):
            continue
        rows.append(measure(options, *work))
        show(rows[-1])
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
