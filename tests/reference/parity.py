#!/usr/bin/env python3
"""Writes tests/data/parity.json: what transformers computes, in fp32 on the CPU, from the GGUF file that the tests load.

    python tests/reference/parity.py [--model FILE.gguf] [--out tests/data/parity.json]

Needs torch, transformers, accelerate, gguf and numpy. The file holds:

- "logits": one prompt of 64 token ids, and for some of its positions the 32 largest logits, every 192nd logit, and the
  sum, the sum of magnitudes and the log-sum-exp of the whole row, which catch an error anywhere else in it.
- "greedy": prompts (token ids, so that no tokenizer is needed) and their greedy continuation. End-of-sequence tokens are
  ignored: each continuation has exactly 64 tokens. "gaps" are the differences between the best and the second-best logit
  before each token. A prompt with a gap below MIN_GAP is left out, because there the choice hangs on the last bits of the
  arithmetic and not on whether the model is computed right.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from snippets import SNIPPETS

ROOT = Path(__file__).resolve().parents[2]
POSITIONS = [0, 1, 15, 31, 47, 63]
TOP, STRIDE = 32, 192
NEW_TOKENS = 64
MIN_GAP = 5e-3
PROMPTS = 24


def shortest(value):
    """The shortest decimal that reads back as the same 32-bit float."""
    return float(str(np.float32(value)))


def dequantize(tensor):
    """The weights of a GGUF tensor as its format defines them, written here apart from any library.

    Blocks of 32 values. Q4_1: f16 scale d, f16 minimum m, 16 bytes of which byte j holds value j in its low nibble and
    value j + 16 in its high one; value = d * q + m. Q8_0: f16 scale d, 32 signed bytes; value = d * q.
    """
    out_in = tuple(int(n) for n in reversed(tensor.shape))
    raw = np.asarray(tensor.data).view(np.uint8).reshape(-1)
    match tensor.tensor_type.name:
        case "F32":
            flat = raw.view(np.float32)
        case "Q4_1":
            blocks = raw.reshape(-1, 20)
            d = blocks[:, 0:2].copy().view(np.float16).astype(np.float32)
            m = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
            q = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
            flat = d * q.astype(np.float32) + m
        case "Q8_0":
            blocks = raw.reshape(-1, 34)
            d = blocks[:, 0:2].copy().view(np.float16).astype(np.float32)
            flat = d * blocks[:, 2:].view(np.int8).astype(np.float32)
        case other:
            raise SystemExit(f"{tensor.name}: type {other} is not expected in this model")
    return flat.reshape(out_in)


def check_weights(model, path):
    """Every weight that transformers loaded is the number that the GGUF format defines."""
    config, state = model.config, model.state_dict()
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
    }
    tensors = gguf.GGUFReader(path).tensors
    for tensor in tensors:
        parts = tensor.name.removesuffix(".weight").split(".")
        name = names[parts[-1]]
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{name}"
        expected = dequantize(tensor)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(parts[-1])
        if heads:
            # GGUF stores the rows of a head as pairs for the interleaved form of RoPE: (0, d/2, 1, d/2 + 1, ...).
            out, width = expected.shape
            expected = expected.reshape(heads, out // heads // 2, 2, width).swapaxes(1, 2).reshape(out, width)
        if not np.array_equal(state[f"{name}.weight"].numpy(), expected):
            raise SystemExit(f"{tensor.name}: transformers dequantized it to other numbers than its format defines")
    return len(tensors)


@torch.no_grad()
def greedy(model, ids):
    """NEW_TOKENS greedy tokens after `ids`, and the gap between the two best logits before each."""
    tokens, gaps, cache = [], [], None
    step = torch.tensor([ids])
    for _ in range(NEW_TOKENS):
        out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = torch.topk(out.logits[0, -1], 2)
        tokens.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        step = torch.tensor([[tokens[-1]]])
    return tokens, gaps


@torch.no_grad()
def recompute_difference(model, ids, tokens):
    """How far logits from the cache and logits from one forward over everything are apart: the noise of fp32."""
    whole = model(torch.tensor([ids + tokens])).logits[0]
    cached = model(torch.tensor([ids]), use_cache=True)
    rows, cache = [cached.logits[0]], cached.past_key_values
    for token in tokens:
        out = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        rows.append(out.logits[0])
        cache = out.past_key_values
    return float((whole - torch.cat(rows)).abs().max())


@torch.no_grad()
def logits_data(model, ids):
    rows = model(torch.tensor([ids])).logits[0]
    data = []
    for position in POSITIONS:
        row = rows[position]
        top = torch.topk(row, TOP)
        wide = row.double()
        data.append(
            {
                "position": position,
                "top_ids": top.indices.tolist(),
                "top_values": [shortest(v) for v in top.values],
                "strided_values": [shortest(v) for v in row[::STRIDE]],
                "sum": float(wide.sum()),
                "abs_sum": float(wide.abs().sum()),
                "log_sum_exp": float(wide.logsumexp(0)),
            }
        )
    return {"ids": ids, "stride": STRIDE, "rows": data}


def prompts(tokenizer):
    """Chat-formatted questions of 20 to 300 tokens about the snippets, in a few wordings and with and without a system
    message."""
    asks = [
        "Explain what this {language} code does:\n\n```{language}\n{code}\n```",
        "Explain this code:\n\n{code}",
        "Describe the following {language} function for a beginner, in a few sentences.\n\n```\n{code}\n```",
    ]
    for index, (name, language, code) in enumerate(SNIPPETS):
        content = asks[index % len(asks)].format(language=language, code=code)
        messages = [{"role": "user", "content": content}]
        if index % 2 == 1:
            messages.insert(0, {"role": "system", "content": "You explain code."})
        if len(code) < 20:
            messages = [{"role": "user", "content": f"Explain: {code}"}]
            messages.insert(0, {"role": "system", "content": ""})
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        yield name, language, ids


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/data/parity.json")
    args = parser.parse_args()

    at = dict(pretrained_model_name_or_path=str(args.model.parent), gguf_file=args.model.name)
    tokenizer = AutoTokenizer.from_pretrained(**at)
    model = AutoModelForCausalLM.from_pretrained(**at, dtype=torch.float32, attn_implementation="eager").eval()
    print(f"{check_weights(model, args.model)} tensors hold exactly the numbers that the GGUF format defines")

    kept, rejected, long_prompt = [], [], None
    for name, language, ids in prompts(tokenizer):
        if not 20 <= len(ids) <= 300:
            raise SystemExit(f"{name}: {len(ids)} tokens")
        long_prompt = long_prompt or (ids[:64] if len(ids) >= 64 else None)
        if len(kept) == PROMPTS:
            continue
        tokens, gaps = greedy(model, ids)
        smallest = min(gaps)
        print(f"{name:16} {len(ids):4} tokens, smallest gap {smallest:.5f}  {tokenizer.decode(tokens)[:60]!r}")
        if smallest < MIN_GAP:
            rejected.append(name)
            continue
        gaps = [round(gap, 5) for gap in gaps]
        kept.append({"name": name, "language": language, "ids": ids, "tokens": tokens, "gaps": gaps})

    noise = recompute_difference(model, kept[-1]["ids"], kept[-1]["tokens"])
    print(f"{len(kept)} kept, rejected for a gap below {MIN_GAP}: {rejected}; cached against whole: {noise:.2e}")
    data = {
        "about": "written by tests/reference/parity.py",
        "model": args.model.name,
        "torch": torch.__version__,
        "min_gap": MIN_GAP,
        "rejected": rejected,
        "logits": logits_data(model, long_prompt),
        "greedy": kept,
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    args.out.write_text(text.replace('{"name"', '\n{"name"').replace('{"position"', '\n{"position"') + "\n")
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
