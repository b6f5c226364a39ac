#!/usr/bin/env python3
"""Writes tests/data/awkward_shapes.json: what transformers computes, in fp32 on the CPU, with one tiny model of each
architecture.

    python tests/reference/awkward_shapes.py [--out tests/data/awkward_shapes.json]

The weights are not stored: element i of a tensor is a hash of i and the tensor's name, which the tests compute again
(`tests/common/awkward_shapes.rs`) and write as a Hugging Face directory. The sizes are awkward on purpose: no multiples of a
vector's width, grouped heads, scaled rotary frequencies. Needs torch, transformers and numpy.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 40
POSITIONS = [0, 1, 17, 39]
COMMON = dict(bos_token_id=1, eos_token_id=2, torch_dtype="float32")


def configs():
    yield "llama", LlamaConfig(
        hidden_size=48, intermediate_size=88, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=12, vocab_size=150, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=False,
        rope_scaling=dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=64),
        **COMMON,
    )
    yield "qwen2", Qwen2Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=7, num_key_value_heads=1,
        head_dim=16, vocab_size=130, max_position_embeddings=256, rms_norm_eps=1e-6, rope_theta=1000000.0,
        tie_word_embeddings=True, **COMMON,
    )
    yield "gpt2", GPT2Config(
        n_embd=40, n_layer=2, n_head=5, n_positions=128, vocab_size=140, activation_function="gelu_new", **COMMON,
    )


def values(name, shape):
    """Element i: a hash of i and the name's FNV-1a, in [-0.25, 0.25); around 1 for a norm's weight. All exact in fp32."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x01000193) & 0xFFFFFFFF
    h = (np.arange(np.prod(shape), dtype=np.uint64) * 2654435761 + seed) & 0xFFFFFFFF
    for _ in range(2):
        h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    x = ((h >> 8).astype(np.float64) / 2**24 - 0.5) / 2
    if len(shape) == 1 and name.endswith(".weight"):
        x += 1
    return x.astype(np.float32).reshape(shape)


@torch.no_grad()
def reference(architecture, config):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[name] = list(parameter.shape)
        parameter.copy_(torch.from_numpy(values(name, parameter.shape)))
    ids = [(i * i * 7 + 3 * i + 5) % config.vocab_size for i in range(TOKENS)]
    logits = model(torch.tensor([ids])).logits[0]
    print(architecture, "largest logit", float(logits.abs().max()))
    rows = {str(p): [float(str(np.float32(v))) for v in logits[p]] for p in POSITIONS}
    settings = config.to_diff_dict() | {"architectures": [type(model).__name__], "model_type": architecture}
    if architecture != "gpt2":
        # Where published models have them, whatever this version of transformers writes.
        settings.pop("rope_parameters", None)
        settings["rope_theta"] = 10000.0 if architecture == "llama" else 1000000.0
    if architecture == "llama":
        settings["rope_scaling"] = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                        original_max_position_embeddings=64)
    for key in ("rms_norm_eps", "tie_word_embeddings", "vocab_size", "max_position_embeddings", "head_dim",
                "num_key_value_heads", "layer_norm_epsilon", "activation_function", "hidden_act", "n_positions"):
        if hasattr(config, key):
            settings[key] = getattr(config, key)
    for key in ("dtype", "torch_dtype", "transformers_version", "bos_token_id", "eos_token_id"):
        settings.pop(key, None)
    return {"architecture": architecture, "config": settings, "tensors": tensors, "ids": ids, "logits": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "tests/data/awkward_shapes.json")
    args = parser.parse_args()
    models = [reference(architecture, config) for architecture, config in configs()]
    text = json.dumps({"about": "written by tests/reference/awkward_shapes.py", "models": models}, separators=(",", ":"))
    args.out.write_text(text.replace('{"architecture"', '\n{"architecture"') + "\n")
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
