#!/usr/bin/env python3
"""Writes the reference data of the decoders' tests: decoder_NAME.safetensors.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r decoder_requirements.txt
    /tmp/v/bin/python make_decoders.py

Each file is a tiny random model of one of Hugging Face's classes and what it computes in
fp32. Weights are drawn so that bf16 holds them exactly, and are stored in it.

    NAME            weights, bf16, named as inside LlavaForConditionalGeneration
    NAME#grad       gradient of the loss, fp32
    tokens, labels  [B,T] int32; labels are shifted, -1 is masked
    lens            [B] int32; behind them rows are padded with token 0
    loss            [1] sum of -log p over the labels
    logits          [labels,V] of the rows with a label, in order
    hidden          [layers+1,B*T,D] input of every layer, output of the last
    generated       [B,N] int32, greedy, after the first lens tokens of each row
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, NemotronConfig,
    NemotronForCausalLM, Qwen2Config, Qwen2ForCausalLM, StableLmConfig, StableLmForCausalLM)

HERE = Path(__file__).parent
SIZES = dict(
    vocab_size=53, hidden_size=48, intermediate_size=26, num_hidden_layers=2,
    num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=128,
    tie_word_embeddings=False, attn_implementation="eager", pad_token_id=None,
    bos_token_id=None, eos_token_id=None)
LENS = (12, 9)
NEW_TOKENS = 20
MIN_WORDS = 8  # that differ in the answers: a model that repeats itself shows little
MARGIN = 2e-3  # of the best token over the second: no rounding may turn them round

LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, dict(rms_norm_eps=1e-5)),
    "llama3": (LlamaForCausalLM, LlamaConfig, dict(
        rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=LLAMA3,
        tie_word_embeddings=True)),
    "mistral": (MistralForCausalLM, MistralConfig, dict(
        rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=None)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, dict(
        rms_norm_eps=1e-6, rope_theta=1000000.0,
        rope_scaling=dict(rope_type="linear", factor=4.0))),
    "nemotron": (NemotronForCausalLM, NemotronConfig, dict(
        norm_eps=1e-5, hidden_act="relu2", partial_rotary_factor=0.7)),
    "gpt": (NemotronForCausalLM, NemotronConfig, dict(
        norm_eps=1e-5, hidden_act="gelu", partial_rotary_factor=1.0,
        attention_bias=True, mlp_bias=True)),
    "stablelm": (StableLmForCausalLM, StableLmConfig, dict(
        layer_norm_eps=1e-5, partial_rotary_factor=0.34, use_qkv_bias=True)),
}


def outer_name(name):
    """The name a decoder's tensor has inside LlavaForConditionalGeneration."""
    return name.replace("model.", "model.language_model.", 1)


def draw_tensor(name, weight, rng, std):
    noise = torch.randn(weight.shape, generator=rng)
    if weight.dim() > 1:
        values = std * noise
    elif "norm" in name and name.endswith("weight"):
        values = weight + 0.2 * noise  # around one, or zero, as the class has it
    else:
        values = 0.3 * noise
    return values.to(torch.bfloat16).float()


def draw_weights(model, rng, std):
    for name, weight in model.named_parameters():
        weight.data = draw_tensor(name, weight, rng, std)


def draw_batch(rng, vocab):
    tokens = torch.randint(1, vocab, (len(LENS), max(LENS)), generator=rng)
    labels = torch.full_like(tokens, -1)
    for row, length in enumerate(LENS):
        tokens[row, length:] = 0
        labels[row, :length - 1] = tokens[row, 1:length]
        labels[row, :2] = -1
    return tokens, labels


def greedy(model, tokens):
    """None when the answers would make a weak test."""
    rows = []
    for row, length in enumerate(LENS):
        ids = tokens[row:row + 1, :length]
        for _ in range(NEW_TOKENS):
            best = model(ids).logits[0, -1].topk(2)
            if best.values[0] - best.values[1] < MARGIN:
                return None
            ids = torch.cat([ids, best.indices[:1, None]], 1)
        rows.append(ids[0, length:])
    rows = torch.stack(rows)
    return rows if len(rows.unique()) >= MIN_WORDS else None


def compute(model, tokens, labels):
    """The loss's backward pass included: gradients are left in the parameters."""
    last = []
    hook = model.model.layers[-1].register_forward_hook(
        lambda module, args, out: last.append(out[0] if isinstance(out, tuple) else out))
    out = model(tokens, output_hidden_states=True)
    hook.remove()
    rows = out.logits[labels >= 0]
    loss = torch.nn.functional.cross_entropy(rows, labels[labels >= 0], reduction="sum")
    loss.backward()
    hidden = torch.stack([*out.hidden_states[:-1], last[0]]).flatten(1, 2)
    return {"loss": loss.reshape(1), "logits": rows, "hidden": hidden}


def make(name, model_class, config_class, settings):
    # without gates smaller weights, or the layers magnify what bf16 rounds off
    std = 0.1 if model_class is NemotronForCausalLM else 0.16
    for seed in range(100):
        rng = torch.Generator().manual_seed(seed)
        model = model_class(config_class(**{**SIZES, **settings})).float().eval()
        draw_weights(model, rng, std)
        tokens, labels = draw_batch(rng, SIZES["vocab_size"])
        with torch.no_grad():
            generated = greedy(model, tokens)
        if generated is not None:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear answers")
    tensors = {key: value.detach() for key, value in compute(model, tokens, labels).items()}
    tensors.update(tokens=tokens.int(), labels=labels.int(), generated=generated.int(),
                   lens=torch.tensor(LENS, dtype=torch.int32))
    for key, weight in model.named_parameters():
        tensors[outer_name(key)] = weight.detach().to(torch.bfloat16)
        tensors[outer_name(key) + "#grad"] = weight.grad
    path = HERE / f"decoder_{name}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    print(f"{path.name}: seed {seed}, loss {tensors['loss'].item():.4f}, "
          f"{path.stat().st_size} bytes, {len(set(generated.flatten().tolist()))} words")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (model_class, config_class, settings) in MODELS.items():
        make(name, model_class, config_class, settings)
