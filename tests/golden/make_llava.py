#!/usr/bin/env python3
"""Writes the reference data of the whole model's tests: llava_NAME.safetensors.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r decoder_requirements.txt
    /tmp/v/bin/python make_llava.py

Each file is a tiny random LlavaForConditionalGeneration and what it computes in fp32.
Encoders have the proportions of the published ones: a grid of patches that is odd (B/32 has
7 x 7) or even, the same patch at two image sizes (L/14 and L/14-336), pixels that no patch
takes (SigLIP so400m: 384 and 14). Projectors that the class does not have are plain
PyTorch, below. Weights are drawn so that bf16 holds them exactly, and are stored in it.

    NAME            weights, bf16, named as in the class's state dict
    NAME#grad       gradient of the loss, fp32; none where a weight has no part in it
    pixels          [F,S,S,3] uint8
    tokens, labels  [B,T] int32; -1 in tokens: a feature's place; labels are shifted
    lens            [B] int32; behind them rows are padded with token 0
    loss            [1] sum of -log p over the labels
    logits          [labels,V] of the rows with a label, in order
    vision_hidden   [layers+1,F*tokens,D] input of every encoder layer, output of the last
    hidden          [layers+1,B*T,D] the decoder's
    generated       [B,N] int32, greedy, after the first lens tokens of each row

The rows: a video of three frames; text alone; an image and, later on, two frames.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration,
    MistralConfig, Qwen2Config, SiglipVisionConfig)

from make_decoders import draw_tensor

HERE = Path(__file__).parent
VOCAB = 53
IMAGE_TOKEN = VOCAB - 1
TEXT = dict(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=26, num_hidden_layers=2,
    num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=256,
    tie_word_embeddings=False, attn_implementation="eager", pad_token_id=None,
    bos_token_id=None, eos_token_id=None)
VISION = dict(
    hidden_size=16, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2,
    attn_implementation="eager")
NEW_TOKENS = 64
MIN_WORDS = 8  # that differ in the answers: a model that repeats itself shows little
MARGIN = 1e-3  # of the best token over the second: no rounding may turn them round
MEAN = {"clip": (0.48145466, 0.4578275, 0.40821073), "siglip": (0.5, 0.5, 0.5)}
STD = {"clip": (0.26862954, 0.26130258, 0.27577711), "siglip": (0.5, 0.5, 0.5)}
# frames in each place of media, and how many text tokens stand before it and at the end
ROWS = (((2, 3), (8, 0)), ((9, 0),), ((2, 1), (3, 2), (6, 0)))

LLAMA = (LlamaConfig, dict(rms_norm_eps=1e-5))
MISTRAL = (MistralConfig, dict(rms_norm_eps=1e-5, rope_theta=1e6, sliding_window=None))
QWEN2 = (Qwen2Config, dict(rms_norm_eps=1e-6, rope_theta=1e6))


def clip(grid, patch, act):
    return "clip", CLIPVisionConfig(
        image_size=grid * patch, patch_size=patch, hidden_act=act, **VISION)


def siglip(image, patch, **more):
    return "siglip", SiglipVisionConfig(image_size=image, patch_size=patch, **VISION, **more)


# encoder, decoder, projector ("hf": the class's own), LlavaConfig
MODELS = {
    "clip_b32": (clip(3, 6, "quick_gelu"), LLAMA, "hf", {}),
    "clip_l14": (clip(2, 4, "quick_gelu"), LLAMA, "linear", dict(vision_feature_layer=1)),
    "clip_l14_336": (clip(4, 4, "gelu"), MISTRAL, "hf", dict(
        vision_feature_layer=-1, vision_feature_select_strategy="full",
        multimodal_projector_bias=False)),
    "clip_down": (clip(4, 4, "quick_gelu"), QWEN2, "mlp_downsample", {}),
    "siglip": (siglip(13, 4), QWEN2, "hf", dict(vision_feature_select_strategy="full")),
    "siglip_down": (siglip(13, 4, vision_use_head=False), MISTRAL, "mlp_downsample", dict(
        vision_feature_select_strategy="full")),
}


class Linear(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear_1 = nn.Linear(width, out)

    def forward(self, x):
        return self.linear_1(x)


class MlpDownsample(nn.Module):
    """NeMo's and VILA 1.5's: see https://github.com/NVIDIA/NeMo, parallel_adapters.py."""

    def __init__(self, width, out):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.linear_1 = nn.Linear(4 * width, out)
        self.linear_2 = nn.Linear(out, out)

    @staticmethod
    def join(x):
        n, n_patches, width = x.shape
        side = round(n_patches ** 0.5)
        x = x.reshape(n, side, side, width)
        x = nn.functional.pad(x, (0, 0, 0, side % 2, 0, side % 2))
        half = (side + 1) // 2
        # row pair, row, column pair, column -> column pair first
        x = x.reshape(n, half, 2, half, 2, width).permute(0, 3, 1, 2, 4, 5)
        return x.reshape(n, half * half, 4 * width)

    def forward(self, x):
        x = self.linear_1(self.norm(self.join(x)))
        return self.linear_2(nn.functional.gelu(x))


PROJECTORS = {"linear": Linear, "mlp_downsample": MlpDownsample}


def build(encoder, decoder, projector, settings):
    config = LlavaConfig(
        vision_config=encoder, text_config=decoder[0](**{**TEXT, **decoder[1]}),
        image_token_index=IMAGE_TOKEN, **settings)
    config._attn_implementation = "eager"
    model = LlavaForConditionalGeneration(config).float().eval()
    if projector != "hf":
        model.model.multi_modal_projector = PROJECTORS[projector](
            encoder.hidden_size, TEXT["hidden_size"])
    return model


def draw_weights(model, rng):
    for name, weight in model.named_parameters():
        std = 0.16
        if "patch_embedding" in name:
            std = 0.05
        elif "vision" in name or "projector" in name:
            std = 0.2
        weight.data = draw_tensor(name, weight, rng, std)


def n_features(model, pixel_values):
    with torch.no_grad():
        return model.get_image_features(pixel_values[:1])[0].shape[0]


def draw_batch(rng, n_each):
    """Tokens with -1 in the places of features, labels, lengths, frames of each row."""
    rows, n_frames = [], []
    for parts in ROWS:
        row = []
        for n_text, n_media in parts:
            row += torch.randint(1, VOCAB - 1, (n_text,), generator=rng).tolist()
            row += [-1] * (n_media * n_each)
        rows.append(row)
        n_frames.append(sum(n_media for _, n_media in parts))
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.full_like(tokens, -1)
    for i, row in enumerate(rows):
        labels[i, 1:len(row) - 1] = tokens[i, 2:len(row)]
    return tokens, labels, [len(row) for row in rows], n_frames


def as_ids(tokens):
    return torch.where(tokens < 0, IMAGE_TOKEN, tokens)


def greedy(model, tokens, lens, frames):
    """None when the answers would make a weak test."""
    rows = []
    for row, length in enumerate(lens):
        media = dict(pixel_values=frames[row]) if len(frames[row]) else {}
        out = model(as_ids(tokens[row:row + 1, :length]), use_cache=True, **media)
        answer = []
        while True:
            best = out.logits[0, -1].topk(2)
            if best.values[0] - best.values[1] < MARGIN:
                return None
            answer.append(best.indices[0].item())
            if len(answer) == NEW_TOKENS:
                break
            out = model(best.indices[None, :1], past_key_values=out.past_key_values)
        rows.append(answer)
    words = min(len(set(row)) for row in rows)
    return torch.tensor(rows) if words >= MIN_WORDS else None


def layer_outputs(layers, call):
    """What every layer gets, and what the last one gives, during call()."""
    states = []
    hooks = [layer.register_forward_pre_hook(lambda module, args, kwargs: states.append(
        args[0] if args else kwargs["hidden_states"]), with_kwargs=True) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(lambda module, args, out: states.append(
        out[0] if isinstance(out, tuple) else out)))
    result = call()
    for hook in hooks:
        hook.remove()
    return result, torch.stack(states).flatten(1, 2)


def compute(model, tokens, labels, pixel_values):
    """The loss's backward pass included: gradients are left in the parameters."""
    inner = model.model
    (out, hidden), vision_hidden = layer_outputs(
        inner.vision_tower.vision_model.encoder.layers,
        lambda: layer_outputs(inner.language_model.layers, lambda: model(
            as_ids(tokens), pixel_values=pixel_values)))
    rows = out.logits[labels >= 0]
    loss = nn.functional.cross_entropy(rows, labels[labels >= 0], reduction="sum")
    loss.backward()
    return {"loss": loss.reshape(1), "logits": rows, "hidden": hidden,
            "vision_hidden": vision_hidden}


def make(name, encoder, decoder, projector, settings):
    kind, config = encoder
    for seed in range(300):
        rng = torch.Generator().manual_seed(seed)
        model = build(config, decoder, projector, settings)
        draw_weights(model, rng)
        size = config.image_size
        pixels = torch.randint(0, 256, (6, size, size, 3), generator=rng, dtype=torch.uint8)
        pixel_values = ((pixels.float() / 255 - torch.tensor(MEAN[kind]))
                        / torch.tensor(STD[kind])).permute(0, 3, 1, 2)
        tokens, labels, lens, n_frames = draw_batch(rng, n_features(model, pixel_values))
        with torch.no_grad():
            generated = greedy(model, tokens, lens, pixel_values.split(n_frames))
        if generated is not None:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear answers")
    tensors = {key: value.detach() for key, value in
               compute(model, tokens, labels, pixel_values).items()}
    tensors.update(pixels=pixels, tokens=tokens.int(), labels=labels.int(),
                   generated=generated.int(), lens=torch.tensor(lens, dtype=torch.int32))
    for key, weight in model.named_parameters():
        tensors[key] = weight.detach().to(torch.bfloat16)
        if weight.grad is not None:
            tensors[key + "#grad"] = weight.grad
    path = HERE / f"llava_{name}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    print(f"{path.name}: seed {seed}, loss {tensors['loss'].item():.4f}, "
          f"{path.stat().st_size} bytes, {len(set(generated.flatten().tolist()))} words")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, parts in MODELS.items():
        make(name, *parts)
