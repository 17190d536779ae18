#!/usr/bin/env python3
"""What PyTorch and transformers make of the shapes of bench_gpu, for tests/gpu.sh to put beside.

    python3 tests/bench/bench_gpu.py --program build-gpu/tests/bench_gpu [--out FILE]
                                     [--device cuda|cpu] [--tiny] PART...

Parts and records are those of bench_gpu (bench_gpu.h). Sides: torch_cudnn, torch_flash (one
attention of PyTorch's); transformers, transformers_compiled (LlavaForConditionalGeneration
with sdpa attention; every layer by torch.compile, or generate with a static cache, which it
compiles by itself). Without transformers a plain LLaVA of torch's modules takes steps in its
place, and its records say so. Weights are random and made on the device; nothing is
downloaded.

The peer has what is fastest for it: fused AdamW, gradients dropped and not zeroed, logits of
the label rows only (logits_to_keep), bf16 by autocast over fp32 weights where these are
trained, bf16 weights where they are not; full recomputation (gradient_checkpointing_enable)
where bench_gpu has it.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time

REPS = 7
STEPS, STEPS_WARM = 6, 2
ANSWERS = 2
TURN_S = 0.01


def process_seconds():
    """Since this process began: field 22 of /proc/self/stat, in ticks since boot."""
    import os
    with open("/proc/self/stat", encoding="ascii") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, options):
        import torch
        self.torch, self.options, self.device = torch, options, options.device
        command = [options.program] + (["--tiny"] if options.tiny else []) + ["shapes"]
        self.shapes = json.loads(subprocess.run(command, check=True, text=True,
                                                stdout=subprocess.PIPE).stdout)

    def sync(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def record(self, kind, key, side, value, unit, spread, note):
        note = " ".join(str(note).split())[:300]
        line = "\t".join([kind, key, side, value, unit, spread, note])
        print(line, flush=True)
        if self.options.out:
            with open(self.options.out, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def figure(self, key, side, values, unit, note):
        middle = statistics.median(values)
        spread = f"{(max(values) - min(values)) / middle:.3f}" if len(values) > 1 else "-"
        self.record("figure", key, side, f"{middle:.6g}", unit, spread, note)

    def none(self, key, side, reason):
        self.record("none", key, side, "-", "-", "-", reason)

    def seconds(self, work):
        """Of one call of `work`, in each repetition: as bench_time does it."""
        def turn(n):
            self.sync()
            start = time.monotonic()
            for _ in range(n):
                work()
            self.sync()
            return time.monotonic() - start
        turn(2)
        n = 1 if self.options.tiny else min(max(int(TURN_S / turn(1)), 1), 1000)
        return [turn(n) / n for _ in range(REPS)]


# ---- attention ----

def attention(bench):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    torch, tiny = bench.torch, bench.options.tiny
    n, heads, size = (24, 2, 8) if tiny else (4096, 32, 128)
    flops = 4 * heads * size * n * (n + 1) / 2
    shape = (1, n, heads, size)
    q, k, v = (torch.randn(shape, device=bench.device, dtype=torch.bfloat16)
               .transpose(1, 2).requires_grad_() for _ in range(3))
    grad = torch.randn(shape, device=bench.device, dtype=torch.bfloat16).transpose(1, 2)
    sides = {"torch_cudnn": SDPBackend.CUDNN_ATTENTION,
             "torch_flash": SDPBackend.FLASH_ATTENTION}
    for side, backend in sides.items():
        def forward():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        try:
            with sdpa_kernel([backend]):
                forward_s = bench.seconds(forward)
                out = forward()
                backward_s = bench.seconds(lambda: torch.autograd.grad(
                    out, (q, k, v), grad, retain_graph=True))
        except RuntimeError as error:
            for key in ("attention.fwd", "attention.bwd"):
                bench.none(key, side, error)
            continue
        note = f"torch {torch.__version__}"
        bench.figure("attention.fwd", side, [flops / s * 1e-12 for s in forward_s],
                     "TFLOP/s", note)
        bench.figure("attention.bwd", side, [2.5 * flops / s * 1e-12 for s in backward_s],
                     "TFLOP/s", note)


# ---- the peer's model ----

def llava(bench, shape):
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
            max_position_embeddings=shape["max_tokens"] + shape["new"],
            tie_word_embeddings=False),
        image_token_index=shape["vocab"] - 1, vision_feature_layer=shape["select_layer"],
        attn_implementation="sdpa")
    with bench.torch.device(bench.device):
        model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = None  # every row to its full length
    model.generation_config.pad_token_id = 0
    return model


def plain_llava(bench, shape):
    """Where transformers is missing: the same products and attention, of torch's modules."""
    torch = bench.torch
    nn, functional = torch.nn, torch.nn.functional

    class DecoderLayer(nn.Module):
        def __init__(self, width, ffn, heads, is_causal):
            super().__init__()
            self.heads, self.is_causal, self.checkpoint = heads, is_causal, False
            norm = nn.RMSNorm if is_causal else nn.LayerNorm
            self.norm1, self.norm2 = norm(width), norm(width)
            self.qkv = nn.Linear(width, 3 * width, bias=not is_causal)
            self.out = nn.Linear(width, width, bias=not is_causal)
            self.up = nn.Linear(width, ffn * (2 if is_causal else 1), bias=not is_causal)
            self.down = nn.Linear(ffn, width, bias=not is_causal)

        def work(self, x, turns):
            b, t, d = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).unbind(2)
            if self.is_causal:
                q, k = rotate(q, turns), rotate(k, turns)
            o = functional.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                is_causal=self.is_causal)
            x = x + self.out(o.transpose(1, 2).reshape(b, t, d))
            y = self.up(self.norm2(x))
            if self.is_causal:
                gate, up = y.chunk(2, -1)
                return x + self.down(functional.silu(gate) * up)
            return x + self.down(y * torch.sigmoid(1.702 * y))

        def forward(self, x, turns):
            if self.checkpoint and torch.is_grad_enabled():
                return torch.utils.checkpoint.checkpoint(self.work, x, turns,
                                                         use_reentrant=False)
            return self.work(x, turns)

    def rotate(x, turns):
        cos, sin = turns
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)

    class Llava(nn.Module):
        def __init__(self):
            super().__init__()
            wide, width = shape["vision_width"], shape["width"]
            self.dtype = torch.float32
            self.patches = nn.Conv2d(3, wide, shape["patch"], shape["patch"], bias=False)
            n = (shape["image_size"] // shape["patch"]) ** 2 + 1
            self.first, self.places = (nn.Parameter(torch.randn(n, wide) * 0.02)
                                       for n in (1, n))
            self.norm = nn.LayerNorm(wide)
            self.vision = nn.ModuleList(
                DecoderLayer(wide, shape["vision_ffn"], shape["vision_heads"], False)
                for _ in range(shape["vision_layers"] + 1 + shape["select_layer"]))
            self.multi_modal_projector = nn.Sequential(
                nn.Linear(wide, width), nn.GELU(), nn.Linear(width, width))
            self.embed = nn.Embedding(shape["vocab"], width)
            self.layers = nn.ModuleList(
                DecoderLayer(width, shape["ffn"], shape["heads"], True)
                for _ in range(shape["layers"]))
            self.last, self.lm_head = nn.RMSNorm(width), nn.Linear(width, shape["vocab"],
                                                                   bias=False)

        def frozen_parts(self):
            return [self.patches, self.norm, self.vision], [self.first, self.places]

        def forward(self, input_ids, pixel_values, logits_to_keep):
            x = self.patches(pixel_values).flatten(2).transpose(1, 2)
            x = torch.cat((self.first.expand(len(x), 1, -1).to(x.dtype), x), 1)
            x = self.norm(x + self.places.to(x.dtype))
            for layer in self.vision:
                x = layer(x, None)
            features = self.multi_modal_projector(x[:, 1:]).flatten(0, 1)
            x = self.embed(input_ids)
            x = torch.cat((features[None].to(x.dtype), x[:, len(features):]), 1)
            size = shape["width"] // shape["heads"]
            angles = (torch.arange(x.shape[1], device=x.device)[:, None, None] *
                      10000.0 ** (-torch.arange(0, size, 2, device=x.device) / size))
            turns = (angles.cos(), angles.sin())
            for layer in self.layers:
                x = layer(x, turns)
            return self.lm_head(self.last(x[:, -logits_to_keep:]))

        def gradient_checkpointing_enable(self):
            for layer in self.layers:
                layer.checkpoint = True

    with torch.device(bench.device):
        return Llava()


class Peer:
    """One model with its batch: steps and answers."""

    def __init__(self, bench, shape, is_trained=False, half=None):
        torch = bench.torch
        self.bench, self.torch, self.shape, self.optimizer = bench, torch, shape, None
        torch.manual_seed(1)
        try:
            import transformers
            self.model, self.name = llava(bench, shape), f"transformers {transformers.__version__}"
        except ImportError:
            self.model, self.name = plain_llava(bench, shape), "plain torch, no transformers"
        self.model.requires_grad_(is_trained)
        if half or not is_trained:
            self.model.to(half or torch.bfloat16)
        if not half:
            self.train_parts(is_trained)
        self.autocast = torch.autocast(bench.device, torch.bfloat16, enabled=not half)

    def train_parts(self, is_trained):
        core = getattr(self.model, "model", self.model)
        core.multi_modal_projector.float().requires_grad_()
        vision = getattr(core, "vision_tower", None)
        self.model.train()
        if vision is None:
            modules, parameters = self.model.frozen_parts()
            for part in modules + parameters:
                part.requires_grad_(False)
            if is_trained:
                self.model.gradient_checkpointing_enable()
            return
        vision.requires_grad_(False)
        if is_trained:
            core.language_model.gradient_checkpointing_enable({"use_reentrant": False})

    def compile(self, is_on):
        for module in self.model.modules():
            if type(module).__name__.endswith(("DecoderLayer", "EncoderLayer")):
                if is_on:
                    module.compile()
                else:
                    module._compiled_call_impl = None

    def batch(self, rows, n_tokens):
        torch, s = self.torch, self.shape
        media = s["vocab"] - 1
        n_media = s["frames"] * (s["image_size"] // s["patch"]) ** 2
        ids = torch.randint(0, media, (rows, n_tokens), device=self.bench.device)
        ids[:, :n_media] = media
        pixels = torch.randn(rows * s["frames"], 3, s["image_size"], s["image_size"],
                             device=self.bench.device, dtype=self.model.dtype)
        return ids, pixels

    def step(self, ids, pixels):
        torch, n = self.torch, self.shape["labels"]
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if not self.optimizer:
            self.optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95),
                                               weight_decay=0.1, fused=True)
        with self.autocast:
            out = self.model(input_ids=ids, pixel_values=pixels, logits_to_keep=n + 1)
            logits = getattr(out, "logits", out)[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1),
                                                     ids[:, -n:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())  # waits


# ---- training steps ----

def time_steps(bench, peer, batch):
    seconds = []
    for i in range(STEPS_WARM + STEPS):
        bench.sync()
        start = time.monotonic()
        loss = peer.step(*batch)
        bench.sync()
        if i >= STEPS_WARM:
            seconds.append(time.monotonic() - start)
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss is {loss}")
    return seconds


def steps(bench, name):
    shape, is_trained = bench.shapes[name], name == "trained"
    peer = Peer(bench, shape, is_trained)
    batch = peer.batch(1, shape["tokens"])
    for side in ("transformers_compiled", "transformers"):
        is_compiled = side != "transformers"
        try:
            peer.compile(is_compiled)
            if is_compiled:
                peer.step(*batch)
                if not is_trained:
                    bench.figure("first_step.7b", side, [process_seconds()], "s",
                                 f"{peer.name}; each layer compiled, decoder frozen")
            if bench.device == "cuda":
                bench.torch.cuda.reset_peak_memory_stats()
            seconds = time_steps(bench, peer, batch)
        except Exception as error:  # whatever the compiler throws: the other side goes on
            bench.none(f"step.{name}", side, f"{type(error).__name__}: {error}")
            continue
        bench.figure(f"step.{name}", side, [shape["tokens"] / s for s in seconds], "tokens/s",
                     f"{peer.name}; {shape['layers']} layers")
        if bench.device == "cuda":
            bench.figure(f"step.{name}.memory", side,
                         [bench.torch.cuda.max_memory_allocated() / 1e9], "GB", "")


# ---- answers ----

def time_answers(bench, peer, rows, side, how):
    torch, shape = bench.torch, bench.shapes["frozen"]
    ids, pixels = peer.batch(rows, shape["prompt"])

    def answer(n):
        bench.sync()
        start = time.monotonic()
        with torch.inference_mode():
            out = peer.model.generate(input_ids=ids, pixel_values=pixels,
                                      attention_mask=torch.ones_like(ids), max_new_tokens=n,
                                      do_sample=False, **how)
        bench.sync()
        if out.shape[1] - ids.shape[1] != n:
            raise RuntimeError(f"{out.shape[1] - ids.shape[1]} new tokens, not {n}")
        return time.monotonic() - start
    new = shape["new"]
    answer(new)
    firsts, wholes = [], []
    for _ in range(ANSWERS):
        firsts.append(answer(1))
        wholes.append(answer(new))
    note = f"{peer.name} {how.get('cache_implementation', 'dynamic')} cache"
    bench.figure(f"generate.{rows}", side, [rows * new / s for s in wholes], "tokens/s", note)
    left = [max(whole - first, 1e-9) for whole, first in zip(wholes, firsts)]
    bench.figure(f"generate.{rows}.decode", side, [rows * (new - 1) / s for s in left],
                 "tokens/s", "without the prompts")


def generate(bench):
    peer = Peer(bench, bench.shapes["frozen"],
                half=bench.torch.float16 if bench.device == "cuda" else bench.torch.bfloat16)
    peer.model.eval()
    if not hasattr(peer.model, "generate"):
        for rows in (1, 8):
            bench.none(f"generate.{rows}", "transformers", "transformers is not there")
        return
    for side, how in (("transformers", {}),
                      ("transformers_compiled", {"cache_implementation": "static"})):
        for rows in (1, 8):
            try:
                time_answers(bench, peer, rows, side, how)
            except Exception as error:  # see steps
                bench.none(f"generate.{rows}", side, f"{type(error).__name__}: {error}")


# ---- the first step ----

def first_step(bench, name):
    shape = bench.shapes["frozen" if name == "7b" else "tiny"]
    peer = Peer(bench, shape, is_trained=name == "tiny")
    peer.step(*peer.batch(1, shape["tokens"]))
    bench.figure(f"first_step.{name}", "transformers", [process_seconds()], "s", peer.name)


PARTS = {
    "attention": attention,
    "step.frozen": lambda bench: steps(bench, "frozen"),
    "step.trained": lambda bench: steps(bench, "trained"),
    "generate": generate,
    "first_step.7b": lambda bench: first_step(bench, "7b"),
    "first_step.tiny": lambda bench: first_step(bench, "tiny"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=sorted(PARTS), metavar="PART")
    parser.add_argument("--program", required=True, help="bench_gpu, which has the shapes")
    parser.add_argument("--out", help="where records are appended")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    bench, failed = Bench(parser.parse_args()), 0
    for part in bench.options.parts:
        try:
            PARTS[part](bench)
        except Exception as error:  # the other parts go on; the table says what it was
            failed = 1
            bench.record("failed", part, "peer", "-", "-", "-",
                         f"{type(error).__name__}: {error}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
