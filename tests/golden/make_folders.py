#!/usr/bin/env python3
"""Writes the folders of the tests of model/weights: tests/golden/weights/NAME/.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r decoder_requirements.txt
    /tmp/v/bin/python make_folders.py

Tiny models of Hugging Face's classes as save_pretrained and torch.save write them. Element
i of a tensor is a function of its name in LlavaForConditionalGeneration and of i alone,
exact in bf16 and fp16, so that the test knows every value without another file:

    (((FNV-1a 64 of the name + 2654435761 i) mod 2^64 >> 16) % 255 - 127) / 64
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModel, LlamaConfig,
    LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration, MistralConfig,
    MistralForCausalLM, NemotronConfig, NemotronForCausalLM, Qwen2Config, Qwen2ForCausalLM,
    SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig, SiglipVisionModel,
    StableLmConfig, StableLmForCausalLM)

OUT = Path(__file__).parent / "weights"
TEXT = dict(
    vocab_size=53, hidden_size=24, intermediate_size=26, num_hidden_layers=2,
    num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=64,
    tie_word_embeddings=False)
VISION = dict(hidden_size=12, intermediate_size=20, num_hidden_layers=2,
              num_attention_heads=2, image_size=8, patch_size=4)
TOWER = dict(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
             num_attention_heads=2, max_position_embeddings=7)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)


def values(name, shape):
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    i = np.arange(int(np.prod(shape)), dtype=np.uint64)
    mixed = (np.uint64(key) + i * np.uint64(2654435761)) >> np.uint64(16)
    steps = (mixed % np.uint64(255)).astype(np.int64) - 127
    return torch.from_numpy(steps.astype(np.float32) / 64).reshape(shape)


def outer_name(name):
    """The name inside LlavaForConditionalGeneration."""
    if name.startswith("vision_model."):
        return "model.vision_tower." + name
    if name.startswith("model.") and not name.startswith(
            ("model.language_model.", "model.vision_tower.", "model.multi_modal")):
        return name.replace("model.", "model.language_model.", 1)
    return name


def fill(model, dtype):
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(values(outer_name(name), tuple(weight.shape)))
    return model.to(dtype)


def save(name, model, dtype=torch.float32, **settings):
    folder = OUT / name
    fill(model, dtype).save_pretrained(folder, **settings)
    (folder / "generation_config.json").unlink(missing_ok=True)


def llava(text, vision=None, **settings):
    return LlavaForConditionalGeneration(LlavaConfig(
        text_config=text, vision_config=vision or CLIPVisionConfig(**VISION),
        image_token_index=52, **settings))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    llama = LlamaConfig(**TEXT)
    save("llava", llava(llama))
    save("llava_shards", llava(llama), torch.bfloat16, max_shard_size="12KB")
    save("llava_bin", llava(Qwen2Config(**{**TEXT, "tie_word_embeddings": True})),
         safe_serialization=False)
    save("llava_bin_shards", llava(llama), torch.float16, safe_serialization=False,
         max_shard_size="12KB")
    save("llava_siglip", llava(
        MistralConfig(**TEXT, sliding_window=None, rope_theta=1e6),
        SiglipVisionConfig(**VISION), vision_feature_layer=-1,
        vision_feature_select_strategy="full"), torch.bfloat16)
    # as the classes of transformers 4.52 and later name their tensors in memory
    model = fill(llava(llama, vision_feature_layer=1), torch.bfloat16)
    (OUT / "llava_new").mkdir()
    model.config.architectures = ["LlavaForConditionalGeneration"]
    model.config.save_pretrained(OUT / "llava_new")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()},
              OUT / "llava_new" / "model.safetensors", {"format": "pt"})

    save("clip", CLIPModel(CLIPConfig(
        vision_config=CLIPVisionConfig(**VISION).to_dict(),
        text_config=CLIPTextConfig(**TOWER).to_dict(), projection_dim=4)), torch.bfloat16)
    save("clip_vision", CLIPVisionModel(CLIPVisionConfig(**VISION, hidden_act="gelu")),
         safe_serialization=False)
    save("siglip", SiglipModel(SiglipConfig(
        vision_config=SiglipVisionConfig(**VISION).to_dict(),
        text_config=SiglipTextConfig(**TOWER).to_dict())), torch.bfloat16)
    save("siglip_vision", SiglipVisionModel(SiglipVisionConfig(**VISION)), torch.float16)

    save("llama", LlamaForCausalLM(LlamaConfig(
        **TEXT, rope_theta=500000.0, rope_scaling=LLAMA3)), torch.bfloat16)
    save("mistral", MistralForCausalLM(MistralConfig(
        **{**TEXT, "num_attention_heads": 12}, sliding_window=32)), torch.float16)
    save("qwen2", Qwen2ForCausalLM(Qwen2Config(
        **{**TEXT, "tie_word_embeddings": True},
        rope_scaling=dict(rope_type="linear", factor=4.0))), torch.bfloat16)
    save("stablelm", StableLmForCausalLM(StableLmConfig(
        **TEXT, partial_rotary_factor=0.5, use_qkv_bias=True)), torch.bfloat16)
    save("nemotron", NemotronForCausalLM(NemotronConfig(
        **TEXT, partial_rotary_factor=0.5, hidden_act="relu2")), torch.bfloat16)

    projector = {}  # LLaVA's pretrain_mm_mlp_adapter
    for layer, width in ((0, 12), (2, 24)):
        inner = f"model.multi_modal_projector.linear_{layer // 2 + 1}"
        projector[f"model.mm_projector.{layer}.weight"] = values(
            inner + ".weight", (24, width)).half()
        projector[f"model.mm_projector.{layer}.bias"] = values(
            inner + ".bias", (24,)).half()
    (OUT / "projector").mkdir()
    torch.save(projector, OUT / "projector" / "mm_projector.bin")


def write_defaults():
    """What each class takes for keys that a config.json leaves out."""
    classes = (LlamaConfig, MistralConfig, Qwen2Config, StableLmConfig, NemotronConfig,
               CLIPVisionConfig, SiglipVisionConfig, LlavaConfig)
    full = {config.model_type: config().to_dict() for config in classes}
    (OUT / "defaults.json").write_text(json.dumps(full, indent=1) + "\n")


if __name__ == "__main__":
    main()
    write_defaults()
