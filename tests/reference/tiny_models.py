#!/usr/bin/env python3
"""Writes tests/data/parity_tiny.json: what transformers computes, in fp32 on the CPU, with the tiny models of the tests.

    python tests/reference/tiny_models.py [--out tests/data/parity_tiny.json]

Needs torch and transformers. The weights come from the formula in tests/common/model_files/mod.rs (`value`), in the order of
`TinyModel::tensors`, so that no weights are stored. Each case names an architecture and the keys of `config.json` in which it
differs from `TinyModel::config_json`. For a prompt of 24 token ids there are the logits of some positions, all of a row, and
16 greedy tokens with the gaps between the two best logits.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
LAYERS, HIDDEN, INTERMEDIATE, HEADS, CONTEXT, VOCABULARY = 2, 64, 96, 4, 128, 272
POSITIONS = [0, 11, 23]
PROMPT = [(7 + 53 * i * i) % VOCABULARY for i in range(24)]
NEW_TOKENS = 16

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# name, architecture, keys of config.json that differ from the tiny model's
CASES = [
    ("llama", "llama", {}),
    ("llama-untied", "llama", {"tie_word_embeddings": False, "rope_theta": 500000.0}),
    ("llama-scaled", "llama", {"rope_theta": 100000.0, "rope_scaling": LLAMA3}),
    ("llama-linear", "llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ("qwen2", "qwen2", {}),
    ("gpt2", "gpt2", {}),
    ("gpt2-gelu", "gpt2", {"activation_function": "gelu", "tie_word_embeddings": False}),
]


def values(tensor, shape, norm):
    """Values of tensor number `tensor`: splitmix64 of its number and the element's, as the Rust tests compute them."""
    with np.errstate(over="ignore"):
        z = (np.uint64(tensor) << np.uint64(32)) + np.arange(np.prod(shape), dtype=np.uint64)
        z += np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)
    return ((1 + u / 4) if norm else u / 4).astype(np.float32).reshape(shape)


def tensors(architecture, tied):
    """Name in transformers, shape as [out, in], whether it is a norm's weight, and whether it is stored transposed."""
    gpt2 = architecture == "gpt2"
    kv = HIDDEN if gpt2 else HIDDEN // 2
    out = []

    def add(name, *shape, conv1d=False):
        norm = name.endswith("weight") and ("norm" in name or ".ln_" in name)
        out.append((name, shape, norm, conv1d))

    if gpt2:
        add("transformer.wte.weight", VOCABULARY, HIDDEN)
        add("transformer.wpe.weight", CONTEXT, HIDDEN)
        for layer in range(LAYERS):
            for name, *shape in [
                ("ln_1", HIDDEN),
                ("attn.c_attn", 3 * HIDDEN, HIDDEN),
                ("attn.c_proj", HIDDEN, HIDDEN),
                ("ln_2", HIDDEN),
                ("mlp.c_fc", INTERMEDIATE, HIDDEN),
                ("mlp.c_proj", HIDDEN, INTERMEDIATE),
            ]:
                add(f"transformer.h.{layer}.{name}.weight", *shape, conv1d=len(shape) == 2)
                add(f"transformer.h.{layer}.{name}.bias", shape[0])
        add("transformer.ln_f.weight", HIDDEN)
        add("transformer.ln_f.bias", HIDDEN)
    else:
        add("model.embed_tokens.weight", VOCABULARY, HIDDEN)
        for layer in range(LAYERS):
            for name, *shape in [
                ("input_layernorm", HIDDEN),
                ("self_attn.q_proj", HIDDEN, HIDDEN),
                ("self_attn.k_proj", kv, HIDDEN),
                ("self_attn.v_proj", kv, HIDDEN),
                ("self_attn.o_proj", HIDDEN, HIDDEN),
                ("post_attention_layernorm", HIDDEN),
                ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
                ("mlp.up_proj", INTERMEDIATE, HIDDEN),
                ("mlp.down_proj", HIDDEN, INTERMEDIATE),
            ]:
                add(f"model.layers.{layer}.{name}.weight", *shape)
                if architecture == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                    add(f"model.layers.{layer}.{name}.bias", shape[0])
        add("model.norm.weight", HIDDEN)
    if not tied:
        add("lm_head.weight", VOCABULARY, HIDDEN)
    return out


def build(architecture, changes):
    """The model of a case, from the same keys as its config.json has."""
    keys = {"vocab_size": VOCABULARY, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}
    if architecture == "gpt2":
        keys |= {
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "n_embd": HIDDEN,
            "n_head": HEADS,
            "n_inner": INTERMEDIATE,
            "n_layer": LAYERS,
            "n_positions": CONTEXT,
        }
    else:
        keys |= {
            "hidden_act": "silu",
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": CONTEXT,
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "num_key_value_heads": HEADS // 2,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
        }
    keys |= changes
    config = AutoConfig.for_model(architecture, **keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    tied = keys["tie_word_embeddings"]
    state = {}
    for number, (name, shape, norm, conv1d) in enumerate(tensors(architecture, tied)):
        value = torch.from_numpy(values(number, shape, norm))
        state[name] = value.T.contiguous() if conv1d else value
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - ({"lm_head.weight"} if tied else set()):
        raise SystemExit(f"missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


@torch.no_grad()
def case(name, architecture, changes):
    model = build(architecture, changes)
    logits = model(torch.tensor([PROMPT])).logits[0]
    ids, gaps = list(PROMPT), []
    for _ in range(NEW_TOKENS):
        best = torch.topk(model(torch.tensor([ids])).logits[0, -1], 2)
        ids.append(int(best.indices[0]))
        gaps.append(round(float(best.values[0] - best.values[1]), 5))
    print(f"{name}: smallest gap {min(gaps)}, largest logit {float(logits.abs().max()):.2f}")
    rows = [{"position": p, "values": [float(str(v.numpy())) for v in logits[p]]} for p in POSITIONS]
    return {
        "name": name,
        "architecture": architecture,
        "config": changes,
        "rows": rows,
        "tokens": ids[len(PROMPT) :],
        "gaps": gaps,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "tests/data/parity_tiny.json")
    args = parser.parse_args()
    cases = [case(*arguments) for arguments in CASES]
    data = {"about": "written by tests/reference/tiny_models.py", "prompt": PROMPT, "cases": cases}
    text = json.dumps(data, separators=(",", ":"))
    args.out.write_text(text.replace('{"name"', '\n{"name"').replace('{"position"', '\n{"position"') + "\n")
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
